"""What every command line that decodes a medium says: how it is opened, turned and kept quiet."""

import os
from pathlib import Path
from typing import Any

import ffmpeg

from validators.facts import StreamFacts
from validators.media.probe import input_options
from validators.media.sandbox import MAX_ALLOC_BYTES

MAX_THREADS = 4  # more only cost memory
LARGE_PIXELS = 1_000_000_000  # of all frames: 15 s of 1080p; one thread decodes that in 10 s

QUIET = ("-nostdin", "-hide_banner", "-v", "error", "-noautorotate", "-filter_threads", "1")
MODEST = ("-max_alloc", str(MAX_ALLOC_BYTES))

TURNS = {0: "", 90: ",transpose=clock", 180: ",hflip,vflip", 270: ",transpose=cclock"}
MIRRORED = {0: ",hflip", 90: ",transpose=clock_flip", 180: ",vflip", 270: ",transpose=cclock_flip"}


def source(
    path: Path,
    signature: str,
    *,
    video: StreamFacts | None,
    up_to_s: float,
    max_pixels: int,
    **more: Any,  # noqa: ANN401 - ffmpeg's own options, of any type that it can print
) -> ffmpeg.Stream:
    """*path* as the input of a command line. *video*: the stream that is decoded, if one is."""
    return ffmpeg.input(
        f"file:{path}",
        **input_options(signature),
        t=up_to_s,
        threads=threads_for(video),
        err_detect="explode",
        max_pixels=max_pixels,
        **more,
    )


def threads_for(video: StreamFacts | None) -> int:
    """One, unless that would take long: two threads decode damage differently every time.

    One is cheaper, too: the models that look on at the same time need a processor.
    """
    if video is None:
        return 1
    pixels = (video.width or 0) * (video.height or 0) * video.packets
    return 1 if pixels <= LARGE_PIXELS else min(MAX_THREADS, os.cpu_count() or 1)


def arguments(*outputs: ffmpeg.Stream, ffmpeg_name: str) -> list[str]:
    """The whole command line for *outputs* of one source."""
    compiled: list[str] = ffmpeg.merge_outputs(*outputs).get_args()
    return [ffmpeg_name, *QUIET, *MODEST, *compiled]


def upright(stream: StreamFacts, size: tuple[int, int], *, flags: str) -> str:
    """Filters that bring any frame to *size* as a viewer sees it: turned, mirrored, square.

    Scaled before it is turned: turning small frames is cheap.
    """
    width, height = size
    if stream.rotation_deg % 180:
        width, height = height, width
    turns = (MIRRORED if stream.mirrored else TURNS)[stream.rotation_deg]
    return f"scale={width}:{height}:flags={flags}{turns}"
