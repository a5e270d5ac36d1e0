"""One run of work on one asset or avatar: claim it, do it, and end it in exactly one of these ways.

    settled       the work is done, or given up for good
    overtaken     another run holds the claim: write nothing
    later         the source may answer another time
    waiting       a part of ours is away: again, for a quarter of an hour
    failure       ffmpeg, the analysis child or our own code died: again, three times at most
    handed back   the process is stopping, or its host is busy: nothing is counted
    lost          the process or its database died: the next run finds the claim open and counts it

A run that has to be repeated returns `Again`. It does not raise: PgQueuer keeps the traceback of
whatever a job raises, with all its causes, and those quote URLs.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Generic, TypeVar
from uuid import UUID

import structlog

from service.db import assets, avatars, claims
from service.db.claims import ClaimLostError
from service.db.types import DATABASE_UNREACHABLE, Conn
from service.domain import (
    MAX_ATTEMPTS,
    MAX_FAILURES,
    MAX_WAITS,
    AssetRun,
    AvatarRun,
    Origin,
    Run,
    Work,
    next_attempt_at,
    worn_out,
)
from service.errors import HostBusyError, IngestError, UnavailableError
from service.ingest import adopt, derivation, pipeline, rebuild
from service.ingest.ports import Ports
from service.ingest.settle import DerivedGoneError, internal_failure
from service.logs import story_of
from service.tasks import end
from service.telemetry import JOBS

log = structlog.get_logger()

DATABASE_PAUSE = timedelta(seconds=1)
HOST_PAUSE = timedelta(seconds=2)  # while the line for its host is long

AnyRun = TypeVar("AnyRun", bound=Run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A run that may begin, and the two ways to spend it."""

    run: Run
    step: Callable[[Ports], Awaitable[None]]
    give_up: Callable[[Ports, IngestError], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Craft(Generic[AnyRun]):
    """How one kind of work is claimed, done and given up, and what its ids are of."""

    subject: str
    claim: Callable[[Conn, UUID, datetime], Awaitable[AnyRun | None]]
    step: Callable[[AnyRun, Ports], Awaitable[None]]
    give_up: Callable[[AnyRun, Ports, IngestError], Awaitable[None]]

    async def start(self, subject_id: UUID, ports: Ports) -> Claimed | None:
        async with ports.pool.acquire() as conn:
            run = await self.claim(conn, subject_id, ports.clock())
        if run is None:
            return None
        return Claimed(run=run, step=partial(self.step, run), give_up=partial(self.give_up, run))


GiveUp = Callable[[AssetRun, Ports, IngestError], Awaitable[None]]


async def _take_in(run: AssetRun, ports: Ports) -> None:
    """Get the bytes: from a URL, or from where an upload has put them."""
    take = adopt.adopt if run.origin is Origin.UPLOAD else pipeline.fetch
    await take(run, ports)


def _on_asset(
    work: Work,
    step: Callable[[AssetRun, Ports], Awaitable[None]],
    give_up: GiveUp = pipeline.give_up,
) -> Craft[AssetRun]:
    async def claim(conn: Conn, asset_id: UUID, now: datetime) -> AssetRun | None:
        return await assets.start_run(conn, asset_id, work, now=now)

    return Craft(subject="asset_id", claim=claim, step=step, give_up=give_up)


async def _claim_avatar(conn: Conn, avatar_id: UUID, now: datetime) -> AvatarRun | None:
    return await avatars.start_run(conn, avatar_id, now=now)


CRAFTS: Mapping[Work, Craft[AssetRun] | Craft[AvatarRun]] = {
    Work.FETCH: _on_asset(Work.FETCH, _take_in, adopt.give_up),
    Work.INSPECT: _on_asset(Work.INSPECT, pipeline.judge),
    Work.DERIVE: Craft(
        subject="avatar_id",
        claim=_claim_avatar,
        step=derivation.derive,
        give_up=derivation.give_up,
    ),
    Work.REBUILD: _on_asset(Work.REBUILD, rebuild.rebuild, rebuild.give_up),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """The work is not done: when to try again, and why, in one word."""

    delay: timedelta = timedelta(0)
    reason: str


async def run(
    work: Work, subject_id: UUID, ports: Ports, *, stopping: asyncio.Event
) -> Again | None:
    """Claim a row for *work* and take it as far as it goes; None when nothing is left to do."""
    subject = {CRAFTS[work].subject: str(subject_id)}
    with structlog.contextvars.bound_contextvars(work=work.value, **subject):
        try:
            return await _claim_and_attempt(work, subject_id, ports, stopping)
        except DATABASE_UNREACHABLE as exc:
            log.warning("database_unreachable", error=story_of(exc))
    return Again(delay=DATABASE_PAUSE, reason="database_unreachable")


async def _claim_and_attempt(
    work: Work, subject_id: UUID, ports: Ports, stopping: asyncio.Event
) -> Again | None:
    claimed = await CRAFTS[work].start(subject_id, ports)
    if claimed is None:
        return None
    attempt = _Attempt(work=work, claimed=claimed, ports=ports)
    with structlog.contextvars.bound_contextvars(
        claim=claimed.run.claim, traceparent=claimed.run.traceparent
    ):
        try:
            return await attempt.make(stopping)
        except ClaimLostError:
            JOBS.labels(work.value, "overtaken").inc()
            log.warning("claim_lost")
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    work: Work
    claimed: Claimed
    ports: Ports

    @property
    def run(self) -> Run:
        return self.claimed.run

    async def make(self, stopping: asyncio.Event) -> Again | None:
        if worn_out(self.run):
            await self._give_up(internal_failure())
            return None
        try:
            finished = await _unless(stopping, self.claimed.step(self.ports))
        except (ClaimLostError, *DATABASE_UNREACHABLE):
            raise
        except HostBusyError:
            return await self._hand_back("host_busy", delay=HOST_PAUSE)
        except DerivedGoneError:
            return await self._hand_back("derived_asset_gone")
        except IngestError as error:
            return await self._after_error(error)
        except Exception as error:  # noqa: BLE001 - a bug, or a child that died, costs one run
            return await self._after_failure(error)
        if not finished:
            return await self._hand_back("stopping")
        self._count("settled")
        log.info("run_settled")
        return None

    async def _hand_back(self, reason: str, delay: timedelta = timedelta(0)) -> Again:
        """End the run with nothing counted: it is not the row's fault."""
        async with self.ports.pool.acquire() as conn:
            await claims.hand_back(conn, self.run)
        self._count("handed_back")
        log.info("run_handed_back", reason=reason)
        return Again(delay=delay, reason=reason)

    async def _after_error(self, error: IngestError) -> Again | None:
        """A source that failed, or a part of ours: again later if that may help, else for good.

        The two are counted apart: a source gets its attempts however long our store was away.
        """
        now, is_ours = self.ports.clock(), isinstance(error, UnavailableError)
        again = next_attempt_at(
            (self.run.waits if is_ours else self.run.attempts) + 1,
            now,
            jitter=random.random(),  # noqa: S311 - spreads load, guards nothing
            deadline=self.run.deadline,
            most=MAX_WAITS if is_ours else MAX_ATTEMPTS,
        )
        if again is None or not error.retryable:
            await self._give_up(error)
            return None
        async with self.ports.pool.acquire() as conn:
            await (claims.count_wait if is_ours else claims.count_attempt)(conn, self.run)
        self._count("waiting" if is_ours else "later")
        log.info("run_postponed", code=error.code, until=again.isoformat(), error=story_of(error))
        return Again(delay=again - now, reason=error.code.value)

    async def _after_failure(self, error: Exception) -> Again | None:
        """Something of ours died under the run: again on a fresh child, but not for ever.

        It is written down before it is logged: whose row was deleted works on bytes that vanish,
        and that is no failure.
        """
        last = self.run.failures + 1 >= MAX_FAILURES
        if last:
            await self._give_up(internal_failure())
        else:
            async with self.ports.pool.acquire() as conn:
                await claims.count_failure(conn, self.run)
            self._count("failure")
        log.error("run_failed", failures=self.run.failures + 1, error=story_of(error))
        return None if last else Again(reason=type(error).__name__)

    async def _give_up(self, error: IngestError) -> None:
        await self.claimed.give_up(self.ports, error)
        self._count("given_up")
        log.warning(
            "run_given_up",
            code=error.code,
            attempts=self.run.attempts,
            waits=self.run.waits,
            failures=self.run.failures,
            losses=self.run.losses,
            error=story_of(error),
        )

    def _count(self, outcome: str) -> None:
        JOBS.labels(self.work.value, outcome).inc()


async def _unless(stopping: asyncio.Event, step: Awaitable[None]) -> bool:
    """True when *step* ended by itself; False when it was stopped because we are stopping."""
    task = asyncio.ensure_future(step)
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            return True
        return False
    finally:
        stop.cancel()
        if not task.done():
            await end(task)
