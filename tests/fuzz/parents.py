"""Clean media to mutate: every container and codec that we take, small, made of samples/.

One with the length of a real recording lets the models run; the others are short, so that a
mutant costs little. The same ffmpeg makes the same bytes, so a mutant can be made again.
"""

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from validators.facts import Kind
from validators.media.sandbox import tool_name
from validators.media.signature import read_signature

SAMPLES = Path(__file__).parents[2] / "samples"
LONG_S, SHORT_S = 4.4, 1.2
SAME_BYTES = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags", "+bitexact", "-threads", "1")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "12")
AV1 = ("-c:v", "libaom-av1", "-cpu-used", "8")
MPEG2 = ("-c:v", "mpeg2video")
QUIET = "log-level=0"
FASTSTART = ("-movflags", "faststart")
FRAGMENTED = ("-movflags", "empty_moov+default_base_moof+frag_keyframe")

Words = Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """One clean medium. `container` is our name of it, as in `validators.media.signature`."""

    name: str
    kind: Kind
    container: str
    data: bytes


@dataclass(frozen=True, slots=True)
class _Recipe:
    name: str
    codecs: Words
    long: bool = False
    size: str = "96:72"

    @property
    def seconds(self) -> str:
        return str(LONG_S if self.long else SHORT_S)


VIDEOS = (
    _Recipe("h264.mp4", (*X264, "-c:a", "aac", *FASTSTART), long=True, size="512:288"),
    _Recipe("fragmented.mp4", (*X264, "-c:a", "aac", *FRAGMENTED)),
    _Recipe("hevc.mp4", ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", QUIET)),
    _Recipe("turned.mp4", (*X264, "-c:a", "aac", "-metadata:s:v", "rotate=90", "-ss", "0.3")),
    _Recipe("h264.mov", (*X264, "-c:a", "pcm_s16le"), long=True),
    _Recipe("prores.mov", ("-c:v", "prores_ks", "-profile:v", "0", "-c:a", "alac")),
    _Recipe("mjpeg.mov", ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s24be")),
    _Recipe("mpeg4.3gp", ("-c:v", "mpeg4", "-c:a", "aac")),
    _Recipe("h263.3gp", ("-c:v", "h263", "-c:a", "aac"), size="128:96"),
    _Recipe("h264.mkv", (*X264, "-c:a", "flac"), long=True),
    _Recipe("av1.mkv", (*AV1, "-c:a", "ac3", "-ar", "32000"), size="64:48"),
    _Recipe("vp8.webm", ("-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libvorbis")),
    _Recipe("vp9.webm", ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus")),
    _Recipe("mpeg4.avi", ("-c:v", "mpeg4", "-c:a", "libmp3lame"), long=True),
    _Recipe("mjpeg.avi", ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_u8")),
    _Recipe("h264.ts", (*X264, "-c:a", "aac"), long=True),
    _Recipe("mpeg2.ts", (*MPEG2, "-c:a", "eac3", "-ar", "32000"), size="64:48"),
)
SOUNDS = (
    _Recipe("lame.mp3", ("-c:a", "libmp3lame"), long=True),
    _Recipe("tagged.mp3", ("-c:a", "libmp3lame", "-q:a", "5", "-metadata", "title=" + 40 * "x")),
    _Recipe("s16.wav", ("-c:a", "pcm_s16le"), long=True),
    _Recipe("f64.wav", ("-c:a", "pcm_f64le")),
    _Recipe("mulaw.wav", ("-c:a", "pcm_mulaw")),
    _Recipe("voice.flac", ("-c:a", "flac"), long=True),
    _Recipe("opus.ogg", ("-c:a", "libopus"), long=True),
    _Recipe("vorbis.ogg", ("-c:a", "libvorbis")),
    _Recipe("aac.m4a", ("-c:a", "aac"), long=True),
    _Recipe("alac.m4a", ("-c:a", "alac")),
    _Recipe("adts.aac", ("-c:a", "aac", "-f", "adts")),
    _Recipe("s16.aiff", ("-c:a", "pcm_s16be")),
    _Recipe("opus.webm", ("-c:a", "libopus")),
    _Recipe("ac3.mkv", ("-c:a", "ac3", "-ar", "32000")),
)


def make_parents(folder: Path) -> tuple[Parent, ...]:
    """All of them, in an order that does not change. Blocks; *folder* is for work."""
    made = [_video(recipe, folder) for recipe in VIDEOS]
    made += [_sound(recipe, folder) for recipe in SOUNDS]
    made += [_picture(folder, name, data) for name, data in _pictures()]
    return tuple(_dealt(made))


def _dealt(made: Sequence[Parent]) -> Iterator[Parent]:
    """The kinds in turn, so that any run of mutants has some of each."""
    piles = [[parent for parent in made if parent.kind is kind] for kind in Kind]
    for row in range(max(map(len, piles))):
        yield from (pile[row] for pile in piles if row < len(pile))


def _video(recipe: _Recipe, folder: Path) -> Parent:
    looks = ("-vf", f"scale={recipe.size},fps=10", *recipe.codecs)
    return _cut(recipe, Kind.VIDEO, folder, SAMPLES / "one_person.mp4", looks)


def _sound(recipe: _Recipe, folder: Path) -> Parent:
    return _cut(recipe, Kind.AUDIO, folder, SAMPLES / "voice.flac", ("-vn", *recipe.codecs))


def _cut(recipe: _Recipe, kind: Kind, folder: Path, source: Path, words: Words) -> Parent:
    path = folder / f"{kind}-{recipe.name}"
    begin = (tool_name("ffmpeg"), "-nostdin", "-v", "error", "-y", "-ss", "1")
    cut = ("-t", recipe.seconds, "-i", str(source), "-ac", "1", "-ar", "16000", *words)
    subprocess.run([*begin, *cut, *SAME_BYTES, str(path)], check=True, timeout=60)
    return _parent(path, kind)


def _pictures() -> Iterator[tuple[str, bytes]]:
    with Image.open(SAMPLES / "portrait.jpg") as opened:
        face = opened.convert("RGB")
    face.thumbnail((288, 288))
    small = face.resize((64, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    moved = [small.rotate(10 * turn) for turn in range(1, 4)]
    yield "baseline.jpg", _saved(face, "JPEG", exif=exif)
    yield "progressive.jpg", _saved(face, "JPEG", progressive=True, quality=50)
    yield "cmyk.jpg", _saved(small.convert("CMYK"), "JPEG")
    yield "rgb.png", _saved(small, "PNG")
    yield "palette.png", _saved(small.quantize(16), "PNG", transparency=3)
    yield "deep.png", _saved(small.convert("I;16"), "PNG")
    yield "moving.png", _saved(small, "PNG", save_all=True, append_images=moved)
    yield "lossy.webp", _saved(face, "WEBP", quality=40)
    yield "lossless.webp", _saved(small, "WEBP", lossless=True)
    yield "moving.webp", _saved(small, "WEBP", save_all=True, append_images=moved)
    yield "still.gif", _saved(small, "GIF")
    yield "moving.gif", _saved(small, "GIF", save_all=True, append_images=moved)


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:  # noqa: ANN401 - Pillow's own
    out = BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def _picture(folder: Path, name: str, data: bytes) -> Parent:
    path = folder / f"image-{name}"
    path.write_bytes(data)
    return _parent(path, Kind.IMAGE)


def _parent(path: Path, kind: Kind) -> Parent:
    container = read_signature(path)
    if container is None:
        raise ValueError(f"{path.name} begins like nothing that we know")
    return Parent(name=path.name, kind=kind, container=container, data=path.read_bytes())
