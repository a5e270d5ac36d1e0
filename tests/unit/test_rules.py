from dataclasses import replace

import pytest

from tests.facts import AUDIO, IMAGE, SPEECH, VIDEO, lasting, the
from validators.errors import UnmeasuredError
from validators.facts import FaceFacts, Facts, Kind, SpeakerFacts
from validators.policy import STANDARD, STRICT
from validators.rules import KINDS, judge, obstacle
from validators.verdict import Code, Decision, Outcome

NOTHING = {
    kind: Facts(version=1, kind=kind, size_bytes=0, sha256="", signature=None) for kind in Kind
}


@pytest.mark.parametrize("facts", [VIDEO, AUDIO, IMAGE], ids=["video", "audio", "image"])
def test_a_good_medium_passes_every_check(facts: Facts) -> None:
    verdict = judge(facts, STANDARD)
    assert verdict.verdict is Decision.ACCEPTED
    assert {check.outcome for check in verdict.checks} == {Outcome.PASS}


@pytest.mark.parametrize(
    "facts",
    [
        replace(VIDEO, faces=None),
        replace(VIDEO, faces=FaceFacts(frames=(), interval_s=0.2)),
        replace(VIDEO, speech=None),
        replace(VIDEO, speakers=None),
        replace(AUDIO, speech=None),
        replace(AUDIO, speakers=None),
        replace(IMAGE, faces=None),
        replace(VIDEO, motion=None),
        replace(VIDEO, overlays=None),
        replace(IMAGE, overlays=None),
    ],
    ids=[
        *("video unseen", "video without frames", "video unheard", "video voices uncounted"),
        *("audio unheard", "audio voices uncounted", "image unseen"),
        *("video not compared", "video not searched", "image not searched"),
    ],
)
def test_what_no_model_measured_is_never_accepted(facts: Facts) -> None:
    with pytest.raises(UnmeasuredError):
        judge(facts, STANDARD)


def test_what_no_model_needs_to_measure_is_judged_without() -> None:
    unseen = replace(lasting(VIDEO, 3), speech=None, speakers=None, faces=None)
    assert judge(unseen, STANDARD).failed == (Code.DURATION_TOO_SHORT,)


@pytest.mark.parametrize("facts", [VIDEO, AUDIO, IMAGE, *NOTHING.values()])
def test_every_check_of_the_kind_is_listed_once_in_public_order(facts: Facts) -> None:
    codes = [check.code for check in judge(facts, STANDARD).checks]
    assert codes == [code for code in Code if facts.kind in KINDS[code]]


def test_every_code_belongs_to_some_kind() -> None:
    assert KINDS.keys() == set(Code)
    assert all(KINDS.values())


def test_a_failure_names_itself_in_what_it_makes_meaningless() -> None:
    facts = replace(lasting(VIDEO, 3), speakers=SpeakerFacts(score=9, second_voice_s=2))
    finding = the(Code.MULTIPLE_SPEAKERS, facts)
    assert finding.outcome is Outcome.SKIPPED
    assert "duration_too_short" in finding.message


def test_what_needs_no_model_is_told_beside_an_early_failure() -> None:
    assert the(Code.LOW_RESOLUTION, lasting(VIDEO, 3)).outcome is Outcome.PASS


@pytest.mark.parametrize("kind", list(Kind))
def test_a_file_that_is_nothing_fails_once_and_skips_the_rest(kind: Kind) -> None:
    verdict = judge(NOTHING[kind], STANDARD)
    assert verdict.failed == (Code.UNSUPPORTED_FORMAT,)
    rest = [check for check in verdict.checks if check.code is not Code.UNSUPPORTED_FORMAT]
    assert {check.outcome for check in rest} == {Outcome.SKIPPED}
    assert all("unsupported_format" in check.message for check in rest)


def test_too_close_to_call_fails_only_under_strict() -> None:
    doubtful = replace(
        VIDEO, speakers=SpeakerFacts(score=STANDARD.second_voice_score, second_voice_s=2)
    )
    assert the(Code.MULTIPLE_SPEAKERS, doubtful).outcome is Outcome.UNCERTAIN
    assert judge(doubtful, STANDARD).accepted
    assert judge(doubtful, STRICT).failed == (Code.MULTIPLE_SPEAKERS,)


def test_a_warning_rejects_under_no_policy() -> None:
    quiet = replace(VIDEO, speech=replace(SPEECH, loudness_dbfs=-60))
    assert the(Code.QUIET_AUDIO, quiet).outcome is Outcome.WARN
    assert judge(quiet, STRICT).accepted


def test_the_policy_is_named_with_its_version() -> None:
    assert judge(VIDEO, STRICT).policy == "strict-1"


def test_the_medium_is_told_at_a_glance() -> None:
    media = judge(VIDEO, STANDARD).media
    assert (media.duration_s, media.width, media.height, media.fps) == (10, 1280, 720, 25)
    assert (media.video_codec, media.audio_codec, media.rotation_deg) == ("h264", "aac", 0)


def test_a_recording_of_sound_has_no_size() -> None:
    media = judge(AUDIO, STANDARD).media
    assert (media.width, media.fps, media.video_codec) == (None, None, None)


def test_only_what_is_known_before_decoding_stops_it() -> None:
    assert obstacle(VIDEO, STANDARD) is None
    assert obstacle(replace(VIDEO, signature="pdf"), STANDARD) is Code.UNSUPPORTED_FORMAT
    assert obstacle(lasting(VIDEO, 3), STANDARD) is None
