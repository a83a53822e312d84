"""How a network is trained, as data: optimiser, schedule, clipping, averaging, augmentation."""

import math
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field

from rowwise.settings import Decay, Flag, Later, NonNegative, Positive, Rate, Settings, Share, named

# --- how weights are moved ---------------------------------------------------------------------


class Adam(Settings):
    """Adam (Kingma & Ba 2015) with Keras' defaults and Keras' place for epsilon."""

    kind: Literal["adam"] = "adam"
    learning_rate: Rate = 1e-3
    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: Positive = 1e-7


class AdamW(Settings):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019) with Keras' defaults."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: Rate = 1e-3
    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: Positive = 1e-7
    weight_decay: NonNegative = 4e-3


class RMSprop(Settings):
    """RMSprop (Tieleman & Hinton 2012) with Keras' defaults and Keras' place for epsilon."""

    kind: Literal["rmsprop"] = "rmsprop"
    learning_rate: Rate = 1e-3
    rho: Decay = 0.9
    momentum: Decay = 0.0
    epsilon: Positive = 1e-7


class SGD(Settings):
    """Stochastic gradient descent, with momentum (Polyak 1964) and Nesterov's form of it."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: Rate = 1e-2
    momentum: Decay = 0.0
    nesterov: Flag = False


Optimizer = Annotated[
    Annotated[Adam | AdamW | RMSprop | SGD, Field(discriminator="kind")], BeforeValidator(named)
]


class Constant(Settings):
    """The learning rate stays what it is."""

    kind: Literal["constant"] = "constant"

    def factor(self, step: int, steps: int) -> float:
        """The learning rate's factor at `step` (from 0) of `steps`."""
        return 1.0


class Exponential(Settings):
    """The learning rate shrinks smoothly from 1 to `final` of itself, by the same factor a step."""

    kind: Literal["exponential"] = "exponential"
    final: Annotated[Share, Field(gt=0)] = 0.1

    def factor(self, step: int, steps: int) -> float:
        """The learning rate's factor at `step` (from 0) of `steps`."""
        return float(self.final ** (step / max(1, steps - 1)))


class Cosine(Settings):
    """A linear warm-up, then half a cosine down to `final` (Loshchilov & Hutter 2017)."""

    kind: Literal["cosine"] = "cosine"
    warmup: Share = 0.0
    final: Share = 0.0

    def factor(self, step: int, steps: int) -> float:
        """The learning rate's factor at `step` (from 0) of `steps`."""
        rising = round(self.warmup * steps)
        if step < rising:
            return (step + 1) / rising
        progress = (step - rising) / max(1, steps - 1 - rising)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


class OneCycle(Settings):
    """Up from `start` by half a cosine over the share `warmup`, then down to `final` (Smith 2018).

    The peak is the optimiser's learning rate.
    """

    kind: Literal["one_cycle"] = "one_cycle"
    warmup: Share = 0.3
    start: Share = 0.04
    final: Share = 4e-6

    def factor(self, step: int, steps: int) -> float:
        """The learning rate's factor at `step` (from 0) of `steps`."""
        rising = round(self.warmup * steps)
        if step < rising:
            low, progress = self.start, 1 - step / rising
        else:
            low, progress = self.final, (step - rising) / max(1, steps - 1 - rising)
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


Schedule = Annotated[
    Annotated[Constant | Exponential | Cosine | OneCycle, Field(discriminator="kind")],
    BeforeValidator(named),
]


class Clipping(Settings):
    """Gradients bounded before the optimiser sees them, as Keras' optimisers do.

    by "value" (each element), "norm" (each parameter by itself; Keras' clipnorm) or
    "global_norm" (all parameters together; Pascanu et al. 2013).
    """

    by: Literal["value", "norm", "global_norm"] = "global_norm"
    limit: Positive


class Averaging(Settings):
    """The weights' exponential moving average is what is validated, tested and kept.

    After every `every`-th step the average moves towards the weights by 1 - d; d is `decay`, less
    at the beginning: min(decay, (1 + n) / (10 + n)) at the n-th time (Polyak & Juditsky 1992).
    The training itself does not see it.
    """

    decay: Decay = 0.99
    every: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 20

    def kept(self, times: int) -> float:
        """The share of the average that stays when it moves for the `times`-th time, from 1."""
        return min(self.decay, (1 + times) / (10 + times))


CALMED = (
    "rotation_deg", "shear", "scale", "shift_px", "elastic_px", "stroke", "outline_share",
    "line_share", "erase_share", "blur_share", "contrast_share", "noise_share",
)  # fmt: skip


class Augmentation(Settings):
    """Distortions of the training pictures, drawn anew for every picture in every epoch.

    The first group moves ink, in this order: an affine map about the picture's middle (rotation,
    shear, scale along either axis, shift; each uniform up to plus or minus its limit) and an
    elastic one (Simard et al. 2003) of up to `elastic_px` root mean square, whose displacements are
    independent at a distance of `elastic_spacing_px`. The second changes strokes and grey levels:
    their width by up to plus or minus 2 px times `stroke`; then each by a `share` of pictures that
    it happens to, in the order of the keys.

    Three members know the digits 0 to 9, and come before all others: `flag_share` of the ones get a
    flag at their top, half of these a base too, and `closed_share` of the fours are closed at
    theirs, as many people write them and MNIST's writers seldom did; `outlier_share` of the
    pictures are made into something that is no digit, whose target is the same for every class
    (Hendrycks et al. 2019).

    Over the last `calm_share` of the training all but these three are half as strong, or happen
    half as often, so that it ends on pictures nearer to those that will be read.
    """

    rotation_deg: Annotated[float, Field(strict=True, ge=0, le=180)] = 0.0
    shear: Annotated[float, Field(strict=True, ge=0, le=2)] = 0.0
    scale: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    shift_px: Annotated[float, Field(strict=True, ge=0, le=64)] = 0.0
    elastic_px: Annotated[float, Field(strict=True, ge=0, le=16)] = 0.0
    elastic_spacing_px: Annotated[float, Field(strict=True, ge=2, le=64)] = 8.0
    stroke: Share = 0.0
    outline_share: Share = 0.0
    line_share: Share = 0.0
    erase_share: Share = 0.0
    blur_share: Share = 0.0
    contrast_share: Share = 0.0
    noise_share: Share = 0.0
    flag_share: Share = 0.0
    closed_share: Annotated[Share, Later()] = 0.0
    outlier_share: Share = 0.0
    calm_share: Annotated[Share, Later()] = 0.0

    def at(self, progress: float) -> Self:
        """The distortions at a point of the training, from 0 at its start to 1 at its end."""
        if not self.calm_share or progress < 1 - self.calm_share:
            return self
        return self.model_copy(update={key: getattr(self, key) / 2 for key in CALMED})

    def without_outliers(self) -> Self:
        """The same distortions, of digits alone."""
        return self.model_copy(update={"outlier_share": 0.0})


class EarlyStopping(Settings):
    """Stop after `patience` epochs without an improvement of `min_delta` in `monitor`."""

    monitor: Literal["val_loss", "val_accuracy", "loss", "accuracy"] = "val_loss"
    patience: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 3
    min_delta: NonNegative = 0.0
    restore_best: Flag = True
