"""Small media made on the spot with ffmpeg, espeak-ng and Pillow: nothing is downloaded or kept.

Every function writes *path* and returns it, so that a test reads as a sentence. They block.
"""

import random
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

TEXT = (
    "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs. "
    "How vexingly quick daft zebras jump. Sphinx of black quartz, judge my vow. "
    "The five boxing wizards jump quickly, and a mad boxer shot a quick, gloved jab."
)
H264_AAC = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True, timeout=60
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


def turned_clockwise(path: Path, source: Path) -> Path:
    """The same MP4, shown a quarter turn clockwise: the first track's display matrix says so."""
    data = source.read_bytes()
    track = data.index(b"tkhd")
    one, w = 1 << 16, 1 << 30
    upright = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, w)
    clockwise = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, w)
    at = data.index(upright, track)
    path.write_bytes(data[:at] + clockwise + data[at + len(upright) :])
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
