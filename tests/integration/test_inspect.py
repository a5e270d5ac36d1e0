import asyncio
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import media
from tests.fakes.analyzer import FakeAnalyzer
from validators.analysis.wire import Analysis, AnalysisRequest
from validators.errors import AnalysisCrashedError, ToolCrashedError, ToolTimeoutError
from validators.facts import (
    FACTS_VERSION,
    Face,
    FaceFacts,
    FrameFacts,
    Kind,
    SpeakerFacts,
    SpeechFacts,
)
from validators.inspect import Inspection, Tools, inspect, measure
from validators.media.sandbox import Limits, Sandbox
from validators.policy import STANDARD
from validators.verdict import Code, Outcome

FACE = Face(left=0.3, top=0.2, width=0.3, height=0.5, confidence=0.95, confirmation=0.9)
GOOD = Analysis(
    engines={"speech": "fake@1"},
    speech=SpeechFacts(
        duration_s=5,
        speech=((0.2, 4.8),),
        snr_db=40,
        music_probability=0,
        clipped_runs_per_s=0,
        loudness_dbfs=-20,
    ),
    speakers=SpeakerFacts(score=-3, second_voice_s=0),
    faces=FaceFacts(frames=(FrameFacts(time_s=0, faces=(FACE,)),), interval_s=0.2),
)


def tools(analyzer: FakeAnalyzer, **limits: float) -> Tools:
    return Tools(sandbox=Sandbox(limits=Limits(**limits)), analyzer=analyzer)  # type: ignore[arg-type]  # numbers all


async def check(path: Path, kind: Kind, analyzer: FakeAnalyzer | None = None) -> Inspection:
    return await inspect(path, kind, STANDARD, tools(analyzer or FakeAnalyzer(answer=GOOD)))


def outcomes(inspection: Inspection) -> dict[Code, Outcome]:
    return {check.code: check.outcome for check in inspection.verdict.checks}


def open_descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


async def test_a_good_video_is_measured_and_accepted(tmp_path: Path) -> None:
    path, analyzer = media.clip(tmp_path / "a.mp4", size="640x512"), FakeAnalyzer(answer=GOOD)
    found = await check(path, Kind.VIDEO, analyzer)
    assert found.verdict.accepted, found.verdict.failed
    assert found.facts.version == FACTS_VERSION
    assert found.facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.verdict.media.size_bytes == path.stat().st_size
    assert (found.verdict.media.width, found.verdict.media.fps) == (640, 25)
    assert found.verdict.engines == GOOD.engines
    frames, samples = analyzer.received
    assert len(frames) == 25 * 640 * 512 * 3
    assert len(samples) == pytest.approx(5 * 16_000 * 2, abs=1000)
    (request,) = analyzer.requests
    assert request.frames is not None
    assert (request.frames.width, request.frames.height) == (640, 512)


async def test_a_good_recording_is_accepted_without_frames(tmp_path: Path) -> None:
    analyzer = FakeAnalyzer(answer=GOOD)
    found = await check(media.speech(tmp_path / "a.wav"), Kind.AUDIO, analyzer)
    assert found.verdict.accepted, found.verdict.failed
    assert analyzer.requests == [AnalysisRequest(kind=Kind.AUDIO, frames=None, samples=True)]


async def test_a_good_picture_is_accepted(tmp_path: Path) -> None:
    analyzer = FakeAnalyzer(answer=Analysis(faces=GOOD.faces))
    found = await check(media.still(tmp_path / "a.png", size=(600, 700)), Kind.IMAGE, analyzer)
    assert found.verdict.accepted, found.verdict.failed
    assert len(analyzer.received[0]) == 600 * 700 * 3


@pytest.mark.parametrize("seconds", [2, 20])
async def test_no_model_runs_where_packets_show_a_hopeless_duration(
    tmp_path: Path, seconds: float
) -> None:
    analyzer = FakeAnalyzer(answer=GOOD)
    found = await check(media.tone(tmp_path / "a.wav", seconds=seconds), Kind.AUDIO, analyzer)
    code = Code.DURATION_TOO_SHORT if seconds < 4 else Code.DURATION_TOO_LONG
    assert found.verdict.failed == (code,)
    assert analyzer.requests == []
    skipped = [c for c in found.verdict.checks if c.code is Code.MULTIPLE_SPEAKERS]
    assert skipped[0].outcome is Outcome.SKIPPED
    assert code in skipped[0].message


async def test_a_long_recording_is_a_lower_bound(tmp_path: Path) -> None:
    found = await check(media.tone(tmp_path / "a.wav", seconds=20), Kind.AUDIO)
    assert found.facts.decode is not None
    assert found.facts.decode.capped
    assert found.verdict.media.duration_s == pytest.approx(16, abs=0.1)


