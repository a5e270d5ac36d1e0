"""Movement on pictures drawn here: soft noise stands for a scene, and it may be moved or lit."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from validators.analysis.motion import Motion, cuts
from validators.facts import MotionFacts
from validators.policy import STANDARD

Grey = npt.NDArray[np.uint8]
WIDTH, HEIGHT = 640, 360


def scene(seed: int, *, left: int = 0, gain: float = 1.0) -> Grey:
    """A wide soft picture, seen from *left*."""
    random = np.random.default_rng(seed)
    rough = random.integers(20, 230, (12, 40)).astype(np.float32)
    wide = cv2.resize(rough, (WIDTH * 2, HEIGHT), interpolation=cv2.INTER_CUBIC)
    picture: Grey = np.clip(wide[:, left : left + WIDTH] * gain, 0, 255).astype(np.uint8)
    return picture


def measured(frames: list[Grey]) -> MotionFacts:
    motion = Motion()
    for frame in frames:
        motion.see(frame)
    return motion.facts(tuple(n / 25 for n in range(len(frames))))


def take(seed: int, count: int, *, speed: int = 2) -> list[Grey]:
    return [scene(seed, left=n * speed) for n in range(count)]


def test_every_frame_has_its_entry() -> None:
    facts = measured(take(1, 20))
    lengths = {len(x) for x in (facts.times_s, facts.change, facts.block_change, facts.luma)}
    assert lengths == {20}
    assert facts.change[0] == facts.block_change[0] == 0


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_next_to_nothing_is_no_error(frames: int) -> None:
    assert len(measured(take(1, frames)).times_s) == frames


@pytest.mark.parametrize("size", [(2, 2), (640, 2), (64, 640)])
def test_any_shape_is_compared(size: tuple[int, int]) -> None:
    frames = [np.full(size, level, np.uint8) for level in (0, 255, 0)]
    assert measured(frames).change == (0, 255, 255)


@pytest.mark.parametrize("length", [1, 2, 3, 12])
def test_a_cutaway_of_any_length_is_two_cuts(length: int) -> None:
    frames = [*take(1, 20), *take(2, length), *take(1, 20)]
    assert [cut.number for cut in measured(frames).cuts] == [20, 20 + length]


def test_a_cut_says_when_its_first_frame_shows() -> None:
    (cut,) = measured([*take(1, 20), *take(2, 20)]).cuts
    assert (cut.number, cut.time_s) == (20, 0.8)


@pytest.mark.parametrize(
    "frames",
    [
        take(1, 40, speed=12),
        [*take(1, 20), *(scene(1, left=40 + n * 2, gain=1.15) for n in range(20))],
        [scene(1, left=40 if n < 20 else 76) for n in range(40)],
        [scene(1, gain=1 - 0.03 * n) for n in range(30)],
        [scene(1, left=(n // 5) * 137 % 600) for n in range(120)],
    ],
    ids=["pan", "light", "jolt", "fade", "repeated frames"],
)
def test_what_moves_the_whole_picture_is_no_cut(frames: list[Grey]) -> None:
    limit = STANDARD.scene_cut_fail - STANDARD.scene_cut_margin
    assert not [cut for cut in measured(frames).cuts if cut.score > limit]


def test_jolts_without_end_are_no_camera_s() -> None:
    """Looking for each costs as much as a hundred frames, and a hostile medium has a thousand."""
    motion = Motion()
    for n in range(120):
        motion.see(scene(1, left=40 if n // 20 % 2 else 78))
    assert len(cuts(motion.thumbs, examined=5)) == 0
    assert len(cuts(motion.thumbs, examined=2)) == 3


def test_a_picture_that_stands_still_changes_nowhere() -> None:
    facts = measured([scene(1)] * 10)
    assert max(facts.block_change) == 0


def test_one_part_that_moves_is_seen_in_its_block() -> None:
    after = scene(1).copy()
    part = after[90:180, 120:200]
    part[:] = np.where(part < 128, part + 20, part - 20)
    facts = measured([scene(1), after])
    assert facts.block_change[1] > 10
    assert facts.change[1] < 1


def test_black_is_measured_by_its_share() -> None:
    half = np.zeros((HEIGHT, WIDTH), np.uint8)
    half[:, WIDTH // 2 :] = 200
    assert measured([half, np.zeros_like(half)]).dark == (0.5, 1.0)


def looked(before: Grey) -> Motion:
    motion = Motion()
    motion.see(before)
    motion.look()
    return motion


def with_patch(side: int, at: tuple[int, int] = (100, 400)) -> Grey:
    """The scene with a stranger of *side* pixels."""
    picture = scene(1).copy()
    part = picture[at[0] : at[0] + side, at[1] : at[1] + side]
    part[:] = np.where(part < 128, 220, 30)
    return picture


def test_the_first_frame_is_news() -> None:
    motion = Motion()
    motion.see(scene(1))
    assert motion.news().anything
    assert motion.news().face


def test_an_inset_a_twelfth_of_the_height_is_news() -> None:
    motion = looked(scene(1))
    motion.see(with_patch(HEIGHT // 12))
    assert motion.news().anything
    assert not motion.news().face


def test_the_same_picture_is_no_news_however_slowly_it_came_back() -> None:
    motion = looked(scene(1))
    for _ in range(5):
        motion.see(scene(1))
    assert not motion.news().anything


def test_what_comes_slowly_is_news_in_the_end() -> None:
    motion = looked(scene(1))
    fading = [scene(1) * (1 - a) + with_patch(80) * a for a in np.linspace(0, 1, 30)]
    heard = []
    for frame in fading:
        motion.see(frame.astype(np.uint8))
        heard.append(motion.news().anything)
    assert not heard[1]
    assert heard[-1]


def test_a_face_that_talks_is_no_news_but_another_face_is() -> None:
    face = (0.5, 0.2, 0.8, 0.6)
    motion = looked(scene(1))
    talking = scene(1).copy()
    talking[100:160, 380:460] = np.clip(talking[100:160, 380:460].astype(int) + 40, 0, 255)
    motion.see(talking)
    assert motion.news().anything
    assert not motion.news(face).anything
    other = with_patch(120)
    motion.see(other)
    assert motion.news(face).face
