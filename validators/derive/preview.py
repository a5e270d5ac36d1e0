"""The preview: the first seconds of a video, small, as H.264 and AAC that every browser plays."""

from pathlib import Path

import ffmpeg

from validators.derive.derived import Derived, run_into
from validators.facts import Facts
from validators.inspect import Tools
from validators.media.command import arguments, upright
from validators.media.decode import frame_size
from validators.media.reopen import expect_success, opened, picture_of, sound_of

LONGEST_S = 5.0
SIDE = 480  # pixels, of the longer side
MOST_FPS = 30
ENCODED = {
    "vcodec": "libx264",
    "preset": "veryfast",
    "crf": 28,
    "profile:v": "main",
    "pix_fmt": "yuv420p",
    "bf": 0,  # without an edit list, frames that wait for later ones would come late
    "acodec": "aac",
    "b:a": "64k",
    "ar": 48_000,
    "ac": 2,
}
# One fragment, not announced in an empty header: an ordinary MP4 with its index in front, and
# the only kind whose muxer needs not to seek back, which a pipe cannot.
MUXED = {"f": "mp4", "movflags": "frag_custom", "bitexact": None, "map_metadata": -1}


async def preview(path: Path, facts: Facts, out: Path, tools: Tools) -> Derived:
    """See `recipes.derive`."""
    picture, sound = picture_of(facts), sound_of(facts)
    size = frame_size(picture, side=SIDE)
    source = opened(path, facts, up_to_s=LONGEST_S + 1)
    written = await run_into(
        out,
        lambda fd: arguments(
            ffmpeg.output(
                source[str(picture.index)],
                source[str(sound.index)],
                f"pipe:{fd}",
                vf=f"{upright(picture, size, flags='bicubic')},setsar=1",
                t=LONGEST_S,
                fpsmax=MOST_FPS,
                map_chapters=-1,
                **ENCODED,
                **MUXED,
            ),
            ffmpeg_name=tools.ffmpeg,
        ),
        tools.sandbox,
        reads=[path],
    )
    expect_success(written.completed, path)
    return Derived(
        size_bytes=written.size_bytes,
        sha256=written.sha256,
        width=size[0],
        height=size[1],
        duration_s=min(LONGEST_S, facts.decode.duration_s if facts.decode else LONGEST_S),
    )
