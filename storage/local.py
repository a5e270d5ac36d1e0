"""Assets in a directory, for one machine. Several processes may share it.

Layout: `<root>/<key>` with the slash of a key written as `+` (no key contains one), so that one
directory holds everything and one fsync makes a name durable; `<root>/.partial/` holds what is
being written. A writer holds a lock on its partial file: what nobody locks is left over from a
process that died, and the next start sweeps it.

Nothing returns before it would outlast a power failure: first the bytes are synced, then they get
their name, then the directory is synced.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import FileIO
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from storage.store import (
    AssetNotFoundError,
    AssetStat,
    ChecksumMismatchError,
    KeyTakenError,
    Links,
    StoredAsset,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UploadForm,
    capped,
    checked_range,
    valid_key,
)

_P = ParamSpec("_P")
_T = TypeVar("_T")

BLOCK_BYTES = 1 << 20  # one hop to a thread per block: at 64 KiB the hops cost more than the disk
PAGE = 1000  # assets per hop while listing
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}  # of link(2), by filesystem
_PARTIALS = ".partial"  # also the sign that a directory is a store of ours, and not an empty mount


class LocalStore:
    """An AssetStore in the directory *root*, which is made if it is missing (mode 0700).

    Its filesystem must have hard links; `check` says so where it has none. *links* makes its
    signed URLs; without, it has none.
    """

    def __init__(self, root: Path, *, links: Links | None = None) -> None:
        self._root = root
        self._links = links
        self._partials = root / _PARTIALS

    async def __aenter__(self) -> Self:
        # what it lends is opened by processes that work elsewhere
        self._root = await _io(self._root.absolute)
        self._partials = self._root / _PARTIALS
        await _io(_prepare, self._root, self._partials)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is held open between calls."""

    async def put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expected_sha256: str | None = None,
        replace: bool = False,
    ) -> StoredAsset:
        path = self._path(key)
        if not replace and await _io(path.exists):  # spares the transfer; `commit` is what decides
            raise KeyTakenError(key)
        opened = ExitStack()  # filled in the thread, so that cancelling us there loses nothing
        try:
            partial = await _io(_Partial.create, self._partials, opened)
            async with aclosing(_blocks(capped(body, max_bytes))) as blocks:
                async for block in blocks:
                    await _io(partial.write, block)
            await _io(partial.commit, path, expected_sha256, replace)
        finally:
            await _io(opened.close)
        return StoredAsset(key=key, size_bytes=partial.size_bytes, sha256=partial.sha256)

    async def copy(self, source: str, key: str, *, max_bytes: int | None = None) -> StoredAsset:
        async with aclosing(_blocks(self.open(source))) as body:
            return await self.put(key, body, max_bytes=max_bytes)

    async def open(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        checked_range(start, end)
        opened = ExitStack()
        try:
            file = await _io(_open, self._path(key), key, opened)
            await _io(file.seek, start)
            left = None if end is None else end - start
            while block := await _io(file.read, _at_most(left)):
                left = None if left is None else left - len(block)
                yield block
        finally:
            await _io(opened.close)

    @asynccontextmanager
    async def local_copy(self, key: str, *, sha256: str) -> AsyncIterator[Path]:
        path = self._path(key)
        if await _io(_digest, path, key) != sha256:
            raise ChecksumMismatchError(key)
        yield path

    async def signed_url(
        self, key: str, *, valid_for: timedelta, content_type: str, sha256: str | None = None
    ) -> str:
        valid_key(key)
        if self._links is None:
            raise StoreUnavailableError("nobody serves its assets")
        return self._links.url(key, valid_for=valid_for, content_type=content_type, sha256=sha256)

    async def upload_form(self, key: str, *, max_bytes: int, valid_for: timedelta) -> UploadForm:
        valid_key(key)
        if self._links is None:
            raise StoreUnavailableError("nobody takes in its assets")
        return self._links.form(key, max_bytes=max_bytes, valid_for=valid_for)

    async def stat(self, key: str) -> AssetStat:
        return await _io(_stat, self._path(key), key)

    async def delete(self, key: str) -> None:
        await _io(_delete, self._path(key))

    async def list(self, prefix: str = "") -> AsyncIterator[AssetStat]:
        found = _find(self._root, prefix)
        while page := await _io(_page, found):
            for asset in page:
                yield asset

    async def clear_unfinished(self, *, older_than: timedelta) -> int:  # noqa: ARG002 - locks tell
        return await _io(_sweep, self._partials)

    async def check(self) -> None:
        key = f"check/{secrets.token_hex(8)}"
        try:
            await self.put(key, _once(key.encode()))
            async with aclosing(_blocks(self.open(key))) as blocks:
                read = b"".join([block async for block in blocks])
            await self.delete(key)
        except StoreUnavailableError:
            raise
        except StoreError as exc:
            raise StoreUnavailableError("a written asset could not be read back") from exc
        if read != key.encode():
            raise StoreUnavailableError("other bytes were read than were written")

    def _path(self, key: str) -> Path:
        return self._root / valid_key(key).replace("/", "+")


@dataclass(slots=True, kw_only=True)
class _Partial:
    """An asset that is being written. Every method blocks."""

    path: Path
    file: FileIO  # locked for as long as it is open
    size_bytes: int = 0
    _hash: "hashlib._Hash"

    @classmethod
    def create(cls, directory: Path, opened: ExitStack) -> "_Partial":
        """Make and lock a new file; a sweeper may take it in between, so then make another."""
        while True:
            path = directory / secrets.token_hex(16)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            file = FileIO(os.open(path, flags, 0o600), "wb")
            if _lock(file) and os.fstat(file.fileno()).st_nlink:
                opened.enter_context(file)
                opened.callback(path.unlink, missing_ok=True)  # runs before the lock is let go
                return cls(path=path, file=file, _hash=hashlib.sha256())
            file.close()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, block: bytes) -> None:
        left = memoryview(block)
        while left:  # a raw write may be short, the last one before a full disk for example
            left = left[self.file.write(left) :]
        self._hash.update(block)
        self.size_bytes += len(block)

    def commit(self, path: Path, expected_sha256: str | None, replace: bool) -> None:
        """Give the bytes a lasting name. A link, unlike a rename, never replaces what is there."""
        if expected_sha256 not in (None, self.sha256):
            raise ChecksumMismatchError(path.name)
        os.fsync(self.file.fileno())
        if replace:
            self.path.replace(path)
            _sync_directory(path.parent)
            return
        try:
            os.link(self.path, path)
        except FileExistsError as exc:
            raise KeyTakenError(path.name) from exc
        except OSError as exc:
            if exc.errno in _NO_LINKS:
                raise StoreUnavailableError("its filesystem needs hard links") from exc
            raise
        try:
            _sync_directory(path.parent)
        except BaseException:
            path.unlink()
            raise


