"""What two speaker networks say, as numbers that separate one voice from two. No model here.

segmentation-3.0 gives a log-probability for each set of at most two of three speakers:
none, A, B, C, AB, AC, BC. It hears overlap well and misses half of the turns in read speech.
CAM++ describes the voice of any part of the speech. Every run of the speech is compared with
all the rest; the run least like it, for its length, is a second voice or the odd words of the
first. That finds turns and misses overlap. Logistic regression joins the two.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from validators.facts import Range

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SEGMENTATION_STEP_S = 270 / 16_000  # between frames of segmentation-3.0
SEGMENTATION_LEAD_S = 991 / 2 / 16_000  # to the middle of the first frame's receptive field
VOICE_STEP_S = 0.02  # between frames of CAM++
_SETS = ((1, 4, 5), (2, 4, 6), (3, 5, 6))  # classes in which A, B, C is active
_OVERLAPS = slice(4, 7)

# Of 275 recordings: in five-fold cross-validation 89 of 90 turns of 0.8 to 3 s and 33 of 36
# overlaps at one false alarm in 149 single voices.
_WEIGHTS = {"soft2": 2.67, "softov": 4.64, "unlike": 21.7}
_BIAS = -3.3
_ROOTED = frozenset({"soft2", "softov"})  # seconds: their square root is what is weighted
_NOT_TAKEN = {"unlike": -0.15}  # one voice, and quite alike

# The cosine of a run and the rest in one voice: the shorter of the two, the less alike. One voice
# in a hundred falls below it, at any length from 0.7 to 6 s.
_LIKENESS, _LIKENESS_LOST_PER_S = 0.72, 0.30
_SHORTEST_RUN_S = 0.7
_HOP_S = 0.24  # between the places where a run may start or end
_UNLIKE_LEAST, _UNLIKE_MOST = -0.15, 0.3  # beyond these nothing more is said

# Where the second voice is, once the score says that there is one.
_MUCH_OVERLAP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The run of speech frames first..last (exclusive) that is least like all the others."""

    unlike: float  # how far the cosine is below what one voice of that length has
    first: int
    last: int


def activity(log_probabilities: Floats) -> Floats:
    """(frames, 7) log-probabilities of sets to (frames, 3) probabilities of each speaker."""
    odds = np.exp(log_probabilities)
    return np.stack([odds[:, list(classes)].sum(axis=1) for classes in _SETS], axis=1)


def by_presence(active: Floats) -> Floats:
    """The columns of *active*, the speaker heard longest first."""
    return active[:, np.argsort(-active.sum(axis=0), kind="stable")]


def segmentation_features(log_probabilities: Floats) -> dict[str, float]:
    """Expected seconds of the second speaker, and of two at once."""
    second = by_presence(activity(log_probabilities))[:, 1]
    both = np.exp(log_probabilities[:, _OVERLAPS])
    return {
        "soft2": float(second.sum()) * SEGMENTATION_STEP_S,
        "softov": float(both.sum()) * SEGMENTATION_STEP_S,
    }


