"""Files that a store without a directory of its own lends: copies that last as long as their use.

A copy is locked for as long as it is lent. One that nobody locks is left over from a process that
died: the next start of a store sweeps it.
"""

import asyncio
import hashlib
import io
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from io import FileIO
from pathlib import Path

from storage.disk import BLOCK_BYTES, new_file, on_disk, sweep, write
from storage.multipart import parts
from storage.store import StoreError
from storage.unbroken import in_any_case

PREFIX = "greenroom-lent-"


@asynccontextmanager
async def lent_copy(body: AsyncIterator[bytes]) -> AsyncIterator[tuple[Path, str]]:
    """A temporary file with the bytes of *body*, and their SHA-256.

    Raises StoreFullError when there is no room for it, and what *body* raises.
    """
    made = asyncio.ensure_future(on_disk(create))
    try:
        path, file = await asyncio.shield(made)
        yield path, await _fill(file, body)
    finally:
        await in_any_case(_remove(made))


def sweep_copies() -> None:
    """Delete copies that processes of ours left when they died."""
    sweep(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


async def _fill(file: FileIO, body: AsyncIterator[bytes]) -> str:
    digest = hashlib.sha256()
    async with aclosing(parts(body, BLOCK_BYTES)) as blocks:
        async for block, _ in blocks:
            await on_disk(_write, file, block, digest)
    return digest.hexdigest()


def _write(file: FileIO, block: io.BytesIO, digest: "hashlib._Hash") -> None:
    with block.getbuffer() as view:
        digest.update(view)
        write(file, view)


async def _remove(made: "asyncio.Future[tuple[Path, FileIO]]") -> None:
    with suppress(StoreError):  # it was never made, which was said already
        path, file = await made
        await on_disk(_unlink, path, file)


def create() -> tuple[Path, FileIO]:
    """A new copy, empty and locked."""
    return new_file(Path(tempfile.gettempdir()), PREFIX)


def _unlink(path: Path, file: FileIO) -> None:
    path.unlink(missing_ok=True)  # before the lock is let go
    file.close()
