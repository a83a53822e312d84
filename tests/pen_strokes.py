"""Ten digits as a hand draws them: strokes of points (x, y) in a square of side 1, y downwards."""

from __future__ import annotations

import math

Point = tuple[float, float]
Stroke = list[Point]


def arc(
    x: float, y: float, wide: float, tall: float, start_deg: float, end_deg: float, points: int = 9
) -> Stroke:
    """Points on an ellipse around (x, y); 0° is to the right, 90° down."""
    angles = [start_deg + (end_deg - start_deg) * i / (points - 1) for i in range(points)]
    return [
        (x + wide * math.cos(math.radians(a)), y + tall * math.sin(math.radians(a))) for a in angles
    ]


DIGITS: dict[int, list[Stroke]] = {
    0: [arc(0.5, 0.5, 0.19, 0.3, -70, 295, 15)],
    1: [[(0.42, 0.3), (0.53, 0.2), (0.52, 0.4), (0.5, 0.6), (0.49, 0.82)]],
    2: [[*arc(0.5, 0.36, 0.17, 0.17, 190, 400), (0.5, 0.6), (0.32, 0.79), (0.5, 0.78),
         (0.72, 0.8)]],
    3: [[*arc(0.48, 0.35, 0.17, 0.15, 205, 440), *arc(0.48, 0.65, 0.2, 0.17, -85, 150)]],
    4: [[(0.4, 0.2), (0.35, 0.35), (0.29, 0.53), (0.48, 0.53), (0.74, 0.51)],
        [(0.61, 0.22), (0.6, 0.5), (0.57, 0.83)]],
    5: [[(0.66, 0.21), (0.4, 0.22), (0.37, 0.45), *arc(0.47, 0.62, 0.19, 0.19, 235, 505)]],
    6: [[(0.6, 0.18), (0.47, 0.3), (0.38, 0.48), *arc(0.5, 0.64, 0.16, 0.17, 175, -190, 14)]],
    7: [[(0.29, 0.24), (0.5, 0.23), (0.7, 0.22), (0.62, 0.42), (0.53, 0.62), (0.47, 0.83)]],
    8: [[*arc(0.5, 0.35, 0.14, 0.15, -60, -270), *arc(0.5, 0.66, 0.17, 0.16, -90, 270, 14),
         *arc(0.5, 0.35, 0.14, 0.15, 90, -60)]],
    9: [[*arc(0.49, 0.36, 0.15, 0.16, -20, -385, 14), (0.63, 0.45), (0.6, 0.64), (0.55, 0.83)]],
}  # fmt: skip
# No digit: a scribble to and fro, and what a hand does when it is angry.
SCRIBBLE: list[Stroke] = [
    [(0.15 + 0.7 * (i % 2), 0.2 + 0.06 * i) for i in range(11)],
    [(0.2 + 0.06 * i, 0.85 - 0.7 * (i % 2)) for i in range(11)],
]
