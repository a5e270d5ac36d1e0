from dataclasses import replace

import pytest

from tests.facts import MOTION, VIDEO
from validators.checks.motion import motion
from validators.facts import Cut, Facts, MotionFacts
from validators.policy import STANDARD
from validators.verdict import Code, Finding, Outcome


def finding(code: Code, facts: Facts) -> Finding:
    (found,) = [each for each in motion(facts, STANDARD) if each.code is code]
    return found


def moving(
    *,
    block_change: tuple[float, ...] = MOTION.block_change,
    dark: tuple[float, ...] = MOTION.dark,
    cuts: tuple[Cut, ...] = (),
) -> Facts:
    return replace(VIDEO, motion=replace(MOTION, block_change=block_change, dark=dark, cuts=cuts))


def still(first: int, last: int, level: float = 0.5) -> Facts:
    """Frames *first* up to *last* repeat the one before them, but for *level*."""
    steps = [level if first <= n < last else 6.0 for n in range(250)]
    return moving(block_change=(0.0, *steps[1:]))


def black(first: int, last: int, share: float = 0.98) -> Facts:
    return moving(dark=tuple(share if first <= n < last else 0.1 for n in range(250)))


@pytest.mark.parametrize("code", [Code.SCENE_CUT, Code.FROZEN_VIDEO, Code.BLACK_FRAMES])
def test_a_living_take_passes(code: Code) -> None:
    assert finding(code, VIDEO).outcome is Outcome.PASS


@pytest.mark.parametrize("code", [Code.SCENE_CUT, Code.FROZEN_VIDEO, Code.BLACK_FRAMES])
@pytest.mark.parametrize("measured", [None, replace(MOTION, times_s=())])
def test_nothing_compared_is_skipped(code: Code, measured: MotionFacts | None) -> None:
    assert finding(code, replace(VIDEO, motion=measured)).outcome is Outcome.SKIPPED


@pytest.mark.parametrize(
    ("score", "outcome"),
    [
        (4.99, Outcome.PASS),
        (5.0, Outcome.PASS),
        (5.01, Outcome.UNCERTAIN),
        (7.0, Outcome.UNCERTAIN),
        (7.01, Outcome.FAIL),
    ],
)
def test_a_cut_is_doubtful_within_its_margin(score: float, outcome: Outcome) -> None:
    found = finding(Code.SCENE_CUT, moving(cuts=(Cut(time_s=4.0, score=score, number=100),)))
    assert found.outcome is outcome
    assert found.value == round(score, 3)


def test_each_cut_is_told_from_the_frame_before_it() -> None:
    cuts = (Cut(time_s=4.0, score=30, number=100), Cut(time_s=4.12, score=4.5, number=103))
    found = finding(Code.SCENE_CUT, moving(cuts=cuts))
    assert found.ranges == ((3.96, 4.0),)
    assert "4.0 s" in found.message


@pytest.mark.parametrize(
    ("frames", "outcome", "seconds"),
    [
        (12, Outcome.PASS, 0),  # 0.48 s is a repeated frame
        (13, Outcome.WARN, 0.52),
        (25, Outcome.WARN, 1.0),
        (26, Outcome.FAIL, 1.04),
    ],
)
def test_standing_still_counts_by_its_length(frames: int, outcome: Outcome, seconds: float) -> None:
    found = finding(Code.FROZEN_VIDEO, still(100, 100 + frames))
    assert found.outcome is outcome
    assert found.value == pytest.approx(seconds, abs=0.001)
    assert found.ranges == (() if outcome is Outcome.PASS else ((4.0, 4.0 + seconds),))


@pytest.mark.parametrize(
    ("gap_s", "outcome"), [(0.4, Outcome.PASS), (0.6, Outcome.WARN), (1.2, Outcome.FAIL)]
)
def test_a_frame_that_stays_is_a_standstill(gap_s: float, outcome: Outcome) -> None:
    """However much the next one differs."""
    times = tuple(at + (gap_s if n >= 100 else 0) for n, at in enumerate(MOTION.times_s))
    held = replace(VIDEO, motion=replace(MOTION, times_s=times))
    assert finding(Code.FROZEN_VIDEO, held).outcome is outcome


def test_a_little_movement_is_no_standstill() -> None:
    assert finding(Code.FROZEN_VIDEO, still(50, 200, level=0.51)).outcome is Outcome.PASS


def test_standstills_add_up() -> None:
    steps = tuple(0.1 if n % 50 >= 25 else 6.0 for n in range(250))
    found = finding(Code.FROZEN_VIDEO, moving(block_change=steps))
    assert found.outcome is Outcome.FAIL
    assert len(found.ranges) == 5


@pytest.mark.parametrize(
    ("frames", "outcome"),
    [(2, Outcome.PASS), (3, Outcome.WARN), (12, Outcome.WARN), (13, Outcome.FAIL)],
)
def test_black_counts_by_its_length(frames: int, outcome: Outcome) -> None:
    assert finding(Code.BLACK_FRAMES, black(0, frames)).outcome is outcome


def test_a_dark_room_is_not_black() -> None:
    assert finding(Code.BLACK_FRAMES, black(0, 250, share=0.97)).outcome is Outcome.PASS


def test_the_last_frame_lasts_until_the_video_ends() -> None:
    found = finding(Code.BLACK_FRAMES, black(245, 250))
    assert found.ranges == ((9.8, 10.0),)
