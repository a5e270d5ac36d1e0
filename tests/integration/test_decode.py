import asyncio
import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests import media
from tests.fakes.analyzer import drain
from validators.analysis.wire import MAX_VIDEO_FRAMES
from validators.errors import ToolCrashedError
from validators.facts import DecodeFacts, StreamFacts, StreamType
from validators.media.decode import (
    Decoded,
    Plan,
    Timeline,
    command,
    decode,
    frame_size,
)
from validators.media.probe import probe
from validators.media.sandbox import Limits, Sandbox, tool_name
from validators.media.signature import read_signature

SANDBOX = Sandbox(limits=Limits(wall_s=30))
BLACK_TO_WHITE = "format=yuv420p,geq=lum='if(lt(X,W/2),16,235)':cb=128:cr=128"


async def plan_for(path: Path, *, up_to_s: float = 16) -> Plan:
    signature = await asyncio.to_thread(read_signature, path)
    assert signature is not None
    probed = await probe(path, signature, SANDBOX, ffprobe=tool_name("ffprobe"), up_to_s=20)
    video, audio = probed.container.video[:1], probed.container.audio[:1]
    return Plan(
        signature=signature,
        size_bytes=await asyncio.to_thread(lambda: path.stat().st_size),
        video=video[0] if video else None,
        audio=audio[0] if audio else None,
        up_to_s=up_to_s,
        max_pixels=8_300_000,
    )


async def timeline(path: Path, *, up_to_s: float = 16) -> DecodeFacts:
    plan = await plan_for(path, up_to_s=up_to_s)
    return (await decode(path, plan, SANDBOX, ffmpeg_name=tool_name("ffmpeg"))).facts


async def with_pipes(path: Path, sandbox: Sandbox = SANDBOX) -> tuple[Decoded, list[bytes], Plan]:
    plan = await plan_for(path)
    pipes = [os.pipe() for stream in (plan.video, plan.audio) if stream]
    writers = [write for _, write in pipes]
    plan = replace(
        plan,
        frames_fd=writers[0] if plan.video else None,
        samples_fd=writers[-1] if plan.audio else None,
    )
    reading = [asyncio.create_task(asyncio.to_thread(drain, read)) for read, _ in pipes]
    decoded = await decode(path, plan, sandbox, ffmpeg_name=tool_name("ffmpeg"))
    return decoded, [await task for task in reading], plan


async def test_every_frame_and_every_packet_is_on_the_timeline(tmp_path: Path) -> None:
    facts = await timeline(media.clip(tmp_path / "a.mp4", seconds=5))
    assert facts.complete
    assert not facts.capped
    assert facts.video is not None
    assert facts.audio is not None
    assert (facts.video.units, facts.video.start_s) == (125, 0)
    assert facts.video.end_s == pytest.approx(5)
    assert facts.audio.end_s == pytest.approx(5, abs=0.03)
    assert facts.duration_s == pytest.approx(5, abs=0.03)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a.ogg", "a.opus", "a.m4a"])
async def test_encoder_delay_does_not_count(tmp_path: Path, name: str) -> None:
    facts = await timeline(media.tone(tmp_path / name, seconds=5, rate=48_000))
    assert facts.duration_s == pytest.approx(5, abs=0.025)


async def test_times_between_the_ticks_of_the_frame_rate_are_not_rounded(tmp_path: Path) -> None:
    late = (
        "-vf",
        "settb=1/90000,setpts=PTS+gte(N\\,60)*0.013/TB",
        "-video_track_timescale",
        "90000",
    )
    options = (*late, "-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-bf", "0")
    path = media.clip(tmp_path / "vfr.mp4", seconds=5, sound=False, options=options)
    facts = await timeline(path)
    assert facts.video is not None
    assert facts.video.units == 125
    assert facts.video.end_s == pytest.approx(5.013, abs=0.002)


async def test_decoding_stops_past_the_limit_and_says_so(tmp_path: Path) -> None:
    facts = await timeline(media.clip(tmp_path / "a.mp4", seconds=6), up_to_s=4)
    assert facts.capped
    assert facts.complete
    assert facts.duration_s == pytest.approx(4, abs=0.05)


async def test_an_edit_list_is_honoured(tmp_path: Path) -> None:
    whole = media.clip(tmp_path / "whole.mp4", seconds=8, options=("-g", "250"))
    media.ffmpeg("-ss", "3", "-i", whole, "-c", "copy", tmp_path / "cut.mp4")
    facts = await timeline(tmp_path / "cut.mp4")
    assert facts.duration_s == pytest.approx(5, abs=0.05)


