"""SQL that deletes avatars and assets, with everything that is known of them.

What must not change under a deletion is locked first: an upload, then avatars, then sources, then
what was derived from those. A derivation locks its sources too, so that what it would share is
either there for it to use, or gone before it looks.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from service.db.events import ERASED
from service.db.types import Conn, Row
from service.domain import Work
from validators.facts import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An asset that is locked until the commit."""

    id: UUID
    organisation_id: str
    kind: Kind
    blob_id: UUID | None
    standalone: bool
    derived_from: UUID | None


async def lock_sources(conn: Conn, avatar_id: UUID) -> list[Held]:
    """The assets that a locked avatar was made from, in id order."""
    rows: Sequence[Row] = await conn.fetch(
        """
        SELECT * FROM asset WHERE id IN (SELECT asset_id FROM source WHERE avatar_id = $1)
         ORDER BY id FOR UPDATE
        """,
        avatar_id,
    )
    return [_held(row) for row in rows]


async def lock_asset(conn: Conn, asset_id: UUID, *, organisation_id: str | None) -> Held | None:
    row = await conn.fetchrow(
        """
        SELECT * FROM asset WHERE id = $1
           AND ($2::text IS NULL OR organisation_id = $2) FOR UPDATE
        """,
        asset_id,
        organisation_id,
    )
    return _held(row) if row else None


async def lock_derived(conn: Conn, sources: Sequence[Held]) -> list[Held]:
    """What was derived from locked assets, for whichever avatar, in id order."""
    rows: Sequence[Row] = await conn.fetch(
        "SELECT * FROM asset WHERE derived_from = ANY($1) ORDER BY id FOR UPDATE",
        [source.id for source in sources],
    )
    return [_held(row) for row in rows]


def _held(row: Row) -> Held:
    return Held(
        id=row["id"],
        organisation_id=row["organisation_id"],
        kind=Kind(row["kind"]),
        blob_id=row["blob_id"],
        standalone=row["standalone"],
        derived_from=row["derived_from"],
    )


async def used_by_avatars(
    conn: Conn, held: Sequence[Held], *, but_for: UUID | None = None
) -> set[UUID]:
    """Which of these assets an avatar uses, one avatar left aside.

    They are locked, so that nobody begins to use one before the commit.
    """
    rows = await conn.fetch(
        """
        SELECT asset_id FROM source
         WHERE asset_id = ANY($1) AND avatar_id IS DISTINCT FROM $2
         UNION
        SELECT asset_id FROM derived
         WHERE asset_id = ANY($1) AND avatar_id IS DISTINCT FROM $2
        """,
        [one.id for one in held],
        but_for,
    )
    return {row["asset_id"] for row in rows}


async def void_upload(conn: Conn, upload_id: UUID, *, organisation_id: str | None) -> str | None:
    """Take nothing more in for an upload; its key, or None where there is none (any more).

    Whoever finalises it, or has just taken a file in for it, waits for our commit.
    """
    key: str | None = await conn.fetchval(
        """
        UPDATE upload SET state = 'void'
         WHERE id = $1 AND ($2::text IS NULL OR organisation_id = $2) AND state <> 'void'
        RETURNING key
        """,
        upload_id,
        organisation_id,
    )
    return key


async def remove_avatar(conn: Conn, avatar_id: UUID) -> int:
    """Remove its row, and with it sources and kept answers; the sequence of its last event."""
    return int(
        await conn.fetchval("DELETE FROM avatar WHERE id = $1 RETURNING sequence", avatar_id)
    )


async def remove_assets(conn: Conn, asset_ids: Collection[UUID]) -> dict[UUID, int]:
    """Remove rows, and with them verdicts and facts; the sequence of each one's last event."""
    rows = await conn.fetch(
        "DELETE FROM asset WHERE id = ANY($1) RETURNING id, sequence", list(asset_ids)
    )
    return {row["id"]: row["sequence"] for row in rows}


async def erase_events(conn: Conn, subject_ids: Collection[UUID]) -> None:
    """Leave of their events no more than their place in the feed."""
    await conn.execute(
        """
        UPDATE event SET data = $2::json, traceparent = NULL WHERE subject_id = ANY($1)
        """,
        list(subject_ids),
        json.dumps(ERASED),
    )


_WORK_ON_SUBJECTS = [work.value for work in Work if work is not Work.PURGE]


async def drop_jobs(conn: Conn, subject_ids: Collection[UUID]) -> None:
    """Remove the jobs of rows that are gone, and the tracebacks that were kept of them.

    A job that a worker completes just now is left to it: PgQueuer deletes in an order of its own.
    """
    await conn.execute(
        """
        WITH theirs AS (
            SELECT q.id FROM pgqueuer q
             WHERE q.dedupe_key = ANY(
                   SELECT work || ':' || subject FROM unnest($1::text[]) work,
                                                      unnest($2::uuid[]) subject)
               FOR UPDATE SKIP LOCKED),
        dropped AS (
            DELETE FROM pgqueuer WHERE id IN (SELECT id FROM theirs) RETURNING id)
        UPDATE pgqueuer_log SET traceback = NULL
         WHERE job_id IN (SELECT id FROM dropped) AND traceback IS NOT NULL
        """,
        _WORK_ON_SUBJECTS,
        list(subject_ids),
    )


async def backlog(conn: Conn) -> tuple[int, float]:
    """How many objects are to be erased, and for how many seconds the oldest job has tried to.

    Of what a put may still bring back the job has ended: it waits, but for no store.
    """
    row = await conn.fetchrow(
        """
        SELECT (SELECT count(*) FROM blob WHERE state = 'discarded') AS objects,
               (SELECT extract(epoch FROM coalesce(max(now() - created), '0'))::float8
                  FROM pgqueuer WHERE entrypoint = 'purge') AS age_s
        """
    )
    return (row["objects"], row["age_s"]) if row else (0, 0.0)
