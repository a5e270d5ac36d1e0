from dataclasses import replace

import pytest

from tests.facts import FACE, LOOK, VIDEO, the
from validators.checks.identity import TOO_FEW
from validators.facts import FaceFacts, Facts, FrameFacts
from validators.policy import STANDARD
from validators.verdict import Code, Outcome


def sampled(*distances: float) -> Facts:
    """One distance every 2 s, between frames whose identity was not taken."""
    frames = [
        FrameFacts(
            time_s=2 * n + part,
            faces=(FACE,),
            stranger=distance if part == 0 else None,
        )
        for n, distance in enumerate(distances)
        for part in (0, 1)
    ]
    return replace(VIDEO, faces=FaceFacts(frames=tuple(frames), interval_s=1))


LIMIT = STANDARD.different_person
PAST, CLEAR = LIMIT + 0.001, LIMIT + STANDARD.different_person_margin
NEAR = 0.2


@pytest.mark.parametrize(
    ("distances", "outcome"),
    [
        ((NEAR, LIMIT, LIMIT, NEAR), Outcome.PASS),
        ((NEAR, PAST, NEAR, PAST), Outcome.UNCERTAIN),
        ((NEAR, CLEAR, NEAR, NEAR), Outcome.UNCERTAIN),
        ((NEAR, PAST, PAST, NEAR), Outcome.FAIL),
        ((NEAR, CLEAR + 0.001, NEAR, NEAR), Outcome.FAIL),
    ],
    ids=["at the limit", "single ones past it", "close to it", "a run past it", "a clear one"],
)
def test_a_run_or_a_clear_sample_is_another_person(
    distances: tuple[float, ...], outcome: Outcome
) -> None:
    finding = the(Code.DIFFERENT_PERSON, sampled(*distances))
    assert finding.outcome is outcome
    assert finding.value == pytest.approx(max(distances))


def test_a_sample_stands_until_the_next_is_taken() -> None:
    finding = the(Code.DIFFERENT_PERSON, sampled(0.2, 0.7, 0.2, 0.2, 0.7))
    assert finding.ranges == ((2, 4), (8, 10))


def test_one_sample_is_compared_with_nothing() -> None:
    assert the(Code.DIFFERENT_PERSON, sampled(0.0)).message == TOO_FEW


def test_a_face_that_lies_is_compared_with_nothing() -> None:
    lying = replace(LOOK, roll_deg=90)
    assert VIDEO.faces is not None
    frames = tuple(replace(frame, look=lying, stranger=0.9) for frame in VIDEO.faces.frames)
    facts = replace(VIDEO, faces=replace(VIDEO.faces, frames=frames))
    finding = the(Code.DIFFERENT_PERSON, facts)
    assert finding.outcome is Outcome.SKIPPED
    assert "face_turned" in finding.message


def test_without_a_face_nobody_is_another() -> None:
    frames = (FrameFacts(time_s=0, faces=()),)
    finding = the(
        Code.DIFFERENT_PERSON, replace(VIDEO, faces=FaceFacts(frames=frames, interval_s=1))
    )
    assert finding.outcome is Outcome.SKIPPED
    assert "no_face" in finding.message
