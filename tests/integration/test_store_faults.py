"""The store fails, in every way that a network, a server and a disk know.

What the database calls stored reads back; what failed leaves nothing; nothing that is read wrong is
judged; and nobody waits for a store for ever. The long version is `tests.fuzz.store_soak`.
"""

import asyncio
import resource
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.db.types import Pool
from service.domain import Work
from storage.s3 import S3Store
from storage.store import (
    AssetStore,
    ChecksumMismatchError,
    KeyTakenError,
    StoreFullError,
    StoreUnavailableError,
)
from storage.timed import StoreLimits, TimedStore
from tests.api import running_api, settings_for
from tests.fakes.origin import answer
from tests.fakes.unsteady import Fault, Unsteady, always, fitting, once, steady
from tests.forms import Field, png
from tests.fuzz.store_soak import prepared, soak
from tests.integration.test_api import refusal
from tests.integration.test_pipeline import LIMITS, Site, running, site
from tests.integration.test_uploads import assert_nothing_is_left, send
from tests.servers.s3 import S3Server, make_bucket, raw_client

SMALL = b"\x01\x02\x03" * 1000
PART_BYTES = 5 << 20
BIG = bytes(range(256)) * (PART_BYTES >> 8) + b"the second part"
LOST_ANSWERS = (
    Fault.ANSWER_LOST,
    Fault.ERROR_AFTER,
    Fault.HANG_AFTER,
    Fault.CUT_IN_ANSWER,
    Fault.HANG_IN_ANSWER,
)


@asynccontextmanager
async def broken_store(
    server: S3Server, proxy: Unsteady, limits: StoreLimits | None = None
) -> AsyncIterator[AssetStore]:
    """A store in a bucket of its own, whose every request goes through *proxy*."""
    options = replace(
        await make_bucket(server, part_bytes=PART_BYTES),
        endpoint=proxy.url,
        connect_timeout_s=0.5,
        read_timeout_s=0.5,
        attempts=3,
    )
    async with TimedStore(S3Store(options), limits) as store:
        yield store


@pytest.fixture
async def proxy(moto_server: S3Server) -> AsyncIterator[Unsteady]:
    port = int(moto_server.endpoint.rpartition(":")[2])
    async with Unsteady(port, drip_s=0.3) as opened:
        yield opened


@pytest.fixture
async def store(moto_server: S3Server, proxy: Unsteady) -> AsyncIterator[AssetStore]:
    async with broken_store(moto_server, proxy) as opened:
        yield opened


