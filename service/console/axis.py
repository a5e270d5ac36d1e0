"""One time axis: seconds become percent of its width. Pure geometry, no markup.

Curves are SVG paths in a box of WIDE by TALL that is stretched over the lane.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from validators.facts import Range

WIDE, TALL = 1000, 100
MOST_POINTS = 600
MOST_LABELS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A stretch of time, in percent of the axis."""

    left: float
    width: float
    shown: Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A moment, in percent of the axis."""

    left: float
    time_s: float
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One track: its name, what it shows in a word and in a sentence, and how it is drawn."""

    key: str
    title: str
    note: str
    said: str
    tone: str = "data"
    code: str | None = None  # the check whose ranges these are
    tall: bool = False
    bars: tuple[Bar, ...] = ()
    marks: tuple[Mark, ...] = ()
    area: str | None = None
    line: str | None = None
    limit: float | None = None  # from the top, in percent of the height
    middle: bool = False  # whether the middle of the height is nought


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """All tracks of one medium, and the failing ranges that go through all of them."""

    length_s: float
    ticks: tuple[Mark, ...]
    lanes: tuple[Lane, ...]
    bands: tuple[Bar, ...]
    edges: tuple[Mark, ...] = ()


def bars(ranges: Iterable[Range], length_s: float) -> tuple[Bar, ...]:
    """*ranges* as far as they lie on the axis."""
    kept = ((max(0.0, start), min(length_s, end)) for start, end in ranges)
    return tuple(
        Bar(
            left=_percent(start, length_s),
            width=_percent(end - start, length_s),
            shown=(start, end),
        )
        for start, end in kept
        if 0 <= start <= end <= length_s
    )


def marks(times_s: Iterable[float], length_s: float) -> tuple[Mark, ...]:
    return tuple(
        Mark(left=_percent(time_s, length_s), time_s=time_s)
        for time_s in times_s
        if 0 <= time_s <= length_s
    )


def ticks(length_s: float) -> tuple[Mark, ...]:
    """Whole seconds, few enough that their labels stand apart on a phone."""
    step = next(step for step in _steps() if length_s / step < MOST_LABELS)
    return tuple(
        Mark(left=_percent(at, length_s), time_s=at, label=f"{at}")
        for at in range(0, math.floor(length_s) + 1, step)
    )


def _steps() -> Iterable[int]:
    magnitude = 1
    while True:
        yield from (magnitude, 2 * magnitude, 5 * magnitude)
        magnitude *= 10


def joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """In order, what touches or overlaps as one."""
    found: list[Range] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return tuple(found)


def without(ranges: Sequence[Range], length_s: float) -> tuple[Range, ...]:
    """The rest of the axis."""
    rest, at = [], 0.0
    for start, end in joined(ranges):
        if start > at:
            rest.append((at, start))
        at = max(at, end)
    if at < length_s:
        rest.append((at, length_s))
    return tuple(rest)


def waveform(low: Sequence[float], high: Sequence[float], shown: Range, length_s: float) -> str:
    """A closed path around the columns of a sound, its loudest as tall as the lane."""
    peak = max((abs(each) for each in (*low, *high)), default=0.0) or 1.0
    step = (shown[1] - shown[0]) / max(1, len(low))
    xs = [_x(shown[0] + (number + 0.5) * step, length_s) for number in range(len(low))]
    upper = [(x, TALL / 2 * (1 - value / peak)) for x, value in zip(xs, high, strict=True)]
    lower = [(x, TALL / 2 * (1 - value / peak)) for x, value in zip(xs, low, strict=True)]
    return f"{_path([*upper, *reversed(lower)])}Z" if upper else ""


def curve(
    points: Sequence[tuple[float, float]], length_s: float, scale: tuple[float, float]
) -> str:
    """A line through (second, value), the low end of *scale* at the bottom."""
    low, high = scale
    thinned = peaks(points)
    return _path(
        [(_x(time_s, length_s), TALL * (1 - _share(value, low, high))) for time_s, value in thinned]
    )


def filled(
    points: Sequence[tuple[float, float]], length_s: float, scale: tuple[float, float]
) -> str:
    """The same with everything below it."""
    if not points:
        return ""
    first, last = _x(points[0][0], length_s), _x(points[-1][0], length_s)
    return f"{curve(points, length_s, scale)}L{last:g},{TALL}L{first:g},{TALL}Z"


def peaks(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS of *points*: of each group the one that is farthest from nought."""
    group = max(1, math.ceil(len(points) / MOST_POINTS))
    return [
        max(points[at : at + group], key=lambda point: abs(point[1]))
        for at in range(0, len(points), group)
    ]


def height_of(value: float, scale: tuple[float, float]) -> float:
    """Where *value* stands, in percent from the top."""
    return round(100 * (1 - _share(value, *scale)), 2)


def _share(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _path(points: Sequence[tuple[float, float]]) -> str:
    words = (f"{x:.1f},{y:.1f}".replace(".0", "") for x, y in points)
    return f"M{'L'.join(words)}" if points else ""


def _x(time_s: float, length_s: float) -> float:
    return round(WIDE * min(1.0, max(0.0, time_s / length_s)), 1)


def _percent(time_s: float, length_s: float) -> float:
    return round(100 * time_s / length_s, 3)
