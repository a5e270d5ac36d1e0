"""SQL for uploads: where a caller may send one file by a form, until it is finalised or deleted."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from service.db.claims import ClaimLostError
from service.db.types import Conn
from service.domain import AssetRun
from validators.facts import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A place for one file. Its id is that of the asset that the file becomes."""

    id: UUID
    organisation_id: str
    kind: Kind
    policy: str
    key: str  # in the store, until the file is copied to one that nobody else can write
    max_bytes: int
    created_at: datetime
    expires_at: datetime


# Of the file under a listed key *l.key*: some upload is open, or its asset has no copy yet.
NEEDS_FILE = """
    EXISTS (SELECT 1 FROM upload u LEFT JOIN asset a ON a.id = u.id
             WHERE u.key = l.key
               AND (u.state = 'open' OR (u.state = 'finalised' AND a.state = 'pending')))
"""


def incoming_key(upload_id: UUID) -> str:
    """Where the file of an upload lies until it is copied."""
    return f"incoming/{upload_id.hex}"


async def insert(conn: Conn, upload: Upload) -> None:
    await conn.execute(
        """
        INSERT INTO upload (id, organisation_id, kind, policy, key, max_bytes, created_at,
                            expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        upload.id,
        upload.organisation_id,
        upload.kind.value,
        upload.policy,
        upload.key,
        upload.max_bytes,
        upload.created_at,
        upload.expires_at,
    )


async def find_open(
    conn: Conn, upload_id: UUID, kind: Kind, *, organisation_id: str | None, now: datetime
) -> Upload | None:
    """An upload that may still be finalised; None when there is none, or it is another's."""
    row = await conn.fetchrow(
        """
        SELECT id, organisation_id, kind, policy, key, max_bytes, created_at, expires_at
          FROM upload
         WHERE id = $1 AND kind = $2 AND ($3::text IS NULL OR organisation_id = $3)
           AND state = 'open' AND expires_at > $4
        """,
        upload_id,
        kind.value,
        organisation_id,
        now,
    )
    return Upload(**{**row, "kind": Kind(row["kind"])}) if row else None


async def finalise(conn: Conn, upload_id: UUID) -> bool:
    """End an open upload: its file is taken as it is. False when it is not open (any more)."""
    sql = "UPDATE upload SET state = 'finalised' WHERE id = $1 AND state = 'open' RETURNING true"
    return bool(await conn.fetchval(sql, upload_id))


async def takes_bytes(conn: Conn, key: str) -> bool:
    """Whether what is sent to *key* may still count."""
    sql = "SELECT EXISTS (SELECT 1 FROM upload WHERE key = $1 AND state = 'open')"
    return bool(await conn.fetchval(sql, key))


async def hold_open(conn: Conn, key: str) -> bool:
    """The same, and until the transaction ends nobody finalises or deletes the upload."""
    sql = "SELECT true FROM upload WHERE key = $1 AND state = 'open' FOR UPDATE"
    return bool(await conn.fetchval(sql, key))


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What a run has to copy."""

    key: str
    max_bytes: int


async def incoming_of(conn: Conn, run: AssetRun) -> Incoming:
    """What the run has to copy; raise ClaimLostError if it was overtaken."""
    row = await conn.fetchrow(
        """
        SELECT u.key, u.max_bytes FROM upload u JOIN asset a ON a.id = u.id
         WHERE a.id = $1 AND a.claim = $2
        """,
        run.id,
        run.claim,
    )
    if row is None:
        raise ClaimLostError(str(run.id))
    return Incoming(**row)
