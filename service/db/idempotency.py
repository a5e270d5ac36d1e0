"""Answers kept under an Idempotency-Key. A record commits with the avatar that it announces."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from service.db.types import Conn


class AnsweredTwiceError(Exception):
    """Another request with this key was answered meanwhile: nothing of this one may commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A first answer, to be given again byte for byte."""

    fingerprint: bytes
    status: int
    body: bytes
    request_id: str


async def take_turn(conn: Conn, organisation_id: str, key: str) -> bool:
    """Hold the key for the caller's transaction; False while another request holds it."""
    name = f"{organisation_id}\0{key}".encode()
    number = int.from_bytes(hashlib.sha256(name).digest()[:8], signed=True)
    return bool(await conn.fetchval("SELECT pg_try_advisory_xact_lock($1)", number))


async def find(
    conn: Conn, organisation_id: str, key: str, *, kept_for: timedelta, now: datetime
) -> Answer | None:
    """The first answer under this key, if it is younger than *kept_for*."""
    row = await conn.fetchrow(
        """
        SELECT fingerprint, status, body, request_id FROM idempotency
         WHERE organisation_id = $1 AND key = $2 AND created_at > $3
        """,
        organisation_id,
        key,
        now - kept_for,
    )
    return Answer(**row) if row else None


async def keep(
    conn: Conn,
    organisation_id: str,
    key: str,
    answer: Answer,
    *,
    avatar_id: UUID | None,
    kept_for: timedelta,
    now: datetime,
) -> None:
    """Keep the first answer; raise AnsweredTwiceError where there is one: the key decides."""
    kept = await conn.fetchval(
        """
        INSERT INTO idempotency (organisation_id, key, fingerprint, avatar_id, status, body,
                                 request_id, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (organisation_id, key) DO UPDATE
           SET fingerprint = excluded.fingerprint, avatar_id = excluded.avatar_id,
               status = excluded.status, body = excluded.body,
               request_id = excluded.request_id, created_at = excluded.created_at
         WHERE idempotency.created_at <= excluded.created_at - $9::interval
        RETURNING 1
        """,
        organisation_id,
        key,
        answer.fingerprint,
        avatar_id,
        answer.status,
        answer.body,
        answer.request_id,
        now,
        kept_for,
    )
    if kept is None:
        raise AnsweredTwiceError(key)