async def test_damaged_packets_do_not_count_as_decoded(tmp_path: Path) -> None:
    options = ("-g", "50", "-movflags", "+faststart")
    whole = media.clip(tmp_path / "whole.mp4", seconds=5, options=options)
    facts = await timeline(media.damaged(tmp_path / "bad.mp4", whole, every=2000))
    assert facts.video is None or facts.video.units < 125 * 0.9


async def test_every_frame_comes_at_the_size_that_was_told(tmp_path: Path) -> None:
    path = media.clip(tmp_path / "a.mp4", seconds=5, size="1280x720", fps=30)
    decoded, (frames, samples), plan = await with_pipes(path)
    assert decoded.facts.complete
    assert plan.video is not None
    assert frame_size(plan.video) == (640, 360)
    assert len(frames) == 150 * 640 * 360 * 3 // 2
    assert len(samples) / 2 == pytest.approx(5 * 16_000, abs=500)


async def test_a_turned_video_gives_upright_frames(tmp_path: Path) -> None:
    source = ("-f", "lavfi", "-i", f"color=s=320x240:d=4:r=5,{BLACK_TO_WHITE}")
    media.ffmpeg(*source, "-c:v", "libx264", tmp_path / "flat.mp4")
    turned = media.turned_clockwise(tmp_path / "turned.mp4", tmp_path / "flat.mp4")
    _, (frames,), plan = await with_pipes(turned)
    assert plan.video is not None
    assert frame_size(plan.video) == (240, 320)
    grey = frames[: 240 * 320]
    top, bottom = grey[:240], grey[-240:]
    assert max(top) < 50  # dark was left: turned clockwise it is above
    assert min(bottom) > 200


CORNERS = {
    (1, 0, 0, 1): "abcd",
    (0, 1, -1, 0): "cadb",
    (-1, 0, 0, -1): "dcba",
    (0, -1, 1, 0): "bdac",
    (-1, 0, 0, 1): "badc",
    (1, 0, 0, -1): "cdab",
    (0, 1, 1, 0): "acbd",
    (0, -1, -1, 0): "dbca",
}  # what each display matrix makes of the corners a b over c d
GREYS = {"a": 20, "b": 90, "c": 160, "d": 230}


