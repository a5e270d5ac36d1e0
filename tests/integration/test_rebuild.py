"""A derived asset whose bytes are lost is made again, by the same recipe from the same origin."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest
import structlog.testing

from service.db import assets, blobs, jobs
from service.db import reconcile as db
from service.db.assets import Asset, HeldBlob
from service.db.types import Pool
from service.domain import Work
from service.ids import new_id
from service.ingest.reconcile import Outcome, Reconciler, Wanted
from service.times import now_utc
from tests.integration.test_derive import SAMPLES, TOOLS, measured
from tests.integration.test_deriving import assert_nothing_is_orphaned, deriving, until_final
from tests.integration.test_pipeline import Site, running, site
from tests.integration.test_retention import purge_all
from tests.rows import start
from validators.derive import recipes
from validators.derive.recipes import RECIPE_VERSIONS, Recipe, derive, recipes_for
from validators.errors import AnalysisCrashedError
from validators.facts import Kind

WAITING = """
    SELECT EXISTS (SELECT 1 FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock')
"""
SHARE = """
    UPDATE asset SET blob_id = o.blob_id, sha256 = o.sha256, size_bytes = o.size_bytes,
                     media = o.media
      FROM asset o WHERE o.id = $1 AND asset.id = $2
"""
IDLE = "SELECT count(*) = 0 FROM pgqueuer WHERE entrypoint IN ('rebuild', 'purge')"


@pytest.fixture
async def here(pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(pool, tmp_path) as opened:
        yield opened


async def lose(here: Site, recipe: Recipe = Recipe.PORTRAIT) -> Asset:
    """An asset that was derived, and whose object is gone; the reconciler has seen that."""
    avatar = await deriving(here)
    async with running(here.worker(Work.DERIVE)):
        await until_final(here, avatar)
    async with here.pool.acquire() as conn:
        asset = (await assets.derived_of(conn, avatar.id))[recipe]
    assert asset.key is not None
    await here.store.delete(asset.key)
    await here.pool.execute("UPDATE blob SET state = 'lost' WHERE key = $1", asset.key)
    return asset


async def enqueue(here: Site, asset: Asset) -> None:
    async with here.pool.acquire() as conn:
        await jobs.enqueue(conn, Work.REBUILD, [asset.id])


async def rebuild(here: Site, asset: Asset) -> None:
    await enqueue(here, asset)
    async with running(here.worker(Work.REBUILD)):
        await here.until("SELECT count(*) = 0 FROM pgqueuer WHERE entrypoint = 'rebuild'")


async def now_of(here: Site, asset: Asset) -> Asset:
    async with here.pool.acquire() as conn:
        found = await assets.get(conn, asset.id, organisation_id=None)
    assert found is not None
    return found


async def assert_whole(here: Site, asset: Asset) -> None:
    """Its bytes are in the store, and they are what its row and its media say."""
    assert asset.key is not None
    assert asset.media is not None
    stored = b"".join([chunk async for chunk in here.store.open(asset.key)])
    assert sha256(stored).hexdigest() == asset.sha256 == asset.media.sha256
    assert len(stored) == asset.size_bytes == asset.media.size_bytes
    assert not asset.bytes_lost


async def test_the_same_bytes_come_back_under_a_new_key(here: Site) -> None:
    before = await lose(here)
    assert (await now_of(here, before)).bytes_lost
    await rebuild(here, before)
    after = await now_of(here, before)
    assert (after.sha256, after.media) == (before.sha256, before.media)
    assert after.key != before.key
    await assert_whole(here, after)
    await purge_all(here)
    await assert_nothing_is_orphaned(here)


async def test_other_bytes_replace_the_lost_ones_with_all_that_is_said_of_them(
    here: Site,
) -> None:
    here.recipes.varying = True
    before = await lose(here)
    event = "SELECT data ->> 'portrait' FROM event WHERE type = 'avatar.ready_for_fitting'"
    announced = await here.pool.fetchval(event)
    with structlog.testing.capture_logs() as logs:
        await rebuild(here, before)
    after = await now_of(here, before)
    assert after.sha256 != before.sha256
    await assert_whole(here, after)
    (entry,) = [entry for entry in logs if entry["event"] == "asset_rebuilt"]
    assert (entry["same_bytes"], entry["before"]) == (False, before.sha256)
    assert await here.pool.fetchval(event) == announced
    await purge_all(here)
    await assert_nothing_is_orphaned(here)


async def test_every_asset_of_the_same_lost_bytes_is_healed(here: Site) -> None:
    first, second = await lose(here), await lose(here)
    await here.pool.execute(SHARE, first.id, second.id)
    await here.pool.execute("DELETE FROM blob WHERE key = $1", second.key)
    await rebuild(here, first)
    await purge_all(here)
    assert (await now_of(here, second)).key == (await now_of(here, first)).key
    await assert_whole(here, await now_of(here, second))
    await assert_nothing_is_orphaned(here)


async def test_all_assets_of_lost_bytes_are_made_again_however_few_are_named(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "MENTIONED", 1)
    first, second = await lose(here), await lose(here)
    await here.pool.execute(SHARE, first.id, second.id)
    await here.pool.execute("DELETE FROM blob WHERE key = $1", second.key)
    async with here.pool.acquire() as conn:
        reconciler = Reconciler(
            shelf=here.ports, conn=conn, wanted=Wanted(repair=True), clock=now_utc
        )
        found = [one async for one in reconciler.findings() if one.key == first.key]
    assert [(one.outcome, len(one.assets)) for one in found] == [(Outcome.REPAIRED, 1)]
    rows = await here.pool.fetch("SELECT payload FROM pgqueuer WHERE entrypoint = 'rebuild'")
    assert {UUID(row["payload"].decode()) for row in rows} == {first.id, second.id}


async def test_without_its_origin_it_stays_lost_and_may_be_tried_again(here: Site) -> None:
    before = await lose(here)
    origin = (
        "UPDATE blob SET state = $1 FROM asset a WHERE a.blob_id = blob.id AND a.recipe IS NULL"
    )
    await here.pool.execute(origin, "lost")
    with structlog.testing.capture_logs() as logs:
        await rebuild(here, before)
    (entry,) = [entry for entry in logs if entry["event"] == "asset_not_rebuilt"]
    assert entry["asset_id"] == str(before.id)
    assert "derived from is lost" in entry["why"]
    after = await now_of(here, before)
    assert after.bytes_lost
    assert (after.sha256, after.key) == (before.sha256, before.key)
    await here.pool.execute(origin, "stored")
    await rebuild(here, before)
    await assert_whole(here, await now_of(here, before))


async def test_another_version_of_the_recipe_makes_no_asset_of_this_one(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await lose(here)
    newer = RECIPE_VERSIONS[Recipe.PORTRAIT] + 1
    monkeypatch.setitem(recipes.RECIPE_VERSIONS, Recipe.PORTRAIT, newer)
    asked = len(here.recipes.asked)
    await rebuild(here, before)
    assert (await now_of(here, before)).bytes_lost
    assert len(here.recipes.asked) == asked


async def test_a_tool_that_dies_three_times_ends_it_and_the_next_try_begins_afresh(
    here: Site,
) -> None:
    before = await lose(here)
    here.recipes.error = AnalysisCrashedError("dead")
    await rebuild(here, before)
    assert (await now_of(here, before)).bytes_lost
    here.recipes.error = None
    await rebuild(here, before)
    await assert_whole(here, await now_of(here, before))


async def test_what_is_not_lost_is_left_as_it_is(here: Site) -> None:
    before = await lose(here)
    await rebuild(here, before)
    healed, asked = await now_of(here, before), len(here.recipes.asked)
    await rebuild(here, before)
    assert await now_of(here, before) == healed
    assert len(here.recipes.asked) == asked


async def held_rebuild(here: Site, asset: Asset) -> None:
    """Wait until a worker is at it."""
    here.recipes.waiting.clear()
    here.recipes.released.clear()
    await enqueue(here, asset)
    await here.recipes.waiting.wait()


async def test_an_asset_that_is_deleted_meanwhile_leaves_no_object(here: Site) -> None:
    before = await lose(here)
    kept = await here.keys()
    async with running(here.worker(Work.REBUILD, Work.PURGE)):
        async with asyncio.timeout(10):
            await held_rebuild(here, before)
        await here.pool.execute("DELETE FROM derived WHERE asset_id = $1", before.id)
        blob_id = await here.pool.fetchval(
            "DELETE FROM asset WHERE id = $1 RETURNING blob_id", before.id
        )
        async with here.pool.acquire() as conn:
            await blobs.release(conn, [blob_id])
        here.recipes.released.set()
        await here.until(IDLE)
    assert await here.keys() == kept
    await assert_nothing_is_orphaned(here)


async def test_bytes_that_came_back_meanwhile_are_kept_and_ours_erased(here: Site) -> None:
    here.recipes.varying = True
    before = await lose(here)
    async with running(here.worker(Work.REBUILD, Work.PURGE)):
        async with asyncio.timeout(10):
            await held_rebuild(here, before)
        await restore(here, before)
        here.recipes.released.set()
        await here.until(IDLE)
    after = await now_of(here, before)
    assert (after.sha256, after.progress) == (before.sha256, None)
    await assert_nothing_is_orphaned(here)


async def test_an_asset_that_is_healed_while_it_is_rebuilt_keeps_no_open_run(here: Site) -> None:
    """Healing holds its row just when the rebuild looks where its bytes are."""
    before = await lose(here)
    run = await start(here.pool, before.id, Work.REBUILD)
    twin = new_id()
    await here.pool.execute(
        """
        INSERT INTO blob (id, organisation_id, key, written_for, state, sha256, size_bytes)
        SELECT $1, organisation_id, $2, id, 'stored', sha256, size_bytes FROM asset WHERE id = $3
        """,
        *(twin, twin.hex, run.id),
    )

    async def held() -> HeldBlob:
        async with here.pool.acquire() as conn:
            return await assets.hold_blob(conn, run)

    async with here.pool.acquire() as healing, healing.transaction():
        await healing.execute("UPDATE asset SET blob_id = $1 WHERE id = $2", twin, run.id)
        looking = asyncio.create_task(held())
        await here.until(WAITING)
    assert await looking == HeldBlob(id=twin, lost=False)


async def restore(here: Site, asset: Asset) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"from a backup"

    assert asset.key is not None
    await here.store.put(asset.key, body())
    await here.pool.execute("UPDATE blob SET state = 'stored' WHERE key = $1", asset.key)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("one_person.mp4", Kind.VIDEO), ("portrait.jpg", Kind.IMAGE), ("voice.flac", Kind.AUDIO)],
)
async def test_the_same_tools_make_the_same_bytes_again(
    tmp_path: Path, name: str, kind: Kind
) -> None:
    facts = await measured(SAMPLES / name, kind)
    for recipe in recipes_for(kind):
        made = {
            (await derive(recipe, SAMPLES / name, facts, tmp_path / f"{turn}", TOOLS)).sha256
            for turn in range(3)
        }
        assert len(made) == 1, recipe