async def test_a_video_without_sound_is_not_decoded(tmp_path: Path) -> None:
    analyzer = FakeAnalyzer(answer=GOOD)
    found = await check(media.clip(tmp_path / "a.mp4", sound=False), Kind.VIDEO, analyzer)
    assert Code.NO_AUDIO_STREAM in found.verdict.failed
    assert found.facts.decode is None
    assert analyzer.requests == []


async def test_a_video_over_the_pixel_cap_is_not_decoded(tmp_path: Path) -> None:
    path = media.clip(tmp_path / "a.mp4", seconds=4, size="4096x2304", fps=1)
    found = await check(path, Kind.VIDEO)
    assert Code.IMAGE_TOO_LARGE in found.verdict.failed
    assert found.facts.decode is None


async def test_a_truncated_video_is_unreadable(tmp_path: Path) -> None:
    whole = media.clip(tmp_path / "w.mp4", seconds=9, options=("-movflags", "+faststart"))
    found = await check(media.truncated(tmp_path / "a.mp4", whole, 0.6), Kind.VIDEO)
    assert Code.UNREADABLE in found.verdict.failed


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"<html></html>",
        b"#EXTM3U\n/etc/passwd\n",
        b"\x00\x00\x00\x20ftypisom" + bytes(100),
        b"\xff\xfb\x90\x64" + b"\x00" * 5000,
        b"RIFF\xff\xff\xff\xffWAVE" + b"\xff" * 100,
        b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm" + b"\xff" * 100,
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        b"\xff\xd8\xff\xe0" + bytes(50),
    ],
    ids=["empty", "text", "html", "playlist", "mp4", "mp3", "wav", "webm", "png", "jpeg"],
)
async def test_any_bytes_end_in_a_rejection(tmp_path: Path, kind: Kind, content: bytes) -> None:
    path = tmp_path / "upload"
    path.write_bytes(content)
    found = await check(path, kind)
    assert not found.verdict.accepted
    assert {Code.UNREADABLE, Code.UNSUPPORTED_FORMAT} & set(found.verdict.failed)


async def test_a_crash_of_the_analysis_stops_the_decoder_and_is_named(tmp_path: Path) -> None:
    path = media.clip(tmp_path / "a.mp4")
    before = open_descriptors()
    with pytest.raises(AnalysisCrashedError, match="gone"):
        await check(path, Kind.VIDEO, FakeAnalyzer(error=AnalysisCrashedError("gone")))
    assert open_descriptors() == before


async def test_an_analysis_that_stops_reading_is_a_crash(tmp_path: Path) -> None:
    path = media.clip(tmp_path / "a.mp4")
    with pytest.raises(AnalysisCrashedError, match="stopped reading"):
        await check(path, Kind.VIDEO, FakeAnalyzer(answer=GOOD, reads=False))


class StuckAnalyzer(FakeAnalyzer):
    """Never reads and never answers."""

    async def analyze(self, request: AnalysisRequest, fds: Sequence[int]) -> Analysis:
        self.requests.append(request)
        try:
            await asyncio.Event().wait()
        finally:
            for fd in fds:
                os.close(fd)
        return self.answer


async def test_a_decoder_that_nobody_reads_ends_at_its_deadline(tmp_path: Path) -> None:
    path = media.clip(tmp_path / "a.mp4", size="640x480", fps=10)
    before = open_descriptors()
    with pytest.raises(ToolTimeoutError):
        await inspect(path, Kind.VIDEO, STANDARD, tools(StuckAnalyzer(), wall_s=2))
    assert open_descriptors() == before


async def test_a_missing_ffmpeg_is_our_failure(tmp_path: Path) -> None:
    path = media.tone(tmp_path / "a.wav")
    broken = Tools(sandbox=Sandbox(), analyzer=FakeAnalyzer(), ffprobe="/nowhere/ffprobe")
    with pytest.raises(ToolCrashedError, match="/nowhere/ffprobe"):
        await measure(path, Kind.AUDIO, broken)


async def test_progress_names_its_stages_in_order(tmp_path: Path) -> None:
    heard: list[tuple[str, float, float | None]] = []
    await measure(
        media.tone(tmp_path / "a.wav"),
        Kind.AUDIO,
        tools(FakeAnalyzer(answer=GOOD)),
        on_progress=lambda stage, done, total, _: heard.append((stage, done, total)),
    )
    assert list(dict.fromkeys(stage for stage, _, _ in heard)) == ["identify", "probe", "decode"]
    _, done, total = heard[-1]
    assert total is not None
    assert done == pytest.approx(total, abs=0.1)


async def test_nothing_stays_open_after_an_inspection(tmp_path: Path) -> None:
    clip, still = media.clip(tmp_path / "a.mp4"), media.still(tmp_path / "a.png")
    await check(clip, Kind.VIDEO)
    before = open_descriptors()
    await check(clip, Kind.VIDEO)
    await check(still, Kind.IMAGE)
    assert open_descriptors() == before
