from dataclasses import replace

import pytest

from tests.facts import FACE, IMAGE, VIDEO, the
from validators.checks.overlay import NO_SEARCH, overlay
from validators.facts import FaceFacts, Facts, FrameFacts, Overlay, OverlayFacts, OverlayKind
from validators.policy import STANDARD, STRICT
from validators.rules import judge
from validators.verdict import Code, Finding, Outcome

CAPTION = Overlay(
    kind=OverlayKind.TEXT,
    left=0.2,
    top=0.85,
    width=0.6,
    height=0.05,
    confidence=0.9,
    shown=((2.0, 3.5),),
)
LOGO = replace(CAPTION, left=0.0, top=0.0, width=0.1, height=0.1, shown=((0.0, 10.0),))
LIMIT = STANDARD.overlay_confidence_fail
ON_FACE = STANDARD.overlay_confidence_on_face
MARGIN = STANDARD.overlay_confidence_margin


def with_overlays(*overlays: Overlay, facts: Facts = VIDEO) -> Facts:
    return replace(facts, overlays=OverlayFacts(overlays=overlays, frames=50))


def found(*overlays: Overlay, facts: Facts = VIDEO) -> Finding:
    return the(Code.OVERLAY, with_overlays(*overlays, facts=facts))


def over_face(share: float, confidence: float) -> Overlay:
    """A strip as wide as the face that covers *share* of it."""
    height = FACE.height * share
    return replace(
        CAPTION,
        left=FACE.left,
        top=FACE.top,
        width=FACE.width,
        height=height,
        confidence=confidence,
    )


def test_a_picture_with_nothing_over_it_passes() -> None:
    assert found().outcome is Outcome.PASS
    assert found().value == 0


def test_what_was_not_searched_is_skipped_with_its_reason() -> None:
    (finding,) = overlay(replace(VIDEO, overlays=None), STANDARD)
    assert (finding.outcome, finding.message) == (Outcome.SKIPPED, NO_SEARCH)


@pytest.mark.parametrize(
    ("confidence", "outcome"),
    [
        (STANDARD.overlay_confidence_warn - 0.01, Outcome.PASS),
        (STANDARD.overlay_confidence_warn, Outcome.WARN),
        (LIMIT - MARGIN - 0.01, Outcome.WARN),
        (LIMIT - MARGIN, Outcome.UNCERTAIN),
        (LIMIT + MARGIN - 0.01, Outcome.UNCERTAIN),
        (LIMIT + MARGIN, Outcome.FAIL),
    ],
)
def test_confidence_decides_between_scene_and_overlay(confidence: float, outcome: Outcome) -> None:
    assert found(replace(CAPTION, confidence=confidence)).outcome is outcome


def test_what_is_too_close_to_call_fails_under_strict() -> None:
    facts = with_overlays(replace(CAPTION, confidence=LIMIT))
    assert Code.OVERLAY in judge(facts, STRICT).failed
    assert Code.OVERLAY not in judge(facts, STANDARD).failed


@pytest.mark.parametrize(
    ("share", "outcome"),
    [(STANDARD.overlay_fail, Outcome.WARN), (STANDARD.overlay_fail + 0.001, Outcome.FAIL)],
)
def test_a_speck_only_warns(share: float, outcome: Outcome) -> None:
    finding = found(replace(LOGO, width=share / LOGO.height))
    assert finding.outcome is outcome
    assert finding.value == pytest.approx(share, abs=0.0005)


@pytest.mark.parametrize(
    ("share", "confidence", "outcome"),
    [
        (0.005, ON_FACE + MARGIN, Outcome.WARN),
        (0.02, ON_FACE - MARGIN - 0.01, Outcome.WARN),
        (0.02, ON_FACE, Outcome.UNCERTAIN),
        (0.02, ON_FACE + MARGIN, Outcome.FAIL),
    ],
)
@pytest.mark.parametrize("facts", [VIDEO, IMAGE], ids=["video", "image"])
def test_less_confidence_is_enough_on_the_face(
    share: float, confidence: float, outcome: Outcome, facts: Facts
) -> None:
    overlay = replace(over_face(share, confidence), shown=())
    assert found(overlay, facts=facts).outcome is outcome


def test_the_share_is_the_face_s_where_it_is_touched() -> None:
    finding = found(over_face(0.02, 0.9))
    assert finding.value == pytest.approx(0.02)
    assert finding.limit == STANDARD.overlay_face_fail
    assert "of the face" in finding.message


def test_a_face_that_is_elsewhere_while_the_overlay_shows_is_not_touched() -> None:
    away = replace(FACE, left=0.7)
    frames = tuple(
        FrameFacts(time_s=n / 5, faces=(away if 10 <= n <= 17 else FACE,)) for n in range(50)
    )
    facts = replace(VIDEO, faces=FaceFacts(frames=frames, interval_s=0.2))
    assert "of the picture" in found(over_face(0.1, 0.9), facts=facts).message


def test_times_of_several_are_told_once_and_in_order() -> None:
    later = replace(LOGO, shown=((3.0, 4.0), (6.0, 7.0)))
    assert found(later, CAPTION).ranges == ((2.0, 4.0), (6.0, 7.0))


def test_a_doubtful_one_adds_nothing_to_what_is_sure() -> None:
    doubtful = replace(LOGO, confidence=0.5)
    finding = found(CAPTION, doubtful)
    assert finding.value == pytest.approx(CAPTION.width * CAPTION.height)
    assert finding.ranges == CAPTION.shown
