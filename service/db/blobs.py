"""SQL for blobs: one stored object per organisation and SHA-256, known before its first byte.

Whoever makes an asset point to a blob, or finds that none does, holds its digest's lock (`lock`)
until the commit: READ COMMITTED alone would let one miss the other.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from service.db import jobs
from service.db.claims import ClaimLostError
from service.db.types import Conn, Row
from service.domain import Run, Work
from service.settings import LONGEST_TRANSFER_S
from storage.store import StoredAsset


class Writer(Protocol):
    """Who writes an object: a run, by the id of its row, or an upload, by that of its asset."""

    @property
    def id(self) -> UUID: ...

    @property
    def organisation_id(self) -> str: ...


# From the first byte to the commit, twice what the settings allow a transfer: no writer of ours
# goes on for longer (ingest/objects.py), so what it wrote cannot come back after that.
WRITTEN_WITHIN = timedelta(seconds=2 * LONGEST_TRANSFER_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemned:
    """A blob whose object is to be erased."""

    id: UUID
    key: str
    may_come_back: bool  # a put may be under way that brings its object back


async def begin(conn: Conn, writer: Writer, *, blob_id: UUID, key: str) -> None:
    """Commit the key before its first byte, so that the object can always be found."""
    await conn.execute(
        "INSERT INTO blob (id, organisation_id, key, written_for) VALUES ($1, $2, $3, $4)",
        blob_id,
        writer.organisation_id,
        key,
        writer.id,
    )


async def lock(conn: Conn, organisation_id: str, digests: Iterable[str]) -> None:
    """Hold these SHA-256 until the commit: before any row, so that nobody waits in a circle."""
    for digest in sorted(set(digests)):
        await conn.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended($1 || ':' || $2, 0))",
            organisation_id,
            digest,
        )


async def finish(conn: Conn, organisation_id: str, blob_id: UUID, stored: StoredAsset) -> UUID:
    """The blob that holds these bytes for the organisation: this one, or one that already did.

    When another holds them, ours is marked `discarded` for its object to be deleted. Where the
    object of another was lost, its assets get this one: see `condemn`. Raises ClaimLostError when
    ours was given up meanwhile.
    """
    await lock(conn, organisation_id, [stored.sha256])
    existing: UUID | None = await conn.fetchval(
        "SELECT id FROM blob WHERE organisation_id = $1 AND sha256 = $2 AND state = 'stored'",
        organisation_id,
        stored.sha256,
    )
    finished = await conn.fetchval(
        """
        UPDATE blob SET state = $2, sha256 = $3, size_bytes = $4
         WHERE id = $1 AND state = 'writing' RETURNING true
        """,
        blob_id,
        "stored" if existing is None else "discarded",
        stored.sha256,
        stored.size_bytes,
    )
    if not finished:
        raise ClaimLostError(str(blob_id))
    await _release_lost(conn, organisation_id, stored.sha256)
    return existing or blob_id


async def _release_lost(conn: Conn, organisation_id: str, sha256: str) -> None:
    """Their assets are not moved here: those rows come after avatars, which are locked later."""
    rows = await conn.fetch(
        "SELECT id FROM blob WHERE organisation_id = $1 AND sha256 = $2 AND state = 'lost'",
        organisation_id,
        sha256,
    )
    await release(conn, [row["id"] for row in rows])


async def abandoned(conn: Conn, run: Run) -> list[Condemned]:
    """Give up what earlier runs of a row began, or a twin made needless: their objects may go.

    A run that was overtaken abandons nothing: what it finds may be its successor's.
    """
    rows = await conn.fetch(
        """
        UPDATE blob SET state = 'discarded'
         WHERE written_for = $1
           AND (state = 'writing' OR (state = 'discarded' AND sha256 IS NOT NULL))
           AND (EXISTS (SELECT 1 FROM asset WHERE id = $1 AND claim = $2)
                OR EXISTS (SELECT 1 FROM avatar WHERE id = $1 AND claim = $2))
        RETURNING id, key, sha256 IS NULL AS may_come_back
        """,
        run.id,
        run.claim,
    )
    return [Condemned(**row) for row in rows]


async def give_up(conn: Conn, blob_id: UUID) -> bool:
    """Whether the object may be deleted: its bytes were not kept, and never will be."""
    await conn.execute(
        "UPDATE blob SET state = 'discarded' WHERE id = $1 AND state = 'writing'", blob_id
    )
    # a statement of its own: it sees what a commit that the first one waited for has kept
    kept: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT 1 FROM blob WHERE id = $1 AND state IN ('stored', 'lost'))", blob_id
    )
    return not kept


async def release(conn: Conn, blob_ids: Collection[UUID]) -> None:
    """These lost an asset that pointed to them: have those erased that nothing points to then."""
    await jobs.enqueue(conn, Work.PURGE, list(blob_ids))


async def stop_writing(conn: Conn, writers: Collection[UUID]) -> None:
    """What runs of these rows have begun will never count: have it erased.

    Their writers may still be at it, and learn so when they finish. One that is finishing just now
    is left to itself, since it waits for rows that we hold: it will find its own row gone.
    """
    rows = await conn.fetch(
        """
        WITH begun AS (
            SELECT id FROM blob WHERE written_for = ANY($1) AND state = 'writing'
               FOR UPDATE SKIP LOCKED)
        UPDATE blob SET state = 'discarded' WHERE id IN (SELECT id FROM begun) RETURNING id
        """,
        list(writers),
    )
    await release(conn, [row["id"] for row in rows])


async def condemn(conn: Conn, blob_id: UUID) -> Condemned | None:
    """Give a blob up that no asset points to; None when one does, or it is gone.

    Waits for whoever is about to reuse these bytes. Assets of a lost blob are first given the one
    that holds their bytes now, if there is one. Of what was never finished a writer may be alive
    for as long as WRITTEN_WITHIN: its object may come back.
    """
    blob = await conn.fetchrow(
        "SELECT id, organisation_id, sha256, state FROM blob WHERE id = $1", blob_id
    )
    if blob is None:
        return None
    if blob["sha256"] is not None:
        await lock(conn, blob["organisation_id"], [blob["sha256"]])
        await _heal(conn, blob)
    condemned = await conn.fetchrow(
        """
        UPDATE blob SET state = 'discarded'
         WHERE id = $1 AND state <> 'writing'
           AND sha256 IS NOT DISTINCT FROM $2  -- or it was finished since, and is not locked
           AND NOT EXISTS (SELECT 1 FROM asset WHERE blob_id = $1)
        RETURNING id, key, sha256 IS NULL AND created_at > now() - $3::interval AS may_come_back
        """,
        blob_id,
        blob["sha256"],
        WRITTEN_WITHIN,
    )
    return Condemned(**condemned) if condemned else None


async def _heal(conn: Conn, lost: Row) -> None:
    twin: UUID | None = await conn.fetchval(
        """
        SELECT s.id FROM blob s JOIN blob l USING (organisation_id, sha256)
         WHERE l.id = $1 AND l.state = 'lost' AND s.state = 'stored'
        """,
        lost["id"],
    )
    if twin is None:
        return
    await conn.execute(
        """
        WITH healed AS (SELECT id FROM asset WHERE blob_id = $1 ORDER BY id FOR NO KEY UPDATE)
        UPDATE asset SET blob_id = $2 WHERE id IN (SELECT id FROM healed)
        """,
        lost["id"],
        twin,
    )


async def unerased(conn: Conn, *, limit: int = 1000) -> list[UUID]:
    """Discarded blobs that can be erased for good, and that no live job will erase.

    What was begun longer than WRITTEN_WITHIN ago and never finished is discarded first.
    """
    await conn.execute(
        """
        WITH left_behind AS (
            SELECT id FROM blob WHERE state = 'writing' AND created_at < now() - $1::interval
             LIMIT $2 FOR UPDATE SKIP LOCKED)
        UPDATE blob SET state = 'discarded' WHERE id IN (SELECT id FROM left_behind)
        """,
        WRITTEN_WITHIN,
        limit,
    )
    rows = await conn.fetch(
        """
        SELECT id FROM blob b
         WHERE state = 'discarded'
           AND (sha256 IS NOT NULL OR created_at < now() - $1::interval)
           AND NOT EXISTS (SELECT 1 FROM pgqueuer q
                            WHERE q.entrypoint = 'purge' AND q.status IN ('queued', 'picked')
                              AND q.payload = convert_to(b.id::text, 'UTF8'))
         ORDER BY id LIMIT $2
        """,
        WRITTEN_WITHIN,
        limit,
    )
    return [row["id"] for row in rows]


async def forget(conn: Conn, blob_id: UUID, *, ended: bool = False) -> None:
    """Drop a discarded blob whose object is erased, if no put can bring that back.

    *ended*: the caller knows so of its own put.
    """
    await conn.execute(
        """
        DELETE FROM blob
         WHERE id = $1 AND state = 'discarded'
           AND ($2 OR sha256 IS NOT NULL OR created_at < now() - $3::interval)
        """,
        blob_id,
        ended,
        WRITTEN_WITHIN,
    )
