from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.facts import FACE, LOOK, SPEECH, VIDEO, the
from validators.checks.mouth import NO_SPEECH, TOO_FEW, mouth
from validators.checks.seen import NOT_CLOSE
from validators.facts import FaceFacts, Facts, FrameFacts
from validators.policy import STANDARD
from validators.verdict import Code, Outcome


def speaking(openings: Sequence[float], *, every_s: float = 0.4) -> Facts:
    """A mouth as open as *openings* say from the start; speech from 0.5 s to 9.5 s."""
    frames = tuple(
        FrameFacts(time_s=n * every_s, faces=(FACE,), look=replace(LOOK, mouth_open=opening))
        for n, opening in enumerate(openings)
    )
    return replace(VIDEO, faces=FaceFacts(frames=frames, interval_s=every_s))


def test_a_mouth_that_moves_passes() -> None:
    assert the(Code.STILL_MOUTH, VIDEO).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("apart", "outcome"), [(0.0, Outcome.WARN), (0.0034, Outcome.WARN), (0.0036, Outcome.PASS)]
)
def test_the_quartiles_of_its_opening_decide(apart: float, outcome: Outcome) -> None:
    finding = the(Code.STILL_MOUTH, speaking([0.02, 0.02 + apart] * 12))
    assert finding.outcome is outcome
    assert finding.ranges == (SPEECH.speech if outcome is Outcome.WARN else ())


def test_a_yawn_is_no_movement() -> None:
    facts = speaking([0.02] * 20 + [0.3] * 2)
    assert the(Code.STILL_MOUTH, facts).outcome is Outcome.WARN


def test_what_the_mouth_does_without_speech_does_not_count() -> None:
    quiet = replace(SPEECH, speech=((0.0, 4.0),))
    facts = replace(speaking([0.02] * 11 + [0.02, 0.1] * 7), speech=quiet)
    assert the(Code.STILL_MOUTH, facts).outcome is Outcome.WARN


@pytest.mark.parametrize(("looks", "outcome"), [(9, Outcome.SKIPPED), (10, Outcome.WARN)])
def test_a_few_looks_say_nothing(looks: int, outcome: Outcome) -> None:
    finding = the(Code.STILL_MOUTH, speaking([0.02] * looks))  # two of them before the speech
    assert finding.outcome is outcome
    assert (finding.message == TOO_FEW) == (outcome is Outcome.SKIPPED)


def test_reasons_not_to_judge_are_told() -> None:
    silent = replace(VIDEO, speech=replace(SPEECH, speech=()))
    assert "no_speech" in the(Code.STILL_MOUTH, silent).message
    far = (FrameFacts(time_s=0, faces=(FACE,)),)
    distant = replace(VIDEO, faces=FaceFacts(frames=far, interval_s=0.4))
    assert the(Code.STILL_MOUTH, distant).message == NOT_CLOSE
    (unheard,) = mouth(replace(VIDEO, speech=None), STANDARD)
    assert unheard.message == NO_SPEECH
