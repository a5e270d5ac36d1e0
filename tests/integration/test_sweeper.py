"""What nobody works on is found again, and what no fitter answers for ends."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from service.db import jobs
from service.db.types import Pool
from service.domain import Work
from service.ids import new_id
from service.ingest.jobs import Worker
from tests.fakes.origin import answer
from tests.integration.test_pipeline import BODY, LIMITS, Site, running, site
from tests.integration.test_settling import judge, types_of
from tests.rows import NOW, PAIR, add_avatar, derive_all, store_all


@pytest.fixture
async def here(pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(pool, tmp_path) as opened:
        yield opened


async def live(here: Site) -> int:
    """How many jobs there are that a worker will do."""
    sql = "SELECT count(*) FROM pgqueuer WHERE status IN ('queued', 'picked')"
    count: int = await here.pool.fetchval(sql)
    return count


async def test_an_asset_without_a_job_gets_one_and_only_one(here: Site) -> None:
    await add_avatar(here.pool)
    await here.pool.execute("DELETE FROM pgqueuer")
    worker = here.worker()
    await worker.sweep()
    assert await live(here) == 1
    await worker.sweep()
    assert await live(here) == 1
    job = await here.pool.fetchrow("SELECT entrypoint, payload FROM pgqueuer")
    assert job is not None
    asset_id = await here.pool.fetchval("SELECT id FROM asset")
    assert (job["entrypoint"], job["payload"]) == ("fetch", str(asset_id).encode())


@pytest.mark.parametrize("status", ["queued", "picked"])
async def test_a_live_job_is_not_doubled(here: Site, status: str) -> None:
    await add_avatar(here.pool)
    await here.pool.execute(
        "UPDATE pgqueuer SET status = $1::text::pgqueuer_status,"
        " execute_after = now() + interval '1 hour'",
        status,
    )
    await here.worker().sweep()
    assert await here.pool.fetchval("SELECT count(*) FROM pgqueuer") == 1


async def test_a_job_that_failed_does_not_stand_in_the_way_of_a_new_one(here: Site) -> None:
    await add_avatar(here.pool)
    await here.pool.execute("UPDATE pgqueuer SET status = 'failed'")
    await here.worker().sweep()
    assert await live(here) == 1


async def test_many_sweepers_at_once_enqueue_once(here: Site) -> None:
    for _ in range(5):
        await add_avatar(here.pool, PAIR)
    await here.pool.execute("DELETE FROM pgqueuer")
    await asyncio.gather(*(here.worker().sweep() for _ in range(6)))
    assert await live(here) == 10


SLOWLY = """
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END $$;
    CREATE TRIGGER slowly BEFORE INSERT ON pgqueuer FOR EACH ROW EXECUTE FUNCTION wait()
"""


async def test_two_that_enqueue_the_same_jobs_in_another_order_do_not_wait_in_a_circle(
    pool: Pool,
) -> None:
    await pool.execute(SLOWLY)
    one, other = new_id(), new_id()

    async def enqueue(*subjects: UUID) -> None:
        async with pool.acquire() as conn:
            await jobs.enqueue(conn, Work.REBUILD, subjects)

    await asyncio.gather(enqueue(one, other), enqueue(other, one))
    assert await pool.fetchval("SELECT count(*) FROM pgqueuer") == 2


async def test_a_stored_asset_that_lost_its_job_is_inspected(here: Site) -> None:
    await store_all(here.pool, await add_avatar(here.pool))
    await here.pool.execute("DELETE FROM pgqueuer")
    await here.worker().sweep()
    assert await here.pool.fetchval("SELECT entrypoint FROM pgqueuer") == "inspect"


async def test_what_is_final_or_deleted_gets_no_job(here: Site) -> None:
    avatar = await add_avatar(here.pool)
    for run in (await store_all(here.pool, avatar)).values():
        await judge(here.pool, run)
    await derive_all(here.pool, avatar)
    await add_avatar(here.pool)
    await here.pool.execute(
        "DELETE FROM source USING asset WHERE id = asset_id AND state = 'pending'"
    )
    await here.pool.execute("DELETE FROM asset WHERE state = 'pending'")
    await here.pool.execute("DELETE FROM pgqueuer")
    await here.worker().sweep()
    assert await live(here) == 0


async def test_what_was_accepted_just_now_is_left_to_its_own_job(here: Site) -> None:
    await here.create("/a")
    await here.pool.execute("DELETE FROM pgqueuer")
    await here.worker().sweep()
    assert await live(here) == 0


async def test_a_forgotten_source_is_found_and_fetched_by_a_running_worker(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    await here.create("/a")
    await here.pool.execute("DELETE FROM pgqueuer")
    await here.pool.execute("UPDATE asset SET created_at = now() - interval '1 minute'")
    limits = replace(LIMITS, sweep_interval_s=0.2)
    async with running(here.worker(Work.FETCH, limits=limits)):
        await here.until_asset("stored")


async def test_queue_ages_count_what_is_due_and_nothing_else(here: Site) -> None:
    await add_avatar(here.pool)
    await add_avatar(here.pool)
    await here.pool.execute("UPDATE pgqueuer SET created = now() - interval '90 s'")
    async with here.pool.acquire() as conn:
        waiting, age_s = (await jobs.queue_ages(conn))["fetch"]
        assert waiting == 2
        await conn.execute("UPDATE pgqueuer SET execute_after = now() + interval '1 hour'")
        assert await jobs.queue_ages(conn) == {}
    assert 0 <= age_s <= 100


def at(here: Site, since: timedelta) -> Worker:
    """A worker on whose clock *since* has passed after the fitting began."""
    ports = replace(here.ports, clock=lambda: NOW + since)
    return Worker(ports=ports, limits=LIMITS, kinds=frozenset(Work))


async def fitting(here: Site) -> None:
    avatar = await add_avatar(here.pool, PAIR)
    for run in (await store_all(here.pool, avatar)).values():
        await judge(here.pool, run)
    await derive_all(here.pool, avatar)


async def test_an_avatar_whose_fitter_is_silent_fails_once(here: Site) -> None:
    await fitting(here)
    late = at(here, LIMITS.fitting_timeout + timedelta(seconds=1))
    await asyncio.gather(late.sweep(), late.sweep(), late.sweep())
    await late.sweep()
    row = await here.pool.fetchrow("SELECT status, cause, codes, message FROM avatar")
    assert row is not None
    assert (row["status"], row["cause"], row["codes"]) == ("failed", "fitting", ["fitting_timeout"])
    assert row["message"] == "The fitter did not report in time."
    assert (await types_of(here.pool)).count("avatar.failed") == 1


async def test_a_fitter_has_its_whole_time(here: Site) -> None:
    await fitting(here)
    await at(here, LIMITS.fitting_timeout).sweep()
    assert await here.pool.fetchval("SELECT status FROM avatar") == "fitting"
    assert "avatar.failed" not in await types_of(here.pool)


async def test_an_avatar_that_became_ready_in_time_stays_ready(here: Site) -> None:
    await fitting(here)
    await here.pool.execute("UPDATE avatar SET status = 'ready'")
    await at(here, timedelta(days=30)).sweep()
    assert await here.pool.fetchval("SELECT status FROM avatar") == "ready"
