"""Derived media are made by the real ffmpeg and the real Pillow child, and looked at again."""

import io
import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import scipy.signal
from PIL import Image

from tests import media
from tests.fakes.analyzer import FakeAnalyzer
from validators.analysis.wire import Analysis
from validators.derive.derived import Derived
from validators.derive.recipes import (
    CONTENT_TYPES,
    RECIPE_VERSIONS,
    Recipe,
    derive,
    recipes_for,
)
from validators.errors import ToolCrashedError, UnmeasuredError
from validators.facts import Face, FaceFacts, Facts, FrameFacts, Kind, Range, SpeechFacts
from validators.inspect import Tools, measure
from validators.media.probe import probe
from validators.media.sandbox import Sandbox

SAMPLES = Path(__file__).parents[2] / "samples"
FACE = Face(left=0.3, top=0.2, width=0.3, height=0.5, confidence=0.95, confirmation=0.9)
TOOLS = Tools(sandbox=Sandbox(), analyzer=FakeAnalyzer())
GREY = "color=black:s={size}:r=25:d={seconds},geq=lum='{first}+N':cb=128:cr=128"


def open_descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


async def measured(
    path: Path, kind: Kind, *, speech: Sequence[Range] = ((1.0, 4.0),), number: int = 0
) -> Facts:
    """Facts by the real tools, with the speech and the one frame with a face that are given."""
    heard = SpeechFacts(duration_s=5, speech=tuple(speech))
    facts = await measure(path, kind, replace(TOOLS, analyzer=FakeAnalyzer(answer=Analysis())))
    shown = FaceFacts(
        frames=(FrameFacts(time_s=number / 25, faces=(FACE,), number=number),), interval_s=0.4
    )
    return replace(facts, speech=heard, faces=shown)


async def made(recipe: Recipe, path: Path, facts: Facts, out: Path) -> Derived:
    return await derive(recipe, path, facts, out, TOOLS)


async def portrait_of(path: Path, out: Path, *, number: int) -> npt.NDArray[np.uint8]:
    facts = await measured(path, Kind.VIDEO, number=number)
    await made(Recipe.PORTRAIT, path, facts, out)
    with Image.open(out) as picture:
        return np.asarray(picture)


def grey(path: Path, *, seconds: float = 5, size: str = "320x256", first: int = 16) -> Path:
    """A clip each of whose frames is one level lighter than the one before it, and no sound."""
    source = GREY.format(size=size, seconds=seconds, first=first)
    lossless = ("-c:v", "libx264", "-qp", "0", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    media.ffmpeg("-f", "lavfi", "-i", source, *lossless, path)
    return path


def level(picture: npt.NDArray[np.uint8]) -> float:
    """The level of luma, 16..235, of a picture of one grey."""
    assert int(np.ptp(picture)) <= 1
    return float(picture.mean()) * 219 / 255 + 16


@pytest.mark.parametrize("number", [0, 1, 57, 124])
async def test_a_portrait_is_exactly_the_frame_of_its_number(tmp_path: Path, number: int) -> None:
    path = grey(tmp_path / "a.mp4")
    assert level(await portrait_of(path, tmp_path / "p.png", number=number)) == pytest.approx(
        16 + number, abs=0.4
    )


async def test_frames_are_counted_on_where_the_picture_changes_its_size(tmp_path: Path) -> None:
    first = grey(tmp_path / "1.ts", seconds=2)
    second = tmp_path / "2.ts"
    moved = grey(tmp_path / "2.mp4", seconds=3, size="480x384", first=100)
    media.ffmpeg("-i", moved, "-c", "copy", "-output_ts_offset", "2", second)
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    picture = await portrait_of(path, tmp_path / "p.png", number=60)
    assert level(picture) == pytest.approx(100 + 10, abs=0.4)
    assert picture.shape == (256, 320, 3)


async def test_a_portrait_of_a_missing_frame_is_an_error(tmp_path: Path) -> None:
    path = grey(tmp_path / "a.mp4")
    with pytest.raises(ToolCrashedError, match="nothing was derived"):
        await portrait_of(path, tmp_path / "p.png", number=125)


@pytest.mark.parametrize(
    ("matrix", "dark"),
    [
        ((1, 0, 0, 1), "left"),
        ((0, 1, -1, 0), "top"),
        ((-1, 0, 0, -1), "right"),
        ((0, -1, 1, 0), "bottom"),
        ((-1, 0, 0, 1), "right"),
    ],
)
async def test_a_portrait_is_turned_and_mirrored_as_a_viewer_sees_it(
    tmp_path: Path, matrix: tuple[int, int, int, int], dark: str
) -> None:
    plain = tmp_path / "plain.mp4"
    halves = "color=white:s=320x240:r=25:d=5,drawbox=w=160:color=black:t=fill"
    media.ffmpeg("-f", "lavfi", "-i", halves, *media.H264_AAC, plain)
    path = media.turned(tmp_path / "turned.mp4", plain, matrix)
    picture = await portrait_of(path, tmp_path / "p.png", number=10)
    upright = dark in {"left", "right"}
    assert picture.shape == ((240, 320, 3) if upright else (320, 240, 3))
    edges = {
        "left": picture[:, :60],
        "right": picture[:, -60:],
        "top": picture[:60],
        "bottom": picture[-60:],
    }
    assert min(edges, key=lambda name: float(edges[name].mean())) == dark


async def test_a_portrait_has_square_pixels_and_full_size(tmp_path: Path) -> None:
    path = media.clip(tmp_path / "a.mp4", size="360x480", options=("-vf", "setsar=4/3"))
    out = tmp_path / "p.png"
    facts = await measured(path, Kind.VIDEO)
    found = await made(Recipe.PORTRAIT, path, facts, out)
    assert (found.width, found.height) == (480, 480)
    with Image.open(out) as picture:
        assert (picture.size, picture.mode, picture.format) == ((480, 480), "RGB", "PNG")


async def test_a_picture_is_drawn_again_upright_and_without_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker of cameras"
    drawn = Image.new("RGB", (1600, 1200), (200, 200, 200))
    drawn.paste((20, 20, 20), (0, 0, 800, 1200))
    drawn.save(path, exif=exif, comment=b"a remark", icc_profile=b"no profile at all", dpi=(72, 72))
    out = tmp_path / "p.png"
    found = await made(Recipe.PORTRAIT, path, await measured(path, Kind.IMAGE), out)
    assert (found.width, found.height) == (1200, 1600)
    with Image.open(out) as picture:
        assert (picture.size, picture.mode, picture.info) == ((1200, 1600), "RGB", {})
        assert np.asarray(picture)[:700].mean() == pytest.approx(20, abs=2)
    assert b"maker" not in out.read_bytes()


@pytest.mark.parametrize("recipe", [Recipe.PORTRAIT, Recipe.VOICE_REFERENCE])
async def test_the_same_bytes_are_made_of_the_same_bytes(tmp_path: Path, recipe: Recipe) -> None:
    path = SAMPLES / "one_person.mp4"
    facts = await measured(path, Kind.VIDEO, number=40)
    first = await made(recipe, path, facts, tmp_path / "1")
    again = await made(recipe, path, facts, tmp_path / "2")
    assert first == again
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert first.size_bytes == (tmp_path / "1").stat().st_size


def samples_of(path: Path) -> tuple[int, npt.NDArray[np.float64]]:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return file.getframerate(), data / 32768


def decibels(samples: npt.NDArray[np.float64]) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(samples**2))))


