"""The worker: PgQueuer wakes it, and every job becomes one run (runs.py). The sweeper finds what
no job will do any more.

A job is never cancelled from within: PgQueuer deletes cancelled jobs.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import structlog
from pgqueuer.db import AsyncpgDriver
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries

from service.db import avatars, blobs, jobs
from service.db.types import DATABASE_AWAY, Conn
from service.domain import Status, Work
from service.events.outbox import unit_of_work
from service.ingest.ports import Ports
from service.ingest.purge import purge
from service.ingest.retention import INTERVAL_S, Keep, Retention
from service.ingest.runs import Again, run
from service.ingest.scratch import clear_scratch
from service.ingest.settle import settle_fitted
from service.logs import story_of
from service.tasks import end

log = structlog.get_logger()

DEQUEUE_TIMEOUT = timedelta(seconds=1)  # how late a lost NOTIFY is made up for
SWEEP_GRACE = timedelta(seconds=2)
RECONNECT_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """How much one process takes on, and when others may think it dead."""

    concurrency: Mapping[Work, int]
    heartbeat_timeout: timedelta
    sweep_interval_s: float
    drain_timeout_s: float
    fitting_timeout: timedelta
    keep: Keep
    longest_run: timedelta = timedelta(minutes=15)  # a claim younger than this may be alive


@dataclass(slots=True, kw_only=True)
class Worker:
    """Runs chosen kinds of work until it is drained."""

    ports: Ports
    limits: WorkerLimits
    kinds: frozenset[Work]
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    turns: dict[Work, asyncio.Semaphore] = field(init=False)
    retention: Retention = field(init=False)

    def __post_init__(self) -> None:
        self.retention = Retention(shelf=self.ports, keep=self.limits.keep, clock=self.ports.clock)
        # PgQueuer hands out two jobs at least; a decoder must not wait for an analysis child
        self.turns = {
            work: asyncio.Semaphore(limit) for work, limit in self.limits.concurrency.items()
        }
        # both decode and have a child look on: a processor's turn is one of either
        if Work.INSPECT in self.turns:
            self.turns[Work.DERIVE] = self.turns[Work.REBUILD] = self.turns[Work.INSPECT]

    async def run(self) -> None:
        """Work until `drain` is called; returns when everything in hand is ended or handed back."""
        late = asyncio.create_task(self._hand_back_late_work())
        try:
            async with asyncio.TaskGroup() as group:
                for work in self.kinds:
                    group.create_task(self._keep_consuming(work))
                group.create_task(self._keep_sweeping())
                group.create_task(self._keep_cleaning_up())
        finally:
            await end(late)

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
                log.warning("queue_unreachable", work=work, error=story_of(exc))
            await self._pause(RECONNECT_PAUSE_S)

    async def _consume(self, work: Work) -> None:
        """Take jobs until we drain, or until the connection that listens for them is gone."""
        limit = self.limits.concurrency[work]
        async with self._listener() as conn:
            # typed for a bare connection; a pool's proxy has the same methods
            manager = QueueManager(Queries(AsyncpgDriver(conn)))  # type: ignore[arg-type]
            conn.add_termination_listener(lambda *_: manager.shutdown.set())

            @manager.entrypoint(work.value, on_failure="hold")
            async def handle(job: Job) -> None:
                subject_id = UUID((job.payload or b"").decode())
                await self.handle(work, subject_id, tries=job.attempts)

            async with self._stopping_with_us(manager):
                await manager.run(
                    dequeue_timeout=DEQUEUE_TIMEOUT,
                    batch_size=max(1, min(10, limit // 2)),
                    max_concurrent_tasks=max(2, limit),  # PgQueuer wants twice the batch
                    heartbeat_timeout=self.limits.heartbeat_timeout,
                    # its first probe can go out before it listens, and then fails a healthy
                    # listener; we watch the connection ourselves
                    shutdown_on_listener_failure=False,
                )

    @asynccontextmanager
    async def _listener(self) -> AsyncIterator[Conn]:
        """A connection of a manager's own, closed at the end: PgQueuer leaves listeners on it."""
        async with self.ports.pool.acquire() as conn:
            try:
                yield conn
            finally:
                await conn.close()

    @asynccontextmanager
    async def _stopping_with_us(self, manager: QueueManager) -> AsyncIterator[None]:
        async def stop() -> None:
            await self.draining.wait()
            manager.shutdown.set()

        stopper = asyncio.create_task(stop())
        try:
            yield
        finally:
            await end(stopper)

    async def handle(self, work: Work, subject_id: UUID, *, tries: int = 0) -> None:
        """One job: wait for a turn, then one run. Raises RetryRequested when it must come again.

        *tries*: how often this job has come again already.
        """
        async with self.turns[work]:
            if self.draining.is_set():
                again: Again | None = Again(reason="stopping")
            else:
                again = await self._again(work, subject_id, tries)
        if again is not None:
            raise RetryRequested(delay=again.delay, reason=again.reason)

    async def _again(self, work: Work, subject_id: UUID, tries: int) -> Again | None:
        if work is Work.PURGE:
            wait = await purge(subject_id, self.ports, tries=tries)
            return None if wait is None else Again(delay=wait, reason="not_erased")
        return await run(work, subject_id, self.ports, stopping=self.stopping)

    async def _keep_sweeping(self) -> None:
        while not self.draining.is_set():
            try:
                await self.sweep()
            except DATABASE_AWAY as exc:
                log.warning("sweep_failed", error=story_of(exc))
            await self._pause(self.limits.sweep_interval_s)

    async def sweep(self) -> None:
        """Enqueue work that no live job will do, and end what no fitter answers for."""
        async with self.ports.pool.acquire() as conn:
            forgotten = await jobs.without_live_job(
                conn, older_than=SWEEP_GRACE, claimed_before=self.limits.longest_run
            )
            for work, subject_ids in forgotten.items():
                await jobs.enqueue(conn, work, subject_ids)
                log.warning("work_was_forgotten", work=work, rows=len(subject_ids))
            now = self.ports.clock()
            late = await avatars.unanswered_by_fitter(conn, since=now - self.limits.fitting_timeout)
            for avatar_id in late:
                await self._end_unfitted(conn, avatar_id)
            await self._sweep_objects(conn)
        await clear_scratch()

    async def _keep_cleaning_up(self) -> None:
        """Beside the sweeping: a backlog of what is past its time must not hold that up."""
        while not self.draining.is_set():
            try:
                await self.retention.take_turn(self.draining)
            except DATABASE_AWAY as exc:
                log.warning("retention_failed", error=story_of(exc))
            await self._pause(INTERVAL_S)

    async def _sweep_objects(self, conn: Conn) -> None:
        """Have those erased that nobody comes back for: a writer died, or the store was away."""
        left = await blobs.unerased(conn)
        await blobs.release(conn, left)
        if left:
            log.warning("objects_left_behind", objects=len(left))

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
