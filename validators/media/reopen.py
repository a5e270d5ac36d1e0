"""Opening a medium again after it was judged: as the decode did, so that the same is seen."""

from pathlib import Path

import ffmpeg

from validators.errors import ToolCrashedError, UnmeasuredError
from validators.facts import Facts, StreamFacts
from validators.media.command import source
from validators.media.sandbox import Completed, complaints
from validators.policy import STANDARD


def opened(path: Path, facts: Facts, *, up_to_s: float) -> ffmpeg.Stream:
    """The medium as an input of a command line, read no further than *up_to_s*.

    One filter serves the whole medium, also where its picture changes size, so that frames are
    counted through to the end.
    """
    video = facts.container.video if facts.container else ()
    return source(
        path,
        facts.signature or "",
        video=next(iter(video), None),
        up_to_s=up_to_s,
        max_pixels=STANDARD.max_frame_pixels,
        **{"reinit_filter:v": 0},
    )


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


def expect_success(completed: Completed, path: Path) -> None:
    """Raise ToolCrashedError where ffmpeg failed: it was an accepted medium that it was given."""
    said = complaints(completed, path)
    if not completed.succeeded:
        last = said.rpartition("\n")[2]
        raise ToolCrashedError(f"a medium that was accepted cannot be decoded again: {last}")
