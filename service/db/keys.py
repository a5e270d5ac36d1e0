"""API keys: shown once, stored as SHA-256, which is enough for 128 random bits."""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from service.db.types import Conn

PLATFORM = "*"
ORGANISATION_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")  # as the schema has it
KEY_BYTES = 16
KEY_PREFIX = "sk_live_"


class Scope(StrEnum):
    AVATARS_WRITE = "avatars:write"
    AVATARS_READ = "avatars:read"
    ASSETS_READ = "assets:read"
    EVENTS_READ = "events:read"
    WEBHOOKS_WRITE = "webhooks:write"
    FITTING_WRITE = "fitting:write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a request comes from, as its key says."""

    key_id: UUID
    organisation_id: str
    policy: str
    scopes: frozenset[str]

    @property
    def is_platform(self) -> bool:
        return self.organisation_id == PLATFORM

    @property
    def sees(self) -> str | None:
        """The organisation whose objects it sees; None: all of them."""
        return None if self.is_platform else self.organisation_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    id: UUID
    organisation_id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime


def spell(random_bytes: bytes) -> str:
    """The key that a caller sends, from KEY_BYTES random bytes."""
    return KEY_PREFIX + random_bytes.hex()


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()  # as headers decode


async def create_organisation(conn: Conn, organisation_id: str, name: str, *, policy: str) -> bool:
    """Make an organisation; False when it exists already."""
    made = await conn.fetchval(
        """
        INSERT INTO organisation (id, name, policy) VALUES ($1, $2, $3)
        ON CONFLICT DO NOTHING RETURNING 1
        """,
        organisation_id,
        name,
        policy,
    )
    return bool(made)


async def default_policy_of(conn: Conn, organisation_id: str) -> str | None:
    """An organisation's default policy; None when there is no such organisation."""
    sql = "SELECT policy FROM organisation WHERE id = $1 AND id <> '*'"
    policy: str | None = await conn.fetchval(sql, organisation_id)
    return policy


async def insert(conn: Conn, new: NewKey, key: str) -> None:
    await conn.execute(
        """
        INSERT INTO api_key (id, organisation_id, name, key_sha256, hint, scopes, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        """,
        new.id,
        new.organisation_id,
        new.name,
        digest(key),
        key[: len(KEY_PREFIX) + 4],
        [scope.value for scope in new.scopes],
        new.created_at,
    )


async def principal_of(conn: Conn, key: str) -> Principal | None:
    """Who *key* belongs to; None when it is unknown or revoked."""
    row = await conn.fetchrow(
        """
        SELECT k.id, k.organisation_id, k.scopes, o.policy
          FROM api_key k JOIN organisation o ON o.id = k.organisation_id
         WHERE k.key_sha256 = $1 AND k.revoked_at IS NULL
        """,
        digest(key),
    )
    if row is None:
        return None
    return Principal(
        key_id=row["id"],
        organisation_id=row["organisation_id"],
        policy=row["policy"],
        scopes=frozenset(row["scopes"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedKey:
    id: UUID
    organisation_id: str
    name: str
    hint: str
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None


async def listed(conn: Conn, *, organisation_id: str | None) -> list[ListedKey]:
    rows = await conn.fetch(
        """
        SELECT id, organisation_id, name, hint, scopes, created_at, revoked_at FROM api_key
         WHERE $1::text IS NULL OR organisation_id = $1 ORDER BY created_at DESC
        """,
        organisation_id,
    )
    return [ListedKey(**{**row, "scopes": tuple(row["scopes"])}) for row in rows]


async def revoke(conn: Conn, key_id: UUID, *, now: datetime) -> bool:
    sql = "UPDATE api_key SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING 1"
    return bool(await conn.fetchval(sql, key_id, now))
