"""What moves between frames: every frame beside the one before it, in small and grey.

A cut changes most of the picture at once, and more than the frames around it do. So its score is
the change of the block in the middle of all blocks, less twice what is usual around it, in grey
levels of 0..255; a change of the light alone and a jolt of the camera are taken out first. Of 42
clean clips of one person none scores over 2.6; of 300 cutaways of 1 to 12 frames between clips
of different people one in twenty scores under 9; a zoom of a tenth scores 10 in the median.
A jump within one framing moves too little to be told from a movement of the head.
"""

import itertools
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from validators.analysis.models.faces import Edges
from validators.facts import Cut, MotionFacts

Grey = npt.NDArray[np.uint8]  # (height, width)
Thumb = npt.NDArray[np.int16]  # (_SIDE, _SIDE)
Blocks = npt.NDArray[np.float32]  # (_GRID, _GRID)

_SIDE, _GRID = 64, 16
_BLOCK = _SIDE // _GRID
_SAMPLED_SIDE = 180  # pixels of the short side that are averaged into the thumbnail

_LOOK_AGAIN = 25.0  # grey levels in any block: a face of 5 % of the height fills most of one
_LOOK_AGAIN_INSIDE = 60.0  # where the main face is known to be: it talks, and moves
_NEW_SHOT = 12.0  # grey levels in half of all blocks

_NOWHERE = slice(0), slice(0)

_AROUND = 6  # frames before and after whose change is usual
_USUAL_PERCENTILE = 60
_USUAL_TIMES = 2.0
_FAR_AROUND, _REPEATEDLY = 15, 3
_CANDIDATE = 4.0  # scores below it are no cut under any policy, and not listed
_EXAMINED = 50  # candidates, .15 CPU s each; more than that in one medium is no camera's jolt
_JOLT = 6  # how far a camera is jolted within a frame, in thumbnail pixels: a tenth of the picture

_BLACK = 32  # studio black is 16; what is called black in a dark room is a little more


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What is new since the last look: anything at all, and whether it may be another face."""

    anything: bool
    face: bool


@dataclass(slots=True, kw_only=True)
class Motion:
    """One video's movement, frame by frame. Keeps a thumbnail of each: 4 KB."""

    thumbs: list[Thumb] = field(default_factory=list)
    dark: list[float] = field(default_factory=list)
    looked: Thumb | None = None  # the frame that was looked at last

    def see(self, grey: Grey) -> None:
        """Take in the next frame."""
        step = max(1, min(grey.shape) // _SAMPLED_SIDE)  # averaging every pixel costs four times
        thumb = cv2.resize(grey[::step, ::step], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        self.dark.append(float((thumb < _BLACK).mean()))
        self.thumbs.append(thumb.astype(np.int16))

    def news(self, face: Edges | None = None) -> News:
        """What the newest frame shows that the last looked-at frame does not.

        *face*: where the main face is there.
        """
        if self.looked is None:
            return News(anything=True, face=True)
        change = _blocks(self.thumbs[-1] - self.looked)
        limits = np.full((_GRID, _GRID), _LOOK_AGAIN, np.float32)
        within = _NOWHERE if face is None else _around(face)
        limits[within] = _LOOK_AGAIN_INSIDE
        over = change > limits
        if not over.any():
            return News(anything=False, face=False)
        return News(anything=True, face=_median(change) > _NEW_SHOT or bool(over[within].any()))

    def look(self) -> None:
        """The newest frame is being looked at."""
        self.looked = self.thumbs[-1]

    def facts(self, times_s: tuple[float, ...]) -> MotionFacts:
        """*times_s*: when each frame is shown."""
        steps = [_zero(), *(after - before for before, after in _pairs(self.thumbs))]
        blocks = [_blocks(step) for step in steps[: len(self.thumbs)]]
        return MotionFacts(
            times_s=times_s,
            change=tuple(round(float(each.mean()), 2) for each in blocks),
            block_change=tuple(round(float(each.max()), 2) for each in blocks),
            luma=tuple(round(float(thumb.mean()), 1) for thumb in self.thumbs),
            dark=tuple(round(share, 3) for share in self.dark),
            cuts=tuple(
                Cut(time_s=times_s[number], score=round(score, 1), number=number)
                for number, score in cuts(self.thumbs)
            ),
        )


def cuts(thumbs: list[Thumb], *, examined: int = _EXAMINED) -> list[tuple[int, float]]:
    """Frames that may be the first after a cut, and their scores.

    Jolts are looked for in the *examined* highest candidates; the others score as they are.
    """
    steps = np.array([_middle(after - before) for before, after in _pairs(thumbs)], np.float32)
    usual = {at: _usual(steps, at) for at in np.flatnonzero(steps >= _CANDIDATE).tolist()}
    scores = {
        at: float(steps[at]) - each for at, each in usual.items() if steps[at] - each >= _CANDIDATE
    }
    for at in sorted(scores, key=lambda each: -scores[each])[:examined]:
        scores[at] = min(scores[at], _unexplained(thumbs[at], thumbs[at + 1]) - usual[at])
    return [(at + 1, score) for at, score in scores.items() if score >= _CANDIDATE]


def _pairs(thumbs: list[Thumb]) -> list[tuple[Thumb, Thumb]]:
    return list(itertools.pairwise(thumbs))


def _usual(steps: npt.NDArray[np.float32], at: int) -> float:
    """What a step of the take may come to here.

    Where frames are repeated (12 a second shown as 60), most steps near a real one are none, so
    the third largest farther around counts too: of cuts there are not so many.
    """
    near, far = (
        np.concatenate([steps[max(0, at - reach) : at], steps[at + 1 : at + 1 + reach]])
        for reach in (_AROUND, _FAR_AROUND)
    )
    if not len(near):
        return 0.0
    lively = float(np.sort(far)[-_REPEATEDLY]) if len(far) >= _REPEATEDLY else 0.0
    return max(_USUAL_TIMES * float(np.percentile(near, _USUAL_PERCENTILE)), lively)


def _middle(step: Thumb) -> float:
    """The change of the block in the middle, once what changes everywhere alike is taken out."""
    return _median(_blocks(step - np.int16(_median(step))))


def _median(values: Thumb | Blocks) -> float:
    """The upper one of an even number: numpy's own takes far longer on so few."""
    half = values.size // 2
    return float(np.partition(values, half, axis=None)[half])


def _unexplained(before: Thumb, after: Thumb) -> float:
    """The least change that is left when the camera may have been jolted up, down or sideways."""
    inner = after[_JOLT:-_JOLT, _JOLT:-_JOLT]
    fine = cv2.resize(before, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    span = 2 * len(inner)
    reach = range(4 * _JOLT + 1)  # in halves of a thumbnail pixel
    return min(
        _middle((inner - fine[y : y + span : 2, x : x + span : 2]).astype(np.int16, copy=False))
        for y in reach
        for x in reach
    )


def _blocks(step: Thumb) -> Blocks:
    size = step.shape[1] // _BLOCK, step.shape[0] // _BLOCK
    means = cv2.resize(np.abs(step).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return means.astype(np.float32, copy=False)


def _around(face: Edges) -> tuple[slice, slice]:
    """The blocks under a face and those beside it."""
    left, top, right, bottom = (round(edge * _GRID) for edge in face)
    return slice(max(0, top - 1), max(0, bottom + 1)), slice(max(0, left - 1), max(0, right + 1))


def _zero() -> Thumb:
    return np.zeros((_SIDE, _SIDE), np.int16)