@pytest.mark.parametrize("matrix", CORNERS)
async def test_every_display_matrix_gives_upright_frames(
    tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    grey = "if(lt(Y,H/2),if(lt(X,W/2),20,90),if(lt(X,W/2),160,230))"
    source = f"color=s=320x240:d=1:r=5,format=yuvj420p,geq=lum='{grey}':cb=128:cr=128"
    codecs = ("-c:v", "libx264", "-qp", "10", "-pix_fmt", "yuvj420p")
    media.ffmpeg("-f", "lavfi", "-i", source, *codecs, tmp_path / "flat.mp4")
    turned = media.turned(tmp_path / "turned.mp4", tmp_path / "flat.mp4", matrix)
    _, (frames,), plan = await with_pipes(turned)
    assert plan.video is not None
    width, height = frame_size(plan.video)
    assert (width, height) == ((320, 240) if matrix[0] else (240, 320))
    places = [(x, y) for y in (20, height - 20) for x in (20, width - 20)]
    seen = [frames[y * width + x] for x, y in places]
    assert seen == [pytest.approx(GREYS[corner], abs=25) for corner in CORNERS[matrix]]


async def test_a_picture_may_change_its_size(tmp_path: Path) -> None:
    parts = [("320x240", 2.0), ("640x480", 2.0), ("160x120", 2.0)]
    decoded, (frames, _), plan = await with_pipes(media.resized(tmp_path / "a.ts", parts=parts))
    assert plan.video is not None
    width, height = frame_size(plan.video)
    assert len(frames) == len(decoded.frames_s) * width * height * 3 // 2
    gaps = [b - a for a, b in itertools.pairwise(decoded.frames_s)]
    assert len(decoded.frames_s) == pytest.approx(150, abs=4)
    assert 0 < min(gaps) <= max(gaps) < 0.2
    assert decoded.facts.complete


async def test_a_picture_that_begins_late_is_not_made_up(tmp_path: Path) -> None:
    tone = media.tone(tmp_path / "a.m4a", seconds=6)
    clip = media.clip(tmp_path / "v.mp4", seconds=2, sound=False)
    path = tmp_path / "b.mkv"
    media.ffmpeg("-i", tone, "-itsoffset", "4", "-i", clip, "-c", "copy", path)
    decoded, (frames, _), _ = await with_pipes(path)
    assert len(decoded.frames_s) == len(frames) / (320 * 240 * 3 / 2) == pytest.approx(50, abs=1)
    assert decoded.frames_s[0] == pytest.approx(4, abs=0.1)


async def test_a_picture_that_changes_all_the_time_gives_no_flood(tmp_path: Path) -> None:
    """Two parts in turn, a minute apart: ffmpeg mends such jumps of the clock."""
    wide, high = (
        media.clip(
            tmp_path / f"{size}.ts",
            seconds=0.08,
            size=size,
            options=("-output_ts_offset", str(offset_s)),
        )
        for size, offset_s in (("64x48", 0), ("48x64", 60))
    )
    path = tmp_path / "a.ts"
    path.write_bytes((wide.read_bytes() + high.read_bytes()) * 50)
    decoded, (frames, _), plan = await with_pipes(path)
    assert plan.video is not None
    width, height = frame_size(plan.video)
    assert len(frames) <= len(decoded.frames_s) * width * height * 3 // 2
    assert len(decoded.frames_s) < MAX_VIDEO_FRAMES


async def test_a_path_that_speaks_of_broken_pipes_breaks_none(tmp_path: Path) -> None:
    plan = await plan_for(media.tone(tmp_path / "a.wav"))
    path = tmp_path / "Broken pipe.wav"
    path.write_bytes(b"no sound")
    decoded = await decode(path, plan, SANDBOX, ffmpeg_name=tool_name("ffmpeg"))
    assert not decoded.facts.complete
    assert not decoded.abandoned


@pytest.mark.parametrize(
    "said", [b"0, x, y, z\n", b"nonsense\n", b"7, 0, 0, 1, 2, 3\n", b"#tb 0: 1/0\n"]
)
def test_a_timeline_that_makes_no_sense_is_our_failure(said: bytes) -> None:
    with pytest.raises(ToolCrashedError, match="timeline"):
        Timeline(on_time=lambda _: None, seeing=True).feed(said)


async def test_pixels_come_out_square(tmp_path: Path) -> None:
    path = media.clip(tmp_path / "a.mp4", seconds=4, options=("-aspect", "16:9"))
    _, (frames, _), plan = await with_pipes(path)
    assert plan.video is not None
    width, height = frame_size(plan.video)
    assert (width, height) == (428, 240)
    assert len(frames) == 100 * width * height * 3 // 2


async def test_a_reader_that_goes_away_is_told_from_a_crash(tmp_path: Path) -> None:
    path = media.clip(tmp_path / "a.mp4", seconds=5)
    plan = await plan_for(path)
    read, write = os.pipe()
    os.close(read)
    decoded = await decode(
        path, replace(plan, frames_fd=write), SANDBOX, ffmpeg_name=tool_name("ffmpeg")
    )
    assert decoded.abandoned


async def test_progress_is_told_while_decoding(tmp_path: Path) -> None:
    path = media.clip(tmp_path / "a.mp4", seconds=5)
    heard: list[float] = []
    plan = await plan_for(path)
    await decode(path, plan, SANDBOX, ffmpeg_name=tool_name("ffmpeg"), on_time=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(5, abs=0.05)


async def test_a_picture_that_grows_past_the_cap_is_not_decoded(tmp_path: Path) -> None:
    path = media.clip(tmp_path / "a.mp4", seconds=4, size="640x480")
    plan = replace(await plan_for(path), max_pixels=320 * 240)
    decoded = await decode(path, plan, SANDBOX, ffmpeg_name=tool_name("ffmpeg"))
    assert decoded.facts.video is None


def test_the_command_line_opens_one_demuxer_on_a_local_file() -> None:
    video = StreamFacts(index=2, type=StreamType.VIDEO, codec="h264", width=64, height=64)
    plan = Plan(
        signature="mp4",
        size_bytes=0,
        video=video,
        audio=None,
        up_to_s=16,
        max_pixels=9,
        frames_fd=9,
    )
    argv = command(Path("/m"), plan, ffmpeg_name="ffmpeg")
    before_input = argv[: argv.index("-i")]
    for option, value in (
        ("-f", "mov"),
        ("-format_whitelist", "mov"),
        ("-protocol_whitelist", "file,pipe"),
        ("-t", "16"),
        ("-max_pixels", "9"),
    ):
        assert before_input[before_input.index(option) + 1] == value
    assert argv[argv.index("-i") + 1] == "file:/m"
    assert argv.count("0:2") == 2  # the timeline and the frames
