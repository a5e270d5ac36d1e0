"""Files that a store without a directory of its own lends: copies that last as long as their use.

A copy is locked for as long as it is lent. One that nobody locks is left over from a process that
died: the next start of a store sweeps it.
"""

import asyncio
import fcntl
import hashlib
import io
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from io import FileIO
from pathlib import Path

from storage.local import _io
from storage.multipart import in_any_case, parts
from storage.store import StoreError

PREFIX = "greenroom-lent-"
BLOCK_BYTES = 1 << 20  # one hop to a thread per block


@asynccontextmanager
async def lent_copy(body: AsyncIterator[bytes]) -> AsyncIterator[tuple[Path, str]]:
    """A temporary file with the bytes of *body*, and their SHA-256.

    Raises StoreFullError when there is no room for it, and what *body* raises.
    """
    made = asyncio.ensure_future(_io(_create))
    try:
        path, file = await asyncio.shield(made)
        yield path, await _fill(file, body)
    finally:
        await in_any_case(_remove(made))


def sweep() -> None:
    """Delete copies that processes of ours left when they died."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), FileIO(path, "rb") as file:  # lent, or gone, or not ours
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


async def _fill(file: FileIO, body: AsyncIterator[bytes]) -> str:
    digest = hashlib.sha256()
    async with aclosing(parts(body, BLOCK_BYTES)) as blocks:
        async for block, _ in blocks:
            await _io(_write, file, block, digest)
    return digest.hexdigest()


def _write(file: FileIO, block: io.BytesIO, digest: "hashlib._Hash") -> None:
    with block.getbuffer() as view:
        digest.update(view)
        left = view
        while left:  # a raw write may be short
            left = left[file.write(left) :]


async def _remove(made: "asyncio.Future[tuple[Path, FileIO]]") -> None:
    with suppress(StoreError):  # it was never made, which was said already
        path, file = await made
        await _io(_unlink, path, file)


def _create() -> tuple[Path, FileIO]:
    """Make and lock a new file; a sweeper may take it in between, so then make another."""
    while True:
        path = Path(tempfile.gettempdir(), PREFIX + secrets.token_hex(16))
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        file = FileIO(os.open(path, flags, 0o600), "r+b")
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink:
                return path, file
        file.close()


def _unlink(path: Path, file: FileIO) -> None:
    path.unlink(missing_ok=True)  # before the lock is let go
    file.close()
