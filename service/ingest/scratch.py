"""Folders on this machine in which derivations work. They hold faces and voices.

Whoever works in one holds a lock on it, which the system takes from a process that dies.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import structlog

from service.domain import Run

log = structlog.get_logger()

_PREFIX = "greenroom-derive-"


@contextlib.asynccontextmanager
async def scratch(run: Run) -> AsyncIterator[Path]:
    """A folder of this run's own, gone at its end."""
    making = asyncio.ensure_future(asyncio.to_thread(_make, f"{_PREFIX}{run.id}-"))
    try:
        folder, _ = await asyncio.shield(making)
        yield folder
    finally:  # also of a run that was stopped while the folder was made
        folder, held = await making
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        os.close(held)


async def clear_scratch() -> None:
    """Delete the folders of processes that died. Their avatars may be deleted by now."""
    if left := await asyncio.to_thread(_clear_dead):
        log.warning("scratch_folders_left_behind", folders=left)


def _make(prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        held = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.exists():  # or a sweeper was faster than our lock
                return folder, held
        os.close(held)


def _clear_dead() -> int:
    left = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _locked(folder):
            shutil.rmtree(folder)
            left += 1
    return left


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder that nobody works in; raise OSError for others, and those of other users."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(held)
