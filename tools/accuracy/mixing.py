"""Faults of a known size, put into accepted media with ffmpeg: one file for each call of a recipe.

What is pasted in is a cut or a still picture, so a series shows where a check begins to see, not
how often real media are caught.
"""

import hashlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image, ImageOps
from pydub import AudioSegment

from tools.accuracy.labels import Label
from tools.accuracy.measuring import Wanted
from validators.checks.picture import display_size
from validators.facts import Face, Facts, Kind, Range
from validators.media.sandbox import tool_name

RATE_HZ = 24_000
LONGEST_VOICE_S = 10.0  # of the recording that a fault is put into
CLIP_S = 6.0
MAX_HEIGHT = 720
AT_FRAME = 50
HEAD = 1.5  # height and width of the pasted cut-out over the face's
WHITE_DBFS = -10.8  # of ffmpeg's white noise at an amplitude of 0.5: even between -0.5 and 0.5

_VOICE = f"aformat=sample_rates={RATE_HZ}:channel_layouts=mono"
_H264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p")


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """An accepted file and what was measured of it."""

    label: Label
    facts: Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One run of ffmpeg. *face*: the second input is this face, cut out of a still picture."""

    base: Medium
    other: Medium | None
    arguments: tuple[str, ...]
    kind: Kind
    face: Face | None = None

    @property
    def key(self) -> str:
        """The same for the same inputs and arguments, on any machine."""
        inputs = [medium.facts.sha256 for medium in (self.base, self.other) if medium]
        told = json.dumps([inputs, self.arguments, repr(self.face)])
        return f"made:{hashlib.sha256(told.encode()).hexdigest()}"

    def wanted(self) -> Wanted:
        return Wanted(key=self.key, kind=self.kind, build=partial(build, self))


def build(recipe: Recipe, folder: Path) -> Path:
    """Make the medium in *folder*. Raises OSError where ffmpeg fails."""
    inputs = [recipe.base.label.path]
    if recipe.other is not None:
        inputs.append(_head(recipe.other, recipe.face, folder))
    path = folder / ("made.flac" if recipe.kind is Kind.AUDIO else "made.mp4")
    named = [word for each in inputs for word in ("-i", str(each))]
    argv = [tool_name("ffmpeg"), "-nostdin", "-v", "error", "-threads", "1", *named]
    ended = subprocess.run([*argv, *recipe.arguments, str(path)], check=False, capture_output=True)
    if ended.returncode:
        raise OSError(f"ffmpeg: {ended.stderr.decode(errors='replace').strip()[-300:]}")
    return path


def _head(medium: Medium, face: Face | None, folder: Path) -> Path:
    """The medium itself, or the *face* in it with what surrounds a face."""
    if face is None:
        return medium.label.path
    picture = ImageOps.exif_transpose(Image.open(medium.label.path)).convert("RGB")
    width, height = picture.size
    left, top, right, bottom = _surroundings(face)
    box = (int(left * width), int(top * height), int(right * width), int(bottom * height))
    path = folder / "head.png"
    picture.crop(box).save(path)
    return path


def _surroundings(face: Face) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is cut out with a face, as shares of the picture."""
    middle_x, middle_y = face.left + face.width / 2, face.top + face.height / 2
    across, down = HEAD * face.width / 2, HEAD * face.height / 2
    return (
        max(0.0, middle_x - across),
        max(0.0, middle_y - down),
        min(1.0, middle_x + across),
        min(1.0, middle_y + down),
    )


def in_turn(base: Medium, other: Medium, spoken: Range, length_s: float) -> Recipe:
    """The other voice in a pause of the first, as loud, for *length_s* from where it begins."""
    end_s = _length_s(base)
    at_s = _pause(base, end_s)
    graph = (
        f"[0:a]{_VOICE},asplit[one][two];"
        f"[one]atrim=0:{at_s:.3f},asetpts=PTS-STARTPTS[before];"
        f"[two]atrim={at_s:.3f}:{end_s:.3f},asetpts=PTS-STARTPTS[after];"
        f"{_second(base, other, spoken, length_s)}[second];"
        "[before][second][after]concat=n=3:v=0:a=1[out]"
    )
    return _sound(base, other, graph)


def overlapped(base: Medium, other: Medium, spoken: Range, length_s: float) -> Recipe:
    """The other voice over the first while that speaks, as loud."""
    start_s, end_s = max(_speech(base), key=lambda run: min(run[1], _length_s(base)) - run[0])
    delay_s = start_s + max(0.0, (end_s - start_s - length_s) / 2)
    graph = (
        f"[0:a]{_VOICE},atrim=0:{_length_s(base):.3f}[first];"
        f"{_second(base, other, spoken, length_s)},adelay={round(delay_s * 1000)}:all=1[second];"
        "[first][second]amix=inputs=2:duration=first:normalize=0[out]"
    )
    return _sound(base, other, graph)


