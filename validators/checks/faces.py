"""One face, there all the time, whole and large enough.

The detector's confidence alone lets animals and pumpkins through; a second network on the crop
confirms a face. A fainter second face counts when it is seen again and again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from validators.checks.grade import crossed, finding, skip, skip_after, too_high, too_low
from validators.facts import DecodeFacts, Face, FaceFacts, Facts, FrameFacts, Range
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
    seen = _seen(facts.faces, facts.decode, policy)
    confirmed = any(_confirmed(frame.main, policy) for frame in seen if frame.main is not None)
    yield _no_face(confirmed=confirmed)
    if not confirmed:  # without a first face there is no second
        rest = (Code.MULTIPLE_FACES, *OF_MAIN_FACE)
        yield from (skip_after(code, Code.NO_FACE) for code in rest)
        return
    yield _multiple(seen, policy)
    yield _missing(facts.decode, seen, policy)
    yield _too_small(seen, policy)
    yield _cut_off(seen, policy)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One frame: the time that it stands for, the main face, and what else might be a face."""

    shown: Range
    main: Face | None
    others: tuple[Face, ...]


def _seen(measured: FaceFacts, decode: DecodeFacts | None, policy: Policy) -> list[_Seen]:
    """Each frame stands for the time until the next, the last one until the video ends."""
    starts = [frame.time_s for frame in measured.frames]
    last = starts[-1] + measured.interval_s
    if decode is not None and decode.video is not None:
        last = max(starts[-1], decode.video.end_s - decode.start_s)
    shown = zip(starts, [*starts[1:], last], strict=True)
    return [_look(frame, time, policy) for frame, time in zip(measured.frames, shown, strict=True)]


def _look(frame: FrameFacts, shown: Range, policy: Policy) -> _Seen:
    """The main face is the largest sure one; boxes mostly inside it are the same face again."""
    plausible = [face for face in frame.faces if face.confidence >= policy.faint_face_confidence]
    sure = [face for face in plausible if _sure(face, policy)] or plausible
    main = max(sure, key=_area, default=None)
    others = (
        face
        for face in plausible
        if main is not None and face is not main and not _denied(face, policy)
        if _inside(face, main) <= policy.inside_main_face
    )
    return _Seen(shown=shown, main=main, others=tuple(others))


def _denied(face: Face, policy: Policy) -> bool:
    """Whether the second network saw the whole of it and says that it is none.

    It denies most faces that the edge of the frame cuts off, as people in a corner's inset are.
    """
    denied = face.confirmation is not None and face.confirmation < policy.denied_confirmation
    return denied and _within(face, policy.edge)


def _within(face: Face, margin: float) -> bool:
    """Whether the box keeps off every edge of the frame."""
    right, bottom = face.left + face.width, face.top + face.height
    return min(face.left, face.top, 1 - right, 1 - bottom) >= margin


def _sure(face: Face, policy: Policy) -> bool:
    """Sure enough to count alone. A face that nobody was asked to confirm is not denied."""
    doubted = face.confirmation is not None and face.confirmation < policy.face_confirmation
    return face.confidence >= policy.face_confidence and not doubted


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


def _missing(decode: DecodeFacts | None, seen: list[_Seen], policy: Policy) -> Finding:
    """Of the whole clip: where sound plays and no picture shows, no face does either."""
    shown_s = seen[0].shown[0], seen[-1].shown[1]
    length_s = decode.duration_s if decode is not None else shown_s[1] - shown_s[0]
    dark = (0.0, shown_s[0]), (shown_s[1], length_s)
    without = _joined([dark[0], *(frame.shown for frame in seen if frame.main is None), dark[1]])
    share = round(_length_s(without) / length_s, 6) if length_s > 0 else 0.0
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


def _multiple(seen: list[_Seen], policy: Policy) -> Finding:
    """A sure second face counts once; a faint one when enough frames show it."""
    certain = [frame for frame in seen if any(_sure(face, policy) for face in frame.others)]
    faint = [frame for frame in seen if frame.others]
    counted = faint if len(faint) >= policy.faint_face_frames else certain
    height = max((face.height for frame in counted for face in frame.others), default=0.0)
    ranges = _joined([frame.shown for frame in counted])
    lasting = f" for {_length_s(ranges):.1f} s" if ranges else ""
    return finding(
        Code.MULTIPLE_FACES,
        Outcome.FAIL if counted else Outcome.PASS,
        f"A second face shows{lasting}." if counted else "There is no second face.",
        value=height,
        limit=0,
        unit="share",
        ranges=ranges,
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


def _joined(times: list[Range]) -> tuple[Range, ...]:
    """Neighbours as one, in order; what takes no time, as in a still image, is left out."""
    ranges: list[Range] = []
    for start_s, end_s in times:
        if end_s <= start_s:
            continue
        if ranges and start_s <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], end_s)
        else:
            ranges.append((start_s, end_s))
    return tuple(ranges)


def _length_s(ranges: tuple[Range, ...]) -> float:
    return sum(end_s - start_s for start_s, end_s in ranges)
