"""One face, there all the time, whole and large enough.

The detector's confidence alone lets animals and pumpkins through; a second network on the crop
confirms a face. A fainter second face counts when it is seen again and again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from validators.checks.grade import crossed, finding, skip, skip_after, too_high, too_low
from validators.facts import Face, FaceFacts, Facts, FrameFacts, Range
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome

NO_PICTURE = "Skipped, because no picture was measured."
OF_MAIN_FACE = (Code.FACE_MISSING, Code.FACE_TOO_SMALL, Code.FACE_CUT_OFF)


def faces(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns `no_face`, `multiple_faces` and OF_MAIN_FACE."""
    if facts.faces is None or not facts.faces.frames:
        for code in (Code.NO_FACE, Code.MULTIPLE_FACES, *OF_MAIN_FACE):
            yield skip(code, NO_PICTURE)
        return
    seen = _seen(facts.faces, policy)
    confirmed = any(_confirmed(frame.main, policy) for frame in seen if frame.main is not None)
    yield _no_face(confirmed=confirmed)
    yield _multiple(facts.faces, seen, policy)
    if not confirmed:
        yield from (skip_after(code, Code.NO_FACE) for code in OF_MAIN_FACE)
        return
    yield _missing(facts.faces, seen, policy)
    yield _too_small(seen, policy)
    yield _cut_off(seen, policy)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One frame: the main face, and what else might be a face."""

    time_s: float
    main: Face | None
    others: tuple[Face, ...]


def _seen(measured: FaceFacts, policy: Policy) -> list[_Seen]:
    return [_look(frame, policy) for frame in measured.frames]


def _look(frame: FrameFacts, policy: Policy) -> _Seen:
    """The main face is the largest sure one; boxes mostly inside it are the same face again."""
    plausible = [face for face in frame.faces if face.confidence >= policy.faint_face_confidence]
    sure = [face for face in plausible if _sure(face, policy)] or plausible
    main = max(sure, key=_area, default=None)
    others = (
        face
        for face in plausible
        if main is not None and face is not main
        if _inside(face, main) <= policy.inside_main_face
    )
    return _Seen(time_s=frame.time_s, main=main, others=tuple(others))


def _sure(face: Face, policy: Policy) -> bool:
    """Sure enough to count alone. A face that nobody was asked to confirm is not denied."""
    denied = face.confirmation is not None and face.confirmation < policy.face_confirmation
    return face.confidence >= policy.face_confidence and not denied


def _confirmed(face: Face, policy: Policy) -> bool:
    return _sure(face, policy) and face.confirmation is not None


def _area(face: Face) -> float:
    return face.width * face.height


def _inside(face: Face, main: Face) -> float:
    """The share of *face* that lies within *main*."""
    width = min(face.left + face.width, main.left + main.width) - max(face.left, main.left)
    height = min(face.top + face.height, main.top + main.height) - max(face.top, main.top)
    return max(0.0, width) * max(0.0, height) / _area(face) if _area(face) > 0 else 1.0


def _no_face(*, confirmed: bool) -> Finding:
    outcome = Outcome.PASS if confirmed else Outcome.FAIL
    message = "There is a face." if confirmed else "No face is seen."
    return finding(Code.NO_FACE, outcome, message, hint="Show one face from the front.")


def _missing(measured: FaceFacts, seen: list[_Seen], policy: Policy) -> Finding:
    without = [frame.time_s for frame in seen if frame.main is None]
    share = len(without) / len(seen)
    warn, fail = policy.face_missing_warn, policy.face_missing_fail
    outcome = too_high(share, warn=warn, fail=fail)
    return finding(
        Code.FACE_MISSING,
        outcome,
        f"The face is missing in {share:.0%} of the clip.",
        value=share,
        limit=crossed(outcome, warn=warn, fail=fail),
        unit="share",
        ranges=_ranges(without, measured.interval_s),
        hint="Keep the face in the picture all the time.",
    )


def _multiple(measured: FaceFacts, seen: list[_Seen], policy: Policy) -> Finding:
    """A sure second face counts once; a faint one when enough frames show it."""
    certain = [frame for frame in seen if any(_sure(face, policy) for face in frame.others)]
    faint = [frame for frame in seen if frame.others]
    counted = faint if len(faint) >= policy.faint_face_frames else certain
    height = max((face.height for frame in counted for face in frame.others), default=0.0)
    shown_s = len(counted) * measured.interval_s
    lasting = f" for {shown_s:.1f} s" if shown_s else ""
    return finding(
        Code.MULTIPLE_FACES,
        Outcome.FAIL if counted else Outcome.PASS,
        f"A second face shows{lasting}." if counted else "There is no second face.",
        value=height,
        limit=0,
        unit="share",
        ranges=_ranges([frame.time_s for frame in counted], measured.interval_s),
        hint="Show one person alone; mind pictures and screens behind.",
    )


def _too_small(seen: list[_Seen], policy: Policy) -> Finding:
    heights = sorted(frame.main.height for frame in seen if frame.main is not None)
    height = heights[len(heights) // 2]
    warn, fail = policy.face_too_small_warn, policy.face_too_small_fail
    outcome = too_low(height, warn=warn, fail=fail)
    return finding(
        Code.FACE_TOO_SMALL,
        outcome,
        f"The face takes {height:.0%} of the picture's height.",
        value=height,
        limit=crossed(outcome, warn=warn, fail=fail),
        unit="share",
        hint="Move closer to the camera, or cut the picture around the face.",
    )


def _cut_off(seen: list[_Seen], policy: Policy) -> Finding:
    shares = sorted(_outside(frame.main) for frame in seen if frame.main is not None)
    share = shares[len(shares) // 2]
    warn, fail = policy.face_cut_off_warn, policy.face_cut_off_fail
    outcome = too_high(share, warn=warn, fail=fail)
    return finding(
        Code.FACE_CUT_OFF,
        outcome,
        "The whole face is in the picture."
        if share == 0
        else f"{share:.0%} of the face is cut off.",
        value=share,
        limit=crossed(outcome, warn=warn, fail=fail),
        unit="share",
        hint="Leave room around the face.",
    )


def _outside(face: Face) -> float:
    """The share of the box that lies outside the frame."""
    frame = Face(left=0, top=0, width=1, height=1, confidence=1)
    return 1 - _inside(face, frame)


def _ranges(times: list[float], interval_s: float) -> tuple[Range, ...]:
    """Sample times as ranges: neighbours are joined, each sample stands for its interval."""
    ranges: list[Range] = []
    for time_s in times if interval_s > 0 else []:
        if ranges and time_s <= ranges[-1][1] + interval_s / 2:
            ranges[-1] = (ranges[-1][0], time_s + interval_s)
        else:
            ranges.append((time_s, time_s + interval_s))
    return tuple(ranges)
