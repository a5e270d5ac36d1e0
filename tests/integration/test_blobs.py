"""One object for equal bytes of one organisation, and none that nobody can find."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from pgqueuer.errors import RetryRequested

from service.db import assets, blobs
from service.db.claims import ClaimLostError
from service.db.types import Conn, Pool, Row
from service.domain import AssetRun, Work
from service.errors import UnavailableError
from service.events.outbox import unit_of_work
from service.ids import new_id
from service.ingest import objects, pipeline
from service.ingest.accept import Request, Uploaded, accept
from service.ingest.objects import begin_object, clear_abandoned
from service.ingest.purge import pause_after, purge
from service.ingest.receiving import Receipt, receiving
from service.telemetry import JOBS
from service.times import now_utc
from storage.local import LocalStore
from storage.store import StoredAsset, StoreUnavailableError
from tests.fakes.origin import answer
from tests.integration.test_pipeline import BODY, Hold, Site, running, site
from tests.rows import SEALER, add_organisation, start
from validators.facts import Kind


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


async def key_of(here: Site, asset: Row) -> str:
    key: str = await here.pool.fetchval("SELECT key FROM blob WHERE id = $1", asset["blob_id"])
    return key


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
    assert await here.keys() == [await key_of(here, asset)]
    assert await blobs_of(here) == [("acme", "discarded"), ("acme", "stored")]  # it may yet live


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
    assert await blobs_of(here) == [("acme", "discarded"), ("acme", "stored")]
    hold.released.set()
    with pytest.raises(ClaimLostError):
        await fetching
    assert await here.keys() == [await key_of(here, await here.asset(avatar))]


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


async def released(here: Site) -> UUID:
    """A stored blob whose only asset is gone, with the job to erase it."""
    here.origin.serves("/a", answer(BODY))
    avatar = await here.create("/a")
    asset = await here.asset(avatar)
    await here.worker().handle(Work.FETCH, asset["id"])
    blob_id: UUID = await here.pool.fetchval("SELECT id FROM blob")
    async with here.pool.acquire() as conn, conn.transaction():
        await conn.execute("DELETE FROM avatar")
        await conn.execute("DELETE FROM asset")
        await conn.execute("DELETE FROM pgqueuer")
        await blobs.release(conn, [blob_id])
    return blob_id


def counted(outcome: str) -> float:
    value: float = JOBS.labels("purge", outcome)._value.get()
    return value


async def test_an_object_is_erased_as_soon_as_the_store_confirms(
    here: Site, tmp_path: Path
) -> None:
    blob_id = await released(here)
    later, erased = counted("later"), counted("erased")
    severed = here.worker(store=SeveredStore(tmp_path / "assets"))
    with pytest.raises(RetryRequested) as again:
        await severed.handle(Work.PURGE, blob_id, tries=2)
    assert again.value.delay == timedelta(seconds=4)
    assert await blobs_of(here) == [("acme", "discarded")]
    assert len(await here.keys()) == 1
    await here.worker().handle(Work.PURGE, blob_id)
    assert (await blobs_of(here), await here.keys()) == ([], [])
    assert (counted("later"), counted("erased")) == (later + 1, erased + 1)


async def test_a_purge_outlives_the_worker_that_could_not_do_it(here: Site, tmp_path: Path) -> None:
    await released(here)
    severed = SeveredStore(tmp_path / "assets")
    async with running(here.worker(Work.PURGE, store=severed)):
        await here.until("SELECT attempts > 0 FROM pgqueuer")
    async with running(here.worker(Work.PURGE)):
        await here.until("SELECT count(*) = 0 FROM blob")
        await here.until("SELECT count(*) = 0 FROM pgqueuer")
    assert await here.keys() == []


async def test_a_database_that_is_away_does_not_end_a_purge(here: Site, dsn: str) -> None:
    """PgQueuer would hold a job that fails, and nobody would erase the object."""
    blob_id = await released(here)
    async with asyncpg.create_pool(dsn, min_size=1) as away:
        pass
    wait = await purge(blob_id, replace(here.ports, pool=away))
    assert wait == timedelta(seconds=1)


@pytest.mark.parametrize(("tries", "wait_s"), [(0, 1), (1, 2), (5, 32), (9, 300), (99, 300)])
def test_pauses_double_up_to_five_minutes(tries: int, wait_s: int) -> None:
    assert pause_after(tries) == timedelta(seconds=wait_s)


async def test_discarded_objects_without_a_job_are_given_one(here: Site) -> None:
    await released(here)
    await here.pool.execute("UPDATE blob SET state = 'discarded'")
    await here.pool.execute("DELETE FROM pgqueuer")  # as a hand might
    for _ in range(2):
        await here.worker().sweep()
        assert await here.pool.fetchval("SELECT string_agg(entrypoint, ' ') FROM pgqueuer") == (
            "purge"
        )


async def test_what_a_writer_may_still_write_waits_for_its_hour(here: Site) -> None:
    await here.create("/a")
    asset_id = await here.pool.fetchval("SELECT id FROM asset")
    async with here.pool.acquire() as conn:
        run = await assets.start_run(conn, asset_id, Work.FETCH, now=now_utc())
        assert run is not None
        for _ in range(2):
            await begin_object(run, here)
        await conn.execute(
            "UPDATE blob SET state = 'discarded' WHERE id = (SELECT id FROM blob LIMIT 1)"
        )
        assert await blobs.unerased(conn) == []
        await conn.execute(
            "UPDATE blob SET created_at = now() - $1::interval - interval '1 s'",
            blobs.WRITTEN_WITHIN,
        )
        assert len(await blobs.unerased(conn)) == 2
    assert await blobs_of(here) == [("acme", "discarded")] * 2


async def test_a_run_that_was_overtaken_abandons_nothing(here: Site) -> None:
    """What it finds is what its successor writes."""
    await here.create("/a")
    asset_id = await here.pool.fetchval("SELECT id FROM asset")
    async with here.pool.acquire() as conn:
        late = await assets.start_run(conn, asset_id, Work.FETCH, now=now_utc())
        successor = await assets.start_run(conn, asset_id, Work.FETCH, now=now_utc())
    assert late is not None
    assert successor is not None
    await begin_object(successor, here)
    await clear_abandoned(late, here)
    assert await blobs_of(here) == [("acme", "writing")]
    await clear_abandoned(successor, here)
    assert await blobs_of(here) == [("acme", "discarded")]


async def test_what_finishing_an_object_reads_does_not_grow_with_the_store(here: Site) -> None:
    async with here.pool.acquire() as conn:
        await add_organisation(conn)
        await conn.execute(
            """
            INSERT INTO blob (id, organisation_id, key, written_for, state, sha256, size_bytes)
            SELECT gen_random_uuid(), 'acme', n, gen_random_uuid(), 'stored',
                   encode(sha256(n::text::bytea), 'hex'), 3 FROM generate_series(1, 5000) n
            """
        )
        await conn.execute("ANALYZE blob")
        read = """
            SELECT seq_tup_read FROM pg_stat_user_tables, pg_stat_clear_snapshot()
             WHERE relname = 'blob'
        """
        await conn.execute("SELECT pg_stat_force_next_flush()")
        before = await conn.fetchval(read)
        writer = Receipt(shelf=here.ports, organisation_id="acme")
        blob_id = new_id()
        stored = StoredAsset(key=blob_id.hex, size_bytes=3, sha256="a" * 64)
        async with conn.transaction():
            await blobs.begin(conn, writer, blob_id=blob_id, key=stored.key)
            await blobs.finish(conn, "acme", blob_id, stored)
        await conn.execute("SELECT pg_stat_force_next_flush()")
        assert await conn.fetchval(read) == before


async def test_a_put_that_outlasts_its_time_is_ended_and_tried_again(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweeper takes whoever writes for an hour for dead, and would erase under it."""
    monkeypatch.setattr(objects, "PUT_WITHIN_S", 0.2)
    await here.create("/a")
    run = await start(here.pool, await here.pool.fetchval("SELECT id FROM asset"), Work.FETCH)
    blob_id, key = await begin_object(run, here)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"slow"
            await asyncio.sleep(0.01)

    async def put() -> None:
        async with objects.erased_on_error(here.ports, blob_id, key):
            await here.store.put(key, endless())

    with pytest.raises(UnavailableError):
        async with asyncio.timeout(5):
            await put()
    assert await here.keys() == []
    assert await blobs_of(here) == [("acme", "writing")]  # for the next run, or the sweeper