@pytest.fixture
async def here(pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(pool, tmp_path) as opened:
        yield opened


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(store: AssetStore, key: str) -> bytes:
    return b"".join([chunk async for chunk in store.open(key)])


async def keys(store: AssetStore) -> list[str]:
    return sorted([asset.key async for asset in store.list()])


@pytest.mark.parametrize("fault", fitting(Fault, "put"))
async def test_a_fetch_outlasts_every_fault(
    here: Site, store: AssetStore, proxy: Unsteady, fault: Fault
) -> None:
    here.origin.serves("/a", answer(SMALL))
    avatar = await here.create("/a")
    proxy.strike = once(fault, "put")
    async with running(here.worker(Work.FETCH, store=store)):
        await here.until_asset("stored")
    assert proxy.struck[fault] == 1
    (kept,) = await here.pool.fetch("SELECT * FROM blob WHERE state = 'stored'")
    assert (await here.asset(avatar))["sha256"] == kept["sha256"] == sha256(SMALL).hexdigest()
    assert await read(store, kept["key"]) == SMALL
    assert await keys(store) == [kept["key"]]


@pytest.mark.parametrize("fault", [*LOST_ANSWERS, Fault.ERROR_IN_200, Fault.CUT_BEFORE])
async def test_a_completion_that_fails_or_only_seems_to_makes_one_whole_asset(
    store: AssetStore, proxy: Unsteady, fault: Fault
) -> None:
    proxy.strike = once(fault, "complete")
    asset = await store.put("k", body(BIG))
    assert proxy.struck[fault] == 1
    assert asset.sha256 == sha256(BIG).hexdigest()
    assert await read(store, "k") == BIG
    with pytest.raises(KeyTakenError):
        await store.put("k", body(BIG))


@pytest.mark.parametrize("operation", ["create", "part", "complete"])
async def test_a_put_that_never_succeeds_leaves_neither_object_nor_parts(
    store: AssetStore, proxy: Unsteady, moto_server: S3Server, operation: str
) -> None:
    proxy.strike = once(Fault.ERROR_500, operation, times=99)
    with capture_logs() as said, pytest.raises(StoreUnavailableError):
        await store.put("k", body(BIG))
    assert said == []  # nothing was left to tidy up
    proxy.strike = steady
    assert await keys(store) == []
    bucket = proxy.calls[-1].path.strip("/")
    async with raw_client(moto_server.options(bucket)) as client:
        assert "Uploads" not in await client.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize(
    "fault", [Fault.TRUNCATED, Fault.CUT_IN_ANSWER, Fault.HANG_IN_ANSWER, Fault.DRIP]
)
async def test_a_read_that_breaks_off_is_taken_up_and_whole(
    store: AssetStore, proxy: Unsteady, fault: Fault
) -> None:
    asset = await store.put("k", body(BIG))
    proxy.strike = once(fault, "get")
    async with store.local_copy("k", sha256=asset.sha256) as path:
        assert path.read_bytes() == BIG
    assert proxy.struck[fault] == 1


async def test_wrong_bytes_are_not_lent_and_the_next_read_is_right(
    store: AssetStore, proxy: Unsteady
) -> None:
    asset = await store.put("k", body(BIG))
    proxy.strike = once(Fault.WRONG_BYTES, "get")
    with pytest.raises(ChecksumMismatchError):
        async with store.local_copy("k", sha256=asset.sha256):
            pass
    async with store.local_copy("k", sha256=asset.sha256):
        pass


@pytest.mark.parametrize(("times", "state"), [(2, "rejected"), (99, "failed")])
async def test_bytes_that_come_wrong_from_the_store_never_get_a_verdict(
    here: Site, store: AssetStore, proxy: Unsteady, times: int, state: str
) -> None:
    here.origin.serves("/a", answer(SMALL))
    avatar = await here.create("/a")
    proxy.strike = once(Fault.WRONG_BYTES, "get", times=times)
    async with running(here.worker(Work.FETCH, Work.INSPECT, store=store)):
        await here.until_asset(state)
    judged = await here.pool.fetchval("SELECT count(*) FROM verdict")
    assert (judged, proxy.struck[Fault.WRONG_BYTES]) == ((1, 2) if times == 2 else (0, 3))
    if state == "failed":
        assert await here.status(avatar) == ("failed", "internal")


async def test_a_store_that_is_away_for_longer_costs_waits_and_the_source_nothing(
    here: Site, store: AssetStore, proxy: Unsteady
) -> None:
    here.origin.serves("/a", answer(SMALL))
    await here.create("/a")
    proxy.strike = always(Fault.SLOW_DOWN)
    async with running(here.worker(Work.FETCH, store=store)):
        await here.until("SELECT waits = 2 AND attempts = 0 AND failures = 0 FROM asset")
        assert await here.pool.fetchval("SELECT count(*) FROM blob WHERE state = 'stored'") == 0
        proxy.strike = steady
        await here.until_asset("stored")
    kept = await here.pool.fetchval("SELECT key FROM blob WHERE state = 'stored'")
    assert await read(store, kept) == SMALL


async def test_a_store_that_hangs_holds_neither_a_turn_nor_the_sources_connection(
    here: Site, moto_server: S3Server, proxy: Unsteady
) -> None:
    here.origin.serves("/a", answer(SMALL))
    await here.create("/a")
    limits = replace(LIMITS, concurrency={**LIMITS.concurrency, Work.FETCH: 1})
    async with broken_store(moto_server, proxy, StoreLimits(stall_s=0.3)) as store:
        worker = here.worker(Work.FETCH, store=store, limits=limits)
        proxy.strike = always(Fault.HANG)
        async with running(worker):
            await here.until("SELECT waits = 1 FROM asset", within_s=10)
            assert here.origin.open_connections == 0
            async with asyncio.timeout(5):
                async with worker.turns[Work.FETCH]:
                    proxy.strike = steady
            await here.until_asset("stored")


async def test_forty_puts_through_every_fault_leave_what_the_database_says_and_nothing_else(
    pool: Pool, tmp_path: Path, moto_server: S3Server
) -> None:
    async with prepared(pool, tmp_path, moto_server, seed=2) as ground:
        report = await soak(ground, 40)
    assert report.breaches == []
    assert sum(report.ends.values()) == 40
    assert sum(report.struck.values()) > 35


# No room is left


@contextmanager
def full_disk(size_bytes: int) -> Iterator[None]:
    """No file of this process can grow over *size_bytes*: a write fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


LARGE = bytes(3 << 20)
ROOM = 1 << 20  # less than that
PORTRAIT = Field("image", png() + LARGE, "me.png")


async def test_a_portrait_for_which_there_is_no_room_is_503_and_leaves_nothing(
    dsn: str, tmp_path: Path
) -> None:
    async with running_api(settings_for(dsn, tmp_path)) as api:
        with full_disk(ROOM):
            response = await send(api, PORTRAIT)
            error = await refusal(response)
        assert (response.status, error["type"]) == (503, "service_unavailable")
        assert (error["code"], response.headers["Retry-After"]) == ("store_full", "60")
        await assert_nothing_is_left(api)
        assert list((tmp_path / "assets" / ".partial").iterdir()) == []
        assert (await send(api, PORTRAIT)).status == 201


async def test_a_fetch_for_which_there_is_no_room_is_tried_again_and_leaves_no_half_file(
    here: Site, tmp_path: Path
) -> None:
    here.origin.serves("/a", answer(LARGE))
    avatar = await here.create("/a")
    ports = replace(here.ports, max_bytes=dict.fromkeys(here.ports.max_bytes, len(LARGE)))
    worker = replace(here.worker(Work.FETCH), ports=ports)
    async with running(worker):
        with full_disk(ROOM):
            await here.until("SELECT waits = 1 AND attempts = 0 FROM asset")
            assert list((tmp_path / "assets").glob("**/*")) == [tmp_path / "assets" / ".partial"]
            assert await here.pool.fetchval("SELECT count(*) FROM blob WHERE sha256 <> ''") == 0
        await here.until_asset("stored")
    assert (await here.asset(avatar))["size_bytes"] == len(LARGE)


async def test_a_store_that_stays_full_ends_in_a_typed_failure(here: Site, tmp_path: Path) -> None:
    here.origin.serves("/a", answer(LARGE))
    avatar = await here.create("/a")
    await here.pool.execute("UPDATE asset SET waits = 19")
    ports = replace(here.ports, max_bytes=dict.fromkeys(here.ports.max_bytes, len(LARGE)))
    async with running(replace(here.worker(Work.FETCH), ports=ports)):
        with full_disk(ROOM):
            await here.until_asset("failed")
    asset = await here.asset(avatar)
    assert (asset["error_code"], asset["blob_id"]) == ("internal", None)
    assert asset["error_message"].endswith("(our store is full)")
    assert list((tmp_path / "assets").glob("**/*")) == [tmp_path / "assets" / ".partial"]


async def test_a_copy_that_finds_no_room_is_not_lent_and_does_not_stay(
    store: AssetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asset = await store.put("k", body(LARGE))
    with full_disk(ROOM), pytest.raises(StoreFullError):
        async with store.local_copy("k", sha256=asset.sha256):
            pass
    assert list(tmp_path.iterdir()) == []
    async with store.local_copy("k", sha256=asset.sha256) as path:
        assert path.parent == tmp_path


async def test_a_bucket_without_room_is_told_from_one_that_is_away(
    store: AssetStore, proxy: Unsteady
) -> None:
    proxy.strike = once(Fault.FULL, "put")
    with pytest.raises(StoreFullError):
        await store.put("k", body(SMALL))
