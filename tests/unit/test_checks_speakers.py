from dataclasses import replace

import pytest

from tests.facts import VIDEO, the
from validators.facts import SpeakerFacts, TrackFacts
from validators.verdict import Code, Finding, Outcome


def voices(score: float | None, second_voice_s: float = 2.4) -> Finding:
    speakers = SpeakerFacts(
        score=score, second_voice_s=second_voice_s, second_voice=((3.1, 3.1 + second_voice_s),)
    )
    return the(Code.MULTIPLE_SPEAKERS, replace(VIDEO, speakers=speakers))


@pytest.mark.parametrize(
    ("score", "outcome"),
    [
        (-5, Outcome.PASS),
        (-0.51, Outcome.PASS),
        (-0.49, Outcome.UNCERTAIN),
        (0.49, Outcome.UNCERTAIN),
        (0.51, Outcome.FAIL),
    ],
)
def test_the_score_decides_whether_there_is_a_second_voice(score: float, outcome: Outcome) -> None:
    assert voices(score).outcome is outcome


def test_a_second_voice_is_told_with_its_length_and_times() -> None:
    finding = voices(4)
    assert finding.message == "A second voice speaks for 2.4 s."
    assert (finding.value, finding.limit, finding.unit) == (2.4, 0.7, "s")
    assert finding.ranges == ((3.1, 5.5),)


def test_a_very_short_second_voice_is_only_told() -> None:
    assert voices(4, second_voice_s=0.69).outcome is Outcome.WARN
    assert voices(4, second_voice_s=0.71).outcome is Outcome.FAIL


def test_too_little_speech_to_compare_is_skipped() -> None:
    assert voices(None).outcome is Outcome.SKIPPED


def test_one_voice_has_no_times() -> None:
    assert voices(-3).ranges == ()


def test_a_second_voice_is_placed_on_the_clock_of_the_medium() -> None:
    """The sound begins half a second after the picture."""
    decode = VIDEO.decode
    assert decode is not None
    late = replace(decode, audio=TrackFacts(start_s=0.5, end_s=10, units=445))
    speakers = SpeakerFacts(score=9, second_voice_s=2, second_voice=((1.0, 3.0),))
    finding = the(Code.MULTIPLE_SPEAKERS, replace(VIDEO, decode=late, speakers=speakers))
    assert finding.ranges == ((1.5, 3.5),)
