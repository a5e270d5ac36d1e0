"""Everything in one process tree on embedded parts, for one machine."""

import asyncio
import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from cryptography.fernet import Fernet

from service.commands.serving import EVERYTHING, serve
from service.db import keys
from service.db.embedded import EmbeddedPostgres
from service.db.keys import NewKey, Scope
from service.db.migrate import migrate, migrations
from service.ids import new_id
from service.settings import Settings
from service.telemetry import POSTGRES_RESTARTS
from service.times import now_utc

DATABASE = "greenroom"
ORGANISATION = "dev"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A service that runs here: where, and a key with every scope."""

    url: str
    key: str = field(repr=False)
    pid: int


async def run_dev(
    settings: Settings, draining: asyncio.Event, *, on_ready: Callable[[Started], None]
) -> None:
    """Run until *draining*; the data directory can be used again after any kind of stop."""
    async with prepared(settings) as (ready, key):
        await serve(
            ready,
            draining,
            api=True,
            kinds=EVERYTHING,
            on_ready=lambda url: on_ready(Started(url=url or "", key=key, pid=os.getpid())),
        )


@asynccontextmanager
async def prepared(settings: Settings) -> AsyncIterator[tuple[Settings, str]]:
    """Settings with a running, migrated database and secret keys, and an API key of this start."""
    data_dir = settings.data_dir.absolute()
    await asyncio.to_thread(data_dir.mkdir, mode=0o700, parents=True, exist_ok=True)
    secret_keys = settings.secret_keys or await asyncio.to_thread(_own_secrets, data_dir)
    async with contextlib.AsyncExitStack() as stack:
        dsn = settings.database_url
        if dsn is None:
            postgres = EmbeddedPostgres(data_dir / "postgres")
            await stack.enter_async_context(postgres)
            POSTGRES_RESTARTS.set_function(lambda: postgres.restarts)
            dsn = await postgres.ensure_database(DATABASE)
        await migrate(dsn, await asyncio.to_thread(migrations))
        key = await _new_key(dsn)
        yield settings.filled(database_url=dsn, secret_keys=secret_keys), key


def _own_secrets(data_dir: Path) -> tuple[str, ...]:
    """The keys of this data directory, made on its first start; whole or not there at all."""
    path = data_dir / "secret_keys"
    if not path.exists():
        descriptor, aside = tempfile.mkstemp(dir=data_dir, prefix=".secret_keys-")
        with os.fdopen(descriptor, "w") as file:
            file.write(Fernet.generate_key().decode())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(aside)  # whoever was first has won
        Path(aside).unlink()
    return tuple(path.read_text().split())


async def _new_key(dsn: str) -> str:
    """A key with every scope. Only its hash is kept, so each start makes a new one."""
    key = keys.spell(secrets.token_bytes(keys.KEY_BYTES))
    conn = await asyncpg.connect(dsn)
    try:
        await keys.create_organisation(conn, ORGANISATION, "Development", policy="standard")
        new = NewKey(
            id=new_id(),
            organisation_id=ORGANISATION,
            name="greenroom dev",
            scopes=tuple(Scope),
            created_at=now_utc(),
        )
        await keys.insert(conn, new, key)
    finally:
        await conn.close()
    return key


def write_ready_file(path: Path, started: Started) -> None:
    """Tell whoever waits for the file; it appears whole or not at all."""
    body = json.dumps({"url": started.url, "key": started.key, "pid": started.pid})
    aside = path.with_name(f".{path.name}.{started.pid}")
    aside.touch(mode=0o600)
    aside.write_text(body + "\n")
    aside.replace(path)
