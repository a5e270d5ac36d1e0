"""A store in memory. Kept honest by tests/contract/test_store.py, like every other store."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256 as sha256_of
from pathlib import Path
from types import TracebackType
from typing import Self

from storage.store import (
    AssetNotFoundError,
    AssetStat,
    ChecksumMismatchError,
    KeyTakenError,
    Links,
    StoredAsset,
    StoreUnavailableError,
    UploadForm,
    capped,
    checked_range,
    valid_key,
)

CHUNK_BYTES = 1 << 16


class MemoryStore:
    """An AssetStore; `assets` is open to tests that want to change bytes behind its back."""

    def __init__(self, links: Links | None = None) -> None:
        self.assets: dict[str, bytes] = {}
        self.links = links
        self._stored_at: dict[str, datetime] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The assets stay, as on a disk."""

    async def put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expected_sha256: str | None = None,
        replace: bool = False,
    ) -> StoredAsset:
        valid_key(key)
        data = b"".join([chunk async for chunk in capped(body, max_bytes)])
        digest = sha256_of(data).hexdigest()
        if expected_sha256 not in (None, digest):
            raise ChecksumMismatchError(key)
        if key in self.assets and not replace:
            raise KeyTakenError(key)
        self.assets[key] = data
        self._stored_at[key] = datetime.now(UTC)
        return StoredAsset(key=key, size_bytes=len(data), sha256=digest)

    async def copy(self, source: str, key: str, *, max_bytes: int | None = None) -> StoredAsset:
        return await self.put(key, self.open(source), max_bytes=max_bytes)

    async def open(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        checked_range(start, end)
        data = self._get(key)[start:end]
        for offset in range(0, len(data), CHUNK_BYTES):
            yield data[offset : offset + CHUNK_BYTES]

    @asynccontextmanager
    async def local_copy(self, key: str, *, sha256: str) -> AsyncIterator[Path]:
        data = self._get(key)
        if sha256_of(data).hexdigest() != sha256:
            raise ChecksumMismatchError(key)
        path = await asyncio.to_thread(_write_temporary, data)
        try:
            yield path
        finally:
            await asyncio.to_thread(path.unlink)

    async def signed_url(
        self, key: str, *, valid_for: timedelta, content_type: str, sha256: str | None = None
    ) -> str:
        valid_key(key)
        if self.links is None:
            raise StoreUnavailableError("nobody serves its assets")
        return self.links.url(key, valid_for=valid_for, content_type=content_type, sha256=sha256)

    async def upload_form(self, key: str, *, max_bytes: int, valid_for: timedelta) -> UploadForm:
        valid_key(key)
        if self.links is None:
            raise StoreUnavailableError("nobody takes in its assets")
        return self.links.form(key, max_bytes=max_bytes, valid_for=valid_for)

    async def stat(self, key: str) -> AssetStat:
        data = self._get(key)
        return AssetStat(key=key, size_bytes=len(data), modified_at=self._stored_at[key])

    async def delete(self, key: str) -> None:
        self.assets.pop(valid_key(key), None)

    async def list(self, prefix: str = "") -> AsyncIterator[AssetStat]:
        for key in tuple(self.assets):
            if key.startswith(prefix):
                yield await self.stat(key)

    async def clear_unfinished(self, *, older_than: timedelta) -> int:  # noqa: ARG002 - the protocol has it
        """A put that dies leaves nothing here."""
        return 0

    async def check(self) -> None:
        """Memory is always there."""

    def _get(self, key: str) -> bytes:
        try:
            return self.assets[valid_key(key)]
        except KeyError as exc:
            raise AssetNotFoundError(key) from exc


def _write_temporary(data: bytes) -> Path:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(data)
    return Path(file.name)