def padded(path: Path, *, rate: int = 44_100, volume: str = "0dB", pan: str = "mono|c0=c0") -> Path:
    """Speech from 1.0 to 4.0 s of 5, silence around it."""
    spoken = media.speech(path.with_name("spoken.wav"), seconds=3)
    filters = f"volume={volume},adelay=1000:all=1,apad=whole_dur=5,pan={pan}"
    media.ffmpeg("-i", spoken, "-af", filters, "-ar", str(rate), "-c:a", "pcm_s24le", path)
    return path


@pytest.mark.parametrize(("rate", "kept"), [(8_000, 8_000), (44_100, 44_100), (96_000, 48_000)])
async def test_a_voice_reference_is_trimmed_and_keeps_its_rate(
    tmp_path: Path, rate: int, kept: int
) -> None:
    path, out = padded(tmp_path / "a.wav", rate=rate), tmp_path / "v.wav"
    facts = await measured(path, Kind.AUDIO, speech=[(0.8, 2.0), (2.2, 4.2)])
    found = await made(Recipe.VOICE_REFERENCE, path, facts, out)
    found_rate, samples = samples_of(out)
    assert found_rate == kept
    assert found.duration_s == pytest.approx(len(samples) / kept, abs=0.001)
    assert len(samples) / kept == pytest.approx(0.10 + 3.0 + 0.20, abs=0.12)
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    assert loud[0] / kept == pytest.approx(0.10, abs=0.06)


@pytest.mark.parametrize("volume", ["-40dB", "-6dB"])
async def test_a_voice_reference_has_one_loudness(tmp_path: Path, volume: str) -> None:
    path, out = padded(tmp_path / "a.wav", volume=volume), tmp_path / "v.wav"
    facts = await measured(path, Kind.AUDIO, speech=[(1.0, 4.0)])
    await made(Recipe.VOICE_REFERENCE, path, facts, out)
    _, samples = samples_of(out)
    speech = samples[4410:-8820]
    assert decibels(speech) == pytest.approx(-20, abs=0.5)
    assert len(np.unique(samples)) > 2_000, "made louder after it was rounded to 16 bits"


