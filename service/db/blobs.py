"""SQL for blobs: one stored object per organisation and SHA-256, known before its first byte."""

from collections.abc import Iterable
from uuid import UUID

from service.db.types import Conn
from service.domain import Run
from storage.store import StoredAsset


async def begin(conn: Conn, run: Run, *, blob_id: UUID, key: str) -> None:
    """Commit the key before its first byte, so that the object can always be found."""
    await conn.execute(
        "INSERT INTO blob (id, organisation_id, key, written_for) VALUES ($1, $2, $3, $4)",
        blob_id,
        run.organisation_id,
        key,
        run.id,
    )


async def lock(conn: Conn, digests: Iterable[str]) -> None:
    """Hold these SHA-256 until the commit: before any row, so that nobody waits in a circle."""
    for digest in sorted(digests):
        await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", digest)


async def finish(conn: Conn, run: Run, blob_id: UUID, stored: StoredAsset) -> UUID:
    """The blob that holds these bytes for the organisation: this one, or one that already did.

    When another holds them, ours is marked `discarded` for its object to be deleted.
    """
    await lock(conn, [stored.sha256])
    existing: UUID | None = await conn.fetchval(
        "SELECT id FROM blob WHERE organisation_id = $1 AND sha256 = $2 AND state = 'stored'",
        run.organisation_id,
        stored.sha256,
    )
    await conn.execute(
        "UPDATE blob SET state = $2, sha256 = $3, size_bytes = $4 WHERE id = $1",
        blob_id,
        "stored" if existing is None else "discarded",
        stored.sha256,
        stored.size_bytes,
    )
    return existing or blob_id


async def abandoned(conn: Conn, subject_id: UUID) -> list[tuple[UUID, str]]:
    """Blobs that earlier runs of an asset or avatar began or discarded: their objects may go."""
    rows = await conn.fetch(
        "SELECT id, key FROM blob WHERE written_for = $1 AND state <> 'stored'", subject_id
    )
    return [(row["id"], row["key"]) for row in rows]


async def forget(conn: Conn, blob_id: UUID) -> None:
    await conn.execute("DELETE FROM blob WHERE id = $1 AND state <> 'stored'", blob_id)
