from dataclasses import replace

import pytest

from tests.facts import SPEECH, VIDEO, the
from validators.facts import Facts
from validators.verdict import Code, Finding, Outcome

PASS, WARN, FAIL, UNCERTAIN = Outcome.PASS, Outcome.WARN, Outcome.FAIL, Outcome.UNCERTAIN


def heard(**changes: object) -> Facts:
    return replace(VIDEO, speech=replace(SPEECH, **changes))  # type: ignore[arg-type]  # spoils one field


def spoken(seconds: float) -> Facts:
    return heard(speech=((1.0, 1.0 + seconds),))


def test_silence_has_no_speech_and_nothing_else_to_say_about_it() -> None:
    facts = heard(speech=(), snr_db=None, loudness_dbfs=None)
    assert the(Code.NO_SPEECH, facts).outcome is FAIL
    for code in (Code.TOO_LITTLE_SPEECH, Code.NOISY_AUDIO, Code.QUIET_AUDIO):
        assert the(code, facts).outcome is Outcome.SKIPPED


@pytest.mark.parametrize(
    ("seconds", "outcome"),
    [(1.8, FAIL), (1.95, UNCERTAIN), (2.05, UNCERTAIN), (2.2, WARN), (2.9, WARN), (3.1, PASS)],
)
def test_speech_is_counted_in_seconds(seconds: float, outcome: Outcome) -> None:
    assert the(Code.TOO_LITTLE_SPEECH, spoken(seconds)).outcome is outcome


def test_too_little_speech_says_when_it_was_heard() -> None:
    assert the(Code.TOO_LITTLE_SPEECH, spoken(1)).ranges == ((1.0, 2.0),)
    assert the(Code.TOO_LITTLE_SPEECH, spoken(8)).ranges == ()


@pytest.mark.parametrize(
    ("snr_db", "outcome"),
    [(11.9, FAIL), (12.1, UNCERTAIN), (13.9, UNCERTAIN), (14, WARN), (17.9, WARN), (18, PASS)],
)
def test_noise_is_graded_in_decibels(snr_db: float, outcome: Outcome) -> None:
    finding = the(Code.NOISY_AUDIO, heard(snr_db=snr_db))
    assert (finding.outcome, finding.unit) == (outcome, "dB")


@pytest.mark.parametrize(
    ("music", "outcome"), [(0.06, PASS), (0.07, WARN), (0.3, WARN), (0.31, FAIL)]
)
def test_music_is_graded_by_its_probability(music: float, outcome: Outcome) -> None:
    assert the(Code.BACKGROUND_AUDIO, heard(music_probability=music)).outcome is outcome


@pytest.mark.parametrize(("runs", "outcome"), [(2, PASS), (2.1, WARN), (5, WARN), (5.1, FAIL)])
def test_clipping_is_graded_by_its_runs(runs: float, outcome: Outcome) -> None:
    assert the(Code.CLIPPED_AUDIO, heard(clipped_runs_per_s=runs)).outcome is outcome


@pytest.mark.parametrize(("dbfs", "outcome"), [(-41, WARN), (-40, PASS)])
def test_quiet_speech_is_only_told(dbfs: float, outcome: Outcome) -> None:
    assert the(Code.QUIET_AUDIO, heard(loudness_dbfs=dbfs)).outcome is outcome


def test_a_hint_is_given_only_where_something_is_to_be_done() -> None:
    good: Finding = the(Code.NOISY_AUDIO, heard(snr_db=40))
    bad: Finding = the(Code.NOISY_AUDIO, heard(snr_db=5))
    assert good.hint is None
    assert bad.hint
