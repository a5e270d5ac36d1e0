"""The outbox: events commit with the change they announce, and the feed has one order.

A transaction that announces events ends like this: take one advisory transaction lock, number the
events from one sequence, insert, commit. So `position` rises in commit order, and a reader that
remembers the last position it saw never misses one. Ordering by an identity column loses events
that commit late; ordering by transaction id breaks the order within a subject.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import asyncpg
import structlog

from service.db import events
from service.db.events import NewEvent
from service.db.types import Conn, Pool
from service.domain import EventType
from service.events.data import EventData, encode
from service.ids import avatar_spelling, new_id
from service.logs import story_of

log = structlog.get_logger()

TRIES = 3  # of one transaction

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an event is about. Its row is locked by the transaction that announces it."""

    id: UUID
    organisation_id: str
    is_avatar: bool
    traceparent: str | None = None

    @property
    def spelled(self) -> str:
        return avatar_spelling(self.id) if self.is_avatar else str(self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    type: EventType
    subject: Subject
    data: EventData
    sequence: int | None = None  # None: the next one, from the subject's row


class UnitOfWork:
    """One transaction, and the events it will announce as its last statements."""

    def __init__(self, conn: Conn) -> None:
        self.conn = conn
        self.announced: list[Announcement] = []

    def announce(self, type_: EventType, subject: Subject, data: EventData) -> None:
        self.announced.append(Announcement(type=type_, subject=subject, data=data))

    def announce_last(
        self, type_: EventType, subject: Subject, data: EventData, *, sequence: int
    ) -> None:
        """The last event of a subject whose row this transaction has removed."""
        last = Announcement(type=type_, subject=subject, data=data, sequence=sequence)
        self.announced.append(last)


@asynccontextmanager
async def unit_of_work(conn: Conn, *, now: datetime) -> AsyncIterator[UnitOfWork]:
    """A transaction on *conn* that commits with its events, or not at all."""
    async with conn.transaction():
        work = UnitOfWork(conn)
        yield work
        if work.announced:
            await events.append(conn, [await _numbered(conn, one, now) for one in work.announced])


async def in_unit_of_work(
    pool: Pool, act: Callable[[UnitOfWork], Awaitable[Result]], *, now: datetime
) -> Result:
    """What *act* gives, within a unit of work of its own, begun again where a deadlock ended it.

    Locks are taken in one order, so this is a net below that and no way of working.
    """
    for left in reversed(range(TRIES)):
        try:
            async with pool.acquire() as conn, unit_of_work(conn, now=now) as work:
                return await act(work)
        except asyncpg.DeadlockDetectedError as exc:
            if not left:
                raise
            log.warning("deadlock", error=story_of(exc))
    raise AssertionError


async def _numbered(conn: Conn, announced: Announcement, now: datetime) -> NewEvent:
    subject, sequence = announced.subject, announced.sequence
    if sequence is None:
        sequence = await events.next_sequence(conn, subject.id, is_avatar=subject.is_avatar)
    return NewEvent(
        id=new_id(),
        organisation_id=subject.organisation_id,
        type=announced.type.value,
        subject_id=subject.id,
        subject=subject.spelled,
        sequence=sequence,
        time=now,
        data=encode(announced.data),
        traceparent=subject.traceparent,
    )
