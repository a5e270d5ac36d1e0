"""What two speaker networks say, as numbers that separate one voice from two. No model here.

segmentation-3.0 gives a log-probability for each set of at most two of three speakers:
none, A, B, C, AB, AC, BC. It hears overlap well and misses half of the turns in read speech.
CAM++ gives one embedding for each window; windows find turns and miss overlap. Logistic
regression over both found 85 % of second voices at 2 % false alarms, in five-fold
cross-validation over 495 recordings; either network alone found 65 % and 62 %.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage

from validators.facts import Range

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SEGMENTATION_STEP_S = 270 / 16_000  # between frames of segmentation-3.0
SEGMENTATION_LEAD_S = 991 / 2 / 16_000  # to the middle of the first frame's receptive field
_SETS = ((1, 4, 5), (2, 4, 6), (3, 5, 6))  # classes in which A, B, C is active
_OVERLAPS = slice(4, 7)

_WEIGHTS = {"soft2": 1.925, "softov": 3.894, "cam_seg": -7.138, "cam_mn": -0.5, "cam_ahc": -7.445}
_BIAS = 8.726
_ROOTED = frozenset({"soft2", "softov"})  # seconds: their square root is what is weighted
_ONE_VOICE = {"cam_seg": 1.0, "cam_mn": 1.0, "cam_ahc": 1.0, "cam_parts": 1.0}

# On top of the regression, and zero for one voice: no whole part of 1.4 s or more fell below
# 0.586 in 108 clean recordings of one voice. In 123 of two it raised what is found at no false
# alarm from 92 to 95 %.
_PARTS_ALIKE, _PARTS_WEIGHT = 0.58, 25.0

# Where the second voice is, once the score says that there is one.
_OTHER_VOICE_WINDOWS = 0.6  # cosine at or below which the split's windows are two voices
_OTHER_VOICE_PARTS = 0.55  # likewise of whole parts: one voice stayed above 0.586
_MUCH_OVERLAP_S = 1.0

Parts = tuple[tuple[Range, ...], tuple[Range, ...]]

WINDOW_S = 1.5
MIN_WINDOWS = 3  # fewer cannot be split
_SHORT = 6  # windows: from here on, a part of one window is noise and no part


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The run of windows first..last (exclusive) that is least like all the others."""

    similarity: float  # cosine of the two mean embeddings
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


def embedding_features(embeddings: Floats) -> dict[str, float]:
    """Similarities of at least three (windows, n) unit embeddings in time order."""
    return {
        "cam_seg": best_split(embeddings).similarity,
        "cam_mn": float((embeddings @ embeddings.T).min()),
        "cam_ahc": _cluster_similarity(embeddings),
    }


def best_split(embeddings: Floats) -> Split:
    """The contiguous run whose mean is least like the mean of the rest."""
    sums = np.vstack([np.zeros(embeddings.shape[1]), np.cumsum(embeddings, axis=0)])
    return min(
        (
            Split(
                similarity=cosine(sums[last] - sums[first], sums[-1] - sums[last] + sums[first]),
                first=first,
                last=last,
            )
            for first, last in _runs(len(embeddings))
        ),
        key=lambda split: split.similarity,
    )


def _runs(count: int) -> Iterator[tuple[int, int]]:
    least = 2 if count >= _SHORT else 1
    for first in range(count):
        for last in range(first + 1, count + 1):
            if least <= last - first <= count - least:
                yield first, last


def _cluster_similarity(embeddings: Floats) -> float:
    labels = fcluster(linkage(embeddings, "average", metric="cosine"), 2, "maxclust")
    one, other = embeddings[labels == 1], embeddings[labels == 2]  # noqa: PLR2004 - of two clusters
    if not len(one) or not len(other):
        return 1.0  # windows so equal that nothing tells them apart: a recording that repeats
    similarity = cosine(one.mean(axis=0), other.mean(axis=0))
    lone = min(len(one), len(other)) < 2 and len(embeddings) > 4  # noqa: PLR2004 - one odd window
    return (1 + similarity) / 2 if lone else similarity


def score(features: dict[str, float]) -> float:
    """Log-odds that there are two voices: up with seconds of a second one, down with likeness.

    Features that were not taken (too few windows) count as those of one voice.
    """
    known = _ONE_VOICE | features
    regression = _BIAS + sum(
        weight * (math.sqrt(max(known[name], 0.0)) if name in _ROOTED else known[name])
        for name, weight in _WEIGHTS.items()
    )
    return regression + _PARTS_WEIGHT * max(0.0, _PARTS_ALIKE - known["cam_parts"])


def parts_of(split: Split, starts_s: list[float], speech: tuple[Range, ...]) -> Parts:
    """The speech inside *split* and outside it. A voice changes between two windows' middles."""
    middles = [-np.inf, *(start + WINDOW_S / 2 for start in starts_s), np.inf]
    start, end = (float(np.mean(middles[at : at + 2])) for at in (split.first, split.last))
    inside = intersection(((start, end),), speech)
    outside = intersection(((-np.inf, start), (end, np.inf)), speech)
    return inside, outside


def is_turn(features: dict[str, float]) -> bool:
    """Whether the two parts differ enough to say which of them is the second voice.

    Where two talk at once, segmentation has placed them, and parts differ by who is alone.
    """
    differ = (
        features["cam_seg"] <= _OTHER_VOICE_WINDOWS or features["cam_parts"] <= _OTHER_VOICE_PARTS
    )
    return differ and features["softov"] < _MUCH_OVERLAP_S


def second_part(parts: Parts, second: tuple[Range, ...]) -> tuple[Range, ...]:
    """The shorter part, unless most of the other is where segmentation hears a *second* voice."""
    return min(parts, key=lambda part: length_s(part) - 2 * length_s(intersection(part, second)))


def cosine(one: Floats, other: Floats) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other) + 1e-12))


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