def with_music(base: Medium, music: Medium, level_db: float) -> Recipe:
    """Music under all of the recording, *level_db* against the speech."""
    gain = _loudness(base) + level_db - AudioSegment.from_file(music.label.path).dBFS
    graph = (
        f"[0:a]{_VOICE},atrim=0:{_length_s(base):.3f}[first];"
        f"[1:a]{_VOICE},volume={gain:.2f}dB[second];"
        "[first][second]amix=inputs=2:duration=first:normalize=0[out]"
    )
    return _sound(base, music, graph)


def with_noise(base: Medium, ratio_db: float, seed: int) -> Recipe:
    """White noise under all of the recording, *ratio_db* below the speech."""
    gain = _loudness(base) - ratio_db - WHITE_DBFS
    noise = f"anoisesrc=color=white:seed={seed}:duration=20:amplitude=0.5:sample_rate={RATE_HZ}"
    graph = (
        f"[0:a]{_VOICE},atrim=0:{_length_s(base):.3f}[first];"
        f"{noise},volume={gain:.2f}dB[second];"
        "[first][second]amix=inputs=2:duration=first:normalize=0[out]"
    )
    return _sound(base, None, graph)


def second_face(base: Medium, other: Medium, share: float, frames: int | None) -> Recipe:
    """Another head in the upper corner away from the face; *share*: of its face, in heights."""
    width, height = _size(base)
    face, main = _face(other), _face(base)
    _, top, _, bottom = _surroundings(face)
    pixels = share * height * (bottom - top) / face.height  # of the cut-out, which holds the face
    x = "0" if main.left + main.width / 2 > 0.5 else "W-w"  # noqa: PLR2004 - the middle
    last = "10000" if frames is None else str(AT_FRAME + frames - 1)
    first = "0" if frames is None else str(AT_FRAME)
    graph = (
        f"[0:v]scale={width}:{height}[clip];"
        f"[1:v]scale=-2:{max(2, round(pixels / 2) * 2)}[head];"
        f"[clip][head]overlay=x={x}:y=0:enable='between(n,{first},{last})'[out]"
    )
    return _clip(base, other, graph, face)


def intruder(base: Medium, other: Medium, frames: int) -> Recipe:
    """Somebody else's clip in place of *frames* frames; the sound goes on."""
    width, height = _size(base)
    fill = f"scale={width}:{height}:force_original_aspect_ratio=increase,crop={width}:{height}"
    between = f"between(n,{AT_FRAME},{AT_FRAME + frames - 1})"
    graph = (
        f"[0:v]scale={width}:{height}[clip];[1:v]{fill}[other];"
        f"[clip][other]overlay=enable='{between}'[out]"
    )
    return _clip(base, other, graph)


def _sound(base: Medium, other: Medium | None, graph: str) -> Recipe:
    arguments = ("-filter_complex", graph, "-map", "[out]", "-bitexact")
    return Recipe(base=base, other=other, arguments=arguments, kind=Kind.AUDIO)


def _clip(base: Medium, other: Medium, graph: str, face: Face | None = None) -> Recipe:
    maps = ("-filter_complex", graph, "-map", "[out]", "-map", "0:a:0")
    ending = ("-t", str(CLIP_S), *_H264, "-c:a", "aac", "-bitexact")
    return Recipe(base=base, other=other, arguments=(*maps, *ending), kind=Kind.VIDEO, face=face)


def _second(base: Medium, other: Medium, spoken: Range, length_s: float) -> str:
    gain = _loudness(base) - _loudness(other)
    span = f"{spoken[0]:.3f}:{spoken[0] + length_s:.3f}"
    return f"[1:a]{_VOICE},atrim={span},asetpts=PTS-STARTPTS,volume={gain:.2f}dB"


def _pause(base: Medium, end_s: float) -> float:
    """The end of a run of speech, the nearest to the middle."""
    ends = [end for _start, end in _speech(base) if end < end_s - 0.5] or [end_s / 2]
    return min(ends, key=lambda end: abs(end - end_s / 2))


def _speech(medium: Medium) -> Sequence[Range]:
    return medium.facts.speech.speech if medium.facts.speech else ()


def _loudness(medium: Medium) -> float:
    speech = medium.facts.speech
    return (speech.loudness_dbfs if speech else None) or 0.0


def _length_s(medium: Medium) -> float:
    decode = medium.facts.decode
    return min(LONGEST_VOICE_S, decode.duration_s if decode else 0.0)


def _size(medium: Medium) -> tuple[int, int]:
    """Width and height of a made clip: the base's, made even and not too large."""
    width, height = display_size(medium.facts) or (2, 2)
    scale = min(1.0, MAX_HEIGHT / height)
    return round(width * scale / 2) * 2, round(height * scale / 2) * 2


def _face(medium: Medium) -> Face:
    """The largest face of the first frame that shows one."""
    frames = medium.facts.faces.frames if medium.facts.faces else ()
    return next(frame.faces[0] for frame in frames if frame.faces)
