from dataclasses import replace

import pytest

from tests.facts import AUDIO, AUDIO_STREAM, VIDEO, lasting, the
from validators.facts import ContainerFacts, DecodeFacts, Facts, TrackFacts
from validators.verdict import Code, Outcome


def coded(codec: str) -> Facts:
    stream = replace(AUDIO_STREAM, codec=codec)
    container = ContainerFacts(format="x", declared_duration_s=10, streams=(stream,))
    return replace(AUDIO, container=container)


def declaring(facts: Facts, seconds: float | None) -> Facts:
    assert facts.container is not None
    return replace(facts, container=replace(facts.container, declared_duration_s=seconds))


@pytest.mark.parametrize(
    ("seconds", "outcome"),
    [(3.99, Outcome.FAIL), (3.994, Outcome.FAIL), (3.996, Outcome.PASS), (4.0, Outcome.PASS)],
)
def test_four_seconds_are_enough_within_five_milliseconds(seconds: float, outcome: Outcome) -> None:
    for facts in (VIDEO, AUDIO):
        assert the(Code.DURATION_TOO_SHORT, lasting(facts, seconds)).outcome is outcome


@pytest.mark.parametrize(
    ("seconds", "outcome"), [(15.0, Outcome.PASS), (15.039, Outcome.PASS), (15.05, Outcome.FAIL)]
)
def test_a_video_may_end_one_frame_late(seconds: float, outcome: Outcome) -> None:
    assert the(Code.DURATION_TOO_LONG, lasting(VIDEO, seconds)).outcome is outcome


@pytest.mark.parametrize(
    ("codec", "seconds", "outcome"),
    [
        ("aac", 15.049, Outcome.PASS),
        ("mp3", 15.049, Outcome.PASS),
        ("mp3", 15.06, Outcome.FAIL),
        ("flac", 15.004, Outcome.PASS),
        ("flac", 15.01, Outcome.FAIL),
        ("pcm_s16le", 15.01, Outcome.FAIL),
    ],
)
def test_only_codecs_of_unknown_padding_may_run_over(
    codec: str, seconds: float, outcome: Outcome
) -> None:
    assert the(Code.DURATION_TOO_LONG, lasting(coded(codec), seconds)).outcome is outcome


def test_a_slow_picture_forgives_no_more_than_a_fast_one() -> None:
    assert VIDEO.decode is not None
    slow = replace(VIDEO.decode, video=TrackFacts(start_s=0, end_s=15.5, units=15))
    assert the(Code.DURATION_TOO_LONG, replace(VIDEO, decode=slow)).outcome is Outcome.FAIL


def test_what_was_cut_off_at_the_cap_is_too_long_wherever_it_began() -> None:
    late = DecodeFacts(
        complete=True, capped=True, audio=TrackFacts(start_s=1.5, end_s=16, units=700)
    )
    assert the(Code.DURATION_TOO_LONG, replace(AUDIO, decode=late)).outcome is Outcome.FAIL


def test_sound_that_outlasts_the_picture_counts() -> None:
    decode = DecodeFacts(
        complete=True,
        capped=False,
        video=TrackFacts(start_s=0.5, end_s=14, units=338),
        audio=TrackFacts(start_s=0, end_s=15.5, units=700),
    )
    assert the(Code.DURATION_TOO_LONG, replace(VIDEO, decode=decode)).value == 15.5


def test_a_duration_that_was_cut_off_is_told_as_a_lower_bound() -> None:
    facts = lasting(VIDEO, 16)
    assert facts.decode is not None
    finding = the(Code.DURATION_TOO_LONG, replace(facts, decode=replace(facts.decode, capped=True)))
    assert finding.outcome is Outcome.FAIL
    assert "at least 16.00 s" in finding.message


@pytest.mark.parametrize(
    ("declared", "outcome"),
    [(10.5, Outcome.PASS), (10.51, Outcome.WARN), (9.4, Outcome.WARN), (None, Outcome.PASS)],
)
def test_a_header_that_is_off_by_half_a_second_is_told(
    declared: float | None, outcome: Outcome
) -> None:
    assert the(Code.HEADER_MISMATCH, declaring(AUDIO, declared)).outcome is outcome


def test_a_stream_without_a_header_cannot_lie() -> None:
    facts = replace(declaring(AUDIO, 99), signature="aac")
    assert the(Code.HEADER_MISMATCH, facts).outcome is Outcome.PASS


def test_a_long_file_is_not_compared_with_where_decoding_stopped() -> None:
    facts = lasting(declaring(VIDEO, 60), 16)
    assert facts.decode is not None
    capped = replace(facts, decode=replace(facts.decode, capped=True))
    assert the(Code.HEADER_MISMATCH, capped).outcome is Outcome.SKIPPED
