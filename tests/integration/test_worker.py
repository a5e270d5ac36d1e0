"""How runs end, and what a worker that stops, breaks or vanishes leaves to the others."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import EntrypointExecutionParameter, Queries
from pgqueuer.types import QueueEntrypoint, QueueManagerId

from service.db import assets
from service.db.types import Pool
from service.domain import Work
from service.fetch.address import AddressGuard
from service.fetch.limits import FetchLimits
from service.ingest import jobs as jobs_module
from service.ingest.jobs import Worker
from service.times import now_utc
from tests.fakes.origin import answer
from tests.fetching import fetching
from tests.integration.test_pipeline import BODY, LIMITS, Hold, Site, running, site, ten_seconds
from validators.analysis.wire import Analysis, AnalysisRequest, ComparisonRequest
from validators.errors import AnalysisCrashedError
from validators.facts import PairFacts


@pytest.fixture
async def here(pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(pool, tmp_path) as opened:
        yield opened


async def counts(here: Site) -> tuple[int, int, int]:
    row = await here.pool.fetchrow("SELECT attempts, failures, losses FROM asset")
    assert row is not None
    return row["attempts"], row["failures"], row["losses"]


@pytest.mark.parametrize("column", ["losses = 20", "failures = 3"])
async def test_an_asset_that_cost_too_much_is_given_up_as_our_fault(
    here: Site, column: str
) -> None:
    avatar = await here.create("/a")
    await here.pool.execute(f"UPDATE asset SET {column}")  # noqa: S608 - literals above
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("failed")
    assert (await here.asset(avatar))["error_code"] == "internal"
    assert await here.status(avatar) == ("failed", "internal")
    assert here.origin.connections == 0


async def test_the_twentieth_lost_worker_is_the_last(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    avatar = await here.create("/a")
    await here.pool.execute("UPDATE asset SET losses = 19, claimed_at = now()")
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("failed")
    assert (await here.asset(avatar))["losses"] == 20


async def test_nineteen_lost_workers_are_not_too_many(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    await here.create("/a")
    await here.pool.execute("UPDATE asset SET losses = 18, claimed_at = now()")
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("stored")
    assert await counts(here) == (0, 0, 19)


async def test_an_analysis_that_crashes_three_times_is_our_fault_and_no_refusal(
    here: Site,
) -> None:
    here.origin.serves("/a", answer(ten_seconds()))
    here.analyzer.error = AnalysisCrashedError("killed")
    avatar = await here.create("/a")
    async with running(here.worker()):
        await here.until_asset("failed")
    assert len(here.analyzer.requests) == 3
    assert (await here.asset(avatar))["error_code"] == "internal"
    assert await here.status(avatar) == ("failed", "internal")
    assert await here.pool.fetchval("SELECT count(*) FROM verdict") == 0
    assert await counts(here) == (0, 2, 0)


async def test_an_analysis_that_crashes_once_is_repeated_on_the_stored_bytes(here: Site) -> None:
    here.origin.serves("/a", answer(ten_seconds()))
    here.analyzer.error = AnalysisCrashedError("killed")
    await here.create("/a")
    async with running(here.worker()):
        await here.until("SELECT failures = 1 FROM asset")
        here.analyzer.error = None
        await here.until("SELECT state IN ('ready', 'rejected') FROM asset")
    assert len(here.origin.requests) == 1


async def breaks(*_: object, **__: object) -> None:
    raise RuntimeError("a bug of ours")


async def test_a_bug_costs_one_run_and_counts_as_a_failure(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.origin.serves("/a", answer(BODY))
    await here.create("/a")
    with monkeypatch.context() as patched:
        patched.setattr(here.store, "put", breaks)
        async with running(here.worker(Work.FETCH)):
            await here.until("SELECT failures = 1 FROM asset")
            patched.undo()
            await here.until_asset("stored")
    assert await here.pool.fetchval("SELECT count(*) FROM pgqueuer WHERE status = 'failed'") == 0


async def test_a_bug_that_stays_is_our_fault_after_three_runs(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.origin.serves("/a", answer(BODY))
    avatar = await here.create("/a")
    monkeypatch.setattr(here.store, "put", breaks)
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("failed")
    assert (await here.asset(avatar))["claim"] == 3
    assert await here.status(avatar) == ("failed", "internal")


async def test_nothing_that_the_database_keeps_of_a_failed_fetch_holds_the_urls_secret(
    here: Site,
) -> None:
    """The texts of connection timeouts quote the whole URL, and PgQueuer keeps tracebacks."""
    await here.create("/a?X-Secret=s3cr3t")
    guard = AddressGuard(blocks=(here.origin.block,))
    async with fetching(guard=guard, limits=FetchLimits(connect_s=1e-6)) as hasty:
        worker = Worker(
            ports=replace(here.ports, fetcher=hasty), limits=LIMITS, kinds=frozenset({Work.FETCH})
        )
        await time_out_once(here, worker)
    for table in ("asset", "event", "pgqueuer", "pgqueuer_log"):
        kept = await here.pool.fetchval(f"SELECT string_agg(t::text, ' ') FROM {table} t")  # noqa: S608 - literals above
        assert "s3cr3t" not in (kept or ""), table


async def time_out_once(here: Site, worker: Worker) -> None:
    async with running(worker):
        await here.until("SELECT attempts = 1 FROM asset")
        await here.until("SELECT count(*) > 0 FROM pgqueuer_log WHERE traceback IS NOT NULL")


async def test_a_worker_listens_again_after_its_connections_were_cut(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look by itself only once a minute, so what is done sooner was notified."""
    monkeypatch.setattr(jobs_module, "DEQUEUE_TIMEOUT", timedelta(minutes=1))
    here.origin.serves("/a", answer(BODY))
    async with running(here.worker(Work.FETCH)):
        await here.create("/a")
        await here.until_asset("stored")
        await here.pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await asyncio.sleep(2 * jobs_module.RECONNECT_PAUSE_S)
        await here.create("/a")
        await here.until_asset("stored")


