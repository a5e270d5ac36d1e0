"""Whether the same person shows from the beginning to the end."""

import itertools
from collections.abc import Iterator

from validators.checks.grade import finding, skip, skip_after
from validators.checks.seen import Measured, Seen, is_there, lies, seen, unseen, where
from validators.facts import Facts
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome

TOO_FEW = "Skipped, because the face is seen too rarely, or too small, to compare it with itself."


def identity(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns `different_person`."""
    frames = seen(facts, policy)
    taken = _taken(frames)
    if lies(frames, policy):  # the network knows upright faces
        yield skip_after(Code.DIFFERENT_PERSON, Code.FACE_TURNED)
    elif len(taken) >= policy.different_person_samples:
        yield _different(taken, policy)
    elif is_there(frames, policy):
        yield skip(Code.DIFFERENT_PERSON, TOO_FEW)
    else:
        yield from unseen([Code.DIFFERENT_PERSON], frames, policy)


def _taken(frames: list[Seen]) -> Measured:
    """The distances, each for the time until the next was taken."""
    sampled = [(each.shown[0], each.stranger) for each in frames if each.stranger is not None]
    ends_s = [start_s for start_s, _ in sampled[1:]] + [frames[-1].shown[1] if frames else 0.0]
    pairs = zip(sampled, ends_s, strict=False)
    return [((start_s, end_s), distance) for (start_s, distance), end_s in pairs]


def _different(taken: Measured, policy: Policy) -> Finding:
    """One sample that is clear, or two in a row past the limit; less is too close to call."""
    limit, margin = policy.different_person, policy.different_person_margin
    distances = [distance for _, distance in taken]
    clear = max(distances) > limit + margin
    if clear or any(min(pair) > limit for pair in itertools.pairwise(distances)):
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.UNCERTAIN if max(distances) > limit else Outcome.PASS
    return finding(
        Code.DIFFERENT_PERSON,
        outcome,
        _MESSAGES[outcome],
        value=max(distances),
        limit=limit,
        unit="distance",
        ranges=where(taken, lambda distance: distance > limit),
        hint="Show one person from the beginning to the end.",
    )


_MESSAGES = {
    Outcome.PASS: "The same person shows all the time.",
    Outcome.UNCERTAIN: "For a moment this may be another person.",
    Outcome.FAIL: "Another person shows for a part of the clip.",
}
