"""The real networks on a drawn face: no picture of a person is needed to know that they work."""

import cv2
import numpy as np
import pytest

from validators.analysis import weights
from validators.analysis.models.face_detector import Picture, drawn_face
from validators.analysis.models.faces import MAX_FACES, Faces
from validators.facts import Face


@pytest.fixture(scope="module")
def faces() -> Faces:
    missing = weights.missing()
    if missing:
        pytest.skip(f"{weights.WeightsMissingError(missing)}: the face models were NOT checked")
    return Faces(None)


def found(faces: Faces, picture: Picture) -> tuple[Face, ...]:
    return faces.look(picture).faces


def placed(picture: Picture, *, scale: float, left: int, top: int, on: Picture) -> Picture:
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    on[top : top + small.shape[0], left : left + small.shape[1]] = small
    return on


def canvas(width: int, height: int) -> Picture:
    return np.full((height, width, 3), 200, np.uint8)


def test_a_face_is_found_where_it_is_and_confirmed(faces: Faces) -> None:
    picture, (x, y) = drawn_face()
    (face,) = found(faces, picture)
    assert face.left + face.width / 2 == pytest.approx(x / 320, abs=0.03)
    assert face.top + face.height / 2 == pytest.approx(y / 240, abs=0.05)
    assert face.height == pytest.approx(0.5, abs=0.1)
    assert face.confidence > 0.8
    assert face.confirmation is not None
    assert face.confirmation > 0.62


@pytest.mark.parametrize("long_side", [160, 320, 640, 1280])
def test_shares_of_the_frame_do_not_depend_on_its_size(faces: Faces, long_side: int) -> None:
    picture, _ = drawn_face()
    scale = long_side / 320
    scaled = cv2.resize(picture, None, fx=scale, fy=scale).astype(np.uint8, copy=False)
    (face,) = found(faces, scaled)
    (original,) = found(faces, picture)
    assert face.left == pytest.approx(original.left, abs=0.04)
    assert face.height == pytest.approx(original.height, abs=0.06)


def test_a_small_second_face_is_listed_after_the_large_one(faces: Faces) -> None:
    picture, _ = drawn_face()
    group = placed(picture, scale=2, left=0, top=0, on=canvas(1280, 720))
    group = placed(picture, scale=0.5, left=1000, top=500, on=group)
    large, small = found(faces, group)
    assert large.height > 3 * small.height
    assert small.left > 0.78
    assert small.height * 720 == pytest.approx(62, abs=15)


def test_a_face_that_fills_the_picture_is_found(faces: Faces) -> None:
    picture, (x, y) = drawn_face()
    close_up = cv2.resize(picture[y - 72 : y + 62, x - 50 : x + 50], (955, 1280))
    assert len(found(faces, close_up.astype(np.uint8, copy=False))) == 1


@pytest.mark.parametrize("size", [(64, 64), (640, 360), (1280, 1280), (2, 2), (1, 640), (639, 3)])
def test_an_empty_picture_of_any_shape_has_no_face(faces: Faces, size: tuple[int, int]) -> None:
    assert found(faces, canvas(*size)) == ()
    noise = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), np.uint8)
    assert [face for face in found(faces, noise) if (face.confirmation or 0) > 0.5] == []


def test_what_only_resembles_a_face_is_not_confirmed(faces: Faces) -> None:
    """A socket's two holes and slit, which the detector alone may or may not take for a face."""
    socket = canvas(320, 320)
    cv2.circle(socket, (160, 160), 90, (235, 235, 235), -1)
    for x in (130, 190):
        cv2.circle(socket, (x, 145), 12, (30, 30, 30), -1)
    cv2.ellipse(socket, (160, 200), (12, 18), 0, 0, 360, (30, 30, 30), -1)
    assert all((face.confirmation or 0) < 0.62 for face in found(faces, socket))


def test_a_neighbours_face_confirms_nobody_else(faces: Faces) -> None:
    picture, (x, y) = drawn_face()
    beside = [x - 160.0, y - 60.0, 90.0, 120.0, 0.9]  # an empty box within reach of the crop
    (face,) = found(faces, picture)
    assert face.confirmation is not None
    assert faces._confirmation.of(picture, beside) < 0.5 < face.confirmation


def test_a_crowd_is_listed_up_to_its_largest(faces: Faces) -> None:
    picture, _ = drawn_face()
    crowd = canvas(1280, 1200)
    for row in range(5):
        for column in range(4):
            crowd = placed(picture, scale=1, left=column * 320, top=row * 240, on=crowd)
    listed = found(faces, crowd)
    assert len(listed) == MAX_FACES
    areas = [face.width * face.height for face in listed]
    assert areas == pytest.approx(sorted(areas, reverse=True))
