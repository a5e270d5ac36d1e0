"""One face, there all the time, whole and large enough.

The detector's confidence alone lets animals and pumpkins through; a second network on the crop
confirms a face. A fainter second face counts when it is seen again and again.
"""

from collections.abc import Iterator

from validators.checks.grade import crossed, finding, skip, skip_after, too_high, too_low
from validators.checks.picture import display_size
from validators.checks.seen import (
    NO_PICTURE,
    Seen,
    closely,
    exceeded,
    inside,
    is_sure,
    is_there,
    joined,
    length_s,
    lies,
    measured,
    seen,
    where,
)
from validators.facts import DecodeFacts, Face, Facts
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome

OF_MAIN_FACE = (Code.FACE_MISSING, Code.FACE_TOO_SMALL, Code.FACE_CUT_OFF)
FRAME = Face(left=0, top=0, width=1, height=1, confidence=1)


def faces(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns `no_face`, `multiple_faces` and OF_MAIN_FACE."""
    frames = seen(facts, policy)
    if not frames:
        for code in (Code.NO_FACE, Code.MULTIPLE_FACES, *OF_MAIN_FACE):
            yield skip(code, NO_PICTURE)
        return
    there = is_there(frames, policy)
    yield _no_face(there=there)
    if not there or lies(frames, policy):  # no second without a first; lying ones are boxed badly
        cause = Code.FACE_TURNED if there else Code.NO_FACE
        yield from (skip_after(code, cause) for code in (Code.MULTIPLE_FACES, *OF_MAIN_FACE))
        return
    yield _multiple(frames, policy)
    yield _missing(facts.decode, frames, policy)
    yield _too_small(frames, policy, _sides_per_height(facts))
    yield _cut_off(frames, policy)


def _no_face(*, there: bool) -> Finding:
    outcome = Outcome.PASS if there else Outcome.FAIL
    message = "There is a face." if there else "No face is seen."
    return finding(Code.NO_FACE, outcome, message, hint="Show one face from the front.")


def _missing(decode: DecodeFacts | None, frames: list[Seen], policy: Policy) -> Finding:
    """Of the whole clip: where sound plays and no picture shows, no face does either."""
    shown_s = frames[0].shown[0], frames[-1].shown[1]
    whole_s = decode.duration_s if decode is not None else shown_s[1] - shown_s[0]
    dark = (0.0, shown_s[0]), (shown_s[1], whole_s)
    without = joined([dark[0], *(each.shown for each in frames if each.main is None), dark[1]])
    share = round(length_s(without) / whole_s, 6) if whole_s > 0 else 0.0
    warn, fail = policy.face_missing_warn, policy.face_missing_fail
    outcome = too_high(share, warn=warn, fail=fail)
    return finding(
        Code.FACE_MISSING,
        outcome,
        f"The face is missing in {share:.0%} of the clip.",
        value=share,
        limit=crossed(outcome, warn=warn, fail=fail),
        unit="share",
        ranges=without,
        hint="Keep the face in the picture all the time.",
    )


def _multiple(frames: list[Seen], policy: Policy) -> Finding:
    """A sure second face counts once; a faint one when enough frames show it."""
    certain = [each for each in frames if any(is_sure(face, policy) for face in each.others)]
    faint = [each for each in frames if each.others]
    lasting = length_s(joined(each.shown for each in faint)) >= policy.faint_face_s
    again = len(faint) >= policy.faint_face_frames and lasting
    counted = faint if again else certain
    height = max((face.height for each in counted for face in each.others), default=0.0)
    ranges = joined([each.shown for each in counted])
    during = f" for {length_s(ranges):.1f} s" if ranges else ""
    return finding(
        Code.MULTIPLE_FACES,
        Outcome.FAIL if counted else Outcome.PASS,
        f"A second face shows{during}." if counted else "There is no second face.",
        value=height,
        limit=0,
        unit="share",
        ranges=ranges,
        hint="Show one person alone; mind pictures and screens behind.",
    )


def _sides_per_height(facts: Facts) -> float:
    """The picture's height over its shorter side."""
    width, height = display_size(facts) or (1, 1)
    return height / max(1, min(width, height))


def _too_small(frames: list[Seen], policy: Policy, sides: float) -> Finding:
    """Over the shorter side: a telephone held upright shows as much face as one held level."""
    sizes = [(each.shown, each.main.height * sides) for each in frames if each.main is not None]
    size = exceeded(sizes, 1 - policy.lasting_share)
    warn, fail = policy.face_too_small_warn, policy.face_too_small_fail
    outcome = too_low(size, warn=warn, fail=fail, margin=policy.face_too_small_margin)
    limit = crossed(outcome, warn=warn, fail=fail)
    return finding(
        Code.FACE_TOO_SMALL,
        outcome,
        f"The face takes {size:.0%} of the picture's shorter side.",
        value=size,
        limit=limit,
        unit="share",
        ranges=() if outcome is Outcome.PASS else where(sizes, lambda each: each < limit),
        hint="Move closer to the camera, or cut the picture around the face.",
    )


def _cut_off(frames: list[Seen], policy: Policy) -> Finding:
    """Detectors box what shows of a face; the mesh also says where the rest would be."""
    looks = closely(frames, least_presence=policy.face_presence)
    boxes = [(each.shown, 1 - inside(each.main, FRAME)) for each in frames if each.main is not None]
    shares = measured(looks, lambda look: look.outside) if looks else boxes
    share = exceeded(shares, policy.lasting_share)
    warn, fail = policy.face_cut_off_warn, policy.face_cut_off_fail
    outcome = too_high(share, warn=warn, fail=fail, margin=policy.face_cut_off_margin)
    limit = crossed(outcome, warn=warn, fail=fail)
    whole = outcome is Outcome.PASS
    return finding(
        Code.FACE_CUT_OFF,
        outcome,
        "The whole face is in the picture." if whole else f"{share:.0%} of the face is cut off.",
        value=share,
        limit=limit,
        unit="share",
        ranges=() if whole else where(shares, lambda each: each > limit),
        hint="Leave room around the face.",
    )
