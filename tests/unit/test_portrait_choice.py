from dataclasses import replace

import pytest

from tests.facts import FACE, LOOK
from validators.derive.portrait_choice import best_frame, score
from validators.facts import FaceFacts, FaceLook, FrameFacts


def clip(*looks: FaceLook | None) -> FaceFacts:
    frames = tuple(
        FrameFacts(time_s=n / 2, faces=(FACE,), number=n, look=look) for n, look in enumerate(looks)
    )
    return FaceFacts(frames=frames, interval_s=0.5)


@pytest.mark.parametrize(
    "worse",
    [
        replace(LOOK, yaw_deg=-15),
        replace(LOOK, pitch_deg=15),
        replace(LOOK, roll_deg=15),
        replace(LOOK, eyes_open=0.2),
        replace(LOOK, sharpness=0.35),
        replace(LOOK, mouth_open=0.08),
        replace(LOOK, burnt=0.2),
        replace(LOOK, black=0.2),
        replace(LOOK, outside=0.1),
        replace(LOOK, presence=0.5),
        None,
    ],
)
def test_the_better_look_is_chosen_wherever_it_is(worse: FaceLook | None) -> None:
    for order in ([worse, LOOK, worse], [LOOK, worse], [worse, LOOK]):
        best = best_frame(clip(*order))
        assert best is not None
        assert best.look == LOOK


def test_of_equals_the_earliest_is_chosen() -> None:
    best = best_frame(clip(None, LOOK, LOOK))
    assert best is not None
    assert best.number == 1


def test_a_frame_with_company_is_the_last_resort() -> None:
    pair = FrameFacts(time_s=0, faces=(FACE, FACE), look=LOOK)
    alone = FrameFacts(time_s=1, faces=(FACE,), look=replace(LOOK, yaw_deg=20))
    assert best_frame(FaceFacts(frames=(pair, alone), interval_s=1)) is alone
    assert best_frame(FaceFacts(frames=(pair,), interval_s=1)) is pair


def test_a_clip_that_nobody_saw_closely_has_no_portrait() -> None:
    assert best_frame(clip(None, replace(LOOK, presence=0.1))) is None
    assert best_frame(FaceFacts(frames=(), interval_s=1)) is None


def test_nothing_but_zeros_can_be_scored() -> None:
    assert score(replace(LOOK, eyes_open=0, sharpness=0), eyes_open=0, sharpness=0) == 0
