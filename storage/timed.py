"""A store that is given only so long. Whoever waits for one holds a turn, or somebody's connection.

A store that hangs is left after `stall_s`, one that drips after `total_s`. The clock of a put
stands while the store waits for bytes: a slow source is not the store's fault.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from storage.store import AssetStat, AssetStore, StoredAsset, StoreUnavailableError, UploadForm


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """Seconds. Many puts share a store: one may have to wait for its turn among two hundred.

    With the longest transfer from a source, `total_s` stays below `blobs.WRITTEN_WITHIN`.
    """

    stall_s: float = 120.0  # for the next sign of life
    total_s: float = 1500.0  # for a whole put, copy or loan


@dataclass(slots=True, kw_only=True)
class _Clock:
    """One call's time. It runs from the start, and stands while bytes are waited for."""

    limits: StoreLimits
    timeout: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))
    began_s: float = 0.0
    spent_s: float = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        try:
            async with self.timeout:
                self.go()
                yield self
        except TimeoutError as exc:
            if not self.timeout.expired():  # somebody else's
                raise
            raise StoreUnavailableError("it did not go on in time") from exc

    def go(self) -> None:
        if not self.timeout.expired():
            self.began_s = asyncio.get_running_loop().time()
            left_s = max(0.0, self.limits.total_s - self.spent_s)
            self.timeout.reschedule(self.began_s + min(self.limits.stall_s, left_s))

    def stand(self) -> None:
        if not self.timeout.expired():
            self.spent_s += asyncio.get_running_loop().time() - self.began_s
            self.timeout.reschedule(None)

    async def feeding(self, body: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """*body*, whose own time does not count."""
        chunks = aiter(body)
        while True:
            self.stand()
            try:
                chunk = await anext(chunks, None)
            finally:
                self.go()
            if chunk is None:
                return
            yield chunk


class TimedStore:
    """*store* within *limits*: raises StoreUnavailableError where it takes longer.

    A put that is left so may have stored its asset, as one that was cancelled. A thread that waits
    for a disk cannot be left: a directory whose disk hangs holds its callers.
    """

    def __init__(self, store: AssetStore, limits: StoreLimits | None = None) -> None:
        self._store = store
        limits = limits or StoreLimits()
        self._limits = limits
        # a copy and a loan give no sign of life
        self._silent = StoreLimits(stall_s=limits.total_s, total_s=limits.total_s)

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._store.__aexit__(exc_type, exc, traceback)

    async def put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expected_sha256: str | None = None,
        replace: bool = False,
    ) -> StoredAsset:
        async with (
            _Clock(limits=self._limits).running() as clock,
            aclosing(clock.feeding(body)) as fed,
        ):
            return await self._store.put(
                key, fed, max_bytes=max_bytes, expected_sha256=expected_sha256, replace=replace
            )

    async def copy(self, source: str, key: str, *, max_bytes: int | None = None) -> StoredAsset:
        async with _Clock(limits=self._silent).running():
            return await self._store.copy(source, key, max_bytes=max_bytes)

    async def open(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        chunks = self._store.open(key, start=start, end=end)
        while True:  # a clock for each chunk: between two of them the reader has its time
            async with _Clock(limits=self._limits).running():
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            yield chunk

    @asynccontextmanager
    async def local_copy(self, key: str, *, sha256: str) -> AsyncIterator[Path]:
        async with AsyncExitStack() as held:
            async with _Clock(limits=self._silent).running():
                path = await held.enter_async_context(self._store.local_copy(key, sha256=sha256))
            yield path

    async def signed_url(
        self, key: str, *, valid_for: timedelta, content_type: str, sha256: str | None = None
    ) -> str:
        return await self._store.signed_url(
            key, valid_for=valid_for, content_type=content_type, sha256=sha256
        )

    async def upload_form(self, key: str, *, max_bytes: int, valid_for: timedelta) -> UploadForm:
        return await self._store.upload_form(key, max_bytes=max_bytes, valid_for=valid_for)

    async def stat(self, key: str) -> AssetStat:
        async with _Clock(limits=self._limits).running():
            return await self._store.stat(key)

    async def delete(self, key: str) -> None:
        async with _Clock(limits=self._limits).running():
            await self._store.delete(key)

    def list(self, prefix: str = "") -> AsyncIterator[AssetStat]:
        return self._store.list(prefix)

    async def clear_unfinished(self, *, older_than: timedelta) -> int:
        return await self._store.clear_unfinished(older_than=older_than)

    async def check(self) -> None:
        async with _Clock(limits=self._limits).running():
            await self._store.check()
