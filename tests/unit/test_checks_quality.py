from dataclasses import replace

import pytest

from tests.facts import FACE, IMAGE, LOOK, VIDEO, the
from validators.checks.quality import OF_QUALITY
from validators.facts import FaceFacts, FaceLook, Facts, FrameFacts
from validators.verdict import Code, Outcome


def looking(*looks: FaceLook) -> Facts:
    """As many frames as *looks*, evenly over ten seconds."""
    every_s = 10 / len(looks)
    frames = tuple(
        FrameFacts(time_s=n * every_s, faces=(FACE,), look=look) for n, look in enumerate(looks)
    )
    return replace(VIDEO, faces=FaceFacts(frames=frames, interval_s=every_s))


@pytest.mark.parametrize("code", OF_QUALITY)
@pytest.mark.parametrize("facts", [VIDEO, IMAGE], ids=["video", "image"])
def test_a_sharp_and_well_lit_face_passes(code: Code, facts: Facts) -> None:
    finding = the(code, facts)
    assert (finding.outcome, finding.ranges) == (Outcome.PASS, ())


@pytest.mark.parametrize(
    ("code", "good", "bad"),
    [
        (Code.BLURRY, replace(LOOK, sharpness=0.25), replace(LOOK, sharpness=0.249)),
        (Code.TOO_DARK, replace(LOOK, luma=0.2), replace(LOOK, luma=0.199)),
        (Code.TOO_BRIGHT, replace(LOOK, burnt=0.15), replace(LOOK, burnt=0.151)),
    ],
)
def test_each_limit_only_warns(code: Code, good: FaceLook, bad: FaceLook) -> None:
    assert the(code, looking(good)).outcome is Outcome.PASS
    assert the(code, looking(bad)).outcome is Outcome.WARN


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        (Code.BLURRY, replace(LOOK, sharpness=0.1)),
        (Code.TOO_DARK, replace(LOOK, luma=0.1)),
        (Code.TOO_BRIGHT, replace(LOOK, burnt=0.9)),
    ],
)
@pytest.mark.parametrize(("spoiled", "outcome"), [(9, Outcome.PASS), (11, Outcome.WARN)])
def test_half_of_the_time_decides(
    code: Code, bad: FaceLook, spoiled: int, outcome: Outcome
) -> None:
    finding = the(code, looking(*[bad] * spoiled, *[LOOK] * (20 - spoiled)))
    assert finding.outcome is outcome
    assert finding.ranges == (((0, spoiled / 2),) if outcome is Outcome.WARN else ())


def test_a_face_that_was_not_seen_closely_is_not_judged() -> None:
    frames = (FrameFacts(time_s=0, faces=(FACE,)),)
    facts = replace(IMAGE, faces=FaceFacts(frames=frames, interval_s=0))
    assert {the(code, facts).outcome for code in OF_QUALITY} == {Outcome.SKIPPED}


def test_a_face_too_blurred_for_the_mesh_is_blurred() -> None:
    smear = replace(LOOK, presence=0.01, sharpness=0.05)
    assert the(Code.BLURRY, looking(smear)).outcome is Outcome.WARN
