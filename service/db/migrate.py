"""Plain SQL files, applied in order under an advisory lock, each in its own transaction.

PgQueuer brings its own schema; it is installed and upgraded under the same lock, before ours.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

import asyncpg
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from service.db.types import Conn

MIGRATION_LOCK = 0x6772_6565_6E72_6D00  # "greenrm": any number of processes, one migrates


class MigrationError(Exception):
    """The database and the migration files do not fit together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> tuple[Migration, ...]:
    """Every released migration, oldest first."""
    found = (f for f in files("migrations").iterdir() if f.name.endswith(".sql"))
    return tuple(
        Migration(name=f.name, sql=f.read_text()) for f in sorted(found, key=lambda f: f.name)
    )


async def migrate(dsn: str, wanted: tuple[Migration, ...]) -> tuple[str, ...]:
    """Bring the database to the newest schema; return the names that were applied now.

    Raises MigrationError when an applied file has been edited since, or is not known here.
    """
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
        try:
            await _install_queue(conn)
            return await _apply(conn, wanted)
        finally:
            await conn.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)
    finally:
        await conn.close()


async def _install_queue(conn: "asyncpg.Connection[asyncpg.Record]") -> None:
    queries = Queries(AsyncpgDriver(conn))
    if await queries.schema_is_installed():
        await queries.upgrade()
    else:
        await queries.install()


async def _apply(conn: Conn, wanted: tuple[Migration, ...]) -> tuple[str, ...]:
    await conn.execute(
        "CREATE TABLE IF NOT EXISTS migration "
        "(name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz DEFAULT now())"
    )
    rows = await conn.fetch("SELECT name, sha256 FROM migration")
    applied: dict[str, str] = {row["name"]: row["sha256"] for row in rows}
    if unknown := applied.keys() - {m.name for m in wanted}:
        raise MigrationError(f"the database is newer than this release: {sorted(unknown)}")
    if edited := [m.name for m in wanted if applied.get(m.name, m.sha256) != m.sha256]:
        raise MigrationError(f"edited after they were applied: {edited}")
    todo = [m for m in wanted if m.name not in applied]
    for migration in todo:
        async with conn.transaction():
            await conn.execute(migration.sql)
            await conn.execute(
                "INSERT INTO migration (name, sha256) VALUES ($1, $2)",
                migration.name,
                migration.sha256,
            )
    return tuple(m.name for m in todo)


async def pending(conn: Conn, wanted: tuple[Migration, ...]) -> tuple[str, ...]:
    """Names of migrations that the database still lacks; for `/readyz` and the workers' start."""
    if await conn.fetchval("SELECT to_regclass('migration')") is None:
        return tuple(m.name for m in wanted)
    rows = await conn.fetch("SELECT name FROM migration")
    applied = {row["name"] for row in rows}
    return tuple(m.name for m in wanted if m.name not in applied)
