"""libfacedetection's network: boxes, confidences and five landmarks of the faces in a picture.

The weights are the library's own, run by ONNX Runtime instead of its C++: the same answers for a
fifth of the time or less (validators/weights/PROVENANCE.md). What the network says of each cell
of its three grids is decoded here as YuNet, the published network, defines it.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from validators.analysis.models.sessions import session
from validators.analysis.weights import WeightsCorruptError
from validators.analysis.wire import BYTES_PER_PIXEL

Picture = npt.NDArray[np.uint8]  # (height, width, 3), BGR
# (n, 15): left, top, width, height in pixels, confidence 0..1, then x and y of the right eye,
# left eye, nose, right and left mouth corner: the person's own right, on the picture's left
Detections = npt.NDArray[np.float64]

COLUMNS = 15
LANDMARKS = slice(5, COLUMNS)

_STRIDES = (8, 16, 32)  # pixels between the cells of each grid
_CELL = 32  # both sides are filled up with black to a multiple of the widest
_SCORE, _BOX, _POINTS = slice(0, 2), slice(2, 6), slice(6, 16)  # of the network's 16 channels
_LARGEST_EXPONENT = 80.0  # no picture comes near it, and exp() stays finite

_FLOOR = 0.5  # below it the detector lists textures; policies start at 0.6
_LONG_SIDE = 640  # what the detector was measured at
_QUICK_PIXELS = 110_000  # half of what 640 x 360 has: a face of 7 % is 17 pixels high
_CLOSE_UP_SIDE = 160  # at which a face that fills the picture has a size it knows
CERTAIN = 0.8  # confidence above which no further look is worth its false finds

_SAME_IOU, _SAME_INSIDE = 0.4, 0.75  # two boxes that share this much are one face


class Detector:
    """Not to be shared between threads. Raises WeightsCorruptError if it cannot see."""

    def __init__(self, path: Path) -> None:
        self._network = session(path)
        self._check_itself()

    def _check_itself(self) -> None:
        """It must see nothing on a blank picture and a drawn face where it was drawn."""
        blank = np.full((240, 320, BYTES_PER_PIXEL), 127, np.uint8)
        picture, (x, y) = drawn_face()
        seen = self.detect(picture)
        if len(self.detect(blank)) or len(seen) != 1:
            raise WeightsCorruptError(f"libfacedetection sees {len(seen)} faces where one is drawn")
        left, top, width, height = seen[0, :4]
        if not (left < x < left + width and top < y < top + height):
            raise WeightsCorruptError(f"libfacedetection sees {seen[0]}, drawn at {(x, y)}")

    def search(self, picture: Picture, *, quickly: bool = False) -> Detections:
        """Faces of every size: as it is, at the measured size, and small for close-ups.

        The smallest look also sees faces in texture, so it is taken only where no other look
        found a face that is certain. A quick search costs half, and misses more of the faces
        that are under a tenth of the height.
        """
        found = self._detect_quickly(picture) if quickly else self.detect(picture)
        if max(picture.shape) > _LONG_SIDE:
            found = distinct(np.concatenate([found, self._detect_at(_LONG_SIDE, picture)]))
        if not (found[:, 4] >= CERTAIN).any():
            found = distinct(np.concatenate([found, self._detect_at(_CLOSE_UP_SIDE, picture)]))
        return found

    def _detect_quickly(self, picture: Picture) -> Detections:
        height, width = picture.shape[:2]
        smaller = min(1.0, (_QUICK_PIXELS / (height * width)) ** 0.5)
        return self._detect_at(round(max(height, width) * smaller), picture)

    def _detect_at(self, long_side: int, picture: Picture) -> Detections:
        """Faces in *picture* shrunk to *long_side*, in pixels of the picture as it came."""
        scale = min(1.0, long_side / max(picture.shape))
        height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        found = self.detect(small.astype(np.uint8, copy=False))
        found[:, :4] /= scale
        found[:, LANDMARKS] /= scale
        return found

    def detect(self, picture: Picture) -> Detections:
        """Faces between about 10 and 400 pixels high."""
        height, width = (-(-side // _CELL) * _CELL for side in picture.shape[:2])
        planes = np.zeros((1, BYTES_PER_PIXEL, height, width), np.float32)
        planes[0, :, : picture.shape[0], : picture.shape[1]] = picture.transpose(2, 0, 1)
        grids = self._network.run(None, {"x": planes})
        found = [decoded(grid[0], stride) for grid, stride in zip(grids, _STRIDES, strict=True)]
        return distinct(np.concatenate(found))


def decoded(grid: npt.NDArray[Any], stride: int) -> Detections:
    """(16, rows, columns) of the network to the cells of it that claim a face.

    Confidence is the geometric mean of two probabilities: that there is an object, and that it
    is a face.
    """
    logits = np.clip(grid[_SCORE].astype(np.float64), -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    confidence = np.sqrt(np.prod(1 / (1 + np.exp(-logits)), axis=0))
    rows, columns = np.nonzero(confidence >= _FLOOR)
    cells = np.stack([columns, rows], axis=1)
    claims = grid[:, rows, columns].T.astype(np.float64)
    middles = (claims[:, _BOX][:, :2] + cells) * stride
    sizes = np.exp(np.minimum(claims[:, _BOX][:, 2:], _LARGEST_EXPONENT)) * stride
    points = (claims[:, _POINTS].reshape(-1, 5, 2) + cells[:, None]) * stride
    return np.concatenate(
        [
            middles - sizes / 2,
            sizes,
            confidence[rows, columns][:, None],
            points.reshape(-1, 10),
        ],
        axis=1,
    )


def distinct(found: Detections) -> Detections:
    """One row for each face, the most confident, and these first."""
    left = found[np.argsort(-found[:, 4], kind="stable")]
    kept = [np.empty((0, found.shape[1]))]
    while len(left):
        kept.append(left[:1])
        left = left[1:][~same(left[0], left[1:])]
    return np.concatenate(kept)


def same(one: npt.NDArray[np.float64], others: Detections) -> npt.NDArray[np.bool_]:
    low = np.maximum(one[:2], others[:, :2])
    high = np.minimum(one[:2] + one[2:4], others[:, :2] + others[:, 2:4])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    area, areas = np.prod(one[2:4]), np.prod(others[:, 2:4], axis=1)
    alike: npt.NDArray[np.bool_] = (shared > _SAME_IOU * (area + areas - shared)) | (
        shared > _SAME_INSIDE * np.minimum(area, areas)
    )
    return alike


def drawn_face() -> tuple[Picture, tuple[int, int]]:
    """A face made of ellipses, off the middle, and where its nose is."""
    canvas = np.full((240, 320, BYTES_PER_PIXEL), 200, np.uint8)
    x, y = 200, 110
    skin, dark, lips, white = (150, 180, 225), (40, 50, 70), (90, 90, 190), (245, 245, 245)
    cv2.ellipse(canvas, (x, y - 12), (50, 62), 0, 180, 360, dark, -1)
    cv2.ellipse(canvas, (x, y), (44, 60), 0, 0, 360, skin, -1)
    for side in (-1, 1):
        cv2.ellipse(canvas, (x + side * 18, y - 27), (11, 3), 0, 180, 360, dark, -1)
        cv2.ellipse(canvas, (x + side * 18, y - 15), (9, 5), 0, 0, 360, white, -1)
        cv2.circle(canvas, (x + side * 18, y - 15), 4, dark, -1)
    cv2.ellipse(canvas, (x, y + 8), (7, 4), 0, 0, 360, (120, 145, 190), -1)
    cv2.ellipse(canvas, (x, y + 30), (17, 6), 0, 0, 360, lips, -1)
    picture: Picture = cv2.GaussianBlur(canvas, (0, 0), 1.5).astype(np.uint8, copy=False)
    return picture, (x, y)
