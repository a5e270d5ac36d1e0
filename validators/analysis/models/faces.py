"""Faces in bgr24 frames: libfacedetection finds them, BlazeFace says whether they are faces."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from validators.analysis.models.face_detector import (
    CERTAIN,
    Detections,
    Detector,
    Picture,
    same,
)
from validators.analysis.weights import path_of
from validators.facts import Face

Row = npt.NDArray[np.float64]  # (15,): one of the detector's
Edges = tuple[float, float, float, float]  # left, top, right, bottom: shares of the frame

MAX_FACES = 8  # listed for a frame, largest first; a crowd needs no census
CONFIRMED_FACES = 4  # of them, asked about a second time

_CONFIRMED = 0.62  # of the second network: no face of 159 scored below 0.72, no animal over 0.60

_CROP = 2.5  # sides of the box that the second network is shown
_CONFIRM_SIDE, _CONFIRM_STRIDE = 192, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """The faces of one picture, and the row of the main one, in pixels."""

    faces: tuple[Face, ...]
    main: Row | None = None  # the largest that the detector is certain of
    largest: Row | None = None  # the main one, or where none is certain the largest at all
    confirmed: bool = False  # whether the main face was confirmed on this picture
    trusted: bool = False  # whether it was, or is where one was confirmed lately


class Faces:
    """Not to be shared between threads."""

    def __init__(self, models_dir: Path | None) -> None:
        cv2.setNumThreads(1)
        self._detector = Detector(path_of("libfacedetection.onnx"))
        self._confirmation = Confirmation(path_of("face_detection_full_range.tflite", models_dir))

    def look(
        self, picture: Picture, *, known: Edges | None = None, quickly: bool = False
    ) -> Sighting:
        """*known*: where a face was confirmed lately, so that a main face there need not be."""
        rows = largest_first(self._detector.search(picture, quickly=quickly))[:MAX_FACES]
        main = next((at for at, row in enumerate(rows) if row[4] >= CERTAIN), None)
        settled = main if main is not None and _stays(edges(rows[main], picture), known) else None
        asked = [at for at in range(len(rows)) if at < CONFIRMED_FACES or at == main]
        scores = {
            at: self._confirmation.of(picture, rows[at].tolist()) for at in asked if at != settled
        }
        confirmed = main is not None and scores.get(main, 0.0) >= _CONFIRMED
        return Sighting(
            faces=tuple(_face(row, picture, scores.get(at)) for at, row in enumerate(rows)),
            main=None if main is None else rows[main],
            largest=rows[main or 0] if len(rows) else None,
            confirmed=confirmed,
            trusted=confirmed or settled is not None,
        )


def edges(row: Row, picture: Picture) -> Edges:
    """Left, top, right and bottom of a face, as shares of the frame."""
    height, width = picture.shape[:2]
    left, top, wide, high = (float(value) for value in row[:4])
    return left / width, top / height, (left + wide) / width, (top + high) / height


def _face(row: Row, picture: Picture, confirmation: float | None) -> Face:
    """Shares are rounded to what a box is good for: a crowd over many frames is a long answer."""
    height, width = picture.shape[:2]
    return Face(
        left=round(float(row[0]) / width, 4),
        top=round(float(row[1]) / height, 4),
        width=round(float(row[2]) / width, 4),
        height=round(float(row[3]) / height, 4),
        confidence=round(float(row[4]), 3),
        confirmation=None if confirmation is None else round(confirmation, 3),
    )


def _stays(now: Edges, known: Edges | None) -> bool:
    if known is None:
        return False
    one, other = (np.array([e[0], e[1], e[2] - e[0], e[3] - e[1]]) for e in (now, known))
    return bool(same(one, other[None])[0])


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


def largest_first(found: Detections) -> Detections:
    return found[np.argsort(-found[:, 2] * found[:, 3], kind="stable")]


def _normalised(square: Picture) -> npt.NDArray[Any]:
    return (square[None, :, :, ::-1].astype(np.float32) / 127.5) - 1