class DoubtfulStore(LocalStore):
    """A store whose answer is lost: the asset appears, and nobody hears so."""

    async def put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expected_sha256: str | None = None,
        replace: bool = False,
    ) -> StoredAsset:
        await super().put(
            key, body, max_bytes=max_bytes, expected_sha256=expected_sha256, replace=replace
        )
        raise StoreUnavailableError("no answer")


async def test_an_upload_whose_store_fell_silent_is_erased_at_once_and_once_more(
    here: Site, tmp_path: Path
) -> None:
    shelf = replace(here.ports, store=DoubtfulStore(tmp_path / "assets"))
    async with here.pool.acquire() as conn:
        await add_organisation(conn)
    with pytest.raises(StoreUnavailableError):
        async with receiving(shelf, "acme") as upload:
            await upload.keep(answered(), max_bytes=len(BODY))
    assert await here.keys() == []
    assert await blobs_of(here) == [("acme", "discarded")]  # it may come back


async def test_a_request_locks_its_digests_in_order_before_all_rows(here: Site) -> None:
    """Two requests with the same two files, the other way round, would wait in a circle."""
    made: dict[Kind, Uploaded] = {}
    async with here.pool.acquire() as conn:
        await add_organisation(conn)
    contents = sorted((b"one", b"two"), key=lambda each: sha256(each).hexdigest(), reverse=True)
    for kind, content in zip((Kind.IMAGE, Kind.AUDIO), contents, strict=True):
        upload = Receipt(shelf=here.ports, organisation_id="acme")
        await upload.keep(one_chunk(content), max_bytes=3)
        assert upload.uploaded is not None
        made[kind] = upload.uploaded
    larger, smaller = (one.stored.sha256 for one in made.values())
    request = Request(
        organisation_id="acme",
        name="Eileen",
        runtime_type="mock",
        policy="standard",
        sources=made,
        traceparent=None,
    )
    async with here.pool.acquire() as conn:
        async with conn.transaction():
            await blobs.lock(conn, "acme", [smaller])
            late = asyncio.create_task(accepted(here, request))
            await asyncio.sleep(0.3)
            async with asyncio.timeout(5):
                await blobs.lock(conn, "acme", [larger])
            assert not late.done()
        await late


async def accepted(here: Site, request: Request) -> None:
    async with here.pool.acquire() as conn, unit_of_work(conn, now=now_utc()) as work:
        await accept(work, request, SEALER, now=now_utc())


async def one_chunk(content: bytes) -> AsyncIterator[bytes]:
    yield content
