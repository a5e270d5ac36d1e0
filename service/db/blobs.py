"""SQL for blobs: one stored object per organisation and SHA-256, known before its first byte."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from service.db import jobs
from service.db.claims import ClaimLostError
from service.db.types import Conn
from service.domain import Work
from storage.store import StoredAsset


class Writer(Protocol):
    """Who writes an object: a run, by the id of its row, or an upload, by that of its asset."""

    @property
    def id(self) -> UUID: ...

    @property
    def organisation_id(self) -> str: ...


WRITTEN_WITHIN = timedelta(hours=1)  # no request and no run of ours takes as long


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemned:
    """A blob whose object is to be erased."""

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


async def lock(conn: Conn, digests: Iterable[str]) -> None:
    """Hold these SHA-256 until the commit: before any row, so that nobody waits in a circle."""
    for digest in sorted(digests):
        await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", digest)


async def finish(conn: Conn, organisation_id: str, blob_id: UUID, stored: StoredAsset) -> UUID:
    """The blob that holds these bytes for the organisation: this one, or one that already did.

    When another holds them, ours is marked `discarded` for its object to be deleted. Raises
    ClaimLostError when ours was given up meanwhile.
    """
    await lock(conn, [stored.sha256])
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
    return existing or blob_id


async def abandoned(conn: Conn, subject_id: UUID) -> list[tuple[UUID, str]]:
    """Blobs that earlier runs of an asset or avatar began or discarded: their objects may go."""
    rows = await conn.fetch(
        "SELECT id, key FROM blob WHERE written_for = $1 AND state IN ('writing', 'discarded')",
        subject_id,
    )
    return [(row["id"], row["key"]) for row in rows]


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

    Their writers may still be at it. They learn so when they finish.
    """
    rows = await conn.fetch(
        """
        UPDATE blob SET state = 'discarded' WHERE written_for = ANY($1) AND state = 'writing'
        RETURNING id
        """,
        list(writers),
    )
    await release(conn, [row["id"] for row in rows])


async def condemn(conn: Conn, blob_id: UUID) -> Condemned | None:
    """Give a blob up that no asset points to; None when one does, or it is gone.

    Waits for whoever is about to reuse these bytes. Of what was never finished a writer may be
    alive for as long as WRITTEN_WITHIN: its object may come back.
    """
    row = await conn.fetchrow("SELECT sha256 FROM blob WHERE id = $1", blob_id)
    if row is None:
        return None
    if row["sha256"] is not None:
        await lock(conn, [row["sha256"]])
    condemned = await conn.fetchrow(
        """
        UPDATE blob SET state = 'discarded'
         WHERE id = $1 AND state <> 'writing'
           AND NOT EXISTS (SELECT 1 FROM asset WHERE blob_id = $1)
        RETURNING key, sha256 IS NULL AND created_at > now() - $2::interval AS may_come_back
        """,
        blob_id,
        WRITTEN_WITHIN,
    )
    return Condemned(**condemned) if condemned else None


async def orphans(conn: Conn, *, older_than: timedelta) -> list[tuple[UUID, str]]:
    """Blobs without bytes that count, and without a run that would come back for them."""
    rows = await conn.fetch(
        """
        SELECT id, key FROM blob b
         WHERE state IN ('writing', 'discarded') AND created_at < now() - $1::interval
           AND NOT EXISTS (SELECT 1 FROM asset a WHERE a.id = b.written_for
                              AND a.state = 'pending')
           AND NOT EXISTS (SELECT 1 FROM avatar v WHERE v.id = b.written_for
                              AND v.status = 'deriving')
        """,
        older_than,
    )
    return [(row["id"], row["key"]) for row in rows]


async def forget(conn: Conn, blob_id: UUID) -> None:
    await conn.execute(
        "DELETE FROM blob WHERE id = $1 AND state IN ('writing', 'discarded')", blob_id
    )
