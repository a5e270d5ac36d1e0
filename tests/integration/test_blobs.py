"""One object for equal bytes of one organisation, and none that nobody can find."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest

from service.db import assets, blobs
from service.db.claims import ClaimLostError
from service.db.types import Conn, Pool
from service.domain import AssetRun, Work
from service.ids import new_id
from service.ingest import pipeline
from service.times import now_utc
from storage.local import LocalStore
from storage.store import StoredAsset, StoreUnavailableError
from tests.fakes.origin import answer
from tests.integration.test_pipeline import BODY, Hold, Site, running, site


@pytest.fixture
async def here(pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(pool, tmp_path) as opened:
        yield opened


class SeveredStore(LocalStore):
    """A store that cannot delete for now."""

    async def delete(self, key: str) -> None:
        raise StoreUnavailableError(key)


async def blobs_of(here: Site) -> list[tuple[str, str]]:
    rows = await here.pool.fetch("SELECT organisation_id, state FROM blob ORDER BY 1, 2")
    return [(row["organisation_id"], row["state"]) for row in rows]


async def object_of(here: Site) -> bytes:
    (key,) = await here.keys()
    return b"".join([chunk async for chunk in here.store.open(key)])


async def test_equal_bytes_of_one_organisation_are_kept_once(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    here.origin.serves("/b", answer(BODY))
    async with running(here.worker(Work.FETCH)):
        first = await here.create("/a")
        await here.until_asset("stored")
        second = await here.create("/b")
        await here.until_asset("stored")
        await here.until("SELECT count(*) = 1 FROM blob")
    one, other = await here.asset(first), await here.asset(second)
    assert one["id"] != other["id"]
    assert one["blob_id"] == other["blob_id"]
    assert await blobs_of(here) == [("acme", "stored")]
    assert await object_of(here) == BODY


async def test_equal_bytes_of_two_organisations_are_kept_apart(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    async with running(here.worker(Work.FETCH)):
        await here.create("/a")
        await here.create("/a", organisation="rival")
        await here.until_asset("stored")
    assert await blobs_of(here) == [("acme", "stored"), ("rival", "stored")]
    assert len(await here.keys()) == 2


async def test_two_fetches_of_equal_bytes_that_end_together_keep_one(here: Site) -> None:
    here.origin.serves("/a", first := Hold())
    here.origin.serves("/b", second := Hold())
    await here.create("/a")
    await here.create("/b")
    async with running(here.worker(Work.FETCH)):
        async with asyncio.timeout(10):
            await asyncio.gather(first.half_way.wait(), second.half_way.wait())
        assert await blobs_of(here) == [("acme", "writing")] * 2
        first.released.set()
        second.released.set()
        await here.until_asset("stored")
        await here.until("SELECT count(*) = 1 FROM blob")
    assert await here.pool.fetchval("SELECT count(DISTINCT blob_id) FROM asset") == 1
    assert await object_of(here) == BODY


async def test_finishing_equal_bytes_waits_for_a_twin_that_has_not_committed(here: Site) -> None:
    """The second looks for a twin only once the first has committed or gone away."""
    runs = []
    for path in ("/a", "/b"):
        avatar = await here.create(path)
        async with here.pool.acquire() as conn:
            asset_id = (await here.asset(avatar))["id"]
            run = await assets.start_run(conn, asset_id, Work.FETCH, now=now_utc())
        assert run is not None
        runs.append(run)
    made = [await here.store.put(new_id().hex, answered()) for _ in runs]
    ids = [new_id(), new_id()]
    async with here.pool.acquire() as one, here.pool.acquire() as other:
        for conn, run, blob_id, stored in zip((one, other), runs, ids, made, strict=True):
            await blobs.begin(conn, run, blob_id=blob_id, key=stored.key)
        async with one.transaction():
            assert await blobs.finish(one, runs[0].organisation_id, ids[0], made[0]) == ids[0]
            late = asyncio.create_task(finish(other, runs[1], ids[1], made[1]))
            await asyncio.sleep(0.3)
            assert not late.done()
        assert await late == ids[0]


async def answered() -> AsyncIterator[bytes]:
    yield BODY


async def finish(conn: Conn, run: AssetRun, blob_id: UUID, stored: StoredAsset) -> UUID:
    async with conn.transaction():
        return await blobs.finish(conn, run.organisation_id, blob_id, stored)


async def test_what_a_killed_run_left_behind_is_deleted_by_the_next(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    avatar = await here.create("/a")
    async with (
        here.pool.acquire() as conn
    ):  # a run that stored its bytes and died before it said so
        asset_id = (await here.asset(avatar))["id"]
        dead = await assets.start_run(conn, asset_id, Work.FETCH, now=now_utc())
        assert dead is not None
        blob_id = new_id()
        await blobs.begin(conn, dead, blob_id=blob_id, key=blob_id.hex)
    await here.store.put(blob_id.hex, answered())
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("stored")
    asset = await here.asset(avatar)
    assert (asset["losses"], asset["claim"]) == (1, 2)
    assert await here.keys() == [await here.pool.fetchval("SELECT key FROM blob")]
    assert blob_id.hex not in await here.keys()


async def test_a_run_that_was_overtaken_leaves_no_object_behind(here: Site) -> None:
    """Its successor cleared its row while its bytes still came: nobody else could find them."""
    hold = Hold()
    here.origin.serves("/a", hold)
    avatar = await here.create("/a")
    asset_id = (await here.asset(avatar))["id"]
    async with here.pool.acquire() as conn:
        late = await assets.start_run(conn, asset_id, Work.FETCH, now=now_utc())
    assert late is not None
    fetching = asyncio.create_task(pipeline.fetch(late, here.ports))
    async with asyncio.timeout(10):
        await hold.half_way.wait()
    here.origin.serves("/a", answer(BODY))
    await here.worker(Work.FETCH).handle(Work.FETCH, asset_id)
    assert await blobs_of(here) == [("acme", "stored")]
    hold.released.set()
    with pytest.raises(ClaimLostError):
        await fetching
    assert await here.keys() == [await here.pool.fetchval("SELECT key FROM blob")]


async def test_a_needless_object_that_cannot_be_deleted_now_can_still_be_found(
    here: Site, tmp_path: Path
) -> None:
    here.origin.serves("/a", answer(BODY))
    store = SeveredStore(tmp_path / "assets")
    async with running(here.worker(Work.FETCH, store=store)):
        await here.create("/a")
        await here.until_asset("stored")
        await here.create("/a")
        await here.until_asset("stored")
    assert await blobs_of(here) == [("acme", "discarded"), ("acme", "stored")]
    rows = await here.pool.fetch("SELECT key FROM blob")
    assert sorted(row["key"] for row in rows) == await here.keys()
    held = await here.pool.fetchval("SELECT count(*) FROM pgqueuer WHERE status = 'failed'")
    assert held == 0  # it is no error of the run


async def test_a_stored_blob_is_never_forgotten(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    async with running(here.worker(Work.FETCH)):
        await here.create("/a")
        await here.until_asset("stored")
    async with here.pool.acquire() as conn:
        await blobs.forget(conn, await conn.fetchval("SELECT id FROM blob"))
    assert await here.pool.fetchval("SELECT sha256 FROM blob") == sha256(BODY).hexdigest()
