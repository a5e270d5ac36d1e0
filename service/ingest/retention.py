"""What is past its time goes: one process at a time, in batches that hold nobody up.

A backlog is worked off in one turn, batch by batch; a stop ends the turn after the batch in hand.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import structlog

from service.db import retention
from service.db.blobs import WRITTEN_WITHIN
from service.db.types import Conn
from service.ingest.objects import Shelf
from service.logs import story_of
from service.telemetry import RETENTION
from storage.store import AssetStat, StoreError

log = structlog.get_logger()

INTERVAL_S = 60.0
ROWS = 1000  # in one transaction
OBJECTS = 100  # erased between two looks at whether to stop
LISTED_EVERY = timedelta(hours=1)  # a listing walks through all that a local store holds
INCOMING = "incoming/"
# A directory knows by locks which puts are dead. A bucket may be shared with others, who are slow;
# there what our rows know of is erased with its key, within two hours.
UNFINISHED = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How long what is kept."""

    events: timedelta
    job_log: timedelta
    answers: timedelta  # under an Idempotency-Key
    uploads: timedelta  # that nobody finalises
    refused: timedelta  # bytes of rejected and failed sources


Batch = Callable[[], Awaitable[int]]  # gives how much it removed


class Drop(Protocol):
    """One batch of one kind, within a transaction."""

    async def __call__(self, conn: Conn, *, limit: int) -> int: ...


@dataclass(slots=True, kw_only=True)
class Retention:
    """Removes what is past its time, whenever it is this process's turn."""

    shelf: Shelf
    keep: Keep
    clock: Callable[[], datetime]
    rows: int = ROWS
    listed_at: datetime | None = None

    async def take_turn(self, stopping: asyncio.Event) -> None:
        """Remove all that is past its time, unless another process is at it."""
        async with self.shelf.pool.acquire() as conn:
            if not await retention.take_turn(conn):
                return
            try:
                await self._remove_rows(conn, stopping)
                await self._remove_objects(conn, stopping)
            finally:
                await retention.end_turn(conn)

    async def _remove_rows(self, conn: Conn, stopping: asyncio.Event) -> None:
        now, limit = self.clock(), self.rows
        log_end = now - self.keep.job_log
        kinds = {
            "events": partial(retention.drop_events, before=now - self.keep.events),
            "answers": partial(retention.drop_answers, before=now - self.keep.answers),
            "job_log": partial(retention.drop_job_log, before=log_end),
            "failed_jobs": partial(retention.drop_failed_jobs, before=log_end),
            "refused_bytes": partial(
                retention.release_refused, before=now - self.keep.refused, now=now
            ),
            "open_uploads": partial(
                retention.void_uploads, before=now - self.keep.uploads, now=now
            ),
        }
        for kind, drop in kinds.items():
            await _all_of(kind, partial(_in_transaction, conn, drop, limit), limit, stopping)

    async def _remove_objects(self, conn: Conn, stopping: asyncio.Event) -> None:
        try:
            ended = partial(self._remove_ended_uploads, conn)
            await _all_of("uploads", ended, OBJECTS, stopping)
            if self.listed_at is None or self.clock() - self.listed_at >= LISTED_EVERY:
                await self._remove_unwanted_incoming(conn, stopping)
                unfinished = await self.shelf.store.clear_unfinished(older_than=UNFINISHED)
                _count("unfinished_puts", unfinished)
                self.listed_at = self.clock()
        except StoreError as exc:  # the next turn finds the same again
            log.warning("retention_without_store", error=story_of(exc))

    async def _remove_ended_uploads(self, conn: Conn) -> int:
        """Objects first: a row that is there leads to them. What is sent late comes before this."""
        expired_before = self.clock() - WRITTEN_WITHIN
        ended = await retention.ended_uploads(conn, expired_before=expired_before, limit=OBJECTS)
        for upload in ended:
            await self.shelf.store.delete(upload.key)
        await retention.forget_uploads(conn, [upload.id for upload in ended])
        return len(ended)

    async def _remove_unwanted_incoming(self, conn: Conn, stopping: asyncio.Event) -> None:
        """A row is there before its form is handed out: what has none came too late.

        Nor does what was deleted wait for the end of its form, when it is erased once more.
        """
        async for keys in _pages(self.shelf.store.list(INCOMING)):
            unwanted = await retention.unwanted_incoming(conn, keys)
            for key in unwanted:
                await self.shelf.store.delete(key)
            _count("incoming_objects", len(unwanted))
            if stopping.is_set():
                return


async def _all_of(kind: str, batch: Batch, limit: int, stopping: asyncio.Event) -> None:
    """Remove batch after batch, until one is not full."""
    removed = limit
    while removed >= limit and not stopping.is_set():
        removed = await batch()
        _count(kind, removed)


async def _in_transaction(conn: Conn, drop: Drop, limit: int) -> int:
    async with conn.transaction():
        return await drop(conn, limit=limit)


async def _pages(listed: AsyncIterator[AssetStat]) -> AsyncIterator[list[str]]:
    page: list[str] = []
    async for stat in listed:
        page.append(stat.key)
        if len(page) == OBJECTS:
            yield page
            page = []
    yield page


def _count(kind: str, removed: int) -> None:
    if removed:
        RETENTION.labels(kind).inc(removed)
        log.info("retention_removed", kind=kind, removed=removed)
