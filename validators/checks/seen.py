"""The frames that were looked at: how long each stands, who is in it, and what a clip shows of it.

The main face is the largest sure one that is where it was before; boxes mostly inside it are the
same face again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from validators.checks.grade import skip, skip_after
from validators.facts import DecodeFacts, Face, FaceFacts, FaceLook, Facts, FrameFacts, Range
from validators.policy import Policy
from validators.verdict import Code, Finding

Measured = Sequence[tuple[Range, float]]  # values, each for as long as its frame stands

NO_PICTURE = "Skipped, because no picture was measured."
NOT_CLOSE = "Skipped, because no face was seen closely."


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One frame: the time that it stands for, the main face, and what else might be a face."""

    shown: Range
    main: Face | None
    others: tuple[Face, ...] = ()
    look: FaceLook | None = None  # of the main face
    stranger: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """A frame whose main face was seen closely."""

    shown: Range
    look: FaceLook


def seen(facts: Facts, policy: Policy) -> list[Seen]:
    """Every frame that was looked at, in order; empty where none was."""
    if facts.faces is None or not facts.faces.frames:
        return []
    frames = facts.faces.frames
    times = _shown(facts.faces, facts.decode)
    found: list[Seen] = []
    before: Face | None = None
    for frame, time in zip(frames, times, strict=True):
        found.append(_frame(frame, time, before, policy))
        before = found[-1].main or before
    return found


def closely(frames: Iterable[Seen], *, least_presence: float) -> list[Close]:
    """The looks in which the mesh network is so sure of a face, each until the next one.

    Not every frame that is searched for faces is looked at closely.
    """
    looks: list[Close] = []
    stands = False
    for each in frames:
        if each.look is not None:
            stands = each.look.presence >= least_presence
            looks += [Close(shown=each.shown, look=each.look)] if stands else []
        elif stands and each.main is not None:
            looks[-1] = replace(looks[-1], shown=(looks[-1].shown[0], each.shown[1]))
        else:
            stands = False
    return looks


def unsure(codes: Iterable[Code], frames: Sequence[Seen], policy: Policy) -> list[Finding]:
    """As `unseen`, where the points of the face count and not its pixels alone."""
    if closely(frames, least_presence=policy.face_presence):
        return unseen(codes, frames, policy)
    return unseen(codes, frames, policy) or [skip(code, NOT_CLOSE) for code in codes]


def unseen(codes: Iterable[Code], frames: Sequence[Seen], policy: Policy) -> list[Finding]:
    """Why *codes* say nothing of the main face; empty where it was seen closely."""
    if not frames:
        return [skip(code, NO_PICTURE) for code in codes]
    if not is_there(frames, policy):
        return [skip_after(code, Code.NO_FACE) for code in codes]
    if not any(each.look for each in frames):
        return [skip(code, NOT_CLOSE) for code in codes]
    return []


def is_there(frames: Sequence[Seen], policy: Policy) -> bool:
    """Whether a face was confirmed, or one shows that is of no use as it is.

    Detector and confirmation know whole, upright faces. `face_turned` and `face_cut_off` tell of
    those that the mesh network alone is sure of, and fail.
    """
    confirmed = any(
        (each.main is not None and _confirmed(each.main, policy)) or _is_group(each, policy)
        for each in frames
    )
    return confirmed or lies(frames, policy) or _is_cut(frames, policy)


def lies(frames: Iterable[Seen], policy: Policy) -> bool:
    """Whether the face lies on its side or stands on its head for too long to be of use."""
    limit_deg = policy.face_tilted_fail_deg + policy.face_turned_margin_deg
    return _surely(frames, lambda look: abs(look.roll_deg), limit_deg, policy)


def _is_cut(frames: Iterable[Seen], policy: Policy) -> bool:
    limit = policy.face_cut_off_fail + policy.face_cut_off_margin
    return _surely(frames, lambda look: look.outside, limit, policy)


def _surely(
    frames: Iterable[Seen], measure: Callable[[FaceLook], float], limit: float, policy: Policy
) -> bool:
    looks = closely(frames, least_presence=policy.face_presence)
    certain = all(each.look.presence >= policy.certain_presence for each in looks)
    if not looks or not certain:
        return False
    return exceeded(measured(looks, measure), policy.lasting_share) > limit


