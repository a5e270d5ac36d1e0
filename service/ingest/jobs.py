"""The worker: PgQueuer wakes it, our rows decide. Every run ends in exactly one of these ways.

    settled       the work is done, or given up for good
    overtaken     another run holds the claim: write nothing
    later         the source may answer another time: RetryRequested with a delay
    on a fresh    ffmpeg or the analysis child died: counted as a failure, RetryRequested
      child
    handed back   the process is stopping: RetryRequested at once, nothing counted
    lost          the process died: the next run finds its claim open and counts a loss

A job is never cancelled from within: PgQueuer deletes cancelled jobs.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import structlog
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries

from service.db import assets, avatars, jobs
from service.db.types import DATABASE_AWAY, Conn
from service.domain import MAX_FAILURES, Run, Status, Work, next_attempt_at, worn_out
from service.errors import IngestError
from service.events.outbox import unit_of_work
from service.ingest import pipeline
from service.ingest.pipeline import Ports
from service.ingest.settle import internal_failure, settle_fitted
from service.telemetry import JOBS
from validators.errors import InspectionError

log = structlog.get_logger()

DEQUEUE_TIMEOUT = timedelta(seconds=1)  # how late a lost NOTIFY is made up for
SWEEP_GRACE = timedelta(seconds=2)
RECONNECT_PAUSE_S = 1.0

Step = Callable[[Run, Ports], Awaitable[None]]

STEPS: Mapping[Work, Step] = {Work.FETCH: pipeline.fetch, Work.INSPECT: pipeline.judge}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """How much one process takes on, and when others may think it dead."""

    concurrency: Mapping[Work, int]
    heartbeat_timeout: timedelta
    sweep_interval_s: float
    drain_timeout_s: float
    fitting_timeout: timedelta


@dataclass(slots=True, kw_only=True)
class Worker:
    """Runs chosen kinds of work until it is drained."""

    ports: Ports
    limits: WorkerLimits
    kinds: frozenset[Work]
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    turns: dict[Work, asyncio.Semaphore] = field(init=False)

    def __post_init__(self) -> None:
        # PgQueuer hands out two jobs at least; a decoder must not wait for an analysis child
        self.turns = {
            work: asyncio.Semaphore(limit) for work, limit in self.limits.concurrency.items()
        }

    async def run(self) -> None:
        """Work until `drain` is called; returns when everything in hand is ended or handed back."""
        late = asyncio.create_task(self._hand_back_late_work())
        try:
            async with asyncio.TaskGroup() as group:
                for work in self.kinds:
                    group.create_task(self._keep_consuming(work))
                group.create_task(self._keep_sweeping())
        finally:
            late.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await late

    def drain(self) -> None:
        """Take no more work; finish what is in hand, or hand it back after the drain timeout."""
        self.draining.set()

    async def _hand_back_late_work(self) -> None:
        await self.draining.wait()
        await asyncio.sleep(self.limits.drain_timeout_s)
        self.stopping.set()

    async def _keep_consuming(self, work: Work) -> None:
        while not self.draining.is_set():
            try:
                await self._consume(work)
            except DATABASE_AWAY as exc:
                log.warning("queue_unreachable", work=work, error=repr(exc))
                await self._pause(RECONNECT_PAUSE_S)

    async def _consume(self, work: Work) -> None:
        limit = self.limits.concurrency[work]
        manager = QueueManager(Queries(AsyncpgPoolDriver(self.ports.pool)))

        @manager.entrypoint(work.value, on_failure="hold")
        async def handle(job: Job) -> None:
            await self.handle(work, UUID((job.payload or b"").decode()))

        stopper = asyncio.create_task(self._stop_with_us(manager))
        try:
            await manager.run(
                dequeue_timeout=DEQUEUE_TIMEOUT,
                batch_size=max(1, min(10, limit // 2)),
                max_concurrent_tasks=max(2, limit),  # PgQueuer wants twice the batch
                heartbeat_timeout=self.limits.heartbeat_timeout,
                # its first probe can go out before it listens, and then fails a healthy listener;
                # a listener that is really gone costs one dequeue timeout, no job
                shutdown_on_listener_failure=False,
            )
        finally:
            stopper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await stopper

    async def _stop_with_us(self, manager: QueueManager) -> None:
        await self.draining.wait()
        manager.shutdown.set()

    async def handle(self, work: Work, asset_id: UUID) -> None:
        """One job: wait for a turn, claim, work, and end in one of the ways above."""
        async with self.turns[work]:
            if self.draining.is_set():
                raise RetryRequested(reason="stopping")
            await self._claim_and_work(work, asset_id)

    async def _claim_and_work(self, work: Work, asset_id: UUID) -> None:
        async with self.ports.pool.acquire() as conn:
            run = await assets.start_run(conn, asset_id, work, now=self.ports.clock())
        if run is None:
            return
        with structlog.contextvars.bound_contextvars(
            work=work.value, asset_id=str(asset_id), claim=run.claim, traceparent=run.traceparent
        ):
            try:
                await self._attempt(work, run)
            except assets.ClaimLostError:
                JOBS.labels(work.value, "overtaken").inc()
                log.warning("claim_lost")

    async def _attempt(self, work: Work, run: Run) -> None:
        if worn_out(run):
            await self._give_up(work, run, internal_failure())
            return
        try:
            finished = await self._unless_stopping(STEPS[work](run, self.ports))
        except IngestError as error:
            await self._end_with_error(work, run, error)
        except InspectionError as error:
            await self._end_with_failure(work, run, error)
        else:
            if not finished:
                await self._hand_back(work, run)
            JOBS.labels(work.value, "settled").inc()
            log.info("run_settled")

    async def _unless_stopping(self, step: Awaitable[None]) -> bool:
        """True when *step* ended by itself; False when it was stopped because we are stopping."""
        task = asyncio.ensure_future(step)
        stop = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
                return True
            return False
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _hand_back(self, work: Work, run: Run) -> None:
        async with self.ports.pool.acquire() as conn:
            await assets.hand_back(conn, run)
        JOBS.labels(work.value, "handed_back").inc()
        log.info("run_handed_back")
        raise RetryRequested(reason="stopping")

    async def _end_with_error(self, work: Work, run: Run, error: IngestError) -> None:
        """A source that failed: again later if that may help, else for good."""
        now = self.ports.clock()
        again = next_attempt_at(
            run.attempts + 1,
            now,
            jitter=random.random(),  # noqa: S311 - spreads load, guards nothing
            # stored bytes do not expire with the URL that they came from
            deadline=run.source_expires_at if work is Work.FETCH else None,
        )
        if again is None or not error.retryable:
            await self._give_up(work, run, error)
            return
        async with self.ports.pool.acquire() as conn:
            await assets.count_attempt(conn, run)
        JOBS.labels(work.value, "later").inc()
        log.info("run_postponed", code=error.code.value, until=again.isoformat())
        raise RetryRequested(delay=again - now, reason=error.code.value)

    async def _end_with_failure(self, work: Work, run: Run, error: InspectionError) -> None:
        """ffmpeg or a model died under us: again on a fresh child, but not for ever."""
        log.error("run_failed", failures=run.failures + 1, error=repr(error))
        if run.failures + 1 >= MAX_FAILURES:
            await self._give_up(work, run, internal_failure())
            return
        async with self.ports.pool.acquire() as conn:
            await assets.count_failure(conn, run)
        JOBS.labels(work.value, "failure").inc()
        raise RetryRequested(reason=type(error).__name__)

    async def _give_up(self, work: Work, run: Run, error: IngestError) -> None:
        await pipeline.give_up(run, self.ports, error)
        JOBS.labels(work.value, "given_up").inc()
        log.warning(
            "run_given_up",
            code=error.code.value,
            attempts=run.attempts,
            failures=run.failures,
            losses=run.losses,
        )

    async def _keep_sweeping(self) -> None:
        while not self.draining.is_set():
            try:
                await self.sweep()
            except DATABASE_AWAY as exc:
                log.warning("sweep_failed", error=repr(exc))
            await self._pause(self.limits.sweep_interval_s)

    async def sweep(self) -> None:
        """Enqueue work that no live job will do, and end what no fitter answers for."""
        async with self.ports.pool.acquire() as conn:
            forgotten = await jobs.without_live_job(conn, older_than=SWEEP_GRACE)
            for work, asset_ids in forgotten.items():
                await jobs.enqueue(conn, work, asset_ids)
                log.warning("work_was_forgotten", work=work, assets=len(asset_ids))
            now = self.ports.clock()
            late = await avatars.unanswered_by_fitter(conn, since=now - self.limits.fitting_timeout)
            for avatar_id in late:
                await self._end_unfitted(conn, avatar_id)

    async def _end_unfitted(self, conn: Conn, avatar_id: UUID) -> None:
        now = self.ports.clock()
        async with unit_of_work(conn, now=now) as unit:
            avatar = await avatars.lock(conn, avatar_id, organisation_id=None)
            if avatar is None or avatar.status is not Status.FITTING:
                return  # the fitter answered just now
            failure = ("fitting_timeout", "The fitter did not report in time.")
            await settle_fitted(unit, avatar, failure, now=now)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.draining.wait()
