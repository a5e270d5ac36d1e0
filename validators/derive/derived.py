"""What a recipe made, and the pipe that it leaves the sandbox through.

A tool may write no file, so it writes to a pipe; a thread of ours reads that pipe into the file.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from validators.errors import ToolCrashedError
from validators.media.pipes import CAPACITY_BYTES, open_pipes
from validators.media.sandbox import Completed, Sandbox

MAX_BYTES = 256 << 20  # the largest picture that is taken in has 150 MB of pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A derived medium. Fields that its kind does not have are None."""

    size_bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """How a run ended, and what came through its pipe."""

    completed: Completed
    size_bytes: int
    sha256: str


async def run_into(
    out: Path, command: Callable[[int], Sequence[str]], sandbox: Sandbox, *, reads: Sequence[Path]
) -> Written:
    """Run the *command* for a descriptor, and write to *out* what comes through that.

    Raises InspectionError, and OSError where *out* cannot be written.
    """
    with open_pipes(1) as (pipe,):
        writer = pipe.hand_over_writer()
        saving = asyncio.create_task(asyncio.to_thread(_save, pipe.hand_over_reader(), out))
        try:
            completed = await sandbox.run(command(writer), reads=reads, pass_fds=[writer])
        finally:
            size_bytes, sha256 = await saving  # the tool is gone by now, so its pipe ends
    if not size_bytes:
        raise ToolCrashedError(f"nothing was derived: {completed.stderr.strip()}")
    return Written(completed=completed, size_bytes=size_bytes, sha256=sha256)


def _save(reader: int, out: Path) -> tuple[int, str]:
    """Size and SHA-256 of what came; *reader* is closed whatever happens."""
    digest, size_bytes = hashlib.sha256(), 0
    with os.fdopen(reader, "rb", buffering=0) as pipe, out.open("wb") as file:
        while chunk := pipe.read(CAPACITY_BYTES):
            size_bytes += len(chunk)
            if size_bytes > MAX_BYTES:
                raise ToolCrashedError(f"a derived medium is larger than {MAX_BYTES} bytes")
            digest.update(chunk)
            file.write(chunk)
    return size_bytes, digest.hexdigest()
