import asyncio
import fcntl
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests import media
from tests.facts import MOTION
from tests.fakes.analyzer import FakeAnalyzer
from validators.analysis.wire import Analysis, AnalysisRequest
from validators.errors import (
    AnalysisCrashedError,
    ToolCrashedError,
    ToolTimeoutError,
    UnmeasuredError,
)
from validators.facts import (
    FACTS_VERSION,
    Face,
    FaceFacts,
    FrameFacts,
    Kind,
    OverlayFacts,
    SpeakerFacts,
    SpeechFacts,
)
from validators.inspect import Inspection, Tools, inspect, measure
from validators.media.sandbox import Limits, Sandbox
from validators.policy import STANDARD
from validators.self_check import self_check
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
    faces=FaceFacts(
        frames=tuple(FrameFacts(time_s=n / 5, faces=(FACE,), number=n * 5) for n in range(85)),
        interval_s=0.2,
    ),
    motion=MOTION,
    overlays=OverlayFacts(overlays=(), frames=25),
)
SILENT = replace(GOOD, speech=SpeechFacts(duration_s=5, speech=()), speakers=None)


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
    assert len(frames) == 125 * 640 * 512 * 3 // 2
    assert len(samples) == pytest.approx(5 * 16_000 * 2, abs=1000)
    (request,) = analyzer.requests
    assert request.frames is not None
    assert (request.frames.width, request.frames.height) == (640, 512)
    assert request.frames.per_s == pytest.approx(25, abs=0.5)


async def test_a_good_recording_is_accepted_without_frames(tmp_path: Path) -> None:
    analyzer = FakeAnalyzer(answer=GOOD)
    found = await check(media.speech(tmp_path / "a.wav"), Kind.AUDIO, analyzer)
    assert found.verdict.accepted, found.verdict.failed
    assert analyzer.requests == [AnalysisRequest(kind=Kind.AUDIO, frames=None, samples=True)]


async def test_a_good_picture_is_accepted(tmp_path: Path) -> None:
    analyzer = FakeAnalyzer(answer=Analysis(faces=GOOD.faces, overlays=GOOD.overlays))
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


async def test_a_long_line_of_subtitles_hides_nothing_from_the_models(tmp_path: Path) -> None:
    clip = media.clip(tmp_path / "a.mp4", size="640x512")
    analyzer = FakeAnalyzer(answer=GOOD)
    both = media.subtitled(tmp_path / "b.mp4", clip, seconds=60)
    found = await check(both, Kind.VIDEO, analyzer)
    assert found.verdict.accepted, found.verdict.failed
    assert len(analyzer.requests) == 1


async def test_packets_that_only_promise_a_hopeless_duration_hide_nothing(tmp_path: Path) -> None:
    """The clock of a transport stream jumps by hours; ffmpeg mends that when it decodes."""
    parts = [
        media.clip(
            tmp_path / f"{hours}.ts",
            seconds=seconds,
            size="640x512",
            options=("-output_ts_offset", str(hours * 3600)),
        )
        for hours, seconds in ((0, 2), (11, 6))
    ]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    analyzer = FakeAnalyzer(answer=GOOD)
    found = await check(path, Kind.VIDEO, analyzer)
    assert len(analyzer.requests) == 1
    assert found.verdict.media.duration_s == pytest.approx(8, abs=0.3)


@pytest.mark.parametrize("fps", ["1", "1/2"])
async def test_a_slow_picture_makes_no_minute_short_enough(tmp_path: Path, fps: str) -> None:
    path = tmp_path / "a.mp4"
    picture = ("-f", "lavfi", "-i", f"testsrc2=s=640x512:r={fps}:d=60")
    tone = ("-f", "lavfi", "-i", "sine=f=330:d=60")
    media.ffmpeg(*picture, *tone, *media.H264_AAC, path)
    found = await check(path, Kind.VIDEO)
    assert found.verdict.failed == (Code.DURATION_TOO_LONG,)


async def test_no_medium_is_accepted_that_no_model_saw(tmp_path: Path) -> None:
    with pytest.raises(UnmeasuredError):
        await check(media.clip(tmp_path / "a.mp4"), Kind.VIDEO, FakeAnalyzer())


async def test_faces_are_told_at_the_times_that_were_shown(tmp_path: Path) -> None:
    parts = [("640x512", 2.5), ("512x640", 2.5)]
    path = media.resized(tmp_path / "a.ts", parts=parts)
    found = await check(path, Kind.VIDEO)
    assert found.facts.faces is not None
    times = [frame.time_s for frame in found.facts.faces.frames]
    assert times == sorted(times)
    assert times[0] == pytest.approx(0, abs=0.1)
    assert times[-1] == pytest.approx(4.9, abs=0.2)
    assert len(times) in {25, 26}
    assert found.verdict.accepted, found.verdict.failed