async def test_a_long_line_for_one_host_costs_no_attempt_and_holds_up_nobody(here: Site) -> None:
    hold = Hold()
    here.origin.serves("/slow", hold)
    for _ in range(6):
        await here.create("/slow")
    guard = AddressGuard(blocks=(here.origin.block,))
    async with fetching(guard=guard, limits=FetchLimits(per_host=1)) as narrow:
        worker = Worker(
            ports=replace(here.ports, fetcher=narrow), limits=LIMITS, kinds=frozenset({Work.FETCH})
        )
        async with running(worker):
            await here.until("SELECT count(*) > 0 FROM pgqueuer_log WHERE traceback IS NOT NULL")
            hold.released.set()
            here.origin.serves("/slow", answer(BODY))
            await here.until_asset("stored")
    assert await here.pool.fetchval("SELECT max(attempts + failures + losses) FROM asset") == 0


async def test_an_idle_worker_stops_promptly(here: Site) -> None:
    worker = here.worker()
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0.5)
    began = time.monotonic()
    worker.drain()
    async with asyncio.timeout(3):
        await task
    assert time.monotonic() - began < 3


async def test_a_worker_that_stops_finishes_what_it_holds_and_takes_no_more(here: Site) -> None:
    hold = Hold()
    here.origin.serves("/a", hold)
    here.origin.serves("/b", answer(BODY))
    first = await here.create("/a")
    worker = here.worker(Work.FETCH)
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(10):
        await hold.half_way.wait()
    worker.drain()
    await asyncio.sleep(0.2)
    second = await here.create("/b")
    await asyncio.sleep(0.5)
    assert not task.done()
    hold.released.set()
    async with asyncio.timeout(10):
        await task
    assert (await here.asset(first))["state"] == "stored"
    assert (await here.asset(second))["state"] == "pending"
    assert (await here.asset(second))["claim"] == 0


async def test_work_that_outlasts_the_drain_is_handed_back_uncounted_and_done_by_another(
    here: Site,
) -> None:
    hold = Hold()
    here.origin.serves("/a", hold)
    avatar = await here.create("/a")
    worker = here.worker(Work.FETCH, limits=replace(LIMITS, drain_timeout_s=0.3))
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(10):
        await hold.half_way.wait()
    worker.drain()
    async with asyncio.timeout(5):
        await task
    asset = await here.asset(avatar)
    assert (asset["state"], asset["claimed_at"]) == ("pending", None)
    assert await counts(here) == (0, 0, 0)
    assert await here.pool.fetchval("SELECT status FROM pgqueuer") == "queued"
    here.origin.serves("/a", answer(BODY))
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("stored")
    assert await counts(here) == (0, 0, 0)
    assert len(await here.keys()) == 1


async def test_an_inspection_that_outlasts_the_drain_is_handed_back_too(here: Site) -> None:
    here.origin.serves("/a", answer(ten_seconds()))
    await here.create("/a")
    slow = HangingAnalyzer()
    tools = replace(here.ports.tools, analyzer=slow)
    stopping = Worker(
        ports=replace(here.ports, tools=tools),
        limits=replace(LIMITS, drain_timeout_s=0.3),
        kinds=frozenset(Work),
    )
    task = asyncio.create_task(stopping.run())
    async with asyncio.timeout(20):
        await slow.asked.wait()
    stopping.drain()
    async with asyncio.timeout(10):
        await task
    assert await counts(here) == (0, 0, 0)
    assert await here.pool.fetchval("SELECT claimed_at FROM asset") is None
    async with running(here.worker(Work.INSPECT)):
        await here.until("SELECT state IN ('ready', 'rejected') FROM asset")
    assert await counts(here) == (0, 0, 0)


