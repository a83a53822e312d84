"""Pictures of digits: sheets of them as figures, and single ones as PNG bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rowwise import image_files
from rowwise.drawing import INK, RULE, SHOWN_CLASSES, axes, figure, shorten, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Misread(NamedTuple):
    """One picture that was misread, uint8 [rows, columns], with what it is and what was said."""

    image: npt.NDArray[np.uint8]
    true: str
    said: str
    confidence: float


@styled
def samples(images: npt.NDArray[np.uint8], names: Sequence[str]) -> Figure:
    """A sheet of pictures, one row a class.

    Args:
        images: uint8 [C, n, rows, columns], n pictures of each class, ink bright.
        names: the C class names.

    Returns:
        The figure, ink drawn dark; of more than 20 classes the first 20.
    """
    images = images[:SHOWN_CLASSES]
    side, label = 36.0, 74.0
    across = images.shape[1]
    drawn = figure(label + across * side + 6, len(images) * side + 8)
    for row, pictures in enumerate(images):
        margins = (label, 4 + row * side + 1, 6, 4 + (len(images) - row - 1) * side + 1)
        on = axes(drawn, *margins)
        _picture(on, np.hstack(list(pictures)), high=255)
        on.set_ylabel(
            shorten(names[row], 14), rotation=0, ha="right", va="center", color=INK, labelpad=6
        )
    return drawn


@styled
def mean_images(means: npt.NDArray[np.float32], names: Sequence[str]) -> Figure:
    """The mean picture of each class, float32 [C, rows, columns] in 0..255, ink drawn dark.

    Of more than 20 classes the first 20 are shown.
    """
    means = means[:SHOWN_CLASSES]
    columns = min(5, len(means))
    rows = -(-len(means) // columns)
    side = 92.0
    drawn = figure(columns * side, rows * (side + 16))
    for place, mean in enumerate(means):
        row, column = divmod(place, columns)
        left, top = column * side + 3, row * (side + 16) + 16
        margins = (
            left,
            top,
            columns * side - left - side + 6,
            rows * (side + 16) - top - side + 6,
        )
        on = axes(drawn, *margins)
        _picture(on, mean, high=float(max(1.0, means.max())))
        on.set_title(shorten(names[place], 16), pad=3, loc="center")
    return drawn


def _picture(on: Axes, image: npt.NDArray[Any], *, high: float) -> None:
    on.imshow(image, cmap="gray_r", vmin=0, vmax=high, interpolation="none")
    on.grid(False)
    on.set_xticks([])
    on.set_yticks([])
    for spine in on.spines.values():
        spine.set(visible=True, color=RULE)


@styled
def misread(pictures: Sequence[Misread], *, columns: int = 10) -> Figure:
    """A gallery of misread pictures in the order given, each with what it is and what was said."""
    columns = max(1, min(columns, len(pictures)))
    lines = max(1, -(-len(pictures) // columns))
    side, tall = 62.0, 84.0
    drawn = figure(columns * side, lines * tall)
    on = axes(drawn, 0, 0, 0, 0)
    on.set_axis_off()
    for place, item in enumerate(pictures):
        line, column = divmod(place, columns)
        left, top = column * side + 4, line * tall + 24
        box = (left, left + side - 8, top + side - 8, top)
        on.imshow(item.image, cmap="gray_r", vmin=0, vmax=255, interpolation="none", extent=box)
        said = f"{shorten(item.said, 9)}, {100 * item.confidence:.0f} %"
        text = f"is {shorten(item.true, 9)}\nsaid {said}"
        on.text(left + side / 2 - 4, top - 3, text, fontsize=6.5, ha="center", va="bottom")
    on.set_xlim(0, columns * side)
    on.set_ylim(lines * tall, 0)
    on.set_aspect("auto")
    return drawn


def picture_png(image: npt.NDArray[np.uint8]) -> bytes:
    """One picture, uint8 [rows, columns] with ink bright, as a small PNG with ink dark."""
    return image_files.png(255 - image)


def stack(groups: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Groups of pictures, each uint8 [n, rows, columns], as one uint8 [C, n, rows, columns]; short
    groups are filled with empty pictures.
    """
    longest = max(len(group) for group in groups)
    sheet = np.zeros((len(groups), longest, *groups[0].shape[1:]), np.uint8)
    for row, group in enumerate(groups):
        sheet[row, : len(group)] = group
    return sheet
