"""A client of the real HTTP application, on a database and a store of the test's own."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request
from cryptography.fernet import Fernet

from service.api.server import EnvelopeRunner
from service.db import keys
from service.db.keys import NewKey, Scope
from service.db.types import Pool
from service.fetch.address import parse_allowed_blocks
from service.ids import new_id
from service.settings import Settings
from service.wiring import Base, open_api, open_base
from storage.store import AssetStore
from tests.rows import NOW, ORGANISATION, add_organisation

PUBLIC_URL = "https://greenroom.example"


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One key's way in."""

    client: TestClient[Request, Application]
    base: Base
    draining: asyncio.Event
    key: str

    async def call(self, method: str, path: str, **options: Any) -> ClientResponse:  # noqa: ANN401 - aiohttp's own options
        headers = {"Authorization": f"Bearer {self.key}"} | options.pop("headers", {})
        return await self.client.request(
            method, path, headers=headers, allow_redirects=False, **options
        )

    async def get(self, path: str, **options: Any) -> ClientResponse:  # noqa: ANN401 - aiohttp's own options
        return await self.call("GET", path, **options)

    async def post(self, path: str, **options: Any) -> ClientResponse:  # noqa: ANN401 - aiohttp's own options
        return await self.call("POST", path, **options)

    async def as_other(self, organisation: str, *scopes: Scope) -> "Api":
        """The same service through a new key."""
        key = await add_key(self.base.pool, organisation, *scopes)
        return replace(self, key=key)


async def add_key(pool: Pool, organisation: str = ORGANISATION, *scopes: Scope) -> str:
    key = keys.spell(secrets.token_bytes(keys.KEY_BYTES))
    async with pool.acquire() as conn:
        await add_organisation(conn, organisation)
        new = NewKey(
            id=new_id(),
            organisation_id=organisation,
            name="test",
            scopes=scopes or tuple(Scope),
            created_at=NOW,
        )
        await keys.insert(conn, new, key)
    return key


def settings_for(dsn: str, data_dir: Path) -> Settings:
    return Settings(
        database_url=dsn,
        secret_keys=(Fernet.generate_key().decode(),),
        data_dir=data_dir,
        default_runtime_type="mock",
        fetch_allow=parse_allowed_blocks("127.0.0.1/32"),
    )


class EnvelopeTestServer(TestServer):
    """A test server behind the runner that the service uses."""

    async def _make_runner(self, **options: Any) -> EnvelopeRunner:  # noqa: ANN401 - aiohttp's own options
        return EnvelopeRunner(self.app, **options)


@asynccontextmanager
async def running_api(settings: Settings, *, store: AssetStore | None = None) -> AsyncIterator[Api]:
    draining = asyncio.Event()
    async with (
        open_base(settings, connections=10) as opened,
        open_api(
            base := replace(opened, store=store or opened.store),
            public_url=PUBLIC_URL,
            draining=draining,
        ) as app,
        TestClient(EnvelopeTestServer(app)) as client,
    ):
        yield Api(client=client, base=base, draining=draining, key=await add_key(base.pool))
