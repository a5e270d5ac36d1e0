"""Pictures and waveforms from real files, with the real ffmpeg and Pillow."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageStat

from tests import media
from tests.facts import VIDEO, lasting
from tests.fakes.analyzer import FakeAnalyzer
from validators.analysis.wire import Analysis
from validators.errors import ToolCrashedError
from validators.facts import Facts, Kind, Range
from validators.inspect import Tools, measure
from validators.media.contact_sheet import (
    MAX_SHOTS,
    SHOT_SIDE,
    SPREAD,
    ContactSheet,
    Reading,
    Shot,
    envelope,
    read_contact_sheet,
    shown_at,
    worth_showing,
)
from validators.media.sandbox import Sandbox

TOOLS = Tools(sandbox=Sandbox(), analyzer=FakeAnalyzer(answer=Analysis()))
READING = Reading(
    sandbox=TOOLS.sandbox,
    ffmpeg=TOOLS.ffmpeg,
    up_to_s=16,
    max_frame_pixels=8_300_000,
    max_image_pixels=50_000_000,
)


async def sheet_of(
    path: Path, kind: Kind = Kind.VIDEO, failing: tuple[Range, ...] = ()
) -> tuple[Facts, ContactSheet]:
    facts = await measure(path, kind, TOOLS)
    return facts, await read_contact_sheet(path, facts, failing, READING)


def opened(shot: Shot) -> Image.Image:
    return Image.open(io.BytesIO(shot.jpeg)).convert("L")


def brightness(shot: Shot, box: tuple[int, int, int, int] | None = None) -> float:
    picture = opened(shot)
    return ImageStat.Stat(picture.crop(box) if box else picture).mean[0]


def brightening(path: Path, *, seconds: float = 5) -> Path:
    """Grey that grows by 40 levels a second, so that a frame tells its own time."""
    grey = f"color=black:s=160x90:r=25:d={seconds},format=gray,geq=lum='16+40*T'"
    codecs = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    media.ffmpeg("-f", "lavfi", "-i", grey, *codecs, path)
    return path


async def test_each_picture_is_of_its_time(tmp_path: Path) -> None:
    path = brightening(tmp_path / "a.mp4")
    facts = await measure(path, Kind.VIDEO, TOOLS)
    assert facts.decode is None  # there is no sound, so nothing was decoded
    facts = replace(lasting(VIDEO, 5), container=facts.container, faces=None)
    sheet = await read_contact_sheet(path, facts, [], READING)
    assert len(sheet.shots) == SPREAD
    assert [shot.time_s for shot in sheet.shots] == sorted({shot.time_s for shot in sheet.shots})
    for shot in sheet.shots:
        assert brightness(shot) == pytest.approx(16 + 40 * shot.time_s, abs=4)


async def test_pictures_are_upright_and_small(tmp_path: Path) -> None:
    source = media.clip(tmp_path / "a.mp4", size="640x360")
    _, sheet = await sheet_of(media.turned_clockwise(tmp_path / "b.mp4", source))
    assert {(shot.width, shot.height) for shot in sheet.shots} == {(180, SHOT_SIDE)}
    assert {opened(shot).size for shot in sheet.shots} == {(180, SHOT_SIDE)}
    assert sum(len(shot.jpeg) for shot in sheet.shots) < 400_000


async def test_what_was_turned_is_turned_the_right_way(tmp_path: Path) -> None:
    """White on the left of the frames as coded is on top of what a viewer sees."""
    halves = "color=black:s=320x240:r=25:d=5,drawbox=0:0:160:240:white:fill"
    tone = ("-f", "lavfi", "-i", "sine=f=330:d=5")
    media.ffmpeg("-f", "lavfi", "-i", halves, *tone, *media.H264_AAC, tmp_path / "a.mp4")
    _, sheet = await sheet_of(media.turned_clockwise(tmp_path / "b.mp4", tmp_path / "a.mp4"))
    shot = sheet.shots[0]
    assert brightness(shot, (0, 0, shot.width, shot.height // 3)) > 200
    assert brightness(shot, (0, 2 * shot.height // 3, shot.width, shot.height)) < 50


async def test_the_waveform_shows_when_there_is_sound(tmp_path: Path) -> None:
    late = "aevalsrc='if(gt(t,2.5),0.5*sin(2*PI*330*t),0)':s=16000:d=5"
    media.ffmpeg("-f", "lavfi", "-i", late, tmp_path / "a.flac")
    _, sheet = await sheet_of(tmp_path / "a.flac", Kind.AUDIO)
    assert sheet.shots == ()
    heard = sheet.envelope
    assert heard is not None
    assert (heard.start_s, heard.end_s) == pytest.approx((0, 5), abs=0.01)
    half = len(heard.high) // 2
    assert max(heard.high[: half - 2]) < 0.01
    assert min(heard.high[half + 2 :]) > 0.4
    assert max(heard.low[half + 2 :]) < -0.4


async def test_a_still_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    path = media.still(tmp_path / "a.jpg", size=(1600, 1200), orientation=6)
    _, sheet = await sheet_of(path, Kind.IMAGE)
    (shot,) = sheet.shots
    assert opened(shot).size == (720, 960)
    assert brightness(shot, (0, 0, 720, 300)) < 50


@pytest.mark.parametrize("kind", list(Kind))
async def test_what_does_not_decode_has_no_pictures(tmp_path: Path, kind: Kind) -> None:
    (tmp_path / "a").write_bytes(b"\x89PNG\r\n\x1a\n" if kind is Kind.IMAGE else b"")
    _, sheet = await sheet_of(tmp_path / "a", kind)
    assert sheet == ContactSheet()


async def test_a_damaged_clip_shows_what_is_left_of_it(tmp_path: Path) -> None:
    whole = media.clip(tmp_path / "a.ts", seconds=6)
    _, sheet = await sheet_of(media.damaged(tmp_path / "b.ts", whole, every=9_000))
    assert 1 <= len(sheet.shots) <= MAX_SHOTS + 1


async def test_a_tool_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = media.clip(tmp_path / "a.mp4")
    facts = await measure(path, Kind.VIDEO, TOOLS)
    with pytest.raises(ToolCrashedError):
        await read_contact_sheet(path, facts, [], replace(READING, ffmpeg="no-ffmpeg"))


def test_failing_ranges_that_no_even_picture_shows_get_their_own() -> None:
    facts = replace(VIDEO, faces=None)
    even = worth_showing(facts, [])
    assert len(even) == SPREAD
    assert worth_showing(facts, [(0.0, 5.0)]) == even
    assert set(worth_showing(facts, [(1.0, 1.2)])) - set(even) == {1.1}
    many = [(n * 0.1 + 0.02, n * 0.1 + 0.04) for n in range(90)]
    assert len(worth_showing(facts, many)) == MAX_SHOTS


def test_pictures_are_taken_of_frames_that_were_looked_at() -> None:
    assert VIDEO.faces is not None
    looked_at = {frame.time_s for frame in VIDEO.faces.frames}
    assert set(worth_showing(VIDEO, [(1.01, 1.03)])) <= looked_at


def test_few_samples_make_few_columns() -> None:
    drawn = envelope(np.array([100, -200, 300], "<i2"), start_s=1)
    assert len(drawn.low) == len(drawn.high) == 3
    assert drawn.start_s == 1


def test_a_timeline_that_makes_no_sense_is_the_tool_s_fault() -> None:
    assert shown_at(b"#tb 0: 1/100\n0, 50, 50, 4, 256, 0x1\n") == [0.5]
    with pytest.raises(ToolCrashedError):
        shown_at(b"#tb 0: 1/100\n0, x")
