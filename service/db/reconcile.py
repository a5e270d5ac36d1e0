"""SQL that holds what the store lists against what the rows say.

The listing goes into a temporary table of one connection, and is compared here, a page at a time:
neither millions of objects nor millions of rows are ever in memory. What a query finds is a
suspicion: work goes on meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from service.db import blobs, jobs, uploads
from service.db.blobs import WRITTEN_WITHIN
from service.db.types import Conn, Row
from service.domain import Origin, Work
from storage.store import AssetStat
from validators.derive.recipes import Recipe

PAGE = 500
MENTIONED = 100  # assets and avatars of one blob that are named
NO_ID = UUID(int=0)

# What our keys look like; any other object is somebody else's.
_OURS = "(l.key ~ '^[0-9a-f]{32}$' OR l.key LIKE 'check/%')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A blob as far as its object can be compared with it."""

    id: UUID
    organisation_id: str
    key: str
    state: str
    sha256: str | None
    size_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """An asset whose bytes are in question; of one that was derived, how it was made."""

    id: UUID
    origin: Origin
    recipe: Recipe | None
    recipe_version: int | None
    origin_lost: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """How much of the store and of the rows there is, and how much is in both."""

    rows: int
    strays: int
    both: int
    bytes: int  # of the rows


async def begin_listing(conn: Conn) -> datetime:
    """An empty listing; when it began, by the database's clock."""
    await conn.execute(
        """
        DROP TABLE IF EXISTS listed;
        CREATE TEMPORARY TABLE listed (key text, size_bytes bigint, modified_at timestamptz)
        """
    )
    began: datetime = await conn.fetchval("SELECT clock_timestamp()")
    return began


async def add_listed(conn: Conn, page: Sequence[AssetStat]) -> None:
    records = [(stat.key, stat.size_bytes, stat.modified_at) for stat in page]
    await conn.copy_records_to_table("listed", records=records)


async def end_listing(conn: Conn) -> None:
    await conn.execute("CREATE INDEX ON listed (key); ANALYZE listed")


async def overlap(conn: Conn, *, before: datetime) -> Overlap:
    row = await conn.fetchrow(
        f"""
        SELECT (SELECT count(*) FROM blob
                 WHERE state = 'stored' AND created_at < $1) AS rows,
               (SELECT count(*) FROM listed l WHERE {_OURS}
                   AND NOT EXISTS (SELECT 1 FROM blob b WHERE b.key = l.key)) AS strays,
               (SELECT count(*) FROM listed l JOIN blob b USING (key)) AS both,
               (SELECT coalesce(sum(size_bytes), 0)::bigint FROM blob
                 WHERE state = 'stored' AND created_at < $1) AS bytes
        """,  # noqa: S608 - a literal
        before,
    )
    return Overlap(**row)  # type: ignore[arg-type]  # a query without FROM has one row


# What was derived can be made again, unless what it was made from is lost: so sources come first.
_OF_SOURCES = "EXISTS (SELECT 1 FROM asset a WHERE a.blob_id = b.id AND a.origin <> 'derive')"


async def without_object(conn: Conn, after: UUID, *, derived: bool, before: datetime) -> list[Blob]:
    """Stored blobs that were not listed, or with another size."""
    rows = await conn.fetch(
        f"""
        SELECT b.* FROM blob b LEFT JOIN listed l ON l.key = b.key
         WHERE b.state = 'stored' AND b.id > $1 AND b.created_at < $2
           AND l.size_bytes IS DISTINCT FROM b.size_bytes AND {_OF_SOURCES} <> $3
         ORDER BY b.id LIMIT $4
        """,  # noqa: S608 - a literal
        after,
        before,
        derived,
        PAGE,
    )
    return [_blob(row) for row in rows]


async def with_object(conn: Conn, after: UUID, *, derived: bool, before: datetime) -> list[Blob]:
    """Stored blobs that were listed, and with their size."""
    rows = await conn.fetch(
        f"""
        SELECT b.* FROM blob b
         WHERE b.state = 'stored' AND b.id > $1 AND b.created_at < $2
           AND EXISTS (SELECT 1 FROM listed l
                        WHERE l.key = b.key AND l.size_bytes = b.size_bytes)
           AND {_OF_SOURCES} <> $3
         ORDER BY b.id LIMIT $4
        """,  # noqa: S608 - a literal
        after,
        before,
        derived,
        PAGE,
    )
    return [_blob(row) for row in rows]


