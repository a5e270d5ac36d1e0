"""Pairs of media beside each other: the real ffmpeg, the real Pillow child, the real models."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import media
from tests.fakes.analyzer import FakeAnalyzer
from validators.analysis.client import Analyzer
from validators.analysis.models.face_detector import drawn_face
from validators.analysis.wire import Analysis, FacePairRequest, VoicePairRequest
from validators.errors import AnalysisCrashedError, ToolCrashedError, UnmeasuredError
from validators.facts import Face, FaceFacts, FaceLook, FrameFacts, Kind, SpeechFacts
from validators.inspect import Tools, measure
from validators.media.sandbox import Sandbox
from validators.pairs import Judged, chosen, compare, measure_pair
from validators.policy import STANDARD
from validators.verdict import Outcome

SAMPLES = Path(__file__).parents[2] / "samples"
FACE = Face(left=0.3, top=0.2, width=0.3, height=0.5, confidence=0.95, confirmation=0.9)
LOOK = FaceLook(
    presence=1,
    yaw_deg=0,
    pitch_deg=0,
    roll_deg=0,
    mouth_open=0,
    eyes_open=0.3,
    sharpness=1,
    luma=0.5,
    burnt=0,
    black=0,
    outside=0,
)
HEARD = SpeechFacts(duration_s=5, speech=((0.5, 4.5),))
NUMBERS = (3, 17, 60, 88, 120)


def seen(*numbers: int) -> FaceFacts:
    frames = (FrameFacts(time_s=n / 25, faces=(FACE,), number=n) for n in numbers)
    return FaceFacts(frames=tuple(frames), interval_s=0.4)


def open_descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def tools(analyzer: FakeAnalyzer | Analyzer) -> Tools:
    return Tools(sandbox=Sandbox(), analyzer=analyzer)


async def judged(path: Path, kind: Kind) -> Judged:
    """Facts by the real tools but without models: *path* shows a face and carries speech."""
    facts = await measure(path, kind, tools(FakeAnalyzer(answer=Analysis())))
    return Judged(path=path, facts=replace(facts, faces=seen(*NUMBERS), speech=HEARD))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "face.png"
    picture, _ = drawn_face()
    Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1])).resize((640, 480)).save(path)
    return path


@pytest.fixture(scope="module")
def other_voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.speech(tmp_path_factory.mktemp("voice") / "man.wav", voice="en-us+m3")


@pytest.fixture
async def analyzer() -> AsyncIterator[Analyzer]:
    async with Analyzer() as analyzer:
        yield analyzer


async def test_one_person_is_known_again_by_face_and_voice(analyzer: Analyzer) -> None:
    real = tools(analyzer)
    video, image, audio = [
        Judged(path=SAMPLES / name, facts=await measure(SAMPLES / name, kind, real))
        for name, kind in (
            ("one_person.mp4", Kind.VIDEO),
            ("portrait.jpg", Kind.IMAGE),
            ("voice.flac", Kind.AUDIO),
        )
    ]
    verdict = await compare(video, image, audio, real, STANDARD)
    assert verdict.accepted
    face, voice = verdict.checks
    assert (face.outcome, voice.outcome) == (Outcome.PASS, Outcome.PASS)
    assert face.value is not None
    assert voice.value is not None
    assert face.value < 0.4
    assert voice.value > 0.8
    assert {"faces", "identity", "speakers"} <= set(verdict.engines)


async def test_another_face_and_another_voice_are_told_apart(
    analyzer: Analyzer, drawn: Path, other_voice: Path
) -> None:
    real = tools(analyzer)
    clip = SAMPLES / "one_person.mp4"
    video = Judged(path=clip, facts=await measure(clip, Kind.VIDEO, real))
    image, audio = await judged(drawn, Kind.IMAGE), await judged(other_voice, Kind.AUDIO)
    verdict = await compare(video, image, audio, real, STANDARD)
    assert not verdict.accepted
    assert [check.outcome for check in verdict.checks] == [Outcome.FAIL, Outcome.FAIL]


async def test_where_no_face_is_found_again_nobody_is_accused(
    analyzer: Analyzer, tmp_path: Path
) -> None:
    video = await judged(SAMPLES / "one_person.mp4", Kind.VIDEO)
    image = await judged(media.still(tmp_path / "a.png", size=(640, 480)), Kind.IMAGE)
    verdict = await compare(video, image, None, tools(analyzer), STANDARD)
    assert verdict.accepted
    assert [check.outcome for check in verdict.checks] == [Outcome.UNCERTAIN, Outcome.SKIPPED]


async def test_exactly_the_chosen_frames_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    source = "color=black:s=320x256:r=25:d=5,geq=lum='16+N':cb=128:cr=128"
    lossless = ("-c:v", "libx264", "-qp", "0", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    media.ffmpeg("-f", "lavfi", "-i", source, *lossless, path)
    still = media.still(tmp_path / "a.png", size=(640, 480))
    video, image = await judged(path, Kind.VIDEO), await judged(still, Kind.IMAGE)
    fake = FakeAnalyzer()
    await measure_pair(video, image, None, tools(fake))
    (request,) = fake.comparisons
    assert isinstance(request, FacePairRequest)
    assert (request.still.width, request.still.height) == (640, 480)
    picture, frames = fake.received
    assert len(picture) == 640 * 480 * 3
    shown = np.frombuffer(frames, np.uint8).reshape(len(NUMBERS), -1).mean(axis=1)
    assert shown.tolist() == [number * 255 // 219 for number in NUMBERS]


@pytest.mark.parametrize("rate", [8_000, 44_100])
async def test_both_voices_are_sent_at_one_rate_though_channels_cancel(
    tmp_path: Path, rate: int
) -> None:
    opposite = tmp_path / "opposite.wav"
    plain = media.speech(tmp_path / "plain.wav", seconds=5)
    media.ffmpeg("-i", plain, "-af", "pan=stereo|c0=c0|c1=-1*c0", "-ar", str(rate), opposite)
    fake = FakeAnalyzer()
    sound = await judged(opposite, Kind.AUDIO)
    await measure_pair(sound, None, await judged(plain, Kind.AUDIO), tools(fake))
    (request,) = fake.comparisons
    assert request == VoicePairRequest(recording_speech=HEARD.speech, video_speech=HEARD.speech)
    one, other = (np.frombuffer(pcm, "<i2").astype(float) for pcm in fake.received)
    assert len(one) == pytest.approx(len(other), abs=100)
    assert len(one) == pytest.approx(5 * 16_000, abs=200)
    assert np.sqrt(np.mean(other**2)) == pytest.approx(np.sqrt(np.mean(one**2)), rel=0.3)


async def test_a_failure_of_any_side_is_told_and_leaves_nothing_open(tmp_path: Path) -> None:
    video = await judged(SAMPLES / "one_person.mp4", Kind.VIDEO)
    image = await judged(SAMPLES / "portrait.jpg", Kind.IMAGE)
    before = open_descriptors()
    dead = FakeAnalyzer(error=AnalysisCrashedError("the child is gone"))
    with pytest.raises(AnalysisCrashedError):
        await measure_pair(video, image, None, tools(dead))
    with pytest.raises(AnalysisCrashedError):
        await measure_pair(video, None, video, tools(dead))
    torn = media.truncated(tmp_path / "torn.jpg", image.path, 0.3)
    with pytest.raises(ToolCrashedError, match="cannot be decoded again"):
        await measure_pair(video, replace(image, path=torn), None, tools(FakeAnalyzer()))
    blind = replace(video, facts=replace(video.facts, faces=None))
    with pytest.raises(UnmeasuredError):
        await measure_pair(blind, image, None, tools(FakeAnalyzer()))
    async with asyncio.timeout(5):  # the fake reads in a thread, which ends by itself
        while len(open_descriptors()) != len(before):  # noqa: ASYNC110 - threads set no event
            await asyncio.sleep(0.05)


def turned(number: int, yaw_deg: float) -> FrameFacts:
    look = replace(LOOK, yaw_deg=yaw_deg)
    return FrameFacts(time_s=number / 25, faces=(FACE,), number=number, look=look)


def test_frames_are_chosen_all_over_the_video_and_from_the_front() -> None:
    frames = tuple(turned(number, 0 if number % 10 == 4 else 30) for number in range(50))
    assert chosen(FaceFacts(frames=frames, interval_s=0.04)) == (4, 14, 24, 34, 44)
    empty = tuple(FrameFacts(time_s=n, faces=(), number=n) for n in range(9))
    assert chosen(FaceFacts(frames=(*empty, turned(9, 0)), interval_s=1)) == (9,)
    with pytest.raises(UnmeasuredError):
        chosen(FaceFacts(frames=empty, interval_s=1))
    with pytest.raises(UnmeasuredError):
        chosen(None)
