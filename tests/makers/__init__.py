"""Makers of the media that tests/cases/media.toml names: hostile, odd or merely unusual ones.

A maker takes a Bench and returns the file that it wrote; its name in the table is its own. All
begin with the samples, so that what should be accepted shows a real face and a real voice.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path

from tests import media

SAMPLES = Path(__file__).parents[2] / "samples"
PORTRAIT = SAMPLES / "portrait.jpg"
TWO_PEOPLE = SAMPLES / "two_people.mp4"
CLIP_S, CLIP_FPS = 4.6, 16
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "20", "-pix_fmt", "yuv420p")
COPY = ("-c", "copy")


@dataclass
class Bench:
    """A folder to work in, and the good media that makers spoil: each made once."""

    folder: Path
    numbers: "count[int]" = field(default_factory=count)

    def new(self, suffix: str = "mp4") -> Path:
        """A path that nothing has used."""
        return self.folder / f"{next(self.numbers)}.{suffix}"

    def write(self, data: bytes, suffix: str = "mp4") -> Path:
        path = self.new(suffix)
        path.write_bytes(data)
        return path

    def convert(self, *options: str | Path, source: Path | None = None, to: str = "mp4") -> Path:
        """The clip, or *source*, through ffmpeg."""
        path = self.new(to)
        media.ffmpeg("-i", source or self.clip, *options, path)
        return path

    def filtered(self, picture: str, *options: str, to: str = "mp4") -> Path:
        """The clip through a filter of pictures; its sound is copied."""
        return self.convert("-vf", picture, *X264, "-c:a", "copy", *options, to=to)

    @cached_property
    def whole(self) -> Path:
        """Seven seconds of the same, with the index in front."""
        few = ("-vf", f"fps={CLIP_FPS}", *X264, "-c:a", "copy", "-movflags", "+faststart")
        return self.convert(*few, source=SAMPLES / "one_person.mp4")

    @cached_property
    def clip(self) -> Path:
        """One person who speaks, in few frames: all of them are looked at."""
        few = ("-t", str(CLIP_S), "-vf", f"fps={CLIP_FPS}", *X264, "-c:a", "copy")
        return self.convert(*few, source=SAMPLES / "one_person.mp4")

    @cached_property
    def voice(self) -> Path:
        """One voice."""
        return self.convert("-t", str(CLIP_S), source=SAMPLES / "voice.flac", to="wav")


Maker = Callable[[Bench], Path]
MAKERS: dict[str, Maker] = {}


def maker(make: Maker) -> Maker:
    """Have the table find *make* by its name."""
    MAKERS[make.__name__] = make
    return make
