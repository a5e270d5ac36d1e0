"""SQL for blobs: one stored object per organisation and SHA-256, known before its first byte."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from service.db.claims import ClaimLostError
from service.db.types import Conn
from storage.store import StoredAsset


class Writer(Protocol):
    """Who writes an object: a run, by the id of its row, or an upload, by that of its asset."""

    @property
    def id(self) -> UUID: ...

    @property
    def organisation_id(self) -> str: ...


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
        "SELECT id, key FROM blob WHERE written_for = $1 AND state <> 'stored'", subject_id
    )
    return [(row["id"], row["key"]) for row in rows]


async def give_up(conn: Conn, blob_id: UUID) -> bool:
    """Whether the object may be deleted: its bytes were not kept, and never will be."""
    await conn.execute(
        "UPDATE blob SET state = 'discarded' WHERE id = $1 AND state <> 'stored'", blob_id
    )
    # a statement of its own: it sees what a commit that the first one waited for has kept
    kept: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT 1 FROM blob WHERE id = $1 AND state = 'stored')", blob_id
    )
    return not kept


async def orphans(conn: Conn, *, older_than: timedelta) -> list[tuple[UUID, str]]:
    """Blobs without bytes that count, and without a run that would come back for them."""
    rows = await conn.fetch(
        """
        SELECT id, key FROM blob b
         WHERE state <> 'stored' AND created_at < now() - $1::interval
           AND NOT EXISTS (SELECT 1 FROM asset a WHERE a.id = b.written_for
                              AND a.state = 'pending' AND a.deleted_at IS NULL)
           AND NOT EXISTS (SELECT 1 FROM avatar v WHERE v.id = b.written_for
                              AND v.status = 'deriving' AND v.deleted_at IS NULL)
        """,
        older_than,
    )
    return [(row["id"], row["key"]) for row in rows]


async def forget(conn: Conn, blob_id: UUID) -> None:
    await conn.execute("DELETE FROM blob WHERE id = $1 AND state <> 'stored'", blob_id)
