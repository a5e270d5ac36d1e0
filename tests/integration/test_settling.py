"""Settling is serial per avatar, and says `ready_for_fitting` once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from service.db import avatars
from service.db.types import Conn, Pool
from service.domain import AssetRun, Status
from service.errors import FailureCode, InternalError, SourceError
from service.events.outbox import UnitOfWork, unit_of_work
from service.ingest import settle
from service.ingest.settle import settle_failed, settle_fitted, settle_judged
from tests.rows import NOW, PAIR, add_avatar, derive_all, store_all, verdict_of


async def judge(pool: Pool, run: AssetRun, *, accepted: bool = True) -> None:
    async with pool.acquire() as conn:
        await settle_judged(conn, run, *verdict_of(run, accepted=accepted), now=NOW)


async def types_of(pool: Pool) -> list[str]:
    return [row["type"] for row in await pool.fetch("SELECT type FROM event ORDER BY position")]


async def test_two_sources_that_finish_together_settle_their_avatar(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both transactions are held open until both have judged: neither sees the other's commit.

    Only the lock on the avatar's row makes the second wait, and then see the first.
    """
    avatar = await add_avatar(pool, PAIR)
    runs = await store_all(pool, avatar)
    together = asyncio.Barrier(2)

    @asynccontextmanager
    async def held(conn: Conn, **_now: object) -> AsyncIterator[UnitOfWork]:
        async with unit_of_work(conn, now=NOW) as work:
            yield work
            try:  # the second never gets here while the first holds the lock
                async with asyncio.timeout(0.5):
                    await together.wait()
            except (TimeoutError, asyncio.BrokenBarrierError):
                await together.abort()

    monkeypatch.setattr(settle, "unit_of_work", held)
    await asyncio.gather(*(judge(pool, run) for run in runs.values()))
    assert await pool.fetchval("SELECT status FROM avatar") == "deriving"
    jobs = await pool.fetch("SELECT payload FROM pgqueuer WHERE entrypoint = 'derive'")
    assert [job["payload"] for job in jobs] == [str(avatar.id).encode()]
    await derive_all(pool, avatar)
    assert (await types_of(pool)).count("avatar.ready_for_fitting") == 1


async def test_an_avatar_waits_for_every_source_before_it_fails(pool: Pool) -> None:
    avatar = await add_avatar(pool, PAIR)
    runs = await store_all(pool, avatar)
    await judge(pool, runs["image"], accepted=False)
    assert await pool.fetchval("SELECT status FROM avatar") == "inspecting"
    await judge(pool, runs["audio"], accepted=False)
    row = await pool.fetchrow("SELECT status, cause, codes, message FROM avatar")
    assert row is not None
    assert (row["status"], row["cause"]) == ("failed", "rejected")
    assert row["codes"] == ["no_face"]
    assert row["message"] == "The sources do not qualify: no_face."
    assert (await types_of(pool))[-1] == "avatar.failed"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (SourceError(FailureCode.SOURCE_TIMEOUT), "source"),
        (InternalError(FailureCode.INTERNAL), "internal"),
    ],
)
async def test_a_failure_is_never_mixed_with_a_refusal(
    pool: Pool, error: SourceError, cause: str
) -> None:
    avatar = await add_avatar(pool)
    run = (await store_all(pool, avatar))["video"]
    async with pool.acquire() as conn:
        await settle_failed(conn, run, error, now=NOW)
    row = await pool.fetchrow("SELECT a.state, v.cause FROM asset a, avatar v")
    assert row is not None
    assert (row["state"], row["cause"]) == ("failed", cause)
    assert await pool.fetchval("SELECT count(*) FROM verdict") == 0


async def test_status_and_events_commit_together_or_not_at_all(pool: Pool) -> None:
    avatar = await add_avatar(pool)
    run = (await store_all(pool, avatar))["video"]
    before = await types_of(pool)
    await pool.execute("ALTER TABLE event ADD CONSTRAINT never CHECK (type <> 'asset.ready')")
    with pytest.raises(asyncpg.CheckViolationError):
        await judge(pool, run)
    assert await pool.fetchval("SELECT state FROM asset") == "stored"
    assert await pool.fetchval("SELECT status FROM avatar") == "inspecting"
    assert await types_of(pool) == before


async def test_an_avatar_goes_from_accepted_to_ready_with_gapless_sequences(pool: Pool) -> None:
    avatar = await add_avatar(pool, PAIR)
    runs = await store_all(pool, avatar)
    for run in runs.values():
        await judge(pool, run)
    await derive_all(pool, avatar)
    async with pool.acquire() as conn, unit_of_work(conn, now=NOW) as work:
        locked = await avatars.lock(conn, avatar.id, organisation_id=None)
        assert locked is not None
        assert locked.status is Status.FITTING
        await settle_fitted(work, locked, None, now=NOW)
    rows = await pool.fetch("SELECT subject_id, type, sequence FROM event ORDER BY position")
    by_subject: dict[object, list[int]] = {}
    for row in rows:
        by_subject.setdefault(row["subject_id"], []).append(row["sequence"])
    assert all(seen == list(range(1, len(seen) + 1)) for seen in by_subject.values())
    mine = [row["type"] for row in rows if row["subject_id"] == avatar.id]
    assert mine == ["avatar.created", "avatar.ready_for_fitting", "avatar.ready"]


@pytest.mark.parametrize(
    "change",
    [
        "status = 'failed'",  # without a cause
        "cause = 'source'",  # without having failed
        "status = 'fitting'",  # without saying since when
        "status = 'wrong'",
        "claimed_at = now()",  # without deriving
        "stage = 'portrait'",
        "pairs = '{}'",  # before any run
    ],
)
async def test_the_schema_refuses_what_the_state_machine_cannot_reach(
    pool: Pool, change: str
) -> None:
    await add_avatar(pool)
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute(f"UPDATE avatar SET {change}")  # noqa: S608 - literals above