class HangingAnalyzer:
    """Takes its request and never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def analyze(self, request: AnalysisRequest, fds: Sequence[int]) -> Analysis:
        del request
        self.asked.set()
        try:
            await asyncio.sleep(3600)
        finally:
            for fd in fds:
                os.close(fd)
        raise AssertionError

    async def compare(self, request: ComparisonRequest, fds: Sequence[int]) -> PairFacts:
        del request, fds
        raise AssertionError


async def test_an_inspection_is_claimed_only_when_it_can_begin(here: Site) -> None:
    """The one that waits has no deadline running, and goes back unclaimed when the worker stops."""
    here.origin.serves("/a", answer(ten_seconds()))
    await here.create("/a")
    await here.create("/a", organisation="rival")
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("stored")
    slow = HangingAnalyzer()
    one_at_a_time = Worker(
        ports=replace(here.ports, tools=replace(here.ports.tools, analyzer=slow)),
        limits=replace(LIMITS, concurrency={Work.INSPECT: 1}, drain_timeout_s=0.3),
        kinds=frozenset({Work.INSPECT}),
    )
    task = asyncio.create_task(one_at_a_time.run())
    async with asyncio.timeout(20):
        await slow.asked.wait()
    await here.until("SELECT count(*) = 2 FROM pgqueuer WHERE status = 'picked'")
    assert await here.pool.fetchval("SELECT count(claimed_at) FROM asset") == 1
    one_at_a_time.drain()
    async with asyncio.timeout(10):
        await task
    assert await here.pool.fetchval("SELECT count(claimed_at) FROM asset") == 0
    assert await here.pool.fetchval("SELECT min(claim) FROM asset") == 1  # of the fetch
    assert await here.pool.fetchval("SELECT bool_and(status = 'queued') FROM pgqueuer")


async def vanish(here: Site) -> Job:
    """Another worker takes the one job there is, claims its asset, and is never heard of again."""
    queries = Queries(AsyncpgPoolDriver(here.pool))
    (job,) = await queries.dequeue(
        batch_size=1,
        entrypoints={
            QueueEntrypoint(Work.FETCH.value): EntrypointExecutionParameter(concurrency_limit=0)
        },
        queue_manager_id=QueueManagerId(uuid4()),
        global_concurrency_limit=None,
        heartbeat_timeout=timedelta(seconds=1),
    )
    asset_id = UUID((job.payload or b"").decode())
    async with here.pool.acquire() as conn:
        assert await assets.start_run(conn, asset_id, Work.FETCH, now=now_utc()) is not None
    return job


async def test_work_of_a_worker_that_vanished_is_taken_over(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    await here.create("/a")
    await vanish(here)
    limits = replace(LIMITS, heartbeat_timeout=timedelta(seconds=1))
    began = time.monotonic()
    async with running(here.worker(Work.FETCH, limits=limits)):
        await here.until_asset("stored", within_s=10)
    assert time.monotonic() - began > 0.5  # not before it may be thought dead
    assert await counts(here) == (0, 0, 1)


async def test_work_that_is_slow_is_not_taken_over_while_its_worker_lives(here: Site) -> None:
    hold = Hold()
    here.origin.serves("/a", hold)
    await here.create("/a")
    limits = replace(LIMITS, heartbeat_timeout=timedelta(seconds=1))
    async with (
        running(here.worker(Work.FETCH, limits=limits)),
        running(here.worker(Work.FETCH, limits=limits)),
    ):
        async with asyncio.timeout(10):
            await hold.half_way.wait()
        await asyncio.sleep(2.5)
        assert await here.pool.fetchval("SELECT claim FROM asset") == 1
        hold.released.set()
        await here.until_asset("stored")
    assert await counts(here) == (0, 0, 0)
    assert len(here.origin.requests) == 1


async def test_a_job_that_comes_twice_does_its_work_once(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    avatar = await here.create("/a")
    asset_id = (await here.asset(avatar))["id"]
    worker = here.worker(Work.FETCH)
    await worker.handle(Work.FETCH, asset_id)
    await worker.handle(Work.FETCH, asset_id)
    assert len(here.origin.requests) == 1
    assert await here.events("asset.stored") == 1


async def test_a_job_for_an_asset_that_is_gone_is_done(here: Site) -> None:
    await here.worker(Work.FETCH).handle(Work.FETCH, uuid4())


async def test_a_worker_takes_only_the_kinds_it_was_given(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    await here.create("/a")
    async with running(here.worker(Work.INSPECT)):
        await asyncio.sleep(1.5)
    assert await here.pool.fetchval("SELECT claim FROM asset") == 0
    assert here.origin.connections == 0


async def test_a_worker_whose_connections_are_cut_goes_on(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    worker = here.worker(Work.FETCH, limits=replace(LIMITS, sweep_interval_s=0.5))
    async with running(worker):
        await asyncio.sleep(0.5)
        await here.pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await here.create("/a")
        await here.until_asset("stored", within_s=15)