def measured(frames: Iterable[Close], measure: Callable[[FaceLook], float]) -> Measured:
    return [(each.shown, measure(each.look)) for each in frames]


def exceeded(values: Measured, share: float) -> float:
    """The value that is exceeded for *share* of the time; 0.5 gives the median."""
    lengths_s = [end_s - start_s for (start_s, end_s), _ in values]
    weights = lengths_s if sum(lengths_s) > 0 else [1.0] * len(values)  # a still takes no time
    left = share * sum(weights)
    by_value = sorted(zip((value for _, value in values), weights, strict=True), reverse=True)
    for value, weight in by_value:
        left -= weight
        if left < 0:
            return value
    return by_value[-1][0]


def where(values: Measured, true: Callable[[float], bool]) -> tuple[Range, ...]:
    return joined([shown for shown, value in values if true(value)])


def joined(times: Iterable[Range]) -> tuple[Range, ...]:
    """Neighbours as one, in order; what takes no time, as in a still image, is left out."""
    ranges: list[Range] = []
    for start_s, end_s in times:
        if end_s <= start_s:
            continue
        if ranges and start_s <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end_s, ranges[-1][1]))
        else:
            ranges.append((start_s, end_s))
    return tuple(ranges)


def length_s(ranges: Iterable[Range]) -> float:
    return sum(end_s - start_s for start_s, end_s in ranges)


def is_sure(face: Face, policy: Policy) -> bool:
    """Sure enough to count alone. A face that nobody was asked to confirm is not denied."""
    doubted = face.confirmation is not None and face.confirmation < policy.face_confirmation
    return face.confidence >= policy.face_confidence and not doubted


def inside(face: Face, main: Face) -> float:
    """The share of *face* that lies within *main*."""
    width = min(face.left + face.width, main.left + main.width) - max(face.left, main.left)
    height = min(face.top + face.height, main.top + main.height) - max(face.top, main.top)
    return max(0.0, width) * max(0.0, height) / _area(face) if _area(face) > 0 else 1.0


def _shown(measured: FaceFacts, decode: DecodeFacts | None) -> list[Range]:
    """Each frame stands for the time until the next, the last one until the video ends."""
    starts = [frame.time_s for frame in measured.frames]
    last = starts[-1] + measured.interval_s
    if decode is not None and decode.video is not None:
        last = max(starts[-1], decode.video.end_s - decode.start_s)
    return list(zip(starts, [*starts[1:], last], strict=True))


def _frame(frame: FrameFacts, shown: Range, before: Face | None, policy: Policy) -> Seen:
    plausible = [face for face in frame.faces if _is_plausible(face, policy)]
    sure = [face for face in plausible if is_sure(face, policy)] or plausible
    main = _main(sure, before, policy)
    others = (
        face
        for face in plausible
        if main is not None and face is not main and not _denied(face, policy)
        if inside(face, main) <= policy.inside_main_face
    )
    return Seen(
        shown=shown,
        main=main,
        others=tuple(others),
        look=None if main is None else frame.look,
        stranger=frame.stranger,
    )


def _is_plausible(face: Face, policy: Policy) -> bool:
    """What the detector alone thinks likely, or what both networks think as likely as not."""
    agreed = min(face.confidence, face.confirmation or 0.0) >= policy.agreed_face
    return agreed or face.confidence >= policy.faint_face_confidence


def _is_group(frame: Seen, policy: Policy) -> bool:
    """Whether there are many certain faces and the second network denies none of them.

    It knows faces down to a size that those of a crowd may not have.
    """
    everybody = [*frame.others, *([frame.main] if frame.main is not None else [])]
    certain = [face for face in everybody if face.confidence >= policy.face_confidence]
    return len(certain) >= policy.group_of_faces


def _main(sure: list[Face], before: Face | None, policy: Policy) -> Face | None:
    """Who carries on from the frame before, however large a second face comes in; else the largest.

    *before*: the main face there.
    """
    staying = [face for face in sure if before and inside(face, before) > policy.inside_main_face]
    return max(staying or sure, key=_area, default=None)


def _confirmed(face: Face, policy: Policy) -> bool:
    return is_sure(face, policy) and face.confirmation is not None


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


def _area(face: Face) -> float:
    return face.width * face.height
