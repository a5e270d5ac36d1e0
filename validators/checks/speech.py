"""How much speech there is, and how clean it is. Methods: SpeechFacts; limits: Policy."""

from collections.abc import Iterator
from dataclasses import replace

from validators.checks.grade import crossed, finding, skip, skip_after, too_high, too_low
from validators.facts import Facts, SpeechFacts
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome

NO_SOUND = "Skipped, because no sound was measured."
CODES = (
    Code.NO_SPEECH,
    Code.TOO_LITTLE_SPEECH,
    Code.BACKGROUND_AUDIO,
    Code.NOISY_AUDIO,
    Code.CLIPPED_AUDIO,
    Code.QUIET_AUDIO,
)


def speech(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns all of CODES."""
    measured = facts.speech
    if measured is None:
        yield from (skip(code, NO_SOUND) for code in CODES)
        return
    measured = replace(measured, speech=facts.heard(measured.speech))
    yield _no_speech(measured)
    yield _too_little(measured, policy)
    yield _background(measured, policy)
    yield _noisy(measured, policy)
    yield _clipped(measured, policy)
    yield _quiet(measured, policy)


def _no_speech(measured: SpeechFacts) -> Finding:
    heard = bool(measured.speech)
    return finding(
        Code.NO_SPEECH,
        Outcome.PASS if heard else Outcome.FAIL,
        "There is speech." if heard else "Nobody is heard to speak.",
        value=measured.speech_s,
        limit=0,
        unit="s",
        hint="Record somebody who speaks.",
    )


def _too_little(measured: SpeechFacts, policy: Policy) -> Finding:
    if not measured.speech:
        return skip_after(Code.TOO_LITTLE_SPEECH, Code.NO_SPEECH)
    warn, fail = policy.too_little_speech_warn_s, policy.too_little_speech_fail_s
    outcome = too_low(measured.speech_s, warn=warn, fail=fail, margin=policy.speech_margin_s)
    return finding(
        Code.TOO_LITTLE_SPEECH,
        outcome,
        f"{measured.speech_s:.1f} s of speech.",
        value=measured.speech_s,
        limit=crossed(outcome, warn=warn, fail=fail),
        unit="s",
        ranges=() if outcome is Outcome.PASS else measured.speech,
        hint=f"Speak for at least {warn:g} s.",
    )


def _background(measured: SpeechFacts, policy: Policy) -> Finding:
    music = measured.music_probability
    if music is None:
        return skip(Code.BACKGROUND_AUDIO, NO_SOUND)
    warn, fail = policy.background_warn, policy.background_fail
    outcome = too_high(music, warn=warn, fail=fail)
    heard = "No music or babble" if outcome is Outcome.PASS else "Music or babble"
    return finding(
        Code.BACKGROUND_AUDIO,
        outcome,
        f"{heard} under the voice.",
        value=music,
        limit=crossed(outcome, warn=warn, fail=fail),
        unit="probability",
        hint="Record where no music plays and nobody else talks.",
    )


def _noisy(measured: SpeechFacts, policy: Policy) -> Finding:
    if measured.snr_db is None:
        why = "Skipped, because there is no speech, or no pause to compare it with."
        return skip(Code.NOISY_AUDIO, why)
    warn, fail = policy.noisy_audio_warn_db, policy.noisy_audio_fail_db
    outcome = too_low(measured.snr_db, warn=warn, fail=fail, margin=policy.noisy_audio_margin_db)
    return finding(
        Code.NOISY_AUDIO,
        outcome,
        f"The speech is {measured.snr_db:.0f} dB above the noise.",
        value=measured.snr_db,
        limit=crossed(outcome, warn=warn, fail=fail),
        unit="dB",
        hint="Record in a quiet room, closer to the microphone.",
    )


def _clipped(measured: SpeechFacts, policy: Policy) -> Finding:
    runs = measured.clipped_runs_per_s
    if runs is None:
        return skip(Code.CLIPPED_AUDIO, NO_SOUND)
    warn, fail = policy.clipped_audio_warn_per_s, policy.clipped_audio_fail_per_s
    outcome = too_high(runs, warn=warn, fail=fail)
    return finding(
        Code.CLIPPED_AUDIO,
        outcome,
        f"The sound is cut off at its peaks {runs:.1f} times per second.",
        value=runs,
        limit=crossed(outcome, warn=warn, fail=fail),
        unit="1/s",
        hint="Lower the recording level.",
    )


def _quiet(measured: SpeechFacts, policy: Policy) -> Finding:
    loudness = measured.loudness_dbfs
    if loudness is None:
        return skip(Code.QUIET_AUDIO, "Skipped, because there is no speech.")
    limit = policy.quiet_audio_warn_dbfs
    return finding(
        Code.QUIET_AUDIO,
        too_low(loudness, warn=limit),
        f"The speech has {loudness:.0f} dBFS.",
        value=loudness,
        limit=limit,
        unit="dBFS",
        hint="Raise the recording level, or speak closer to the microphone.",
    )
