"""Small media made on the spot with ffmpeg, espeak-ng and Pillow: nothing is downloaded or kept.

Every function writes *path* and returns it, so that a test reads as a sentence. They block.
"""

import random
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from validators.media.sandbox import tool_name

TEXT = (
    "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs. "
    "How vexingly quick daft zebras jump. Sphinx of black quartz, judge my vow. "
    "The five boxing wizards jump quickly, and a mad boxer shot a quick, gloved jab."
)
H264_AAC = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(
        [tool_name("ffmpeg"), "-nostdin", "-v", "error", "-y", *map(str, arguments)],
        check=True,
        timeout=60,
    )


def clip(
    path: Path,
    *,
    seconds: float = 5,
    size: str = "320x240",
    fps: int = 25,
    sound: bool = True,
    codecs: Sequence[str] = H264_AAC,
    options: Sequence[str] = (),
) -> Path:
    """A moving test picture with a tone. *options* go before the output."""
    picture = ("-f", "lavfi", "-i", f"testsrc2=s={size}:r={fps}:d={seconds}")
    tone_ = ("-f", "lavfi", "-i", f"sine=f=330:r=48000:d={seconds}") if sound else ()
    ffmpeg(*picture, *tone_, *codecs, *options, path)
    return path


def tone(
    path: Path, *, seconds: float = 5, rate: int = 16_000, options: Sequence[str] = ()
) -> Path:
    """Sound without speech, in whatever format the name asks for."""
    ffmpeg("-f", "lavfi", "-i", f"sine=f=330:r={rate}:d={seconds}", *options, path)
    return path


def speech(path: Path, *, seconds: float = 6, voice: str = "en-us", text: str = TEXT) -> Path:
    """A synthetic voice, cut to length, in whatever format the name asks for."""
    spoken = path.with_name(f"{path.stem}-spoken.wav")
    subprocess.run(["espeak-ng", "-v", voice, "-w", spoken, text], check=True, timeout=60)
    ffmpeg("-i", spoken, "-t", str(seconds), path)
    return path


def turned(path: Path, source: Path, matrix: tuple[int, int, int, int]) -> Path:
    """The same MP4, shown so that (x, y) goes to (a x + c y, b x + d y), *matrix* being a b c d.

    The display matrix of the first track says so.
    """
    data = source.read_bytes()
    track = data.index(b"tkhd")
    at = data.index(_display_matrix(1, 0, 0, 1), track)
    path.write_bytes(data[:at] + _display_matrix(*matrix) + data[at + 36 :])
    return path


def turned_clockwise(path: Path, source: Path) -> Path:
    """The same MP4, shown a quarter turn clockwise."""
    return turned(path, source, (0, 1, -1, 0))


def _display_matrix(a: int, b: int, c: int, d: int) -> bytes:
    one = 1 << 16
    return struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)


def resized(path: Path, *, parts: Sequence[tuple[str, float]]) -> Path:
    """A transport stream whose picture changes its size: (size, seconds) after (size, seconds)."""
    data, at_s = b"", 0.0
    for size, seconds in parts:
        part = path.with_name(f"{path.stem}-{size}-{at_s:g}.ts")
        clip(part, seconds=seconds, size=size, options=("-output_ts_offset", str(at_s)))
        data, at_s = data + part.read_bytes(), at_s + seconds
    path.write_bytes(data)
    return path


def subtitled(path: Path, source: Path, *, seconds: float) -> Path:
    """*source* with one line of subtitles that stands for *seconds*."""
    lines = path.with_suffix(".srt")
    minutes, rest = divmod(int(seconds), 60)
    lines.write_text(f"1\n00:00:00,000 --> 00:{minutes:02}:{rest:02},000\nHello.\n")
    maps = ("-map", "0", "-map", "1", "-c", "copy", "-c:s", "mov_text")
    ffmpeg("-i", source, "-i", lines, *maps, path)
    return path


def referring(path: Path, source: Path, to: str) -> Path:
    """The same MOV, whose first track says that its samples are in another file: *to*.

    An alias in the track's `dref`, as QuickTime writes it; 2 is the kind of an absolute path.
    """
    data = bytearray(source.read_bytes())
    name = to.encode() + bytes(len(to) % 2)
    words = bytes(10) + bytes(28) + bytes(12) + bytes(64) + bytes(16) + bytes(4) + bytes(16)
    words += struct.pack(">HH", 2, len(to)) + name + struct.pack(">HH", 0xFFFF, 0)
    alias = struct.pack(">I4sI", 12 + len(words), b"alis", 0) + words
    dref = data.index(b"dref", data.index(b"minf"))
    entry = dref + 12  # behind the name, the version and the number of entries
    length = int.from_bytes(data[entry : entry + 4])
    data[entry : entry + length] = alias
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = data.rindex(box, 0, dref + 4) - 4
        grown = int.from_bytes(data[at : at + 4]) + len(alias) - length
        data[at : at + 4] = grown.to_bytes(4)
    path.write_bytes(data)
    return path


def sped_up(path: Path, source: Path, times: int) -> Path:
    """The same M4A with a media clock that runs *times* as fast as its samples."""
    data = source.read_bytes()
    at = data.index(b"mdhd") + 16
    rate = int.from_bytes(data[at : at + 4])
    path.write_bytes(data[:at] + (rate * times).to_bytes(4) + data[at + 4 :])
    return path


def lying(path: Path, source: Path, *, seconds: float) -> Path:
    """The same MP4, whose headers say that it and its tracks last *seconds*."""
    data = bytearray(source.read_bytes())
    movie = data.index(b"mvhd")
    ticks = int.from_bytes(data[movie + 16 : movie + 20])
    for atom, duration in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        at = -1
        while (at := data.find(atom, at + 1)) >= 0:
            rate = int.from_bytes(data[at + 16 : at + 20]) if atom == b"mdhd" else ticks
            data[at + duration : at + duration + 4] = int(seconds * rate).to_bytes(4)
    path.write_bytes(data)
    return path


def truncated(path: Path, source: Path, share: float) -> Path:
    """The first *share* of the bytes."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def damaged(path: Path, source: Path, *, every: int, after: float = 0.2) -> Path:
    """One byte in *every* replaced, past the first *after* of the file, which holds the header."""
    data, rng = bytearray(source.read_bytes()), random.Random(7)  # noqa: S311 - repeatable damage
    for at in range(int(len(data) * after), len(data), every):
        data[at] = rng.randrange(256)
    path.write_bytes(data)
    return path


def still(
    path: Path, *, size: tuple[int, int] = (64, 48), mode: str = "RGB", orientation: int = 1
) -> Path:
    """A picture whose left half is dark and right half is light."""
    grey = Image.new("L", size, 200)
    grey.paste(20, (0, 0, size[0] // 2, size[1]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey.convert(mode).save(path, exif=exif)
    return path


def animated(path: Path, *, frames: int = 3) -> Path:
    first, *rest = [Image.new("RGB", (64, 48), (shade * 40, 0, 0)) for shade in range(frames)]
    first.save(path, save_all=True, append_images=rest, duration=100)
    return path
