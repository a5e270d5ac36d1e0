"""Does a second voice speak? The score joins overlap and turn-taking: SpeakerFacts."""

from collections.abc import Iterator

from validators.checks.grade import finding, skip
from validators.facts import Facts, SpeakerFacts
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome


def speakers(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns `multiple_speakers`."""
    measured = facts.speakers
    if measured is None or measured.score is None:
        yield skip(
            Code.MULTIPLE_SPEAKERS, "Skipped, because there is too little speech to compare."
        )
        return
    outcome = _outcome(measured, measured.score, policy)
    yield finding(
        Code.MULTIPLE_SPEAKERS,
        outcome,
        _message(outcome, measured),
        value=measured.second_voice_s,
        limit=policy.second_voice_s,
        unit="s",
        ranges=() if outcome is Outcome.PASS else facts.heard(measured.second_voice),
        hint="Record one person alone.",
    )


def _outcome(measured: SpeakerFacts, score: float, policy: Policy) -> Outcome:
    """The score decides whether there is a second voice, its length how much it matters."""
    if score < policy.second_voice_score - policy.second_voice_margin:
        return Outcome.PASS
    if score < policy.second_voice_score + policy.second_voice_margin:
        return Outcome.UNCERTAIN
    return Outcome.WARN if measured.second_voice_s < policy.second_voice_s else Outcome.FAIL


def _message(outcome: Outcome, measured: SpeakerFacts) -> str:
    if outcome is Outcome.PASS:
        return "One voice speaks."
    if outcome is Outcome.UNCERTAIN:
        return f"Perhaps a second voice speaks for {measured.second_voice_s:.1f} s."
    return f"A second voice speaks for {measured.second_voice_s:.1f} s."
