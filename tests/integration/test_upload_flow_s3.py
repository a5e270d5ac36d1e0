"""Uploads to a store whose server takes the files itself: there a form works until it expires."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import ClientSession, FormData

from service.db.blobs import WRITTEN_WITHIN
from service.db.types import Pool
from service.domain import Work
from service.ingest.retention import Keep, Retention
from service.times import now_utc
from storage.s3 import S3Store
from storage.store import StoredAsset
from tests.api import Api, running_api, settings_for
from tests.integration.test_pipeline import Site, running, ten_seconds
from tests.integration.test_upload_flow import (
    CAP_BYTES,
    OTHER,
    Grant,
    asset_of,
    begin,
    code_of,
    finalize,
    incoming,
    objects,
    works,
)
from tests.servers.s3 import S3Server, make_bucket

SERVERS = ["moto", pytest.param("ceph", marks=pytest.mark.s3)]
KEEP = Keep(**dict.fromkeys(("events", "job_log", "answers", "uploads", "refused"), timedelta(1)))


class PausingBucket(S3Store):
    """Reads the first bytes of what it puts, and the rest when it is let go."""

    half_way: asyncio.Event
    released: asyncio.Event

    async def put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expected_sha256: str | None = None,
        replace: bool = False,
    ) -> StoredAsset:
        return await super().put(
            key,
            self._held(body),
            max_bytes=max_bytes,
            expected_sha256=expected_sha256,
            replace=replace,
        )

    async def _held(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in body:
            yield chunk
            self.half_way.set()
            await self.released.wait()


class Bench:
    """The service and its workers on a bucket, and a client of the bucket's server."""

    def __init__(self, api: Api, here: Site, store: PausingBucket, client: ClientSession) -> None:
        self.api = api
        self.here = here
        self.store = store
        self.client = client

    async def post(self, grant: Grant, data: bytes) -> int:
        form = FormData(default_to_multipart=True)
        for name, value in grant["upload_fields"].items():
            form.add_field(name, value)
        form.add_field("file", io.BytesIO(data), filename="voice.wav")
        async with self.client.post(grant["upload_url"], data=form) as response:
            return response.status

    async def content(self, asset_id: UUID) -> bytes:
        key = await self.here.pool.fetchval(
            "SELECT b.key FROM blob b JOIN asset a ON a.blob_id = b.id WHERE a.id = $1", asset_id
        )
        return b"".join([chunk async for chunk in self.store.open(key)])

    async def retain(self, later: timedelta) -> None:
        retention = Retention(shelf=self.here.ports, keep=KEEP, clock=lambda: now_utc() + later)
        await retention.take_turn(asyncio.Event())


@pytest.fixture(params=SERVERS)
async def bench(
    request: pytest.FixtureRequest, dsn: str, pool: Pool, tmp_path: Path
) -> AsyncIterator[Bench]:
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    settings = replace(settings_for(dsn, tmp_path), max_audio_bytes=CAP_BYTES)
    store = PausingBucket(await make_bucket(server))
    store.half_way, store.released = asyncio.Event(), asyncio.Event()
    store.released.set()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(store)
        api = await stack.enter_async_context(running_api(settings, store=store))
        here = await stack.enter_async_context(works(api, pool))
        here = replace(here, store=store, ports=replace(here.ports, store=store))
        yield Bench(api, here, store, await stack.enter_async_context(ClientSession()))


async def test_an_upload_url_used_again_changes_nothing_that_was_judged(bench: Bench) -> None:
    """Its server still takes what is sent. It is never judged, and does not stay."""
    api, here, grant = bench.api, bench.here, await begin(bench.api)
    asset_id, sound = UUID(grant["audio_id"]), ten_seconds().ljust(CAP_BYTES, b"\0")
    assert await bench.post(grant, sound) == 204
    assert (await finalize(api, grant)).status == 200
    bench.store.half_way.clear()
    bench.store.released.clear()
    async with running(here.worker(Work.FETCH)), running(here.worker(Work.INSPECT)):
        async with asyncio.timeout(20):
            await bench.store.half_way.wait()
            assert await bench.post(grant, OTHER) == 204
            bench.store.released.set()
        await here.until_asset("ready")
    assert await incoming(api) == {}
    assert await bench.post(grant, OTHER) == 204
    assert (await finalize(api, grant)).status == 200
    asset = await asset_of(api, asset_id)
    assert asset["sha256"] == sha256(sound).hexdigest()
    assert asset["verdict"]["media"]["sha256"] == sha256(sound).hexdigest()
    assert await bench.content(asset_id) == sound
    await bench.retain(timedelta(0))
    assert await incoming(api) == {}
    assert await bench.post(grant, OTHER) == 204  # as long as the form works
    await bench.retain(timedelta(hours=1, minutes=1) + WRITTEN_WITHIN)
    assert await incoming(api) == {}
    assert len(await objects(api)) == 1
    assert await here.pool.fetchval("SELECT count(*) FROM upload") == 0


async def test_what_is_sent_after_finalising_and_before_the_copy_is_what_is_judged(
    bench: Bench,
) -> None:
    api, here, grant = bench.api, bench.here, await begin(bench.api)
    asset_id, sound = UUID(grant["audio_id"]), ten_seconds()
    assert await bench.post(grant, OTHER) == 204
    assert (await finalize(api, grant)).status == 200
    assert await bench.post(grant, sound) == 204
    async with running(here.worker(Work.FETCH, Work.INSPECT)):
        await here.until_asset("ready")
    assert (await asset_of(api, asset_id))["sha256"] == sha256(sound).hexdigest()
    assert await bench.content(asset_id) == sound
    assert await incoming(api) == {}


async def test_finalising_before_anything_was_sent_is_400(bench: Bench) -> None:
    grant = await begin(bench.api)
    assert await code_of(await finalize(bench.api, grant)) == (400, "upload_missing")