async def _io(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run blocking *call* in a thread, with its OSError as one of ours.

    When we are cancelled the thread goes on: wait for it, or it would still be writing to a
    descriptor while we clean up, and perhaps to the next file that gets its number.
    """
    task = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # retrieved: being cancelled is what the caller hears
        raise
    except OSError as exc:
        raise _ours(exc) from exc


def _ours(exc: OSError) -> StoreUnavailableError:
    kind = StoreFullError if exc.errno in _FULL else StoreUnavailableError
    return kind(exc.strerror or type(exc).__name__)


async def _blocks(body: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The same bytes in blocks of at least BLOCK_BYTES, but for the last."""
    pending = bytearray()
    async for chunk in body:
        pending += chunk
        if len(pending) >= BLOCK_BYTES:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _at_most(left: int | None) -> int:
    return BLOCK_BYTES if left is None else min(left, BLOCK_BYTES)


def _prepare(root: Path, partials: Path) -> None:
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    partials.mkdir(mode=0o700, exist_ok=True)
    for folder in missing:  # or a power failure takes what was durable in them along
        _sync_directory(folder.parent)
    with suppress(OSError):  # who made it may have died just then, or may be somebody else
        _sync_directory(root.parent)
    _sync_directory(root)
    _sweep(partials)


def _sweep(partials: Path) -> int:
    """Delete what no living process writes; tell how many."""
    swept = 0
    for path in partials.iterdir():
        with suppress(FileNotFoundError), FileIO(path, "rb") as file:
            if _lock(file):
                path.unlink()
                swept += 1
    return swept


def _lock(file: FileIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path, key: str, opened: ExitStack) -> FileIO:
    try:
        return opened.enter_context(FileIO(path, "rb"))
    except FileNotFoundError as exc:
        raise _absent(path, key) from exc


def _absent(path: Path, key: str) -> StoreError:
    """What it means that *path* is not there: an empty key, or a store that is away."""
    try:
        _expect_store(path.parent)
    except StoreUnavailableError as exc:
        return exc
    return AssetNotFoundError(key)


def _expect_store(root: Path) -> None:
    """Raise StoreUnavailableError where *root* is gone, or empty since its volume is."""
    if not (root / _PARTIALS).is_dir():
        raise StoreUnavailableError("its directory is gone")


def _digest(path: Path, key: str) -> str:
    with ExitStack() as opened:
        file = _open(path, key, opened)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stat(path: Path, key: str) -> AssetStat:
    try:
        found = path.stat()
    except FileNotFoundError as exc:
        raise _absent(path, key) from exc
    modified_at = datetime.fromtimestamp(found.st_mtime, UTC)
    return AssetStat(key=key, size_bytes=found.st_size, modified_at=modified_at)


def _delete(path: Path) -> None:
    _expect_store(path.parent)  # or an asset would seem deleted that comes back with its volume
    path.unlink(missing_ok=True)
    _sync_directory(path.parent)  # also when it was gone: who deleted it may have died just then


def _find(root: Path, prefix: str) -> Iterator[AssetStat]:
    _expect_store(root)
    with os.scandir(root) as entries:
        for entry in entries:
            key = entry.name.replace("+", "/")
            if not entry.name.startswith(".") and key.startswith(prefix):
                with suppress(AssetNotFoundError):  # deleted since
                    yield _stat(Path(entry.path), key)


def _page(found: Iterator[AssetStat]) -> tuple[AssetStat, ...]:
    return tuple(islice(found, PAGE))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
