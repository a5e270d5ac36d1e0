"""How long the medium plays, by what was decoded, and whether its header told the truth."""

from collections.abc import Iterator

from validators.checks.grade import finding, skip
from validators.facts import DecodeFacts, Facts, Kind
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome

UNKNOWN_PADDING = frozenset({"aac", "mp3"})  # their encoders add silence that few files declare
ESTIMATED = frozenset({"aac"})  # no header: ffprobe guesses a duration from the bit rate


def duration(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns `duration_too_short`, `duration_too_long` and `header_mismatch`."""
    decode = facts.decode
    if decode is None or decode.duration_s <= 0:
        why = "Skipped, because nothing was decoded."
        for code in (Code.DURATION_TOO_SHORT, Code.DURATION_TOO_LONG, Code.HEADER_MISMATCH):
            yield skip(code, why)
        return
    yield _too_short(decode, policy)
    yield _too_long(facts, decode, policy)
    yield _header_mismatch(facts, decode, policy)


def _too_short(decode: DecodeFacts, policy: Policy) -> Finding:
    limit = policy.min_duration_s
    short = decode.duration_s < limit - policy.duration_tolerance_s
    return finding(
        Code.DURATION_TOO_SHORT,
        Outcome.FAIL if short else Outcome.PASS,
        _length(decode),
        value=decode.duration_s,
        limit=limit,
        unit="s",
        hint=f"Record at least {limit:g} s.",
    )


def _too_long(facts: Facts, decode: DecodeFacts, policy: Policy) -> Finding:
    limit = policy.max_duration_s
    long = decode.capped or decode.duration_s > limit + _tolerance_above_s(facts, decode, policy)
    return finding(
        Code.DURATION_TOO_LONG,
        Outcome.FAIL if long else Outcome.PASS,
        _length(decode),
        value=decode.duration_s,
        limit=limit,
        unit="s",
        hint=f"Cut the recording to at most {limit:g} s.",
    )


def _length(decode: DecodeFacts) -> str:
    at_least = "at least " if decode.capped else ""
    return f"It plays for {at_least}{decode.duration_s:.2f} s."


def _tolerance_above_s(facts: Facts, decode: DecodeFacts, policy: Policy) -> float:
    """One frame of video, if it is a short one; for sound alone what an encoder may have padded."""
    if facts.kind is Kind.VIDEO and decode.video is not None:
        frame_s = decode.video.duration_s / decode.video.units
        return max(policy.duration_tolerance_s, min(frame_s, policy.max_frame_tolerance_s))
    audio = facts.container.audio if facts.container is not None else ()
    if audio and audio[0].codec in UNKNOWN_PADDING:
        return policy.lossy_audio_tolerance_s
    return policy.duration_tolerance_s


def _header_mismatch(facts: Facts, decode: DecodeFacts, policy: Policy) -> Finding:
    declared_s = facts.container.declared_duration_s if facts.container is not None else None
    if declared_s is None or facts.signature in ESTIMATED:
        return finding(Code.HEADER_MISMATCH, Outcome.PASS, "The header declares no duration.")
    if decode.capped and declared_s >= decode.duration_s:
        return skip(Code.HEADER_MISMATCH, "Skipped, because decoding stopped past the limit.")
    off_s = abs(declared_s - decode.duration_s)
    return finding(
        Code.HEADER_MISMATCH,
        Outcome.WARN if off_s > policy.header_mismatch_s else Outcome.PASS,
        f"The header declares {declared_s:.2f} s, {decode.duration_s:.2f} s decode.",
        value=off_s,
        limit=policy.header_mismatch_s,
        unit="s",
        hint="Export the file again, so that its header is right.",
    )
