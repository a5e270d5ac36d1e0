"""The real mesh on the portrait of the samples, turned, cut, blurred and lit in known ways."""

import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.facts import VIDEO, the
from validators.analysis import weights
from validators.analysis.models.face_detector import LANDMARKS, Detector
from validators.analysis.models.face_mesh import Mesh, half_turn
from validators.facts import FaceFacts, FaceLook, FrameFacts
from validators.media.sandbox import tool_name
from validators.policy import STANDARD
from validators.verdict import Code, Outcome

Picture = npt.NDArray[np.uint8]

SAMPLES = Path(__file__).parents[2] / "samples"
BOX = np.array([179.0, 63.0, 89.0, 112.0])  # of the face in portrait.jpg
CLIP_SIDE = 512  # of one_person.mp4


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    missing = weights.missing()
    if missing:
        pytest.skip(f"{weights.WeightsMissingError(missing)}: the face mesh was NOT checked")
    return Mesh(weights.path_of("face_landmark.tflite"))


@pytest.fixture(scope="module")
def portrait() -> Picture:
    return np.asarray(cv2.imread(str(SAMPLES / "portrait.jpg")), np.uint8)


def look(mesh: Mesh, picture: npt.ArrayLike, box: npt.ArrayLike = BOX) -> FaceLook:
    seen = mesh.look(np.ascontiguousarray(np.clip(picture, 0, 255), np.uint8), box)
    assert seen is not None
    return seen


def tilted(picture: Picture, clockwise_deg: float) -> Picture:
    middle = (float(BOX[0] + BOX[2] / 2), float(BOX[1] + BOX[3] / 2))
    turn = cv2.getRotationMatrix2D(middle, -clockwise_deg, 1)
    return np.asarray(
        cv2.warpAffine(picture, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def rolled_over(picture: Picture, *, right_deg: float = 0, down_deg: float = 0) -> Picture:
    """The face as if painted on a barrel that then rolls to the right or down."""
    x0, y0 = BOX[0] + BOX[2] / 2, BOX[1] + BOX[3] / 2
    rows, columns = np.mgrid[0:512, 0:512].astype(np.float64)

    def source(
        at: npt.NDArray[np.float64], radius: float, by_deg: float
    ) -> npt.NDArray[np.float64]:
        angle = np.arcsin(np.clip(at / radius, -1, 1)) - np.radians(by_deg)
        rolled = radius * np.sin(angle)
        return np.where(np.abs(at) < radius, rolled, at)

    x = source(columns - x0, BOX[2] * 0.65, right_deg) + x0
    y = source(rows - y0, BOX[3] * 0.65, down_deg) + y0
    turned = cv2.remap(picture, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    return np.asarray(turned, np.uint8)


def blurred(picture: Picture, sigma: float) -> Picture:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)


def resized(picture: Picture, side: int) -> Picture:
    how = cv2.INTER_AREA if side < picture.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (side, side), interpolation=how), np.uint8)


def test_a_frontal_portrait_is_seen_as_one(mesh: Mesh, portrait: Picture) -> None:
    seen = look(mesh, portrait)
    assert seen.presence > 0.999
    assert max(abs(seen.yaw_deg), abs(seen.pitch_deg), abs(seen.roll_deg)) < 8
    assert 0 < seen.mouth_open < 0.12
    assert 0.15 < seen.eyes_open < 0.35
    assert seen.sharpness > STANDARD.blurry_warn
    assert STANDARD.too_dark_warn < seen.luma < 0.9
    assert (seen.burnt, seen.black, seen.outside) == (0, 0, 0)


def test_where_nothing_is_no_face_is_certain(mesh: Mesh) -> None:
    assert look(mesh, np.full((512, 512, 3), 127)).presence < 0.5


def test_a_box_without_area_shows_nothing(mesh: Mesh, portrait: Picture) -> None:
    assert mesh.look(portrait, [10, 10, 0.4, 30]) is None


@pytest.mark.parametrize("clockwise_deg", [-150, -90, -60, -25, 25, 60, 90, 150, 180])
def test_a_tilt_is_measured_all_the_way_round(
    mesh: Mesh, portrait: Picture, clockwise_deg: float
) -> None:
    upright, seen = look(mesh, portrait), look(mesh, tilted(portrait, clockwise_deg))
    assert seen.presence > 0.999
    assert abs(half_turn(seen.roll_deg - upright.roll_deg - clockwise_deg)) < 10
    assert abs(seen.yaw_deg - upright.yaw_deg) < 6


def test_landmarks_turn_the_crop(mesh: Mesh, portrait: Picture) -> None:
    eyes_to_mouth = np.array([[200, 102], [247, 102], [220, 124], [198, 142], [239, 143]], float)
    with_them = mesh.look(portrait, BOX, eyes_to_mouth)
    assert with_them is not None
    assert with_them.roll_deg == pytest.approx(look(mesh, portrait).roll_deg, abs=4)


