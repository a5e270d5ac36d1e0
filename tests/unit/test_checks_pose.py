from dataclasses import replace

import pytest

from tests.facts import FACE, FRAMES, IMAGE, LOOK, VIDEO, the
from validators.checks.seen import NOT_CLOSE
from validators.facts import FaceFacts, FaceLook, Facts, FrameFacts
from validators.verdict import Code, Outcome


def looking(*looks: FaceLook) -> Facts:
    """As many frames as *looks*, evenly over ten seconds."""
    every_s = 10 / len(looks)
    frames = tuple(
        FrameFacts(time_s=n * every_s, faces=(FACE,), look=look) for n, look in enumerate(looks)
    )
    return replace(VIDEO, faces=FaceFacts(frames=frames, interval_s=every_s))


def test_a_face_that_looks_into_the_camera_passes() -> None:
    finding = the(Code.FACE_TURNED, VIDEO)
    assert (finding.outcome, finding.value, finding.ranges) == (Outcome.PASS, 0, ())


@pytest.mark.parametrize(
    ("look", "outcome"),
    [
        (replace(LOOK, yaw_deg=26), Outcome.PASS),
        (replace(LOOK, yaw_deg=-26.1), Outcome.WARN),
        (replace(LOOK, yaw_deg=39), Outcome.WARN),
        (replace(LOOK, yaw_deg=-39.1), Outcome.UNCERTAIN),
        (replace(LOOK, yaw_deg=45), Outcome.UNCERTAIN),
        (replace(LOOK, yaw_deg=45.1), Outcome.FAIL),
        (replace(LOOK, pitch_deg=30), Outcome.PASS),
        (replace(LOOK, pitch_deg=30.1), Outcome.WARN),
        (replace(LOOK, pitch_deg=45.1), Outcome.FAIL),
        (replace(LOOK, pitch_deg=-20), Outcome.PASS),
        (replace(LOOK, pitch_deg=-20.1), Outcome.WARN),
        (replace(LOOK, pitch_deg=-38.1), Outcome.FAIL),
        (replace(LOOK, roll_deg=-26), Outcome.PASS),
        (replace(LOOK, roll_deg=26.1), Outcome.WARN),
        (replace(LOOK, roll_deg=-48.1), Outcome.FAIL),
        (replace(LOOK, roll_deg=180), Outcome.FAIL),
    ],
)
def test_each_direction_has_its_limits(look: FaceLook, outcome: Outcome) -> None:
    assert the(Code.FACE_TURNED, looking(look)).outcome is outcome
    frame = FrameFacts(time_s=0, faces=(FACE,), look=look)
    still = replace(IMAGE, faces=FaceFacts(frames=(frame,), interval_s=0))
    assert the(Code.FACE_TURNED, still).outcome is outcome


ASIDE = replace(LOOK, yaw_deg=50)


@pytest.mark.parametrize(
    ("turned", "outcome"), [(10, Outcome.PASS), (11, Outcome.FAIL), (40, Outcome.FAIL)]
)
def test_a_head_may_turn_for_a_quarter_of_the_time(turned: int, outcome: Outcome) -> None:
    facts = looking(*[ASIDE] * turned, *[LOOK] * (40 - turned))
    finding = the(Code.FACE_TURNED, facts)
    assert finding.outcome is outcome
    assert finding.ranges == (((0, turned / 4),) if outcome is Outcome.FAIL else ())


def test_a_look_counts_for_as_long_as_its_frame_stands() -> None:
    frames = [FrameFacts(time_s=n / 100, faces=(FACE,), look=ASIDE) for n in range(50)]
    frames += [FrameFacts(time_s=0.5, faces=(FACE,), look=LOOK)]
    facts = replace(VIDEO, faces=FaceFacts(frames=tuple(frames), interval_s=0.4))
    assert the(Code.FACE_TURNED, facts).outcome is Outcome.PASS


def test_a_look_stands_until_the_next_look_or_until_the_face_is_gone() -> None:
    """Frames that are only searched for faces lie between the looks."""
    pattern = [(ASIDE, FACE), (None, FACE), (None, FACE), (None, None), (LOOK, FACE)]
    frames = tuple(
        FrameFacts(time_s=n, faces=() if face is None else (face,), look=look)
        for n, (look, face) in enumerate(pattern)
    )
    facts = replace(VIDEO, faces=FaceFacts(frames=frames, interval_s=1))
    finding = the(Code.FACE_TURNED, facts)
    assert (finding.outcome, finding.ranges) == (Outcome.FAIL, ((0, 3),))


def test_the_worst_direction_is_told() -> None:
    finding = the(Code.FACE_TURNED, looking(replace(LOOK, yaw_deg=30, pitch_deg=-50)))
    assert (finding.value, finding.limit, finding.unit) == (50, 35, "deg")
    assert "50° down" in finding.message


def test_a_look_without_a_face_says_nothing() -> None:
    nobody = replace(ASIDE, presence=0.5)
    assert the(Code.FACE_TURNED, looking(LOOK, nobody)).outcome is Outcome.PASS
    assert the(Code.FACE_TURNED, looking(nobody)).message == NOT_CLOSE


def test_without_a_face_there_is_no_pose() -> None:
    nobody = tuple(replace(frame, faces=(), look=None) for frame in FRAMES)
    finding = the(Code.FACE_TURNED, replace(VIDEO, faces=FaceFacts(frames=nobody, interval_s=0.2)))
    assert finding.outcome is Outcome.SKIPPED
    assert "no_face" in finding.message
