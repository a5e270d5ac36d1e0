"""Processor time of a tool. It tells what a medium demands, on a busy machine as on an idle one.

The kernel's own limit is the second net. ffmpeg catches its signal and ends as if it had been
interrupted, or is killed in the middle of a frame: neither would say why.
"""

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path

from validators.errors import ToolSpentError
from validators.facts import StreamFacts

EVERY_S = 0.25
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
USER_TIME, SYSTEM_TIME = 11, 12  # fields of /proc/pid/stat behind the name, which ends with ")"

OPENING_S = 15.0  # to read a container, or a picture of 50 megapixels: 3.7 s at most was measured
PIXEL_S = 40e-9  # H.264 of 1080p takes 10, HEVC of 4K 10, AV1 15: slow processors exist
BYTE_S = 300e-9  # and for a byte of H.264, which is what counts from 100 Mbit/s on


def decoding_s(video: StreamFacts | None, size_bytes: int) -> float:
    """How long decoding may compute, over all threads: far more than such a recording costs."""
    allowed_s = OPENING_S + size_bytes * BYTE_S
    if video is None:
        return allowed_s
    return allowed_s + (video.width or 0) * (video.height or 0) * video.packets * PIXEL_S


async def within(cpu_s: float, pid: int, work: Coroutine[None, None, None]) -> None:
    """Await *work*; raise ToolSpentError as soon as process *pid* has computed for *cpu_s*."""
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait([task], timeout=EVERY_S))[0]:
            if await asyncio.to_thread(spent_s, pid) > cpu_s:
                raise ToolSpentError(f"used up its processor time of {cpu_s:g} s")
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


def spent_s(pid: int) -> float:
    """Seconds that *pid* has computed, in all its threads; 0 where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()
    return (int(fields[USER_TIME]) + int(fields[SYSTEM_TIME])) / TICKS_PER_S