def test_a_turned_face_is_told_by_its_direction(mesh: Mesh, portrait: Picture) -> None:
    right, left = (look(mesh, rolled_over(portrait, right_deg=by)).yaw_deg for by in (25, -25))
    up, down = (look(mesh, rolled_over(portrait, down_deg=by)).pitch_deg for by in (-25, 25))
    assert right > left + 8
    assert up > down + 4


def test_sharpness_falls_with_blur(mesh: Mesh, portrait: Picture) -> None:
    values = [look(mesh, blurred(portrait, sigma)).sharpness for sigma in (0.5, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > STANDARD.blurry_warn > values[2]


def test_sharpness_does_not_know_contrast_or_noise(mesh: Mesh, portrait: Picture) -> None:
    plain = look(mesh, portrait).sharpness
    assert look(mesh, portrait * 0.4 + 80).sharpness == pytest.approx(plain, abs=0.04)
    noise = np.random.default_rng(1).normal(0, 6, portrait.shape)
    assert look(mesh, portrait + noise).sharpness == pytest.approx(plain, abs=0.04)
    smeared = blurred(portrait, 3) + noise
    assert look(mesh, smeared).sharpness < plain - 0.1


def test_a_small_face_blown_up_is_as_blurred_as_it_was(mesh: Mesh, portrait: Picture) -> None:
    small = resized(portrait, 128)
    before, after = look(mesh, small, BOX / 4), look(mesh, resized(small, 512))
    assert after.sharpness == pytest.approx(before.sharpness, abs=0.05)
    assert look(mesh, portrait).sharpness > after.sharpness + 0.1


@pytest.mark.parametrize("side", [768, 1024, 2048])
def test_a_larger_copy_measures_the_same(mesh: Mesh, portrait: Picture, side: int) -> None:
    plain, large = look(mesh, portrait), look(mesh, resized(portrait, side), BOX * side / 512)
    assert large.sharpness == pytest.approx(plain.sharpness, abs=0.06)
    assert large.yaw_deg == pytest.approx(plain.yaw_deg, abs=4)
    assert large.luma == pytest.approx(plain.luma, abs=0.02)


def test_exposure_is_measured_on_the_skin(mesh: Mesh, portrait: Picture) -> None:
    dark, bright = look(mesh, portrait * 0.2), look(mesh, portrait * 2.2 + 40.0)
    assert dark.luma < STANDARD.too_dark_warn
    assert dark.burnt == 0
    assert bright.burnt > 0.9
    assert look(mesh, portrait * 0.05).black > 0.5


def test_a_dark_room_does_not_darken_the_face(mesh: Mesh, portrait: Picture) -> None:
    lit = np.zeros(portrait.shape[:2], np.float64)
    cv2.ellipse(lit, (223, 119), (62, 76), 0, 0, 360, 1, -1)
    room = portrait * (0.05 + 0.95 * lit[..., None])
    assert look(mesh, room).luma == pytest.approx(look(mesh, portrait).luma, abs=0.03)


@pytest.mark.parametrize(("at", "share"), [(0.5, 0.5), (0.25, 0.25)])
def test_what_the_edge_cuts_off_is_a_share_of_the_face(
    mesh: Mesh, portrait: Picture, at: float, share: float
) -> None:
    x = int(BOX[0] + at * BOX[2])
    visible = [0, BOX[1], BOX[0] + BOX[2] - x, BOX[3]]
    seen = look(mesh, portrait[:, x:], visible)
    assert seen.presence > 0.99
    assert seen.outside == pytest.approx(share, abs=0.15)


def frames_of(clip: Path) -> npt.NDArray[np.uint8]:
    """(n, 512, 512, 3): 2.5 a second."""
    command = [tool_name("ffmpeg"), "-v", "error", "-i", str(clip), "-vf", "fps=2.5"]
    raw = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "bgr24", "-"], check=True, stdout=subprocess.PIPE
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, CLIP_SIDE, CLIP_SIDE, 3)


def test_a_clip_of_one_frame_has_a_still_mouth(mesh: Mesh) -> None:
    detector = Detector(weights.path_of("libfacedetection.onnx"))
    first = frames_of(SAMPLES / "one_person.mp4")[0]
    row = detector.search(first)[0]
    assert VIDEO.faces is not None
    still = tuple(
        FrameFacts(
            time_s=n / 2.5,
            faces=VIDEO.faces.frames[0].faces,
            look=mesh.look(first, row[:4], row[LANDMARKS].reshape(5, 2)),
        )
        for n in range(25)
    )
    facts = replace(VIDEO, faces=FaceFacts(frames=still, interval_s=0.4))
    finding = the(Code.STILL_MOUTH, facts)
    assert (finding.outcome, finding.value) == (Outcome.WARN, 0)
