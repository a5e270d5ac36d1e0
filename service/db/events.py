"""SQL of the outbox. What makes its order right is in events/outbox.py."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from service.db.types import Conn, Row

FEED_LOCK = 0x6772_6565_6E72_6665
CHANNEL = "greenroom_events"
ERASED = {"erased": True}  # all that the data of a deleted subject's events say


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event that is about to be committed, with its place within its subject."""

    id: UUID
    organisation_id: str
    type: str
    subject_id: UUID
    subject: str
    sequence: int
    time: datetime
    data: str  # JSON
    traceparent: str | None


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


_NEXT_SEQUENCE = {
    True: "UPDATE avatar SET sequence = sequence + 1 WHERE id = $1 RETURNING sequence",
    False: "UPDATE asset SET sequence = sequence + 1 WHERE id = $1 RETURNING sequence",
}


async def next_sequence(conn: Conn, subject_id: UUID, *, is_avatar: bool) -> int:
    """The number of the subject's next event; locks the subject's row until the commit."""
    return int(await conn.fetchval(_NEXT_SEQUENCE[is_avatar], subject_id))


_TAKE_PLACE_IN_FEED = "SELECT pg_advisory_xact_lock($1)"


async def append(conn: Conn, events: Sequence[NewEvent]) -> None:
    """Number *events* in the feed and insert them. The transaction must end right after this."""
    await conn.execute(_TAKE_PLACE_IN_FEED, FEED_LOCK)
    await conn.executemany(
        """
        INSERT INTO event (position, id, organisation_id, type, subject_id, subject, sequence,
                           time, data, traceparent)
        VALUES (nextval('event_position'), $1, $2, $3, $4, $5, $6, $7, $8::json, $9)
        """,
        [
            (
                *(event.id, event.organisation_id, event.type, event.subject_id, event.subject),
                *(event.sequence, event.time, event.data, event.traceparent),
            )
            for event in events
        ],
    )
    await conn.execute("SELECT pg_notify($1, '')", CHANNEL)


async def after(
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
    """Where the feed ends now, also where all of it is gone; 0 before the first event."""
    sql = """
        SELECT greatest((SELECT max(position) FROM event), (SELECT position FROM feed_start))
    """
    return int(await conn.fetchval(sql))


async def has_missed(conn: Conn, position: int) -> bool:
    """Whether events after *position* are gone. Ask after reading: they may go meanwhile."""
    return bool(await conn.fetchval("SELECT position > $1 FROM feed_start", position))


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