async def test_a_frame_that_nobody_looked_at_shows_no_face(tmp_path: Path) -> None:
    assert GOOD.faces is not None
    few = replace(GOOD, motion=MOTION.timed(MOTION.times_s[:100]))
    found = await check(
        media.clip(tmp_path / "a.mp4", size="640x512"), Kind.VIDEO, FakeAnalyzer(answer=few)
    )
    (missing,) = [c for c in found.verdict.checks if c.code is Code.FACE_MISSING]
    assert missing.outcome is Outcome.FAIL
    assert missing.ranges[0] == pytest.approx((4.0, 5.0), abs=0.03)


async def test_a_picture_that_ends_early_has_no_face_after_that(tmp_path: Path) -> None:
    short = media.clip(tmp_path / "v.mp4", seconds=1, size="640x512", sound=False)
    tone = media.tone(tmp_path / "a.m4a", seconds=6)
    path = tmp_path / "b.mp4"
    media.ffmpeg("-i", short, "-i", tone, "-c", "copy", path)
    found = await check(path, Kind.VIDEO)
    assert found.verdict.failed == (Code.FACE_MISSING,)


async def test_opposite_channels_are_heard_one_by_one(tmp_path: Path) -> None:
    voice = media.speech(tmp_path / "v.wav")
    path = tmp_path / "a.wav"
    media.ffmpeg("-i", voice, "-af", "pan=stereo|c0=c0|c1=-1*c0", path)
    analyzer = FakeAnalyzer(answer=SILENT, later=GOOD)
    found = await check(path, Kind.AUDIO, analyzer)
    assert found.verdict.accepted, found.verdict.failed
    both, left = analyzer.received
    assert max(both) <= 1
    assert max(left) > 1
    assert len(left) == len(both)


@pytest.mark.parametrize("channels", [1, 2])
async def test_silence_is_silence_however_often_it_is_heard(tmp_path: Path, channels: int) -> None:
    path = media.tone(tmp_path / "a.wav", options=("-ac", str(channels)))
    analyzer = FakeAnalyzer(answer=SILENT)
    found = await check(path, Kind.AUDIO, analyzer)
    assert found.verdict.failed == (Code.NO_SPEECH,)
    assert len(analyzer.requests) == channels


async def test_a_fast_clock_shortens_no_sound(tmp_path: Path) -> None:
    tone = media.tone(tmp_path / "a.m4a", seconds=60)
    path = media.sped_up(tmp_path / "b.m4a", tone, 6)
    analyzer = FakeAnalyzer(answer=GOOD)
    found = await check(path, Kind.AUDIO, analyzer)
    assert found.verdict.failed == (Code.UNREADABLE,)
    assert all(len(samples) <= 16 * 16_000 * 2 for samples in analyzer.received)


async def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media.speech(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)
    assert (await check(Path("a.wav"), Kind.AUDIO)).verdict.accepted


async def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Not a regular file"):
        await check(tmp_path / "pipe", Kind.AUDIO)


async def test_a_small_pipe_is_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "F_SETPIPE_SZ", -1)  # which the kernel refuses, as it may any size
    before = open_descriptors()
    assert (await check(media.speech(tmp_path / "a.wav"), Kind.AUDIO)).verdict.accepted
    assert open_descriptors() == before


async def test_tools_that_work_pass_their_check() -> None:
    assert await self_check(tools(FakeAnalyzer())) is None


@pytest.mark.parametrize("tool", ["ffmpeg", "ffprobe"])
@pytest.mark.parametrize("stand_in", ["/bin/false", "/bin/true", "/nowhere/tool"])
async def test_a_tool_that_calls_everything_bad_does_not_pass(tool: str, stand_in: str) -> None:
    good = tools(FakeAnalyzer())
    as_ffmpeg, as_ffprobe = replace(good, ffmpeg=stand_in), replace(good, ffprobe=stand_in)
    said = await self_check(as_ffmpeg if tool == "ffmpeg" else as_ffprobe)
    assert said is not None
    assert "ffmpeg 5.1 or newer" in said


async def test_an_ffmpeg_without_our_options_is_named(tmp_path: Path) -> None:
    old = tmp_path / "ffmpeg"
    old.write_text("#!/bin/sh\necho \"Unrecognized option 'fps_mode'.\" >&2\nexit 1\n")
    old.chmod(0o755)
    said = await self_check(replace(tools(FakeAnalyzer()), ffmpeg=str(old)))
    assert said is not None
    assert "fps_mode" in said


async def test_too_little_memory_does_not_pass(tmp_path: Path) -> None:
    small = Sandbox(limits=Limits(address_space_bytes=150 << 20))
    assert await self_check(replace(tools(FakeAnalyzer()), sandbox=small)) is not None
    with pytest.raises(ToolCrashedError):
        await measure(
            media.clip(tmp_path / "a.mp4"),
            Kind.VIDEO,
            replace(tools(FakeAnalyzer()), sandbox=small),
        )


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


async def test_frames_that_no_model_may_take_make_a_video_unreadable(tmp_path: Path) -> None:
    path = media.clip(
        tmp_path / "a.mp4",
        seconds=14,
        size="256x256",
        fps=290,
        codecs=("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"),
    )
    found = await check(path, Kind.VIDEO)
    assert found.facts.truncated
    assert found.verdict.failed == (Code.UNREADABLE,)
