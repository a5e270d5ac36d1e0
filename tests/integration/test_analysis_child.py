"""The real child with its real models, fed by ffmpeg through pipes as an inspection feeds it."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from validators.analysis import weights
from validators.analysis.__main__ import SampleReader
from validators.analysis.client import Analyzer
from validators.analysis.models.face_detector import drawn_face
from validators.analysis.wire import MAX_VIDEO_FRAMES, AnalysisRequest, FrameStream
from validators.errors import AnalysisCrashedError
from validators.facts import Kind

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "The green room is where guests wait before they go on stage, and the tea is always warm."
FRAMES = FrameStream(width=320, height=240, per_s=25)
TINY = FrameStream(width=16, height=16, per_s=25)  # what is too much of them is still little
VIDEO = AnalysisRequest(kind=Kind.VIDEO, frames=FRAMES, samples=True)
TINY_VIDEO = AnalysisRequest(kind=Kind.VIDEO, frames=TINY, samples=True)
SAMPLES = AnalysisRequest(kind=Kind.AUDIO, frames=None, samples=True)
PICTURE = AnalysisRequest(
    kind=Kind.IMAGE, frames=FrameStream(width=320, height=240, per_s=0), samples=False
)
FRAME_BYTES = 320 * 240 * 3  # of a picture

ORPHAN = """
import asyncio, os
from validators.analysis.client import Analyzer

