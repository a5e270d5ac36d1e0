"""The real embedding network, against dlib's own answer for the same pixels."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from validators.analysis import weights
from validators.analysis.models.face_detector import LANDMARKS, Detector, Picture, drawn_face
from validators.analysis.models.identity import CHIP_SIDE, Identity, Landmarks, chip_of, distance

PORTRAIT = Path(__file__).parent.parent.parent / "samples/portrait.jpg"

# Every eighth number of `face_recognition_model_v1.compute_face_descriptor` of dlib-bin
# 20.0.1.post1, with face_recognition_models 0.3.0, of rows 42 to 192 and columns 148 to 298 of the
# portrait, as RGB.
DLIB = [-0.0953, 0.0501, -0.0974, -0.1326, -0.1387, -0.2218, 0.1332, 0.0178]
DLIB += [0.1573, -0.1529, -0.0165, 0.2252, -0.1198, -0.1848, 0.1548, -0.0517]

SAME_PERSON = 0.45  # 236 frames of 31 clips stayed within 0.35 of their clip's median


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity(weights.path_of("dlib_face_recognition.onnx"))


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(weights.path_of("libfacedetection.onnx"))


def portrait() -> Picture:
    picture = cv2.imread(str(PORTRAIT))
    assert picture is not None
    return picture.astype(np.uint8, copy=False)


def moved(picture: Picture, *, degrees: float, scale: float) -> Picture:
    middle = picture.shape[1] / 2, picture.shape[0] / 2
    motion = cv2.getRotationMatrix2D(middle, degrees, scale)
    return cv2.warpAffine(picture, motion, (512, 512)).astype(np.uint8, copy=False)


def dots(scale: float, degrees: float) -> tuple[Picture, Landmarks]:
    """White dots where the five points of a face would be, turned and scaled around the middle."""
    turn = scale * np.exp(1j * np.radians(degrees))
    home = np.array([-27.3 - 29.7j, 27.3 - 29.7j, 0 + 2.8j, -23.7 + 28.2j, 23.7 + 28.2j])
    points: npt.NDArray[np.complex128] = 400 + 400j + home * turn
    canvas = np.zeros((800, 800, 3), np.uint8)
    for point in points:
        at = round(point.real), round(point.imag)
        cv2.circle(canvas, at, max(1, round(3 * scale)), (255, 255, 255), -1)
    return canvas, np.stack([points.real, points.imag], axis=1).ravel()


def test_it_says_what_dlib_says(identity: Identity) -> None:
    embedding = identity.embed_chip(portrait()[42:192, 148:298])
    assert embedding.shape == (128,)
    assert embedding.dtype == np.float32
    assert embedding[::8] == pytest.approx(np.array(DLIB), abs=5e-4)


@pytest.mark.parametrize(("scale", "degrees"), [(0.5, 0), (1, 30), (3, -20), (6, 0)])
def test_a_face_of_any_size_and_tilt_is_put_in_the_same_place(scale: float, degrees: float) -> None:
    chip = chip_of(*dots(scale, degrees))
    assert chip.shape == (CHIP_SIDE, CHIP_SIDE, 3)
    for x, y in [(47, 45), (102, 45), (75, 77), (51, 103), (98, 103)]:
        assert chip[y - 1 : y + 2, x - 1 : x + 2].mean() > 200
    assert chip.mean() < 15


@pytest.mark.parametrize(("degrees", "scale"), [(0, 0.6), (15, 1.0), (-15, 1.4)])
def test_one_person_stays_close_however_the_camera_stands(
    identity: Identity, detector: Detector, degrees: float, scale: float
) -> None:
    one, other = portrait(), moved(portrait(), degrees=degrees, scale=scale)
    embeddings = [
        identity.embed(picture, detector.search(picture)[0, LANDMARKS]) for picture in (one, other)
    ]
    assert distance(*embeddings) < SAME_PERSON


def test_another_face_is_far(identity: Identity, detector: Detector) -> None:
    drawn, _ = drawn_face()
    embeddings = [
        identity.embed(picture, detector.detect(picture)[0, LANDMARKS])
        for picture in (portrait(), drawn)
    ]
    assert distance(*embeddings) > SAME_PERSON + 0.15


def test_what_lies_outside_the_picture_is_black() -> None:
    white = np.full((100, 100, 3), 255, np.uint8)
    _, points = dots(1, 0)
    chip = chip_of(white, points - 400)  # the face's middle is the picture's corner
    assert chip[:60, :60].max() == 0
    assert chip[90:, 90:].min() == 255


def test_a_large_face_is_averaged_and_not_picked_at() -> None:
    """Or the noise of every fourth pixel would stand for the face."""
    noise = np.random.default_rng(1).integers(0, 256, (800, 800, 3), np.uint8)
    assert chip_of(noise, dots(6, 0)[1])[40:110, 40:110].std() < 25
