from dataclasses import replace

import pytest

from tests.facts import AUDIO_STREAM, IMAGE, VIDEO, VIDEO_STREAM, the
from validators.facts import ContainerFacts, Facts, PictureFacts, StreamFacts, TrackFacts
from validators.verdict import Code, Outcome


def picture(width: int, height: int, frames: int = 1) -> Facts:
    return replace(IMAGE, picture=PictureFacts(width=width, height=height, frames=frames))


def video(stream: StreamFacts) -> Facts:
    container = ContainerFacts(format="mov", declared_duration_s=10, streams=(stream, AUDIO_STREAM))
    return replace(VIDEO, container=container)


@pytest.mark.parametrize(
    ("short", "outcome"),
    [
        (255, Outcome.FAIL),
        (256, Outcome.WARN),
        (511, Outcome.WARN),
        (512, Outcome.PASS),
    ],
)
def test_the_short_side_is_graded(short: int, outcome: Outcome) -> None:
    assert the(Code.LOW_RESOLUTION, picture(short, 2000)).outcome is outcome
    assert the(Code.LOW_RESOLUTION, picture(2000, short)).outcome is outcome


def test_resolution_is_that_of_the_picture_as_it_is_shown() -> None:
    stretched = replace(VIDEO_STREAM, width=1440, height=600, sample_aspect=1 / 6)
    finding = the(Code.LOW_RESOLUTION, video(stretched))
    assert (finding.outcome, finding.value) == (Outcome.FAIL, 240)


def test_stretched_pixels_are_no_more_pixels() -> None:
    thin = replace(VIDEO_STREAM, width=240, height=720, sample_aspect=4.0)
    finding = the(Code.LOW_RESOLUTION, video(thin))
    assert (finding.outcome, finding.value) == (Outcome.FAIL, 240)


@pytest.mark.parametrize(("frames", "outcome"), [(900, Outcome.PASS), (15_000, Outcome.FAIL)])
def test_frames_have_a_cap_together(frames: int, outcome: Outcome) -> None:
    many = replace(VIDEO_STREAM, width=3840, height=2160, packets=frames, promised_packets=None)
    finding = the(Code.IMAGE_TOO_LARGE, video(many))
    assert finding.outcome is outcome
    assert (f"{frames} frames" in finding.message) is (outcome is Outcome.FAIL)


def test_a_failure_names_the_limit_that_it_crossed() -> None:
    assert the(Code.LOW_RESOLUTION, picture(100, 100)).limit == 256
    assert the(Code.LOW_RESOLUTION, picture(300, 300)).limit == 512


@pytest.mark.parametrize(
    ("size", "outcome"), [((10_000, 5000), Outcome.PASS), ((10_001, 5000), Outcome.FAIL)]
)
def test_images_have_a_cap_of_pixels(size: tuple[int, int], outcome: Outcome) -> None:
    assert the(Code.IMAGE_TOO_LARGE, picture(*size)).outcome is outcome


@pytest.mark.parametrize(
    ("size", "outcome"), [((3840, 2160), Outcome.PASS), ((4096, 2160), Outcome.FAIL)]
)
def test_frames_have_a_cap_of_their_own(size: tuple[int, int], outcome: Outcome) -> None:
    stream = replace(VIDEO_STREAM, width=size[0], height=size[1])
    assert the(Code.IMAGE_TOO_LARGE, video(stream)).outcome is outcome


@pytest.mark.parametrize(
    ("frames", "outcome"), [(149, Outcome.WARN), (150, Outcome.PASS), (250, Outcome.PASS)]
)
def test_the_pace_is_that_of_decoded_frames(frames: int, outcome: Outcome) -> None:
    assert VIDEO.decode is not None
    track = TrackFacts(start_s=0, end_s=10, units=frames)
    slow = replace(VIDEO_STREAM, packets=frames, promised_packets=frames, declared_fps=60.0)
    facts = replace(video(slow), decode=replace(VIDEO.decode, video=track))
    assert the(Code.LOW_FRAME_RATE, facts).outcome is outcome


@pytest.mark.parametrize(("frames", "outcome"), [(1, Outcome.PASS), (2, Outcome.FAIL)])
def test_an_image_must_not_move(frames: int, outcome: Outcome) -> None:
    assert the(Code.ANIMATED_IMAGE, picture(800, 800, frames)).outcome is outcome
