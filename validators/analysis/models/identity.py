"""Whose face it is: dlib's face recognition ResNet, run by ONNX Runtime.

An embedding is biometric data: it is compared while a medium is judged, and kept nowhere.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from validators.analysis.models.face_detector import Picture
from validators.analysis.models.sessions import session

Embedding = npt.NDArray[np.float32]  # (128,)
Landmarks = npt.NDArray[np.float64]  # the detector's ten numbers, x and y of five points

CHIP_SIDE = 150  # pixels; what the network was trained on

# Where the detector's eyes, nose and mouth corners lie, on average over 301 faces, in chips that
# dlib aligned by points of its own (padding 0.25); made symmetric. Embeddings of the two alignments
# are 0.15 apart, as two frames of one clip are; with eyes and nose alone it was 0.154.
_TEMPLATE = np.array([47.2 + 44.9j, 101.8 + 44.9j, 74.5 + 77.4j, 50.8 + 102.8j, 98.2 + 102.8j])

_MEAN_RGB = np.array([122.782, 117.001, 104.298], np.float32)
_RANGE = np.float32(256)
_MOST_DETAIL = 4  # times the chip's side at which a large face is read before it is averaged


class Identity:
    """Not to be shared between threads."""

    def __init__(self, path: Path) -> None:
        self._network = session(path)

    def embed(self, picture: Picture, landmarks: Landmarks) -> Embedding:
        """The face in *picture* (BGR) that has these *landmarks* of the detector."""
        return self.embed_chip(chip_of(picture, landmarks))

    def embed_chip(self, chip: Picture) -> Embedding:
        """*chip*: (150, 150, 3), BGR, aligned."""
        values = (chip[None, :, :, ::-1] - _MEAN_RGB) / _RANGE
        embedding: Embedding = self._network.run(None, {"x": values.transpose(0, 3, 1, 2)})[0][0]
        return embedding


def distance(one: Embedding, other: Embedding) -> float:
    """Euclidean; dlib was trained to keep one person's faces within 0.6 of each other."""
    return float(np.linalg.norm(one - other))


def strangers(embeddings: Sequence[Embedding]) -> list[float]:
    """How far each is from the clip's own person: the mean distance to all others of theirs.

    Average linkage splits the embeddings into two groups; the clip's own are the larger one, or
    the first of two equal ones. Within 31 clips of one person no mean distance between the two
    groups was over 0.495; between two people in one clip none was under 0.560 (290 joins). A
    distance to the median of all would lie between two people who share a clip by halves.
    """
    if len(embeddings) < 2:  # noqa: PLR2004 - one alone is nobody's stranger
        return [0.0] * len(embeddings)
    table = squareform(pdist(np.stack(embeddings)))
    groups = fcluster(linkage(squareform(table), "average"), 2, "maxclust")
    first, other = groups == groups[0], groups != groups[0]
    own = other if other.sum() > first.sum() else first
    others = [own & (np.arange(len(table)) != at) for at in range(len(table))]
    return [float(row[o].mean()) if o.any() else 0.0 for row, o in zip(table, others, strict=True)]


def chip_of(picture: Picture, landmarks: Landmarks) -> Picture:
    """The face, upright and of the size that the network knows. Black lies outside the picture.

    Turned, scaled and moved, never sheared, so that the five points come as close to their
    places as they can in the least squares.
    """
    points = landmarks[0::2] + 1j * landmarks[1::2]
    middle, home = points.mean(), _TEMPLATE.mean()
    spread = points - middle
    turn = np.vdot(spread, _TEMPLATE - home) / np.vdot(spread, spread).real
    detail = int(np.clip(np.floor(1 / abs(turn)), 1, _MOST_DETAIL))
    turn, shift = turn * detail, (home - turn * middle) * detail
    motion = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    side = CHIP_SIDE * detail
    large = cv2.warpAffine(picture, motion, (side, side), flags=cv2.INTER_LINEAR)
    chip = cv2.resize(large, (CHIP_SIDE, CHIP_SIDE), interpolation=cv2.INTER_AREA)
    return chip.astype(np.uint8, copy=False)
