"""Media to measure with, made from samples/ alone: what phones and studios send."""

import subprocess
from pathlib import Path

from validators.media.sandbox import tool_name

SAMPLES = Path(__file__).parents[1] / "samples"
MEDIA = {".jpg", ".flac", ".mp4"}

_CLIP = SAMPLES / "one_person.mp4"
_TO_1080P = "scale=1080:1080,pad=1920:1080:420:0,fps=25"
_H264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac")


def samples() -> list[Path]:
    return sorted(path for path in SAMPLES.iterdir() if path.suffix in MEDIA)


def make(folder: Path) -> list[Path]:
    """10 s of 1080p at 3 and at 24 Mbit/s, 10 s of a voice, and 12 megapixels."""
    small, large = folder / "1080p_3mbit.mp4", folder / "1080p_24mbit_noisy.mp4"
    voice, photo = folder / "voice_10s.wav", folder / "photo_12mp.jpg"
    _clip(small, _TO_1080P, 3)
    _clip(large, f"{_TO_1080P},noise=alls=24:allf=t", 24)
    looped = ("-stream_loop", "1", "-i", str(SAMPLES / "voice.flac"))
    _run(*looped, "-t", "10", "-ar", "48000", str(voice))
    _run("-i", str(SAMPLES / "portrait.jpg"), "-vf", "scale=3464:3464", "-q:v", "3", str(photo))
    return [small, large, voice, photo]


def _clip(path: Path, filters: str, mbit: int) -> None:
    rate = ("-b:v", f"{mbit}M", "-maxrate", f"{mbit}M", "-bufsize", f"{2 * mbit}M")
    looped = ("-stream_loop", "1", "-i", str(_CLIP))
    _run(*looped, "-t", "10", "-vf", filters, *_H264, *rate, str(path))


def _run(*arguments: str) -> None:
    argv = [tool_name("ffmpeg"), "-nostdin", "-v", "error", "-y", *arguments]
    subprocess.run(argv, check=True)