async def lost(conn: Conn, after: UUID, *, derived: bool) -> list[Blob]:
    """Blobs that are known to be lost."""
    rows = await conn.fetch(
        f"""
        SELECT b.* FROM blob b
         WHERE b.state = 'lost' AND b.id > $1 AND {_OF_SOURCES} <> $2
         ORDER BY b.id LIMIT $3
        """,  # noqa: S608 - a literal
        after,
        derived,
        PAGE,
    )
    return [_blob(row) for row in rows]


_NO_JOB = """
    NOT EXISTS (SELECT 1 FROM pgqueuer q
                 WHERE q.entrypoint = 'purge' AND q.status IN ('queued', 'picked')
                   AND q.payload = convert_to(b.id::text, 'UTF8'))
"""
_UNUSED = f"""
    b.state IN ('stored', 'lost') AND NOT EXISTS (SELECT 1 FROM asset a WHERE a.blob_id = b.id)
    AND {_NO_JOB}
"""  # noqa: S608 - literals
_LEFT_BEHIND = f"""
    b.state IN ('writing', 'discarded') AND b.created_at < now() - $2::interval AND {_NO_JOB}
"""


async def unused(conn: Conn, after: UUID) -> list[Blob]:
    """Blobs that no asset points to, and that no job will erase."""
    sql = f"SELECT b.* FROM blob b WHERE {_UNUSED} AND b.id > $1 ORDER BY b.id LIMIT $2"  # noqa: S608 - a literal
    return [_blob(row) for row in await conn.fetch(sql, after, PAGE)]


async def left_behind(conn: Conn, after: UUID) -> list[Blob]:
    """Blobs that nobody can be writing any more, and that no job will erase."""
    sql = f"SELECT b.* FROM blob b WHERE {_LEFT_BEHIND} AND b.id > $1 ORDER BY b.id LIMIT $3"  # noqa: S608 - a literal
    return [_blob(row) for row in await conn.fetch(sql, after, WRITTEN_WITHIN, PAGE)]


async def is_unused(conn: Conn, blob_id: UUID) -> bool:
    sql = f"SELECT EXISTS (SELECT 1 FROM blob b WHERE {_UNUSED} AND b.id = $1)"  # noqa: S608 - a literal
    return bool(await conn.fetchval(sql, blob_id))


async def is_left_behind(conn: Conn, blob_id: UUID) -> bool:
    sql = f"SELECT EXISTS (SELECT 1 FROM blob b WHERE {_LEFT_BEHIND} AND b.id = $1)"  # noqa: S608 - a literal
    return bool(await conn.fetchval(sql, blob_id, WRITTEN_WITHIN))


async def is_in_state(conn: Conn, blob: Blob) -> bool:
    """Whether a blob is still what it was."""
    sql = "SELECT EXISTS (SELECT 1 FROM blob WHERE id = $1 AND state = $2)"
    return bool(await conn.fetchval(sql, blob.id, blob.state))


