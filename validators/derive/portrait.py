"""The portrait: the best frame of a video, or the picture itself, as a PNG of 8-bit RGB."""

import sys
from pathlib import Path

from validators.derive.derived import Derived, run_into
from validators.derive.portrait_choice import best_frame
from validators.errors import ToolCrashedError, UnmeasuredError
from validators.facts import FaceFacts, Facts, FrameFacts, Kind
from validators.inspect import Tools
from validators.media.command import arguments, upright
from validators.media.picture import PILLOW_FORMATS
from validators.media.reopen import expect_success, opened, picture_of
from validators.policy import STANDARD

# Sharp, with colours at full size, and the same on every run of one ffmpeg.
CAREFUL = "lanczos+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"


async def portrait(path: Path, facts: Facts, out: Path, tools: Tools) -> Derived:
    """See `recipes.derive`. Full size, the right way up, pixels square, without metadata."""
    if facts.kind is Kind.IMAGE:
        return await _from_picture(path, facts, out, tools)
    return await _from_video(path, facts, out, tools)


async def _from_video(path: Path, facts: Facts, out: Path, tools: Tools) -> Derived:
    number = _chosen(facts.faces).number
    stream = picture_of(facts)
    size = stream.display_size
    source = opened(path, facts, up_to_s=STANDARD.max_duration_s + 1)
    written = await run_into(
        out,
        lambda fd: arguments(
            source[str(stream.index)].output(
                f"pipe:{fd}",
                f="image2pipe",
                vcodec="png",
                pix_fmt="rgb24",
                pred="mixed",
                fps_mode="passthrough",
                vf=rf"select=eq(n\,{number}),{upright(stream, size, flags=CAREFUL)}",
                **{"frames:v": 1, "bitexact": None},
            ),
            ffmpeg_name=tools.ffmpeg,
        ),
        tools.sandbox,
        reads=[path],
    )
    expect_success(written.completed, path)
    return Derived(
        size_bytes=written.size_bytes, sha256=written.sha256, width=size[0], height=size[1]
    )


def _chosen(faces: FaceFacts | None) -> FrameFacts:
    """The frame to show. Raises UnmeasuredError where no face was seen."""
    frame = (best_frame(faces) or _surest(faces)) if faces is not None else None
    if frame is None:
        raise UnmeasuredError("no frame shows a face, so there is no portrait")
    return frame


def _surest(faces: FaceFacts) -> FrameFacts | None:
    """For a clip of which no frame could be seen closely."""
    seen = [frame for frame in faces.frames if frame.faces]
    return max(seen, key=lambda frame: frame.faces[0].confidence, default=None)


async def _from_picture(path: Path, facts: Facts, out: Path, tools: Tools) -> Derived:
    if facts.picture is None:
        raise UnmeasuredError("no picture was measured, so nothing can be made of it")
    form = PILLOW_FORMATS[facts.signature or ""]
    program = [sys.executable, "-I", "-B", "-m", "validators.derive.redraw", form]
    written = await run_into(
        out, lambda fd: [*program, str(fd), str(path)], tools.sandbox, reads=[path]
    )
    if not written.completed.succeeded:
        last = written.completed.stderr.strip().rpartition("\n")[2]
        raise ToolCrashedError(f"the picture could not be drawn again: {last}")
    return Derived(
        size_bytes=written.size_bytes,
        sha256=written.sha256,
        width=facts.picture.width,
        height=facts.picture.height,
    )
