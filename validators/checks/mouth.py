"""Whether the mouth moves while there is speech."""

from collections.abc import Iterator, Sequence

from validators.checks.grade import finding, skip, skip_after, too_low
from validators.checks.seen import Close, closely, seen, unsure
from validators.facts import Facts, Range
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome

NO_SPEECH = "Skipped, because no speech was measured."
TOO_FEW = "Skipped, because the face is seen too rarely while there is speech."


def mouth(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns `still_mouth`."""
    frames = seen(facts, policy)
    reasons = unsure([Code.STILL_MOUTH], frames, policy)
    if reasons:
        yield from reasons
    elif facts.speech is None:
        yield skip(Code.STILL_MOUTH, NO_SPEECH)
    elif not facts.speech.speech:
        yield skip_after(Code.STILL_MOUTH, Code.NO_SPEECH)
    else:
        looks = closely(frames, least_presence=policy.face_presence)
        yield _still(looks, facts.heard(facts.speech.speech), policy)


def _still(frames: Sequence[Close], speech: Sequence[Range], policy: Policy) -> Finding:
    """By the quartiles: one yawn, or a start before the picture freezes, is no movement."""
    openings = sorted(each.look.mouth_open for each in frames if _during(each, speech))
    if len(openings) < policy.still_mouth_looks:
        return skip(Code.STILL_MOUTH, TOO_FEW)
    value = openings[3 * len(openings) // 4] - openings[len(openings) // 4]
    outcome = too_low(value, warn=policy.still_mouth_warn)
    moves = outcome is Outcome.PASS
    return finding(
        Code.STILL_MOUTH,
        outcome,
        "The mouth moves." if moves else "The mouth hardly moves while there is speech.",
        value=value,
        limit=policy.still_mouth_warn,
        unit="face heights",
        ranges=() if moves else tuple(speech),
        hint="Show the person who speaks, filmed and not a still picture.",
    )


def _during(frame: Close, speech: Sequence[Range]) -> bool:
    return any(start_s <= frame.shown[0] <= end_s for start_s, end_s in speech)