async def discard(conn: Conn, blob_id: UUID) -> None:
    """Give up what nobody can be writing any more, to be purged."""
    await conn.execute(
        """
        UPDATE blob SET state = 'discarded'
         WHERE id = $1 AND state = 'writing' AND created_at < now() - $2::interval
        """,
        blob_id,
        WRITTEN_WITHIN,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An object as it was listed."""

    key: str
    size_bytes: int


async def strays(conn: Conn, after: str, *, older_than: datetime) -> list[Listed]:
    """Objects of ours, by their names, that no row knows."""
    rows = await conn.fetch(
        f"""
        SELECT DISTINCT key, size_bytes FROM listed l
         WHERE {_OURS} AND key > $1 AND modified_at < $2
           AND NOT EXISTS (SELECT 1 FROM blob b WHERE b.key = l.key)
         ORDER BY key LIMIT $3
        """,  # noqa: S608 - a literal
        after,
        older_than,
        PAGE,
    )
    return [Listed(**row) for row in rows]


async def stray_incoming(conn: Conn, after: str, *, older_than: datetime) -> list[Listed]:
    """Files that callers sent and that nobody waits for."""
    rows = await conn.fetch(
        f"""
        SELECT DISTINCT key, size_bytes FROM listed l
         WHERE key LIKE 'incoming/%' AND key > $1 AND modified_at < $2
           AND NOT {uploads.NEEDS_FILE}
         ORDER BY key LIMIT $3
        """,  # noqa: S608 - a literal
        after,
        older_than,
        PAGE,
    )
    return [Listed(**row) for row in rows]


async def is_known(conn: Conn, key: str) -> bool:
    """Whether a blob has this key, or an upload that still needs what lies there."""
    sql = f"""
        SELECT EXISTS (SELECT 1 FROM blob WHERE key = $1)
            OR (SELECT {uploads.NEEDS_FILE} FROM (SELECT $1::text AS key) l)
    """  # noqa: S608 - a literal
    return bool(await conn.fetchval(sql, key))


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """An asset that says something else of its bytes than their blob does."""

    id: UUID
    key: str
    organisation_id: str
    size_bytes: int | None
    blob_size_bytes: int | None


async def differing(conn: Conn, after: UUID) -> list[Differing]:
    rows = await conn.fetch(
        """
        SELECT a.id, b.key, a.organisation_id, a.size_bytes, b.size_bytes AS blob_size_bytes
          FROM asset a JOIN blob b ON b.id = a.blob_id
         WHERE a.id > $1 AND (a.sha256, a.size_bytes) IS DISTINCT FROM (b.sha256, b.size_bytes)
         ORDER BY a.id LIMIT $2
        """,
        after,
        PAGE,
    )
    return [Differing(**row) for row in rows]


async def affected(conn: Conn, blob_id: UUID) -> list[Affected]:
    """The assets that point to a blob."""
    rows = await conn.fetch(
        """
        SELECT a.id, a.origin, a.recipe, a.recipe_version,
               coalesce(ob.state = 'lost', false) AS origin_lost
          FROM asset a LEFT JOIN asset o ON o.id = a.derived_from
          LEFT JOIN blob ob ON ob.id = o.blob_id
         WHERE a.blob_id = $1 ORDER BY a.id
        """,
        blob_id,
    )
    return [
        Affected(
            id=row["id"],
            origin=Origin(row["origin"]),
            recipe=Recipe(row["recipe"]) if row["recipe"] else None,
            recipe_version=row["recipe_version"],
            origin_lost=row["origin_lost"],
        )
        for row in rows
    ]


async def avatars_of(conn: Conn, asset_ids: Sequence[UUID]) -> list[UUID]:
    """The avatars that use these assets, the first hundred."""
    rows = await conn.fetch(
        """
        SELECT avatar_id FROM source WHERE asset_id = ANY($1)
         UNION SELECT avatar_id FROM derived WHERE asset_id = ANY($1)
         ORDER BY avatar_id LIMIT $2
        """,
        list(asset_ids),
        MENTIONED,
    )
    return [row["avatar_id"] for row in rows]


async def mark_lost(conn: Conn, blob: Blob, rebuilt: Sequence[UUID]) -> None:
    """Say that the bytes of a blob are not there, and have *rebuilt* assets made again."""
    async with conn.transaction():
        await _lock(conn, blob)
        await conn.execute(
            "UPDATE blob SET state = 'lost' WHERE id = $1 AND state = 'stored'", blob.id
        )
        await jobs.enqueue(conn, Work.REBUILD, rebuilt)


async def mark_stored(conn: Conn, blob: Blob) -> None:
    """Say that the bytes of a lost blob are there again.

    Where another blob has them by now, its assets get that one, and this one is erased.
    """
    async with conn.transaction():
        await _lock(conn, blob)
        is_stored = await conn.fetchval(
            """
            UPDATE blob b SET state = 'stored'
             WHERE id = $1 AND state = 'lost'
               AND NOT EXISTS (SELECT 1 FROM blob twin WHERE twin.state = 'stored'
                                  AND twin.organisation_id = b.organisation_id
                                  AND twin.sha256 = b.sha256)
            RETURNING true
            """,
            blob.id,
        )
        if not is_stored:
            await blobs.release(conn, [blob.id])


async def _lock(conn: Conn, blob: Blob) -> None:
    if blob.sha256 is not None:
        await blobs.lock(conn, blob.organisation_id, [blob.sha256])


def _blob(row: Row) -> Blob:
    return Blob(
        id=row["id"],
        organisation_id=row["organisation_id"],
        key=row["key"],
        state=row["state"],
        sha256=row["sha256"],
        size_bytes=row["size_bytes"],
    )
