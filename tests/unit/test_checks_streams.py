from dataclasses import replace

import pytest

from tests.facts import AUDIO, AUDIO_STREAM, IMAGE, VIDEO, VIDEO_STREAM, the
from validators.facts import ContainerFacts, Facts, StreamFacts, TrackFacts
from validators.policy import STANDARD
from validators.rules import judge
from validators.verdict import Code, Outcome


def holding(facts: Facts, *streams: StreamFacts) -> Facts:
    container = ContainerFacts(format="mov", declared_duration_s=10, streams=streams)
    return replace(facts, container=container)


def decoded(facts: Facts, **changes: object) -> Facts:
    assert facts.decode is not None
    return replace(facts, decode=replace(facts.decode, **changes))  # type: ignore[arg-type]  # spoils one field


@pytest.mark.parametrize(
    ("units", "outcome"), [(250, Outcome.PASS), (225, Outcome.PASS), (224, Outcome.FAIL)]
)
def test_nine_tenths_of_the_packets_must_decode(units: int, outcome: Outcome) -> None:
    facts = decoded(VIDEO, video=TrackFacts(start_s=0, end_s=10, units=units))
    assert the(Code.UNREADABLE, facts).outcome is outcome


def test_more_than_the_models_may_be_given_is_unreadable() -> None:
    assert the(Code.UNREADABLE, replace(VIDEO, truncated=True)).outcome is Outcome.FAIL


def test_packets_that_the_sample_table_promises_are_in_the_file() -> None:
    facts = holding(VIDEO, replace(VIDEO_STREAM, promised_packets=500), AUDIO_STREAM)
    finding = the(Code.UNREADABLE, facts)
    assert (finding.outcome, finding.value) == (Outcome.FAIL, 0.5)


def test_a_declared_duration_promises_nothing() -> None:
    assert VIDEO.container is not None
    facts = replace(VIDEO, container=replace(VIDEO.container, declared_duration_s=1000.0))
    assert the(Code.UNREADABLE, facts).outcome is Outcome.PASS


def test_damaged_sound_makes_a_video_unreadable() -> None:
    facts = decoded(VIDEO, audio=TrackFacts(start_s=0, end_s=10, units=200))
    assert the(Code.UNREADABLE, facts).outcome is Outcome.FAIL


def test_a_stream_of_which_nothing_decodes_is_unreadable() -> None:
    assert the(Code.UNREADABLE, decoded(VIDEO, video=None)).value == 0


def test_the_packets_that_encoder_delay_swallows_are_forgiven() -> None:
    facts = holding(VIDEO, replace(VIDEO_STREAM, packets=12, promised_packets=12), AUDIO_STREAM)
    facts = decoded(facts, video=TrackFacts(start_s=0, end_s=10, units=10))
    assert the(Code.UNREADABLE, facts).outcome is Outcome.PASS


def test_packets_past_the_cap_were_never_asked_for() -> None:
    facts = decoded(VIDEO, capped=True, video=TrackFacts(start_s=0, end_s=16, units=20))
    assert the(Code.UNREADABLE, facts).outcome is Outcome.SKIPPED
    assert judge(facts, STANDARD).failed == (Code.DURATION_TOO_LONG,)


@pytest.mark.parametrize(("units_s", "outcome"), [(10.5, Outcome.PASS), (10.6, Outcome.FAIL)])
def test_sound_that_holds_more_than_its_times_say_is_unreadable(
    units_s: float, outcome: Outcome
) -> None:
    facts = decoded(AUDIO, audio=TrackFacts(start_s=0, end_s=10, units=468, units_s=units_s))
    assert the(Code.UNREADABLE, facts).outcome is outcome


def test_a_decoder_that_gives_up_is_told() -> None:
    finding = the(Code.UNREADABLE, decoded(VIDEO, complete=False))
    assert finding.outcome is Outcome.FAIL
    assert "gave up" in finding.message


@pytest.mark.parametrize("facts", [VIDEO, AUDIO, IMAGE], ids=["video", "audio", "image"])
def test_what_could_not_be_opened_is_unreadable(facts: Facts) -> None:
    broken = replace(
        facts, unreadable="It is broken.", container=None, decode=None, picture=None, faces=None
    )
    assert the(Code.UNREADABLE, broken).message == "It is broken."
    assert the(Code.UNREADABLE, broken).outcome is Outcome.FAIL


@pytest.mark.parametrize("signature", [None, "png", "asf", "pdf"])
def test_a_container_off_the_list_is_not_taken(signature: str | None) -> None:
    facts = replace(VIDEO, signature=signature)
    assert the(Code.UNSUPPORTED_FORMAT, facts).outcome is Outcome.FAIL


@pytest.mark.parametrize("codec", ["rawvideo", "gif", "unknown", "wmv2"])
def test_a_codec_off_the_list_is_not_taken(codec: str) -> None:
    facts = holding(VIDEO, replace(VIDEO_STREAM, codec=codec), AUDIO_STREAM)
    finding = the(Code.UNSUPPORTED_FORMAT, facts)
    assert finding.outcome is Outcome.FAIL
    assert codec in finding.message


def test_the_codec_of_cover_art_does_not_matter() -> None:
    cover = replace(VIDEO_STREAM, index=2, codec="bmp", attached_picture=True)
    facts = holding(AUDIO, AUDIO_STREAM, cover)
    assert the(Code.UNSUPPORTED_FORMAT, facts).outcome is Outcome.PASS
    assert the(Code.EXTRA_STREAMS, facts).outcome is Outcome.PASS


def test_cover_art_is_no_video_stream() -> None:
    facts = holding(VIDEO, replace(VIDEO_STREAM, attached_picture=True), AUDIO_STREAM)
    assert the(Code.NO_VIDEO_STREAM, facts).outcome is Outcome.FAIL


def test_an_empty_stream_is_no_audio_stream() -> None:
    facts = holding(VIDEO, VIDEO_STREAM, replace(AUDIO_STREAM, packets=0, promised_packets=None))
    assert the(Code.NO_AUDIO_STREAM, facts).outcome is Outcome.FAIL


def test_a_picture_of_no_size_is_unreadable() -> None:
    nothing = replace(VIDEO_STREAM, width=0, height=0)
    facts = replace(holding(VIDEO, nothing, AUDIO_STREAM), decode=None)
    assert the(Code.UNREADABLE, facts).outcome is Outcome.FAIL
    assert judge(facts, STANDARD).failed == (Code.UNREADABLE,)


def test_a_recording_without_sound_is_unreadable() -> None:
    facts = replace(holding(AUDIO, VIDEO_STREAM), decode=None)
    assert the(Code.UNREADABLE, facts).outcome is Outcome.FAIL


@pytest.mark.parametrize("extra", [VIDEO_STREAM, AUDIO_STREAM])
def test_a_second_stream_of_a_type_fails(extra: StreamFacts) -> None:
    facts = holding(VIDEO, VIDEO_STREAM, AUDIO_STREAM, replace(extra, index=2))
    finding = the(Code.EXTRA_STREAMS, facts)
    assert (finding.outcome, finding.value, finding.limit) == (Outcome.FAIL, 2, 1)
