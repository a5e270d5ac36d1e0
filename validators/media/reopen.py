"""Opening a medium again after it was judged: as the decode did, so that the same is seen."""

import os
from pathlib import Path

import ffmpeg

from validators.errors import ToolCrashedError, UnmeasuredError
from validators.facts import Facts, StreamFacts
from validators.media.decode import MAX_THREADS, MIRRORED, TURNS
from validators.media.probe import input_options
from validators.media.sandbox import Completed, complaints
from validators.policy import STANDARD

QUIET = ("-nostdin", "-hide_banner", "-v", "error", "-noautorotate", "-filter_threads", "1")


def opened(path: Path, facts: Facts, *, up_to_s: float) -> ffmpeg.Stream:
    """The medium as an input of a command line, read no further than *up_to_s*.

    One filter serves the whole medium, also where its picture changes size, so that frames are
    counted through to the end.
    """
    return ffmpeg.input(
        f"file:{path}",
        **input_options(facts.signature or ""),
        t=up_to_s,
        threads=min(MAX_THREADS, os.cpu_count() or 1),
        err_detect="explode",
        max_pixels=STANDARD.max_frame_pixels,
        **{"reinit_filter:v": 0},
    )


def arguments(*outputs: ffmpeg.Stream, ffmpeg_name: str) -> list[str]:
    compiled: list[str] = ffmpeg.merge_outputs(*outputs).get_args()
    return [ffmpeg_name, *QUIET, *compiled]


def picture_of(facts: Facts) -> StreamFacts:
    """The video stream that was judged. Raises UnmeasuredError where there is none."""
    return _first(facts.container.video if facts.container else (), "picture")


def sound_of(facts: Facts) -> StreamFacts:
    """The audio stream that was judged. Raises UnmeasuredError where there is none."""
    return _first(facts.container.audio if facts.container else (), "sound")


def _first(streams: tuple[StreamFacts, ...], what: str) -> StreamFacts:
    if not streams:
        raise UnmeasuredError(f"no {what} was measured, so nothing can be made of it")
    return streams[0]


def upright(stream: StreamFacts, size: tuple[int, int], *, flags: str) -> str:
    """Filters that bring any frame to *size* as a viewer sees it: turned, mirrored, square."""
    width, height = size
    if stream.rotation_deg % 180:
        width, height = height, width
    turns = (MIRRORED if stream.mirrored else TURNS)[stream.rotation_deg]
    return f"scale={width}:{height}:flags={flags}{turns}"


def expect_success(completed: Completed, path: Path) -> None:
    """Raise ToolCrashedError where ffmpeg failed: it was an accepted medium that it was given."""
    said = complaints(completed, path)
    if not completed.succeeded:
        last = said.rpartition("\n")[2]
        raise ToolCrashedError(f"a medium that was accepted cannot be decoded again: {last}")
