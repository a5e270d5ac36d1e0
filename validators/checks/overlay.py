"""Nothing laid over the picture: no caption, logo, watermark or banner.

What certainly lies over the picture fails by its size, and sooner where it touches the face.
What may as well be part of the scene, as a sign on the wall may, only warns.
"""

from collections.abc import Iterator

from validators.checks.grade import crossed, finding, skip, too_high
from validators.checks.seen import inside, joined, seen
from validators.facts import Face, Facts, Overlay, OverlayFacts
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome

NO_SEARCH = "Skipped, because the picture was not searched for overlays."


def overlay(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns `overlay`."""
    if facts.overlays is None:
        yield skip(Code.OVERLAY, NO_SEARCH)
        return
    yield _worst(facts.overlays, _main_faces(facts, policy), policy)


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
        ranges=joined(sorted(shown for each in counted for shown in each.shown)),
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


def _main_faces(facts: Facts, policy: Policy) -> list[tuple[float, Face]]:
    """The main face of each frame and the time of the frame, where there is one."""
    return [(each.shown[0], each.main) for each in seen(facts, policy) if each.main is not None]


def _of_face(overlay: Overlay, faces: list[tuple[float, Face]]) -> float:
    """The largest share of the face that *overlay* covers while it is shown."""
    box = Face(
        left=overlay.left,
        top=overlay.top,
        width=overlay.width,
        height=overlay.height,
        confidence=overlay.confidence,
    )
    return max(
        (inside(face, box) for time_s, face in faces if _shown(overlay, time_s)), default=0.0
    )


def _shown(overlay: Overlay, time_s: float) -> bool:
    return not overlay.shown or any(start <= time_s <= end for start, end in overlay.shown)