def least_alike(spoken: Floats, embed: Callable[[Floats], Floats]) -> Split | None:
    """The run of (n, frames) CAM++ frames of speech that is least like the rest of them.

    *embed*: (parts, 2 n) means and deviations to unit embeddings. None where there is too
    little to split.
    """
    hop, least = (round(seconds / VOICE_STEP_S) for seconds in (_HOP_S, _SHORTEST_RUN_S))
    count = spoken.shape[1]
    edges = np.unique(np.append(np.arange(0, count, hop), count))
    first, last = (edges[at] for at in np.triu_indices(len(edges), 1))
    inside = last - first
    enough = np.minimum(inside, count - inside) >= least
    if not enough.any():
        return None
    first, last = first[enough], last[enough]
    pools = _Pools.of(spoken)
    alike = np.sum(embed(pools.inside(first, last)) * embed(pools.outside(first, last)), axis=1)
    shorter_s = np.minimum(last - first, count - (last - first)) * VOICE_STEP_S
    unlike = _LIKENESS - _LIKENESS_LOST_PER_S / shorter_s - alike
    worst = int(unlike.argmax())
    return Split(unlike=float(unlike[worst]), first=int(first[worst]), last=int(last[worst]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pools:
    """Running sums of frames and of their squares: a pool over any run costs two look-ups."""

    mean: Floats  # (n,) of all frames, taken off first: what is left is small enough for float32
    sums: Floats  # (frames + 1, n)
    squares: Floats

    @classmethod
    def of(cls, frames: Floats) -> "_Pools":
        mean = frames.mean(axis=1)
        centred = np.vstack([np.zeros_like(mean), frames.T - mean])
        return cls(
            mean=mean, sums=np.cumsum(centred, axis=0), squares=np.cumsum(centred**2, axis=0)
        )

    def inside(self, first: npt.NDArray[np.int_], last: npt.NDArray[np.int_]) -> Floats:
        sums, squares = (of[last] - of[first] for of in (self.sums, self.squares))
        return self._statistics(sums, squares, last - first)

    def outside(self, first: npt.NDArray[np.int_], last: npt.NDArray[np.int_]) -> Floats:
        sums, squares = (of[-1] - of[last] + of[first] for of in (self.sums, self.squares))
        return self._statistics(sums, squares, len(self.sums) - 1 - (last - first))

    def _statistics(self, sums: Floats, squares: Floats, count: npt.NDArray[np.int_]) -> Floats:
        """Means and deviations, as CAM++ pools: the variance is over one less than the count."""
        each = count[:, None].astype(np.float32)
        mean = sums / each
        variance = np.maximum(squares - sums * mean, 0) / np.maximum(each - 1, 1)
        return np.hstack([mean + self.mean, np.sqrt(variance)])


def pooled(frames: Floats) -> Floats:
    """(1, 2 n) means and deviations of (n, frames)."""
    pools = _Pools.of(frames)
    return pools.inside(np.array([0]), np.array([frames.shape[1]]))


def score(features: dict[str, float]) -> float:
    """Log-odds that there are two voices: up with seconds of a second one, down with likeness.

    Features that were not taken (too little speech to split) count as those of one voice.
    """
    known = _NOT_TAKEN | features
    known["unlike"] = min(max(known["unlike"], _UNLIKE_LEAST), _UNLIKE_MOST)
    return _BIAS + sum(
        weight * (math.sqrt(max(known[name], 0.0)) if name in _ROOTED else known[name])
        for name, weight in _WEIGHTS.items()
    )


def spoken_frames(count: int, speech: tuple[Range, ...]) -> Mask:
    """Which of *count* frames of CAM++ lie within the speech."""
    at_s = (np.arange(count) + 0.5) * VOICE_STEP_S
    inside = [(start <= at_s) & (at_s < end) for start, end in speech]
    return np.logical_or.reduce(inside) if inside else np.zeros(count, bool)


def is_turn(features: dict[str, float]) -> bool:
    """Whether the run differs enough to say that it is the second voice.

    Where two talk at once, segmentation has placed them, and parts differ by who is alone.
    """
    return features["unlike"] > 0 and features["softov"] < _MUCH_OVERLAP_S


def second_part(run: Mask, spoken: Mask, second: tuple[Range, ...]) -> tuple[Range, ...]:
    """When the second of two parts speaks: the *run*, or the rest of what is *spoken*.

    The shorter one, unless most of the other is where segmentation hears a *second* voice:
    otherwise two halves of about one length would both be the second voice's.
    """
    parts = [
        ranges_of(part, step_s=VOICE_STEP_S, lead_s=VOICE_STEP_S / 2, bridge_s=0.3, least_s=0.2)
        for part in (run, spoken & ~run)
    ]
    return min(parts, key=lambda part: length_s(part) - 2 * length_s(intersection(part, second)))


def ranges_of(
    mask: Mask, *, step_s: float, lead_s: float = 0.0, bridge_s: float, least_s: float
) -> tuple[Range, ...]:
    """Where *mask* is true, in seconds: gaps up to *bridge_s* closed, then crumbs dropped.

    Entry i of *mask* covers *step_s* around `lead_s + i * step_s`.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    found: list[Range] = []
    for first, last in edges.reshape(-1, 2):
        start = max(0.0, lead_s + (float(first) - 0.5) * step_s)
        end = lead_s + (float(last) - 0.5) * step_s
        if found and start - found[-1][1] <= bridge_s:
            start = found.pop()[0]
        found.append((start, end))
    return tuple((start, end) for start, end in found if end - start >= least_s)


def length_s(ranges: tuple[Range, ...]) -> float:
    return sum(end - start for start, end in ranges)


def union(*many: tuple[Range, ...]) -> tuple[Range, ...]:
    """All ranges in order, those that touch or overlap joined."""
    joined: list[Range] = []
    for start, end in sorted(one for ranges in many for one in ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def intersection(one: tuple[Range, ...], other: tuple[Range, ...]) -> tuple[Range, ...]:
    return union(
        tuple((max(a, c), min(b, d)) for a, b in one for c, d in other if max(a, c) < min(b, d))
    )
