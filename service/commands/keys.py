"""API keys and secret keys on the command line."""

import secrets
from dataclasses import dataclass

import asyncpg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.db import keys
from service.db.keys import ListedKey, NewKey, Scope
from service.ids import new_id, parse_id
from service.settings import Settings, SettingsError
from service.times import now_utc, rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A key to be made. Without scopes it gets every one but `admin`."""

    organisation: str
    name: str
    scopes: tuple[str, ...]
    policy: str


def dsn_of(settings: Settings) -> str:
    if settings.database_url is None:
        raise SettingsError("GREENROOM_DATABASE_URL: not set")
    return settings.database_url


def scopes_of(words: tuple[str, ...]) -> tuple[Scope, ...]:
    """The scopes that *words* name; SettingsError lists every word that is none."""
    if unknown := set(words) - set(Scope):
        raise SettingsError(f"no such scope: {', '.join(sorted(unknown))}")
    return tuple(Scope(word) for word in words) or tuple(s for s in Scope if s is not Scope.ADMIN)


async def create(settings: Settings, wanted: Wanted) -> str:
    """Make a key, and its organisation when it is new; returns the key, to be shown once."""
    key = keys.spell(secrets.token_bytes(keys.KEY_BYTES))
    new = NewKey(
        id=new_id(),
        organisation_id=wanted.organisation,
        name=wanted.name,
        scopes=scopes_of(wanted.scopes),
        created_at=now_utc(),
    )
    conn = await asyncpg.connect(dsn_of(settings))
    try:
        async with conn.transaction():
            await keys.create_organisation(
                conn, wanted.organisation, wanted.organisation, policy=wanted.policy
            )
            await keys.insert(conn, new, key)
    except asyncpg.CheckViolationError as exc:
        message = "wants 1 to 63 lower-case letters, digits, _ and -, or * for the platform"
        raise SettingsError(f"{wanted.organisation!r} names no organisation: {message}") from exc
    finally:
        await conn.close()
    return key


async def listed(settings: Settings, organisation: str | None) -> list[ListedKey]:
    conn = await asyncpg.connect(dsn_of(settings))
    try:
        return await keys.listed(conn, organisation_id=organisation)
    finally:
        await conn.close()


async def revoke(settings: Settings, key_id: str) -> bool:
    """Revoke a key at once, in every process; False when there is no live key with that id."""
    parsed = parse_id(key_id)
    if parsed is None:
        return False
    conn = await asyncpg.connect(dsn_of(settings))
    try:
        return await keys.revoke(conn, parsed, now=now_utc())
    finally:
        await conn.close()


def show(found: list[ListedKey], console: Console) -> None:
    table = Table("id", "organisation", "name", "key", "scopes", "created", "revoked")
    for key in found:
        table.add_row(
            str(key.id),
            key.organisation_id,
            escape(key.name),
            f"{key.hint}…",
            " ".join(key.scopes),
            rfc3339(key.created_at),
            rfc3339(key.revoked_at) if key.revoked_at else "",
        )
    console.print(table)