async def test_a_peak_is_never_clipped(tmp_path: Path) -> None:
    path, out = tmp_path / "a.wav", tmp_path / "v.wav"
    whisper = padded(tmp_path / "whisper.wav", volume="-30dB")
    click = "aevalsrc='0.5*between(t,2,2.0005)':s=44100:d=5"
    mix = ("-filter_complex", "amix=inputs=2:normalize=0", "-ar", "44100")
    media.ffmpeg("-i", whisper, "-f", "lavfi", "-i", click, *mix, path)
    facts = await measured(path, Kind.AUDIO, speech=[(1.0, 4.0)])
    await made(Recipe.VOICE_REFERENCE, path, facts, out)
    _, samples = samples_of(out)
    assert 20 * np.log10(np.abs(samples).max()) == pytest.approx(-1, abs=0.2)


@pytest.mark.parametrize("pan", ["stereo|c0=c0|c1=-1*c0", "stereo|c0=0*c0|c1=c0"])
async def test_a_voice_is_found_in_opposite_and_in_one_sided_channels(
    tmp_path: Path, pan: str
) -> None:
    voices = []
    for name, channels in (("mono", "mono|c0=c0"), ("stereo", pan)):
        path, out = padded(tmp_path / f"{name}.wav", pan=channels), tmp_path / f"{name}-out.wav"
        facts = await measured(path, Kind.AUDIO, speech=[(1.0, 4.0)])
        await made(Recipe.VOICE_REFERENCE, path, facts, out)
        voices.append(samples_of(out)[1])
    alike = scipy.signal.correlate(*voices).max() / np.prod([np.linalg.norm(v) for v in voices])
    assert alike > 0.95, "the same voice, though its ends may be cut at another 10 ms"


async def test_a_preview_is_short_and_small_with_its_index_in_front(tmp_path: Path) -> None:
    path = media.clip(tmp_path / "a.mkv", seconds=7, size="1280x720", fps=50)
    out = tmp_path / "preview.mp4"
    found = await made(Recipe.PREVIEW, path, await measured(path, Kind.VIDEO), out)
    assert (found.width, found.height, found.duration_s) == (480, 270, 5)
    assert boxes(out.read_bytes())[:3] == ["ftyp", "moov", "mdat"]
    shown = await probe(out, "mp4", Sandbox(), ffprobe="ffprobe", up_to_s=20)
    (video,), (audio,) = shown.container.video, shown.container.audio
    assert (video.codec, video.width, video.height) == ("h264", 480, 270)
    assert (audio.codec, audio.sample_rate_hz) == ("aac", 48_000)
    assert video.packets == 150
    assert shown.container.declared_duration_s == pytest.approx(5, abs=0.05)
    assert found.size_bytes == out.stat().st_size < 1_000_000


async def test_a_preview_of_a_turned_clip_is_upright(tmp_path: Path) -> None:
    plain = media.clip(tmp_path / "plain.mp4", size="640x360")
    path, out = media.turned_clockwise(tmp_path / "a.mp4", plain), tmp_path / "preview.mp4"
    found = await made(Recipe.PREVIEW, path, await measured(path, Kind.VIDEO), out)
    assert (found.width, found.height) == (270, 480)


def boxes(data: bytes) -> list[str]:
    found, file = [], io.BytesIO(data)
    while header := file.read(8):
        found.append(header[4:].decode())
        file.seek(int.from_bytes(header[:4]) - 8, io.SEEK_CUR)
    return found


def test_every_recipe_has_a_version_and_a_type_and_belongs_to_a_kind() -> None:
    assert set(RECIPE_VERSIONS) == set(CONTENT_TYPES) == set(Recipe)
    assert {recipe for kind in Kind for recipe in recipes_for(kind)} == set(Recipe)


async def test_what_was_not_measured_is_not_derived(tmp_path: Path) -> None:
    path = SAMPLES / "one_person.mp4"
    facts = await measured(path, Kind.VIDEO)
    for recipe, lacking in (
        (Recipe.PORTRAIT, replace(facts, faces=None)),
        (Recipe.VOICE_REFERENCE, replace(facts, speech=SpeechFacts(duration_s=5, speech=()))),
        (Recipe.PREVIEW, replace(facts, container=None)),
    ):
        with pytest.raises(UnmeasuredError):
            await made(recipe, path, lacking, tmp_path / "out")
    with pytest.raises(ValueError, match="no preview is made from image"):
        await made(Recipe.PREVIEW, path, replace(facts, kind=Kind.IMAGE), tmp_path / "out")


@pytest.mark.parametrize("recipe", [Recipe.PORTRAIT, Recipe.PREVIEW])
async def test_no_descriptor_is_left_behind_by_any_failure(tmp_path: Path, recipe: Recipe) -> None:
    path = SAMPLES / "one_person.mp4"
    facts = await measured(path, Kind.VIDEO)
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        await made(recipe, path, facts, tmp_path / "nowhere" / "out")
    missing = replace(TOOLS, ffmpeg="/nowhere/ffmpeg")
    with pytest.raises(ToolCrashedError):
        await derive(recipe, path, facts, tmp_path / "out", missing)
    gone = media.truncated(tmp_path / "gone.mp4", path, 0.02)
    with pytest.raises(ToolCrashedError):
        await made(recipe, gone, facts, tmp_path / "out")
    assert open_descriptors() == before
