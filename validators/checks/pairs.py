"""Whether two media of one avatar show the same person: by face and by voice.

A face is compared by the distance of two embeddings, a voice by the cosine of two. Both are near
their limit for people who look or sound alike, so there is a margin in which nobody is accused.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from validators.checks.grade import strictly, too_high, too_low
from validators.facts import PairFacts
from validators.policy import Policy
from validators.verdict import Decision, Outcome, PairCode, PairFinding, PairVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Which media stand beside the video."""

    image: bool
    audio: bool


def judge_pair(facts: PairFacts, given: Given, policy: Policy) -> PairVerdict:
    """Both checks, in public order. Accepted when neither fails."""
    checks = tuple(strictly(finding, policy) for finding in _findings(facts, given, policy))
    failed = any(check.outcome is Outcome.FAIL for check in checks)
    return PairVerdict(
        verdict=Decision.REJECTED if failed else Decision.ACCEPTED,
        policy=policy.label,
        engines=facts.engines,
        checks=checks,
    )


def _findings(facts: PairFacts, given: Given, policy: Policy) -> Iterator[PairFinding]:
    if given.image:
        yield _face(facts.face_distance, policy)
    else:
        yield _skipped(PairCode.FACE_MISMATCH, "Skipped, because there is no image.")
    if given.audio:
        yield _voice(facts.voice_similarity, policy)
    else:
        yield _skipped(PairCode.VOICE_MISMATCH, "Skipped, because there is no recording.")


def _face(distance: float | None, policy: Policy) -> PairFinding:
    if distance is None:
        return _unseen(
            PairCode.FACE_MISMATCH,
            "The face of the image or of the video is not clear enough to compare.",
            "Show the face from the front, whole and sharp, in both.",
        )
    limit = policy.face_mismatch_fail
    outcome = too_high(distance, warn=limit, fail=limit, margin=policy.face_mismatch_margin)
    return PairFinding(
        code=PairCode.FACE_MISMATCH,
        outcome=outcome,
        value=round(distance, 3),
        limit=limit,
        unit="distance",
        message=_FACES[outcome],
        hint=None if outcome is Outcome.PASS else "Give an image of the person in the video.",
    )


def _voice(similarity: float | None, policy: Policy) -> PairFinding:
    if similarity is None:
        return _unseen(
            PairCode.VOICE_MISMATCH,
            "There is too little speech in the recording or in the video to compare.",
            "Let the person speak for three seconds and more in both.",
        )
    limit = policy.voice_mismatch_fail
    outcome = too_low(similarity, warn=limit, fail=limit, margin=policy.voice_mismatch_margin)
    return PairFinding(
        code=PairCode.VOICE_MISMATCH,
        outcome=outcome,
        value=round(similarity, 3),
        limit=limit,
        unit="cosine",
        message=_VOICES[outcome],
        hint=None if outcome is Outcome.PASS else "Give a recording of the voice in the video.",
    )


_FACES = {
    Outcome.PASS: "The image and the video show one person.",
    Outcome.UNCERTAIN: "The image and the video may show different people.",
    Outcome.FAIL: "The image and the video show different people.",
}
_VOICES = {
    Outcome.PASS: "The recording and the video carry one voice.",
    Outcome.UNCERTAIN: "The recording and the video may carry different voices.",
    Outcome.FAIL: "The recording and the video carry different voices.",
}


def _unseen(code: PairCode, message: str, hint: str) -> PairFinding:
    """Not skipped: nothing says that these two belong together."""
    return PairFinding(code=code, outcome=Outcome.UNCERTAIN, message=message, hint=hint)


def _skipped(code: PairCode, why: str) -> PairFinding:
    return PairFinding(code=code, outcome=Outcome.SKIPPED, message=why)
