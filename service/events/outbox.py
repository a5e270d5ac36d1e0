"""The outbox: events commit with the change they announce, and the feed has one order.

A transaction that announces events ends like this: take one advisory transaction lock, number the
events from one sequence, insert, commit. So `position` rises in commit order, and a reader that
remembers the last position it saw never misses one. Ordering by an identity column loses events
that commit late; ordering by transaction id breaks the order within a subject.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from service.db.types import Conn, Row
from service.domain import EventType
from service.events.data import EventData, encode
from service.ids import avatar_spelling, new_id

FEED_LOCK = 0x6772_6565_6E72_6665
CHANNEL = "greenroom_events"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as it was committed."""

    position: int
    id: UUID
    organisation_id: str
    type: str
    subject: str
    sequence: int
    time: datetime
    data: dict[str, Any]  # by then any JSON object: an erased event has none of its fields
    traceparent: str | None


class UnitOfWork:
    """One transaction, and the events it will announce as its last statements."""

    def __init__(self, conn: Conn) -> None:
        self.conn = conn
        self.announced: list[Announcement] = []

    def announce(self, type_: EventType, subject: Subject, data: EventData) -> None:
        self.announced.append(Announcement(type=type_, subject=subject, data=data))


@asynccontextmanager
async def unit_of_work(conn: Conn, *, now: datetime) -> AsyncIterator[UnitOfWork]:
    """A transaction on *conn* that commits with its events, or not at all."""
    async with conn.transaction():
        work = UnitOfWork(conn)
        yield work
        await _publish(conn, work.announced, now)


_NEXT_SEQUENCE = {
    True: "UPDATE avatar SET sequence = sequence + 1 WHERE id = $1 RETURNING sequence",
    False: "UPDATE asset SET sequence = sequence + 1 WHERE id = $1 RETURNING sequence",
}

_TAKE_PLACE_IN_FEED = "SELECT pg_advisory_xact_lock($1)"


async def _publish(conn: Conn, announced: Sequence[Announcement], now: datetime) -> None:
    if not announced:
        return
    rows = []
    for event in announced:
        subject = event.subject
        sequence = await conn.fetchval(_NEXT_SEQUENCE[subject.is_avatar], subject.id)
        rows.append(
            (
                *(new_id(), subject.organisation_id, event.type.value, subject.id),
                *(subject.spelled, sequence, now, encode(event.data), subject.traceparent),
            )
        )
    await conn.execute(_TAKE_PLACE_IN_FEED, FEED_LOCK)
    await conn.executemany(
        """
        INSERT INTO event (position, id, organisation_id, type, subject_id, subject, sequence,
                           time, data, traceparent)
        VALUES (nextval('event_position'), $1, $2, $3, $4, $5, $6, $7, $8::json, $9)
        """,
        rows,
    )
    await conn.execute("SELECT pg_notify($1, '')", CHANNEL)


async def events_after(
    conn: Conn,
    position: int,
    *,
    organisation_id: str | None,
    types: Sequence[str] = (),
    avatar_id: UUID | None = None,
    limit: int,
) -> list[Event]:
    """Events with a higher position, oldest first. No organisation means every organisation.

    *avatar_id* keeps the events of that avatar and of the assets it uses.
    """
    rows = await conn.fetch(
        """
        SELECT * FROM event e
         WHERE position > $1
           AND ($2::text IS NULL OR organisation_id = $2)
           AND (cardinality($3::text[]) = 0 OR type = ANY($3))
           AND ($4::uuid IS NULL OR subject_id = $4
                OR subject_id IN (SELECT asset_id FROM source WHERE avatar_id = $4))
         ORDER BY position LIMIT $5
        """,
        position,
        organisation_id,
        list(types),
        avatar_id,
        limit,
    )
    return [_event(row) for row in rows]


async def last_position(conn: Conn) -> int:
    """Where the feed ends now; 0 when it is empty."""
    return int(await conn.fetchval("SELECT coalesce(max(position), 0) FROM event"))


def _event(row: Row) -> Event:
    return Event(
        position=row["position"],
        id=row["id"],
        organisation_id=row["organisation_id"],
        type=row["type"],
        subject=row["subject"],
        sequence=row["sequence"],
        time=row["time"],
        data=json.loads(row["data"]),
        traceparent=row["traceparent"],
    )