async def main():
    async with Analyzer() as analyzer:
        await analyzer.warm_up()
        print(analyzer._seats[0].child.process.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture(scope="module", autouse=True)
def _weights() -> None:
    missing = weights.missing()
    if missing:
        pytest.skip(f"{weights.WeightsMissingError(missing)}: the analysis child was NOT checked")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def analyzer() -> AsyncIterator[Analyzer]:
    async with Analyzer() as analyzer:
        yield analyzer


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that shows for as long as a voice speaks, about 5 s."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "face.raw").write_bytes(drawn_face()[0].tobytes())
    subprocess.run(["espeak-ng", "-w", str(folder / "voice.wav"), TEXT], check=True)
    picture = ("-f", "rawvideo", "-pix_fmt", "bgr24", "-s", "320x240", "-stream_loop", "-1")
    command = ["ffmpeg", "-v", "error", *picture, "-r", "25", "-i", str(folder / "face.raw")]
    command += ["-i", str(folder / "voice.wav"), "-t", "4.8", str(folder / "clip.mp4")]
    subprocess.run(command, check=True)
    return folder / "clip.mp4"


def decoding(path: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """One ffmpeg that writes frames and samples to two pipes, and their read ends."""
    (frames, to_frames), (samples, to_samples) = os.pipe(), os.pipe()
    command = ["ffmpeg", "-v", "error", "-i", str(path)]
    command += ["-map", "v", "-pix_fmt", "yuv420p", "-f", "rawvideo", f"pipe:{to_frames}"]
    command += ["-map", "a", "-ar", "16000", "-ac", "1", "-f", "s16le", f"pipe:{to_samples}"]
    process = subprocess.Popen(command, pass_fds=[to_frames, to_samples])
    os.close(to_frames)
    os.close(to_samples)
    return process, [frames, samples]


def filled(content: bytes) -> int:
    """A descriptor that reads as *content*, however long."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        return os.dup(file.fileno())


async def test_one_decode_gives_speech_and_faces(analyzer: Analyzer, clip: Path) -> None:
    process, fds = decoding(clip)
    analysis = await analyzer.analyze(VIDEO, fds)
    assert process.wait(timeout=5) == 0
    assert analysis.speech is not None
    assert analysis.faces is not None
    assert analysis.speakers is not None
    assert analysis.speech.speech_s == pytest.approx(analysis.speech.duration_s, abs=0.5)
    assert analysis.speakers.second_voice == ()
    assert analysis.motion is not None
    assert len(analysis.motion.times_s) == pytest.approx(120, abs=2)
    assert len(analysis.faces.frames) == pytest.approx(12, abs=2)
    assert all(len(frame.faces) == 1 for frame in analysis.faces.frames)
    assert analysis.engines["faces"].startswith("libfacedetection@")


@pytest.mark.parametrize(
    ("request_", "contents", "engines"),
    [
        (SAMPLES, [bytes(32_000)], {"speech", "speakers"}),
        (PICTURE, [bytes(FRAME_BYTES)], {"faces", "looks", "overlays"}),
        (TINY_VIDEO, [b"", b""], {"speech", "speakers", "faces", "looks", "overlays", "identity"}),
    ],
)
async def test_only_engines_that_were_asked_are_named(
    analyzer: Analyzer, request_: AnalysisRequest, contents: list[bytes], engines: set[str]
) -> None:
    fds = [filled(content) for content in contents]
    assert set((await analyzer.analyze(request_, fds)).engines) == engines


async def test_samples_written_before_any_frame_stop_nobody(analyzer: Analyzer) -> None:
    """More samples than a pipe holds, then the frames: who reads frames first waits for ever."""
    (frames, to_frames), (samples, to_samples) = os.pipe(), os.pipe()

    def write() -> None:
        with os.fdopen(to_frames, "wb") as one, os.fdopen(to_samples, "wb") as other:
            other.write(bytes(16 * 32_000))
            other.flush()
            one.write(bytes(FRAMES.frame_bytes))

    writing = asyncio.create_task(asyncio.to_thread(write))
    analysis = await asyncio.wait_for(analyzer.analyze(VIDEO, [frames, samples]), 30)
    await writing
    assert analysis.speech is not None
    assert analysis.speech.duration_s == 16


async def test_a_picture_has_one_frame_and_no_speech(analyzer: Analyzer) -> None:
    analysis = await analyzer.analyze(PICTURE, [filled(drawn_face()[0].tobytes())])
    assert analysis.faces is not None
    assert [len(frame.faces) for frame in analysis.faces.frames] == [1]
    assert (analysis.speech, analysis.speakers) == (None, None)


async def test_a_frame_that_was_cut_short_is_dropped(analyzer: Analyzer) -> None:
    frames = bytes(FRAMES.frame_bytes * 2 + 1000)
    analysis = await analyzer.analyze(VIDEO, [filled(frames), filled(b"\0\0\0")])
    assert analysis.faces is not None
    assert analysis.speech is not None
    assert analysis.motion is not None
    assert len(analysis.motion.times_s) == 2
    assert analysis.speech.duration_s == 1 / 16_000


async def test_nothing_at_all_is_no_error(analyzer: Analyzer) -> None:
    analysis = await analyzer.analyze(VIDEO, [filled(b""), filled(b"")])
    assert analysis.faces is not None
    assert analysis.faces.frames == ()


async def test_what_is_too_much_is_read_dropped_and_reported(analyzer: Analyzer) -> None:
    fds = [filled(bytes(TINY.frame_bytes * MAX_VIDEO_FRAMES + 1)), filled(bytes(17 * 32_000 + 2))]
    analysis = await analyzer.analyze(TINY_VIDEO, fds)
    assert analysis.motion is not None
    assert analysis.speech is not None
    assert analysis.truncated
    assert (len(analysis.motion.times_s), analysis.speech.duration_s) == (MAX_VIDEO_FRAMES, 17)


@pytest.mark.parametrize(
    ("request_", "contents", "truncated"),
    [
        (SAMPLES, [bytes(17 * 32_000)], False),
        (SAMPLES, [bytes(17 * 32_000 + 1)], True),
        (PICTURE, [bytes(FRAME_BYTES)], False),
        (PICTURE, [bytes(FRAME_BYTES + 1)], True),
        (TINY_VIDEO, [bytes(TINY.frame_bytes * MAX_VIDEO_FRAMES), b""], False),
        (TINY_VIDEO, [bytes(TINY.frame_bytes * MAX_VIDEO_FRAMES + 1), b""], True),
    ],
)
async def test_the_surplus_begins_with_one_byte(
    analyzer: Analyzer, request_: AnalysisRequest, contents: list[bytes], truncated: bool
) -> None:
    fds = [filled(content) for content in contents]
    assert (await analyzer.analyze(request_, fds)).truncated is truncated
    assert analyzer.restarts == 0


async def test_a_writer_of_a_minute_too_much_is_not_stopped(analyzer: Analyzer) -> None:
    """ffmpeg waits for whoever does not read, and never learns that it may stop."""
    read_end, write_end = os.pipe()

    def write() -> None:
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(bytes(60 * 32_000))

    writing = asyncio.create_task(asyncio.to_thread(write))
    analysis = await analyzer.analyze(SAMPLES, [read_end])
    await writing  # raises BrokenPipeError where the child hung up
    assert analysis.truncated


@pytest.mark.parametrize("duration_ms", [1, 30, 34, 35, 99])
async def test_next_to_no_sound_is_measured_as_no_speech(
    analyzer: Analyzer, duration_ms: int
) -> None:
    """The networks raise on so little of it, once the cheap look before them hears a voice."""
    buzz = (b"\xff\x3f" * 40 + b"\x01\xc0" * 40) * 20
    analysis = await analyzer.analyze(SAMPLES, [filled(buzz[: duration_ms * 32])])
    assert analysis.speech is not None
    assert (analysis.speech.speech, analysis.speech.duration_s) == ((), duration_ms / 1000)


class BrokenPipe(io.BytesIO):
    def read(self, _: int | None = -1, /) -> bytes:
        raise MemoryError("no room for samples")


async def test_samples_that_could_not_be_read_are_never_taken_for_silence() -> None:
    with pytest.raises(MemoryError, match="no room"):
        SampleReader(BrokenPipe()).finish()


async def test_an_idle_child_uses_no_more_than_a_third_of_its_limit(analyzer: Analyzer) -> None:
    await analyzer.warm_up()
    child = analyzer._seats[0].child
    assert child is not None
    assert psutil.Process(child.process.pid).memory_info().rss < 512 << 20


async def test_a_child_without_its_weights_says_what_to_run(tmp_path: Path) -> None:
    async with Analyzer(models_dir=tmp_path) as analyzer:
        with pytest.raises(AnalysisCrashedError, match="run `greenroom models`"):
            await analyzer.warm_up()
        assert not await analyzer.ready()


async def test_a_child_dies_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    child.send_signal(signal.SIGSTOP)  # it cannot even notice that its socket closed
    parent.kill()
    parent.communicate()
    gone, _ = await asyncio.to_thread(psutil.wait_procs, [child], timeout=5)
    assert gone
