"""Files: blocking calls in threads, and files that their writer locks.

What nobody locks is left over from a process that died, and may be swept. All but `on_disk` block.
"""

import asyncio
import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import ParamSpec, TypeVar

from storage.store import StoreFullError, StoreUnavailableError
from storage.unbroken import ended

_P = ParamSpec("_P")
_T = TypeVar("_T")

BLOCK_BYTES = 1 << 20  # one hop to a thread per block: at 64 KiB the hops cost more than the disk
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


async def on_disk(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run blocking *call* in a thread, with its OSError as one of ours.

    When we are cancelled the thread goes on: wait for it, or it would still be writing to a
    descriptor while we clean up, and perhaps to the next file that gets its number.
    """
    task = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await ended(task)
        if not task.cancelled():
            task.exception()  # retrieved: being cancelled is what the caller hears
        raise
    except OSError as exc:
        raise ours(exc) from exc


def ours(exc: OSError) -> StoreUnavailableError:
    kind = StoreFullError if exc.errno in _FULL else StoreUnavailableError
    return kind(exc.strerror or type(exc).__name__)


def new_file(folder: Path, prefix: str = "") -> tuple[Path, FileIO]:
    """Make and lock a new file; a sweeper may take it in between, so then make another."""
    while True:
        path = folder / f"{prefix}{secrets.token_hex(16)}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        file = FileIO(os.open(path, flags, 0o600), "wb")
        if lock(file) and os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()


def write(file: FileIO, data: bytes | memoryview) -> None:
    """All of *data*: a raw write may be short, the last one before a full disk for example."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def sweep(paths: Iterable[Path]) -> int:
    """Delete what no living process has locked; tell how many. Files of other users are spared."""
    swept = 0
    for path in paths:
        with suppress(FileNotFoundError, PermissionError), FileIO(path, "rb") as file:
            if lock(file):
                path.unlink()
                swept += 1
    return swept


def lock(file: FileIO) -> bool:
    """Whether it is ours now, until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
