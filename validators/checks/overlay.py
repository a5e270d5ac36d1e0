"""Nothing laid over the picture: no caption, logo, watermark or banner.

What certainly lies over the picture fails by its size, and sooner where it touches the face.
What may as well be part of the scene, as a sign on the wall may, only warns.
"""

from collections.abc import Iterator

from validators.checks.grade import crossed, finding, skip, too_high
from validators.facts import Face, FaceFacts, Facts, Overlay, OverlayFacts, Range
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome

NO_SEARCH = "Skipped, because the picture was not searched for overlays."


def overlay(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns `overlay`."""
    if facts.overlays is None:
        yield skip(Code.OVERLAY, NO_SEARCH)
        return
    faces = [] if facts.faces is None else _main_faces(facts.faces, policy)
    yield _worst(facts.overlays, faces, policy)


def _worst(measured: OverlayFacts, faces: list[tuple[float, Face]], policy: Policy) -> Finding:
    noticed = [o for o in measured.overlays if o.confidence >= policy.overlay_confidence_warn]
    sure = [
        o for o in noticed if _over_limit(o, faces, policy) >= -policy.overlay_confidence_margin
    ]
    counted = sure or noticed
    on_face = max((_of_face(each, faces) for each in counted), default=0.0)
    share = sum(each.width * each.height for each in counted)
    by_face = bool(sure) and on_face > policy.overlay_face_fail
    value, fail = (on_face, policy.overlay_face_fail) if by_face else (share, policy.overlay_fail)
    outcome = too_high(value, warn=0, fail=fail if sure else None)
    if outcome is Outcome.FAIL and not any(
        _over_limit(each, faces, policy) >= policy.overlay_confidence_margin for each in sure
    ):
        outcome = Outcome.UNCERTAIN
    return finding(
        Code.OVERLAY,
        outcome,
        _message(value, outcome, by_face=by_face),
        value=value,
        limit=crossed(outcome, warn=0, fail=fail),
        unit="share",
        ranges=_joined([shown for each in counted for shown in each.shown]),
        hint="Send the recording without captions, logos, watermarks or banners.",
    )


def _over_limit(overlay: Overlay, faces: list[tuple[float, Face]], policy: Policy) -> float:
    """How far its confidence is over what it takes: less on a face, where scenes have no print."""
    on_face = _of_face(overlay, faces) > policy.overlay_face_fail
    limit = policy.overlay_confidence_on_face if on_face else policy.overlay_confidence_fail
    return round(overlay.confidence - limit, 6)


def _message(value: float, outcome: Outcome, *, by_face: bool) -> str:
    if outcome is Outcome.PASS:
        return "Nothing is laid over the picture."
    where = "face" if by_face else "picture"
    if outcome is Outcome.FAIL:
        return f"Text or graphics cover {value:.1%} of the {where}."
    return f"Text on {value:.1%} of the {where} may be laid over it."


def _main_faces(measured: FaceFacts, policy: Policy) -> list[tuple[float, Face]]:
    """The largest face of each frame and the time of the frame, where there is one."""
    return [
        (frame.time_s, max(sure, key=lambda face: face.width * face.height))
        for frame in measured.frames
        if (sure := [face for face in frame.faces if face.confidence >= policy.face_confidence])
    ]


def _of_face(overlay: Overlay, faces: list[tuple[float, Face]]) -> float:
    """The largest share of the face that *overlay* covers while it is shown."""
    return max(
        (_covered(overlay, face) for time_s, face in faces if _shown(overlay, time_s)), default=0.0
    )


def _shown(overlay: Overlay, time_s: float) -> bool:
    return not overlay.shown or any(start <= time_s <= end for start, end in overlay.shown)


def _covered(overlay: Overlay, face: Face) -> float:
    right = min(overlay.left + overlay.width, face.left + face.width)
    bottom = min(overlay.top + overlay.height, face.top + face.height)
    width, height = right - max(overlay.left, face.left), bottom - max(overlay.top, face.top)
    area = face.width * face.height
    return max(0.0, width) * max(0.0, height) / area if area > 0 else 0.0


def _joined(times: list[Range]) -> tuple[Range, ...]:
    """In order, those that touch or overlap as one."""
    ranges: list[Range] = []
    for start_s, end_s in sorted(times):
        if ranges and start_s <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end_s, ranges[-1][1]))
        else:
            ranges.append((start_s, end_s))
    return tuple(ranges)
