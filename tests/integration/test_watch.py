"""The real networks on videos laid out frame by frame: who shows for how long, and who is new."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from validators.analysis import weights
from validators.analysis.models.engines import Engines
from validators.analysis.models.face_detector import Picture
from validators.analysis.watch import SAVED_LOOKS, Sight, watch
from validators.analysis.wire import FrameStream
from validators.facts import FrameFacts

WIDTH, HEIGHT, PER_S = 640, 360, 25
STREAM = FrameStream(width=WIDTH, height=HEIGHT, per_s=PER_S)


@pytest.fixture(scope="module")
def engines() -> Engines:
    missing = weights.missing()
    if missing:
        pytest.skip(f"{weights.WeightsMissingError(missing)}: watching was NOT checked")
    return Engines(None)


SAMPLE = Path(__file__).parents[2] / "samples" / "portrait.jpg"
with Image.open(SAMPLE) as opened:
    PORTRAIT = np.asarray(opened.convert("RGB"))[:, :, ::-1]  # BGR
FACE_SHARE = 0.23  # of the portrait's height


def stage(*, second: float | None = None, first: bool = True) -> Picture:
    """The sample's person on the left; on the right again, their face *second* of the height."""
    canvas = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    if first:
        canvas[:, :HEIGHT] = cv2.resize(PORTRAIT, (HEIGHT, HEIGHT), interpolation=cv2.INTER_AREA)
    if second is not None:
        side = round(second * HEIGHT / FACE_SHARE)
        small = cv2.resize(PORTRAIT, (side, side), interpolation=cv2.INTER_AREA)
        room = canvas[20:, HEIGHT + 20 :]
        shown = room[:side, :side]
        shown[:] = small[: shown.shape[0], : shown.shape[1]]
    return canvas


def seen(engines: Engines, pictures: list[Picture]) -> Sight:
    frames = [cv2.cvtColor(p, cv2.COLOR_BGR2YUV_I420).tobytes() for p in pictures]
    return watch(frames, STREAM, engines)


def crowded(looks: tuple[FrameFacts, ...]) -> list[int]:
    return [look.number for look in looks if sum(f.confidence >= 0.6 for f in look.faces) > 1]


def test_a_quiet_picture_is_looked_at_when_it_is_due(engines: Engines) -> None:
    sight = seen(engines, [stage()] * 50)
    assert [look.number for look in sight.faces.frames] == [0, 10, 20, 30, 40]
    assert all(len(look.faces) == 1 for look in sight.faces.frames)
    assert sight.motion is not None
    assert len(sight.motion.times_s) == 50


@pytest.mark.parametrize("start", [11, 13, 17])
@pytest.mark.parametrize(("length", "height"), [(3, 0.10), (3, 0.2), (1, 0.3), (3, 0.07)])
def test_whoever_shows_for_a_moment_is_seen(
    engines: Engines, start: int, length: int, height: float
) -> None:
    pictures = [stage()] * 40
    pictures[start : start + length] = [stage(second=height)] * length
    assert start in crowded(seen(engines, pictures).faces.frames)


def test_a_second_face_of_a_twentieth_is_seen_when_it_stays(engines: Engines) -> None:
    pictures = [stage(second=0.05)] * 30
    assert len(crowded(seen(engines, pictures).faces.frames)) >= 3


def test_a_main_face_that_stays_is_confirmed_once_a_second(engines: Engines) -> None:
    looks = seen(engines, [stage()] * 75).faces.frames
    asked = [look.number for look in looks if look.faces[0].confirmation is not None]
    assert asked == [0, 30, 60]


def test_a_face_that_comes_elsewhere_is_confirmed_at_once(engines: Engines) -> None:
    pictures = [stage()] * 12 + [stage(first=False, second=0.4)] * 5
    looks = seen(engines, pictures).faces.frames
    (moved,) = [look for look in looks if look.number == 12]
    assert moved.faces[0].confirmation is not None


def test_one_person_is_never_a_stranger(engines: Engines) -> None:
    looks = seen(engines, [stage()] * 75).faces.frames
    taken = [look.stranger for look in looks if look.stranger is not None]
    assert len(taken) >= 2
    assert max(taken) < 0.01


def test_who_takes_the_place_of_the_first_is_known_again_at_once(engines: Engines) -> None:
    """Another face is made of the first: squeezed, mirrored, and lit from elsewhere."""
    other = cv2.resize(stage()[:, :HEIGHT], (HEIGHT, 240))[:, ::-1, ::-1]
    pictures = [stage() for _ in range(60)]
    for picture in pictures[33:38]:
        picture[:, :HEIGHT] = 200
        picture[60:300, :HEIGHT] = other
    looks = seen(engines, pictures).faces.frames
    taken = {look.number: look.stranger for look in looks if look.stranger is not None}
    assert 33 in taken
    assert taken[33] is not None
    assert taken[33] > max(s for n, s in taken.items() if s is not None and not 33 <= n < 38) + 0.05


def test_a_still_has_one_look_and_no_motion(engines: Engines) -> None:
    still = FrameStream(width=WIDTH, height=HEIGHT, per_s=0)
    sight = watch([stage().tobytes()], still, engines)
    (look,) = sight.faces.frames
    assert len(look.faces) == 1
    assert look.look is not None
    assert sight.motion is None


def test_a_slow_video_is_looked_at_frame_by_frame(engines: Engines) -> None:
    frames = [cv2.cvtColor(stage(), cv2.COLOR_BGR2YUV_I420).tobytes()] * 4
    slow = FrameStream(width=WIDTH, height=HEIGHT, per_s=1)
    assert len(watch(frames, slow, engines).faces.frames) == 4


def test_a_flicker_is_looked_at_forty_times_a_second_at_most(engines: Engines) -> None:
    dark, light = (np.full((HEIGHT, WIDTH, 3), level, np.uint8) for level in (20, 230))
    flicker = [cv2.cvtColor(p, cv2.COLOR_BGR2YUV_I420).tobytes() for p in (dark, light)] * 60
    fast = FrameStream(width=WIDTH, height=HEIGHT, per_s=120)
    looks = len(watch(flicker, fast, engines).faces.frames)
    assert looks == pytest.approx(40 + SAVED_LOOKS, abs=2)


def test_a_face_in_a_single_slow_frame_of_a_fast_clip_is_seen(engines: Engines) -> None:
    """Where rates vary, one frame of 240 a second on average may last a second."""
    pictures = [stage()] * 30
    pictures[21:23] = [stage(first=False), stage(second=0.3)]
    frames = [cv2.cvtColor(p, cv2.COLOR_BGR2YUV_I420).tobytes() for p in pictures]
    fast = FrameStream(width=WIDTH, height=HEIGHT, per_s=240)
    assert 22 in crowded(watch(frames, fast, engines).faces.frames)


def test_a_face_that_flickers_is_told_apart_twenty_times_a_second_at_most(
    engines: Engines,
) -> None:
    light, dark = stage(), stage() // 2
    frames = [cv2.cvtColor(p, cv2.COLOR_BGR2YUV_I420).tobytes() for p in (light, dark)] * 60
    fast = FrameStream(width=WIDTH, height=HEIGHT, per_s=120)
    looks = watch(frames, fast, engines).faces.frames
    taken = [look.number for look in looks if look.stranger is not None]
    assert 10 <= len(taken) <= 21
