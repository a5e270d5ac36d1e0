"""SQL that removes what is past its time, a bounded batch at a time.

Each function is one transaction of its caller's, and gives how much it removed. None ever waits for
a row while it holds others, so that none is part of a deadlock.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from uuid import UUID

import asyncpg

from service.db import blobs, uploads
from service.db.types import Conn

RETENTION_LOCK = 0x6772_6565_6E72_7274


async def take_turn(conn: Conn) -> bool:
    """Hold the turn of the one process that cleans up, until `end_turn` or the connection's end."""
    return bool(await conn.fetchval("SELECT pg_try_advisory_lock($1)", RETENTION_LOCK))


async def end_turn(conn: Conn) -> None:
    await conn.execute("SELECT pg_advisory_unlock($1)", RETENTION_LOCK)


async def drop_events(conn: Conn, *, before: datetime, limit: int) -> int:
    """Cut the feed off at its old end: of its first events, those up to the first that is younger.

    Where it starts moves along, so that readers who were not there yet can be told.
    """
    rows = await conn.fetch("SELECT position, time FROM event ORDER BY position LIMIT $1", limit)
    old = list(takewhile(lambda row: row["time"] < before, rows))
    if not old:
        return 0
    last = old[-1]["position"]  # and nothing comes before it any more: positions rise
    try:
        await conn.execute("SELECT 1 FROM event WHERE position <= $1 FOR UPDATE NOWAIT", last)
    except asyncpg.LockNotAvailableError:  # a deletion is at them; there will be another turn
        return 0
    await conn.execute("DELETE FROM event WHERE position <= $1", last)
    await conn.execute("UPDATE feed_start SET position = $1", last)
    return len(old)


async def drop_answers(conn: Conn, *, before: datetime, limit: int) -> int:
    """Answers under an Idempotency-Key."""
    return await _changed(
        conn,
        """
        DELETE FROM idempotency WHERE (organisation_id, key) IN (
            SELECT organisation_id, key FROM idempotency WHERE created_at <= $1
             ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)
        """,
        before,
        limit,
    )


async def drop_job_log(conn: Conn, *, before: datetime, limit: int) -> int:
    """What PgQueuer wrote down of jobs that ended."""
    return await _changed(
        conn,
        """
        DELETE FROM pgqueuer_log WHERE id IN (
            SELECT id FROM pgqueuer_log WHERE created < $1
             ORDER BY created LIMIT $2 FOR UPDATE SKIP LOCKED)
        """,
        before,
        limit,
    )


async def drop_failed_jobs(conn: Conn, *, before: datetime, limit: int) -> int:
    """Jobs that PgQueuer holds for people to look at. The sweeper has long enqueued others."""
    return await _changed(
        conn,
        """
        DELETE FROM pgqueuer WHERE id IN (
            SELECT id FROM pgqueuer WHERE status = 'failed' AND updated < $1
             ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)
        """,
        before,
        limit,
    )


async def _changed(conn: Conn, sql: str, *values: object) -> int:
    status: str = await conn.execute(sql, *values)  # such as "DELETE 7"
    return int(status.rpartition(" ")[2])


async def release_refused(conn: Conn, *, before: datetime, now: datetime, limit: int) -> int:
    """Take their bytes from sources that were rejected or failed; what is known of them stays."""
    rows = await conn.fetch(
        """
        SELECT id, blob_id FROM asset
         WHERE state IN ('rejected', 'failed') AND blob_id IS NOT NULL AND final_at < $1
         ORDER BY final_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
        """,
        before,
        limit,
    )
    await conn.execute(
        "UPDATE asset SET blob_id = NULL, bytes_erased_at = $2 WHERE id = ANY($1)",
        [row["id"] for row in rows],
        now,
    )
    await blobs.release(conn, sorted({row["blob_id"] for row in rows}))
    return len(rows)


async def void_uploads(conn: Conn, *, before: datetime, now: datetime, limit: int) -> int:
    """Give up uploads that nobody finalised, and that nobody can finalise any more."""
    return await _changed(
        conn,
        """
        UPDATE upload SET state = 'void' WHERE id IN (
            SELECT id FROM upload
             WHERE state = 'open' AND created_at < $1 AND expires_at < $2
             ORDER BY expires_at LIMIT $3 FOR UPDATE SKIP LOCKED)
        """,
        before,
        now,
        limit,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedUpload:
    """An upload that takes no bytes any more, and whose own bytes nobody waits for."""

    id: UUID
    key: str


async def ended_uploads(conn: Conn, *, expired_before: datetime, limit: int) -> list[EndedUpload]:
    rows = await conn.fetch(
        """
        SELECT id, key FROM upload u
         WHERE state IN ('finalised', 'void') AND expires_at < $1
           AND NOT EXISTS (SELECT 1 FROM asset a WHERE a.id = u.id AND a.state = 'pending')
         ORDER BY expires_at LIMIT $2
        """,
        expired_before,
        limit,
    )
    return [EndedUpload(**row) for row in rows]


async def forget_uploads(conn: Conn, upload_ids: Collection[UUID]) -> None:
    """Their objects are erased."""
    await conn.execute("DELETE FROM upload WHERE id = ANY($1)", list(upload_ids))


async def unwanted_incoming(conn: Conn, keys: Collection[str]) -> list[str]:
    """Of these keys of incoming objects, those whose file no upload needs (any more)."""
    rows = await conn.fetch(
        f"SELECT key FROM unnest($1::text[]) AS l (key) WHERE NOT {uploads.NEEDS_FILE}",  # noqa: S608 - a literal
        list(keys),
    )
    return [row["key"] for row in rows]
