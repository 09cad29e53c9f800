"""Places labels beside points so that none covers another label or a point.

Every label tries rings of places around its point, near before far, and takes the cheapest; all are then
placed again knowing the others. One that fits nowhere is left out: a missing label is honest, two on top of
each other are not. The same input gives the same places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, hypot, pi, sin

_DISTANCES = (2.0, 8.0, 16.0, 26.0, 38.0, 53.0, 71.0, 91.0)
_ANGLES = tuple(2 * pi * step / 20 for step in range(20))
_PAD = 2.0


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area shared with ``other``."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return width * height if width > 0 and height > 0 else 0.0

    def inside(self, frame: Box) -> bool:
        """Whether all of it lies in ``frame``."""
        return (
            self.left >= frame.left
            and self.right <= frame.right
            and self.bottom >= frame.bottom
            and self.top <= frame.top
        )

    def grown(self, by: float) -> Box:
        """The box with ``by`` pixels more on each side."""
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)


@dataclass(frozen=True)
class Spot:
    """A point that wants a label of ``width`` × ``height`` pixels.

    ``reach`` is the half width of the point's mark; ``must`` keeps the label even where it overlaps another.
    """

    x: float
    y: float
    width: float
    height: float
    reach: float = 7.0
    must: bool = False


@dataclass(frozen=True)
class Place:
    """Where a label came to stand, and the start of its leader line, if the point is not next to it."""

    box: Box
    leader: tuple[float, float] | None


def place(spots: Sequence[Spot], frame: Box, lines: Sequence[Box] = ()) -> list[Place | None]:
    """A place for every spot, or ``None`` where nothing is free; earlier spots choose first.

    All labels stay inside ``frame``. ``lines`` are thin boxes (error bars, a curve) better left free.
    """
    marks = [Box(s.x, s.y, s.x, s.y).grown(s.reach) for s in spots]
    boxes: list[Box | None] = [None] * len(spots)
    for _ in range(3):
        before = list(boxes)
        for index, spot in enumerate(spots):
            others = [box for other, box in enumerate(boxes) if box is not None and other != index]
            boxes[index] = _cheapest(spot, frame, others, marks, lines)
        if boxes == before:
            break
    return [
        None if box is None else Place(box, _leader(spot, box))
        for spot, box in zip(spots, boxes, strict=True)
    ]


def _cheapest(
    spot: Spot, frame: Box, labels: Sequence[Box], marks: Sequence[Box], lines: Sequence[Box]
) -> Box | None:
    best: tuple[float, Box] | None = None
    for rank, distance in enumerate(_DISTANCES):
        if best is not None and best[0] <= 9.0 * rank:
            break  # every place further out costs more than that
        for angle in _ANGLES:
            box = _box_at(spot, spot.reach + distance, angle)
            if not box.inside(frame):
                continue
            covered = sum(box.grown(_PAD).overlap(label) for label in labels)
            covered += sum(box.overlap(mark) for mark in marks)
            if covered and not spot.must:
                continue
            crossed = sum(box.overlap(line) for line in lines)
            # right of the point reads best, then left, then above and below
            slant = 2.0 * abs(sin(angle)) + (0.5 if cos(angle) < 0 else 0.0)
            cost = 50 * covered + 0.3 * crossed + 9.0 * rank + slant
            if best is None or cost < best[0]:
                best = (cost, box)
    return None if best is None else best[1]


def _box_at(spot: Spot, radius: float, angle: float) -> Box:
    """The label's box pushed out along ``angle`` until its nearest edge is ``radius`` from the point."""
    dx, dy = cos(angle), sin(angle)
    x = spot.x + dx * (radius + spot.width / 2 * abs(dx))
    y = spot.y + dy * (radius + spot.height / 2 * abs(dy))
    return Box(x - spot.width / 2, y - spot.height / 2, x + spot.width / 2, y + spot.height / 2)


def _leader(spot: Spot, box: Box) -> tuple[float, float] | None:
    x = min(max(spot.x, box.left), box.right)
    y = min(max(spot.y, box.bottom), box.top)
    return (x, y) if hypot(x - spot.x, y - spot.y) > spot.reach + 5 else None
