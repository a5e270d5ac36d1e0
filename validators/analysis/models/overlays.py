"""Graphics laid over the picture: text that stays where it is while the scene does not.

A detector of text reads means over 2.5 s of glances. In them whatever moves is blurred away: a
shirt's print, teeth, and the whole scene where the camera moves; what is laid over the picture
stays sharp, even a faint watermark (after "On the Effectiveness of Visible Watermarks", Dekel et
al., CVPR 2017, who find one in the median of many pictures). Each line that is found is then
followed through the glances by the gradients in its box.

Nothing proves that text on a wall behind a tripod is no overlay. How hard and how level it is
tells them apart only roughly, and so the confidence stays a doubtful one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from validators.analysis.models.text_detector import Luma, TextDetector, TextLine
from validators.analysis.weights import path_of
from validators.analysis.wire import FrameStream
from validators.facts import Overlay, OverlayFacts, OverlayKind, Range

Floats = npt.NDArray[np.floating[Any]]

_GLANCES_PER_S = 5.0
_GLANCES = 13  # in one mean: a caption of 1.3 s fills half of one, wherever it falls
_LEAST_GLANCES = 5  # that a last, shorter mean needs to blur what moves
_PIXELS = 64_000  # that the network is shown of one mean; costs 30 ms
_STILL_PIXELS = 230_000  # and of a still image; costs 100 ms
_HEAD, _FOOT = 0.16, 0.22  # shares of the height where small print stands; seen unshrunken
_PRINT_PIXELS = 90_000  # that the network is shown of them; costs 40 ms
_GAP = 16  # grey rows between the two

_SAME = 0.5  # share of a line within a longer one, for both to be one line
_LEAST_ASPECT = 1.3  # width over height; eyes and mouths are rounder
_SHOWN = 0.8  # correlation of the gradients with the line's own at which it is there
_GONE = 0.5  # and at which it is not
_ELSEWHERE = 0.7  # correlation at which the line has only moved
_REACH = 12  # pixels that it may move from one glance to another
_LEAST_RUN = 3  # glances; a mouth may hold still for two
_FOLLOWED_WIDTH = 240  # pixels; more of a line only costs more
_LIVELY = 4.0  # deviation over time, in grey levels, of what moves under a line
_LIVELY_SHARE = 0.1  # of what lies between the letters, in a quarter of the line
_BETWEEN = 0.3  # of the strongest gradients: weaker ones are between the letters
_STEADY = 0.6  # strength of the line's gradients over their mean, in all but a tenth of glances
_SOFT, _HARD = 0.22, 0.42  # edges: of print that is out of focus, of print that is drawn
_LEVEL = 0.012  # slope over which a line is tilted
_SLOPES = np.linspace(-0.06, 0.06, 11)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenOverlay:
    """An overlay and when it was there: first and last frame of each time, by number."""

    kind: OverlayKind
    left: float
    top: float
    right: float
    bottom: float
    confidence: float
    shown: tuple[tuple[int, int], ...] = ()


class Overlays:
    """Not to be shared between threads."""

    def __init__(self, models_dir: Path | None) -> None:
        self._text = TextDetector(path_of("text_detection.onnx", models_dir))

    def search(self, stream: FrameStream) -> "Search":
        """A search through one video, which is to be shown every frame."""
        return Search(text=self._text, every=max(1, round(stream.per_s / _GLANCES_PER_S)))

    def in_still(self, luma: Luma) -> tuple[SeenOverlay, ...]:
        """What looks laid over a still image, where no time can prove it: at most 0.6 sure."""
        lines = self._text.lines(luma, pixels=_STILL_PIXELS)
        return tuple(
            _seen(line, min(0.6, _look(_inside(luma, line)))) for line in lines if _flat(line, luma)
        )


@dataclass(slots=True, kw_only=True)
class Search:
    """Keeps five grey frames of every second: at most 35 MB for the longest video."""

    text: TextDetector
    every: int
    glances: list[Luma] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def glance(self, luma: Luma, number: int) -> None:
        """*luma*: the grey plane of frame *number*, which may be reused afterwards."""
        if number % self.every == 0:
            self.glances.append(luma.copy())
            self.numbers.append(number)

    def finish(self) -> tuple[SeenOverlay, ...]:
        """Every line that is no part of the scene, or may be none."""
        if not self.glances:
            return ()
        means = [_mean(part) for part in _parts(self.glances)]
        lines = [line for mean in means for line in self.text.lines(mean, pixels=_PIXELS)]
        whole = _mean(self.glances) if len(means) > 1 else means[0]
        lines += self._small_print(whole)
        found = [self._follow(line) for line in _distinct(lines) if _flat(line, whole)]
        return tuple(overlay for overlay in found if overlay is not None)

    def _small_print(self, mean: Luma) -> list[TextLine]:
        """The lines at the head and at the foot of *mean*, looked for at its full size."""
        height, width = mean.shape
        head, foot = int(height * _HEAD), int(height * _FOOT)
        gap = np.full((_GAP, width), 128, np.uint8)
        strips = np.vstack([mean[:head], gap, mean[height - foot :]])
        lines = self.text.lines(strips, pixels=_PRINT_PIXELS)
        found = [_back(line, len(strips), height, head, foot) for line in lines]
        return [line for line in found if line.bottom > line.top]  # none that fills the gap alone

    def _follow(self, line: TextLine) -> SeenOverlay | None:
        crops = np.stack([_shrunk(_inside(glance, line)) for glance in self.glances])
        fields = np.stack([_gradients(crop) for crop in crops])
        model = _exemplar(fields)
        likeness = _correlations(fields, fields[model])
        there = likeness >= _SHOWN
        runs = [run for run in _runs(there) if run[1] - run[0] + 1 >= _LEAST_RUN]
        over = _over_moving(crops, fields, likeness)
        if over:
            runs = [(0, len(crops) - 1)]
        if not runs or (not over and self._moves(line, likeness, model)):
            return None
        confidence = 0.95 if over else _look(_inside(self.glances[model], line))
        if (likeness <= _GONE).mean() >= 1 - there.mean() - 0.1 > 0:
            confidence = min(0.9, confidence + 0.25)
        shown = tuple((self.numbers[first], self.numbers[last]) for first, last in runs)
        return _seen(line, confidence, shown)

    def _moves(self, line: TextLine, likeness: Floats, model: int) -> bool:
        """Whether the line is somewhere near in most of the glances that do not show it here."""
        absent = np.flatnonzero(likeness <= _SHOWN)
        if not len(absent):
            return False
        chosen = absent[:: max(1, len(absent) // 6)]
        template = _inside(self.glances[model], line)
        elsewhere = [_is_elsewhere(self.glances[at], line, template) for at in chosen]
        return 2 * sum(elsewhere) >= len(elsewhere)


def overlay_facts(
    seen: Sequence[SeenOverlay], times_s: Sequence[float], *, every_s: float, frames: int
) -> OverlayFacts:
    """*times_s*: of every frame. What is there at one glance is there for *every_s* longer."""
    return OverlayFacts(
        overlays=tuple(
            Overlay(
                kind=each.kind,
                left=each.left,
                top=each.top,
                width=each.right - each.left,
                height=each.bottom - each.top,
                confidence=each.confidence,
                shown=tuple(_times(run, times_s, every_s) for run in each.shown),
            )
            for each in seen
        ),
        frames=frames,
    )


def _times(run: tuple[int, int], times_s: Sequence[float], every_s: float) -> Range:
    first, last = (min(number, len(times_s) - 1) for number in run)
    return times_s[first], min(times_s[last] + every_s, times_s[-1])


def _parts(glances: list[Luma]) -> list[list[Luma]]:
    parts = [glances[at : at + _GLANCES] for at in range(0, len(glances), _GLANCES)]
    return [part for part in parts if len(part) >= _LEAST_GLANCES] or [glances]


def _mean(glances: list[Luma]) -> Luma:
    total = np.zeros(glances[0].shape, np.float32)
    for glance in glances:
        cv2.accumulate(glance, total)
    return (total / len(glances)).astype(np.uint8)


def _back(line: TextLine, rows: int, height: int, head: int, foot: int) -> TextLine:
    """*line* of the two strips, *rows* high, as one of the picture."""
    top, bottom = line.top * rows, line.bottom * rows
    if (top + bottom) / 2 > head + _GAP / 2:
        moved = height - foot - head - _GAP
        top, bottom = max(top, head + _GAP) + moved, bottom + moved
    else:
        bottom = min(bottom, head)
    return TextLine(
        left=line.left,
        top=top / height,
        right=line.right,
        bottom=bottom / height,
        confidence=line.confidence,
    )


def _distinct(lines: list[TextLine]) -> list[TextLine]:
    """Each line once, the longest find of it first."""
    kept: list[TextLine] = []
    for line in sorted(lines, key=lambda each: each.left - each.right):
        if not any(max(_shared(line, other), _shared(other, line)) > _SAME for other in kept):
            kept.append(line)
    return kept


def _shared(line: TextLine, other: TextLine) -> float:
    """The share of *line* that lies within *other*."""
    width = min(line.right, other.right) - max(line.left, other.left)
    height = min(line.bottom, other.bottom) - max(line.top, other.top)
    area = (line.right - line.left) * (line.bottom - line.top)
    return max(0.0, width) * max(0.0, height) / area


def _flat(line: TextLine, luma: Luma) -> bool:
    height, width = luma.shape
    across = (line.right - line.left) * width
    down = (line.bottom - line.top) * height
    return bool(across >= _LEAST_ASPECT * down)


def _box(line: TextLine, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    height, width = shape
    left, top = int(line.left * width), int(line.top * height)
    return (
        left,
        top,
        max(left + 2, round(line.right * width)),
        max(top + 2, round(line.bottom * height)),
    )


def _inside(luma: Luma, line: TextLine) -> Luma:
    left, top, right, bottom = _box(line, luma.shape)
    return luma[top:bottom, left:right]


def _shrunk(crop: Luma) -> Luma:
    """At most as wide as following a line needs."""
    height, width = crop.shape
    if width <= _FOLLOWED_WIDTH:
        return crop
    size = (_FOLLOWED_WIDTH, max(2, round(height * _FOLLOWED_WIDTH / width)))
    return cv2.resize(crop, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _gradients(crop: Luma) -> Floats:
    """(2, height, width): grey levels per pixel, to the right and downwards."""
    across, down = (
        cv2.Sobel(crop, cv2.CV_32F, dx, 1 - dx, scale=1 / 8, borderType=cv2.BORDER_REPLICATE)
        for dx in (1, 0)
    )
    return np.stack([across, down])


def _exemplar(fields: Floats) -> int:
    """The glance most like the mean of those that are most like the mean of all."""
    likeness = _correlations(fields, fields.mean(axis=0))
    best = fields[likeness >= np.quantile(likeness, 0.8)].mean(axis=0)
    return int(_correlations(fields, best).argmax())


def _correlations(fields: Floats, model: Floats) -> Floats:
    """Of each glance's gradients with the *model*'s: 1 where all point the same way."""
    products = (fields * model).sum(axis=(1, 2, 3))
    norms = np.sqrt((fields**2).sum(axis=(1, 2, 3)) * (model**2).sum())
    likeness: Floats = products / np.maximum(norms, 1e-6)
    return likeness


def _runs(there: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of each stretch that is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], there.astype(np.int8), [0]])))
    return [(int(first), int(end) - 1) for first, end in edges.reshape(-1, 2)]


def _over_moving(crops: npt.NDArray[np.uint8], fields: Floats, likeness: Floats) -> bool:
    """Whether the line stands still over a scene that moves, in two of its quarters at least.

    Text on a wall is hidden by who passes before it: its gradients lose their strength there.
    A shirt that moves a little changes at the edges of its letters, but not between them.
    """
    mean = fields[likeness >= np.median(likeness)].mean(axis=0)
    strength = np.hypot(mean[0], mean[1])
    letters = (strength > _BETWEEN * np.quantile(strength, 0.95)).astype(np.uint8)
    between = cv2.dilate(letters, np.ones((3, 3), np.uint8)) == 0
    lively = (crops.std(axis=0) >= _LIVELY) & between
    count = 0
    for at in np.array_split(np.arange(crops.shape[2]), 4):
        if lively[:, at].sum() < _LIVELY_SHARE * max(1, between[:, at].sum()):
            continue
        own = mean[:, :, at]
        strengths = (fields[:, :, :, at] * own).sum(axis=(1, 2, 3)) / max((own**2).sum(), 1e-6)
        count += bool(np.quantile(strengths, 0.1) >= _STEADY)
    return count >= 2  # noqa: PLR2004 - one quarter may be chance


def _look(crop: Luma) -> float:
    """0.2..0.8: how much a line looks drawn, by how hard its edges are and how level it lies."""
    low, high = np.percentile(crop, (3, 97))
    slopes = np.sort(np.hypot(*_gradients(crop)), axis=None)
    hardness = slopes[-max(8, len(slopes) // 12) :].mean() / max(float(high - low), 1.0)
    drawn = float(np.clip((hardness - _SOFT) / (_HARD - _SOFT), 0, 1))
    tilted = abs(_slope(crop)) > _LEVEL
    return 0.2 + 0.6 * drawn * (0.5 if tilted else 1.0)


def _slope(crop: Luma) -> float:
    """Of the line in *crop*, downwards per pixel: along it the rows differ most."""
    down = np.abs(_gradients(crop)[1])
    width = down.shape[1]
    sharpness = []
    for slope in _SLOPES:
        move = np.array([[1, 0, 0], [-slope, 1, slope * width / 2]], np.float32)
        profile = cv2.warpAffine(down, move, down.shape[::-1]).sum(axis=1)
        sharpness.append(float((np.diff(profile) ** 2).sum()))
    return float(_SLOPES[int(np.argmax(sharpness))])


def _is_elsewhere(glance: Luma, line: TextLine, template: Luma) -> bool:
    """Whether *template* shows within a few pixels of *line*, but not where it was.

    What is most like it in its own place is the scene that was behind it.
    """
    left, top, right, bottom = _box(line, glance.shape)
    near = glance[max(0, top - _REACH) : bottom + _REACH, max(0, left - _REACH) : right + _REACH]
    scores = cv2.matchTemplate(near, template, cv2.TM_CCOEFF_NORMED)
    down, across = np.unravel_index(int(scores.argmax()), scores.shape)
    moved = max(abs(int(down) - min(top, _REACH)), abs(int(across) - min(left, _REACH)))
    return moved > 1 and float(scores.max()) >= _ELSEWHERE


def _seen(
    line: TextLine, confidence: float, shown: tuple[tuple[int, int], ...] = ()
) -> SeenOverlay:
    return SeenOverlay(
        kind=OverlayKind.TEXT,
        left=line.left,
        top=line.top,
        right=line.right,
        bottom=line.bottom,
        confidence=round(confidence, 3),
        shown=shown,
    )
