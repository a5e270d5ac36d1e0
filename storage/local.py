"""Assets in a directory, for one machine. Several processes may share it.

Layout: `<root>/<key>` with the slash of a key written as `+` (no key contains one), so that one
directory holds everything and one fsync makes a name durable; `<root>/.partial/` holds what is
being written. A writer holds a lock on its partial file: what nobody locks is left over from a
process that died, and the next start sweeps it.

Nothing returns before it would outlast a power failure: first the bytes are synced, then they get
their name, then the directory is synced.
"""

import errno
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import FileIO
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from storage.disk import BLOCK_BYTES, new_file, on_disk, sweep, write
from storage.store import (
    AssetNotFoundError,
    AssetStat,
    ChecksumMismatchError,
    KeyTakenError,
    Links,
    StoredAsset,
    StoreError,
    StoreUnavailableError,
    UploadForm,
    capped,
    checked_range,
    valid_key,
)
from storage.unbroken import in_any_case

PAGE = 1000  # assets per hop while listing
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
        self._root = await on_disk(self._root.absolute)
        self._partials = self._root / _PARTIALS
        await on_disk(_prepare, self._root, self._partials)
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
        # spares the transfer; `commit` is what decides
        if not replace and await on_disk(path.exists):
            raise KeyTakenError(key)
        opened = ExitStack()  # filled in the thread, so that cancelling us there loses nothing
        try:
            partial = await on_disk(_Partial.create, self._partials, opened)
            async with aclosing(_blocks(capped(body, max_bytes))) as blocks:
                async for block in blocks:
                    await on_disk(partial.write, block)
            await on_disk(partial.commit, path, expected_sha256, replace)
        finally:
            await on_disk(opened.close)
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
            file = await on_disk(_open, self._path(key), key, opened)
            await on_disk(file.seek, start)
            left = None if end is None else end - start
            while block := await on_disk(file.read, _at_most(left)):
                left = None if left is None else left - len(block)
                yield block
        finally:
            await on_disk(opened.close)

    @asynccontextmanager
    async def local_copy(self, key: str, *, sha256: str) -> AsyncIterator[Path]:
        path = self._path(key)
        if await on_disk(_digest, path, key) != sha256:
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
        return await on_disk(_stat, self._path(key), key)

    async def delete(self, key: str) -> None:
        await on_disk(_delete, self._path(key))

    async def list(self, prefix: str = "") -> AsyncIterator[AssetStat]:
        found = _find(self._root, prefix)
        while page := await on_disk(_page, found):
            for asset in page:
                yield asset

    async def clear_unfinished(self, *, older_than: timedelta) -> int:  # noqa: ARG002 - locks tell
        return await on_disk(_sweep_all, self._partials)

    async def check(self) -> None:
        key = f"check/{secrets.token_hex(8)}"
        await self.put(key, _once(key.encode()))
        try:
            async with aclosing(_blocks(self.open(key))) as blocks:
                found = b"".join([block async for block in blocks])
        except AssetNotFoundError as exc:
            raise StoreUnavailableError("a written asset could not be read back") from exc
        except BaseException:
            await in_any_case(self.delete(key))
            raise
        await self.delete(key)
        if found != key.encode():
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
        path, file = new_file(directory)
        opened.enter_context(file)
        opened.callback(path.unlink, missing_ok=True)  # runs before the lock is let go
        return cls(path=path, file=file, _hash=hashlib.sha256())

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, block: bytes) -> None:
        write(self.file, block)
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
    _sweep_all(partials)


def _sweep_all(partials: Path) -> int:
    return sweep(partials.iterdir())


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
