"""A run's writes count only while it holds the claim."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.db import assets, claims
from service.db.claims import ClaimLostError, Progress
from service.db.types import Conn, Pool
from service.domain import AssetRun, Work
from service.errors import FailureCode, SourceError
from service.ids import new_id
from service.ingest import progress
from service.ingest.progress import reporting
from service.ingest.settle import settle_failed, settle_judged
from storage.store import StoredAsset
from tests.rows import NOW, add_avatar, assets_of, start, store_all, verdict_of

Write = Callable[[Conn, AssetRun], Awaitable[None]]

UNREACHABLE = SourceError(FailureCode.SOURCE_UNREACHABLE)


async def judged(conn: Conn, run: AssetRun) -> None:
    await settle_judged(conn, run, *verdict_of(run), now=NOW)


async def failed(conn: Conn, run: AssetRun) -> None:
    await settle_failed(conn, run, UNREACHABLE, now=NOW)


async def reported(conn: Conn, run: AssetRun) -> None:
    await claims.keep_progress(conn, run, Progress(stage="x", done=1, total=2, unit="s"))


async def blob(conn: Conn, run: AssetRun) -> None:
    stored = StoredAsset(key="k", size_bytes=3, sha256="a" * 64)
    await assets.keep_stored(conn, run, new_id(), stored)


@pytest.mark.parametrize(
    "write",
    [judged, failed, reported, blob, claims.hand_back, claims.count_attempt, claims.count_failure],
)
async def test_a_late_worker_that_lost_its_claim_writes_nothing(pool: Pool, write: Write) -> None:
    avatar = await add_avatar(pool)
    late = (await store_all(pool, avatar))["video"]
    successor = await start(pool, late.id, Work.INSPECT)
    before = await pool.fetch("SELECT to_jsonb(asset) FROM asset")
    events = await pool.fetchval("SELECT count(*) FROM event")
    async with pool.acquire() as conn:
        with pytest.raises(ClaimLostError):
            await write(conn, late)
    assert await pool.fetch("SELECT to_jsonb(asset) FROM asset") == before
    assert await pool.fetchval("SELECT count(*) FROM event") == events
    async with pool.acquire() as conn:
        await judged(conn, successor)
    assert await pool.fetchval("SELECT state FROM asset") == "ready"


class RestartingPool:
    """A pool whose database is away, once it has been asked for the first time."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.asked = 0

    def acquire(self) -> object:
        self.asked += 1
        if self.asked == 2:
            raise ConnectionRefusedError
        return self.pool.acquire()


async def test_a_run_hears_that_its_row_is_gone_also_after_the_database_was_away(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PROGRESS_INTERVAL_S", 0.01)
    run = (await store_all(pool, await add_avatar(pool)))["video"]
    restarting = RestartingPool(pool)

    async def work() -> None:
        async with reporting(run, restarting, "read", "s"):  # type: ignore[arg-type]  # enough of a pool
            while restarting.asked < 2:  # noqa: ASYNC110 - nothing wakes us
                await asyncio.sleep(0.01)
            await start(pool, run.id, Work.INSPECT)
            await asyncio.sleep(10)
            raise AssertionError

    with pytest.raises(ClaimLostError):
        await work()


async def test_an_open_claim_that_is_taken_over_counts_as_a_loss(pool: Pool) -> None:
    avatar = await add_avatar(pool)
    asset = (await assets_of(pool, avatar))["video"]
    assert (await start(pool, asset.id, Work.FETCH)).losses == 0
    assert (await start(pool, asset.id, Work.FETCH)).losses == 1


@pytest.mark.parametrize(
    ("end", "counted"),
    [
        (claims.hand_back, None),
        (claims.count_attempt, "attempts"),
        (claims.count_wait, "waits"),
        (claims.count_failure, "failures"),
    ],
)
async def test_ends_of_a_run_are_counted_apart(pool: Pool, end: Write, counted: str | None) -> None:
    avatar = await add_avatar(pool)
    asset = (await assets_of(pool, avatar))["video"]
    run = await start(pool, asset.id, Work.FETCH)
    async with pool.acquire() as conn:
        await end(conn, run)
    again = await start(pool, asset.id, Work.FETCH)
    for count in ("attempts", "waits", "failures", "losses"):
        assert getattr(again, count) == (count == counted)


async def test_work_that_is_done_is_not_claimed_again(pool: Pool) -> None:
    avatar = await add_avatar(pool)
    run = (await store_all(pool, avatar))["video"]
    async with pool.acquire() as conn:
        assert await assets.start_run(conn, run.id, Work.FETCH, now=NOW) is None
        await judged(conn, run)
        assert await assets.start_run(conn, run.id, Work.INSPECT, now=NOW) is None
