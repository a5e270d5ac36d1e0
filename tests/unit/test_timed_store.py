"""A store that hangs or drips is left in time; who waits for a slow source is not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from storage.store import AssetStat, StoredAsset, StoreUnavailableError
from storage.timed import StoreLimits, TimedStore
from tests.fakes.store import MemoryStore

STALL_S = 0.2
LIMITS = StoreLimits(stall_s=STALL_S, total_s=0.4)


class Slow(MemoryStore):
    """Takes *pause_s* for each chunk that it is given, for each that it gives, and at each end."""

    def __init__(self, pause_s: float) -> None:
        super().__init__()
        self.pause_s = pause_s

    async def put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expected_sha256: str | None = None,
        replace: bool = False,
    ) -> StoredAsset:
        async def slowly() -> AsyncIterator[bytes]:
            async for chunk in body:
                await asyncio.sleep(self.pause_s)
                yield chunk

        return await super().put(
            key,
            slowly(),
            max_bytes=max_bytes,
            expected_sha256=expected_sha256,
            replace=replace,
        )

    async def open(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        async for chunk in super().open(key, start=start, end=end):
            await asyncio.sleep(self.pause_s)
            yield chunk

    @asynccontextmanager
    async def local_copy(self, key: str, *, sha256: str) -> AsyncIterator[Path]:
        await asyncio.sleep(self.pause_s)
        async with super().local_copy(key, sha256=sha256) as path:
            yield path

    async def stat(self, key: str) -> AssetStat:
        await asyncio.sleep(self.pause_s)
        return await super().stat(key)

    async def delete(self, key: str) -> None:
        await asyncio.sleep(self.pause_s)
        await super().delete(key)

    async def check(self) -> None:
        await asyncio.sleep(self.pause_s)


async def body(*chunks: bytes, pause_s: float = 0.0) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(pause_s)
        yield chunk


async def test_a_source_may_be_slower_than_the_store_may_ever_be() -> None:
    async with TimedStore(MemoryStore(), LIMITS) as store:
        asset = await store.put("k", body(b"a", b"b", b"c", pause_s=0.25))
    assert asset.size_bytes == 3


async def test_a_store_that_hangs_in_a_put_is_left() -> None:
    async with TimedStore(Slow(60), LIMITS) as store:
        with pytest.raises(StoreUnavailableError, match="in time"):
            await store.put("k", body(b"a"))


async def test_a_store_that_drips_is_left_although_it_never_hangs() -> None:
    slow = Slow(0.1)
    async with TimedStore(slow, LIMITS) as store:
        assert (await store.put("k", body(b"a", b"b"))).size_bytes == 2
        with pytest.raises(StoreUnavailableError, match="in time"):
            await store.put("l", body(*[b"a"] * 20))
    assert sorted(slow.assets) == ["k"]


async def test_a_body_that_fails_fails_the_put_as_it_does_without_a_clock() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise TimeoutError  # of its own, and no news of the store

    async with TimedStore(MemoryStore(), LIMITS) as store:
        with pytest.raises(TimeoutError):
            await store.put("k", broken())


async def read(store: TimedStore) -> bytes:
    return b"".join([chunk async for chunk in store.open("k")])


async def lend(store: TimedStore) -> None:
    async with store.local_copy("k", sha256="whatever"):
        pass


@pytest.mark.parametrize(
    "call",
    [
        read,
        lend,
        lambda store: store.copy("k", "l"),
        lambda store: store.stat("k"),
        lambda store: store.delete("k"),
        lambda store: store.check(),
    ],
)
async def test_every_call_is_left_in_time(call: Callable[[TimedStore], Awaitable[object]]) -> None:
    slow = Slow(60)
    slow.assets["k"] = b"abc"
    async with asyncio.timeout(5), TimedStore(slow, LIMITS) as store:
        with pytest.raises(StoreUnavailableError, match="in time"):
            await call(store)


async def test_a_reader_may_take_longer_than_the_store() -> None:
    async with TimedStore(MemoryStore(), LIMITS) as store:
        await store.put("k", body(b"a" * 200_000))
        size = 0
        async for chunk in store.open("k"):
            size += len(chunk)
            await asyncio.sleep(2 * STALL_S)
    assert size == 200_000


async def test_a_loan_may_last_longer_than_its_making() -> None:
    async with TimedStore(MemoryStore(), LIMITS) as store:
        asset = await store.put("k", body(b"abc"))
        async with store.local_copy("k", sha256=asset.sha256) as path:
            await asyncio.sleep(2 * LIMITS.total_s)
            assert path.read_bytes() == b"abc"
