"""The same content is stored, reused and deleted at once, and no object is lost or left behind.

First each order that a guard is there for, forced; then eight workers at random. Everything goes
through the functions that requests and runs use.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import asyncpg
import pytest

from service.db import assets, avatars, blobs
from service.db.assets import NewUploaded
from service.db.claims import ClaimLostError
from service.db.types import Conn, Pool
from service.domain import AssetRun, Work
from service.events.outbox import unit_of_work
from service.ids import new_id
from service.ingest.objects import begin_object, erase
from service.ingest.purge import purge
from service.ingest.settle import settle_stored
from storage.local import LocalStore
from storage.s3 import S3Store
from storage.store import AssetStore, StoredAsset
from tests.rows import NOW, add_avatar, add_organisation, assets_of, start
from tests.servers.s3 import S3Server, make_bucket
from validators.facts import Kind

WORKERS = 8
ORGANISATIONS = ("acme", "rival")
CONTENTS = (b"one" * 1000, b"two" * 1000)
HELD_S = 0.3

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Connections and a store of one worker's own."""

    pool: Pool
    store: AssetStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Somebody who brings bytes; `id` is that of the asset that they become."""

    organisation_id: str = ORGANISATIONS[0]
    id: UUID = field(default_factory=new_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """Bytes that lie in the store, and that nothing points to."""

    sender: blobs.Writer
    blob_id: UUID
    stored: StoredAsset


@pytest.fixture
async def place(pool: Pool, tmp_path: Path) -> AsyncIterator[Place]:
    async with LocalStore(tmp_path / "assets") as store, pool.acquire() as conn:
        for organisation in ORGANISATIONS:
            await add_organisation(conn, organisation)
        yield Place(pool=pool, store=store)


async def bring(
    place: Place, content: bytes = CONTENTS[0], sender: blobs.Writer | None = None
) -> Brought:
    sender = sender or Sender()
    blob_id, key = await begin_object(sender, place)
    stored = await place.store.put(key, chunks_of(content))
    return Brought(sender=sender, blob_id=blob_id, stored=stored)


async def chunks_of(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def keep(conn: Conn, brought: Brought) -> UUID:
    """Make an asset of them, in the caller's transaction; gives the blob that it points to."""
    kept = await blobs.finish(conn, brought.sender.organisation_id, brought.blob_id, brought.stored)
    asset = NewUploaded(
        id=brought.sender.id,
        organisation_id=brought.sender.organisation_id,
        kind=Kind.AUDIO,
        policy="standard",
        blob_id=kept,
        stored=brought.stored,
        traceparent=None,
        created_at=NOW,
    )
    await assets.insert_uploaded(conn, asset)
    return kept


async def kept(place: Place, brought: Brought) -> UUID:
    async with place.pool.acquire() as conn, conn.transaction():
        return await keep(conn, brought)


async def delete(conn: Conn, asset_id: UUID) -> UUID | None:
    """Delete an asset, as an erasure does it; gives the blob that lost it."""
    blob_id: UUID | None = await conn.fetchval(
        "DELETE FROM asset WHERE id = $1 RETURNING blob_id", asset_id
    )
    if blob_id is not None:
        await blobs.release(conn, [blob_id])
    return blob_id


async def deleted(place: Place, asset_id: UUID) -> UUID | None:
    async with place.pool.acquire() as conn, conn.transaction():
        return await delete(conn, asset_id)


async def purged(place: Place) -> None:
    """Do every purge that is due, as a worker does: a job goes when it is done."""
    while job := await place.pool.fetchrow(
        "SELECT id, payload FROM pgqueuer WHERE entrypoint = 'purge' ORDER BY random() LIMIT 1"
    ):
        assert await purge(UUID(job["payload"].decode()), place) is None
        await place.pool.execute("DELETE FROM pgqueuer WHERE id = $1", job["id"])


async def an_hour_later(place: Place) -> None:
    """No writer can be alive any more; a worker has swept, and erased what it found."""
    await place.pool.execute(
        "UPDATE blob SET created_at = created_at - $1::interval",
        blobs.WRITTEN_WITHIN + timedelta(minutes=1),
    )
    async with place.pool.acquire() as conn:
        while left := await blobs.unerased(conn):  # it tells of a thousand at a time
            await blobs.release(conn, left)
            await purged(place)
    await purged(place)


async def assert_whole(place: Place) -> None:
    """Every asset reads back; one object for every blob, and one stored blob for its assets."""
    rows = await place.pool.fetch(
        "SELECT a.sha256, b.key, b.state, b.sha256 AS of_blob, a.organisation_id, b.organisation_id"
        " AS owner FROM asset a JOIN blob b ON b.id = a.blob_id"
    )
    assert len(rows) == await place.pool.fetchval("SELECT count(*) FROM asset")
    assert {row["state"] for row in rows} <= {"stored"}
    for key, digest in {(row["key"], row["sha256"]) for row in rows}:
        assert await digest_of(place.store, key) == digest
    for row in rows:
        assert (row["sha256"], row["organisation_id"]) == (row["of_blob"], row["owner"])
    keys = [row["key"] for row in await place.pool.fetch("SELECT key FROM blob ORDER BY key")]
    assert sorted({row["key"] for row in rows}) == keys  # no blob without an asset
    assert sorted([stat.key async for stat in place.store.list()]) == keys
    assert len(keys) == len({(row["owner"], row["sha256"]) for row in rows})  # and no two alike


async def digest_of(store: AssetStore, key: str) -> str:
    digest = sha256()
    async for chunk in store.open(key):
        digest.update(chunk)
    return digest.hexdigest()


async def held_up(task: "asyncio.Task[_T]") -> None:
    """It waits for somebody."""
    await asyncio.wait([task], timeout=HELD_S)
    assert not task.done()


async def test_who_erases_waits_for_who_is_about_to_reuse(place: Place) -> None:
    """Else the object would go between the look for a twin and the commit."""
    first, second = await bring(place), await bring(place)
    blob_id = await kept(place, first)
    async with place.pool.acquire() as conn:
        async with conn.transaction():
            assert await keep(conn, second) == blob_id  # reuses it, and has not committed
            await deleted(place, first.sender.id)
            late = asyncio.create_task(purge(blob_id, place))
            await held_up(late)
        await late
    await an_hour_later(place)
    await assert_whole(place)


async def test_who_reuses_waits_for_who_is_about_to_erase(place: Place) -> None:
    first, second = await bring(place), await bring(place)
    blob_id = await kept(place, first)
    await deleted(place, first.sender.id)
    async with place.pool.acquire() as conn:
        async with conn.transaction():
            assert await blobs.condemn(conn, blob_id) is not None
            late = asyncio.create_task(kept(place, second))
            await held_up(late)
        assert await late == second.blob_id
    await an_hour_later(place)
    await assert_whole(place)


async def test_two_that_finish_the_same_bytes_keep_one(place: Place) -> None:
    first, second = await bring(place), await bring(place)
    async with place.pool.acquire() as conn:
        async with conn.transaction():
            blob_id = await keep(conn, first)
            late = asyncio.create_task(kept(place, second))
            await held_up(late)
        assert await late == blob_id
    await an_hour_later(place)
    await assert_whole(place)


async def test_organisations_do_not_wait_for_each_other(place: Place) -> None:
    """They could tell from how long it takes that another has the same bytes."""
    mine, theirs = await bring(place), await bring(place, sender=Sender(organisation_id="rival"))
    async with place.pool.acquire() as conn, conn.transaction():
        await keep(conn, mine)
        async with asyncio.timeout(5):
            assert await kept(place, theirs) == theirs.blob_id


async def test_an_index_refuses_a_second_stored_blob_of_the_same_bytes(place: Place) -> None:
    first, second = await bring(place), await bring(place)
    await kept(place, first)
    with pytest.raises(asyncpg.UniqueViolationError, match="blob_once_per_organisation"):
        await place.pool.execute(
            "UPDATE blob SET state = 'stored', sha256 = $2, size_bytes = 1 WHERE id = $1",
            second.blob_id,
            second.stored.sha256,
        )


async def test_a_blob_that_an_asset_points_to_is_never_erased(place: Place) -> None:
    first, second = await bring(place), await bring(place)
    blob_id = await kept(place, first)
    await kept(place, second)
    await deleted(place, first.sender.id)
    await purged(place)
    await an_hour_later(place)
    await assert_whole(place)
    assert await place.pool.fetchval("SELECT id FROM blob") == blob_id


@pytest.mark.parametrize("state", ["discarded", "lost"])
async def test_what_is_discarded_or_lost_is_never_reused(place: Place, state: str) -> None:
    first, second = await bring(place), await bring(place)
    await kept(place, first)
    await place.pool.execute("UPDATE blob SET state = $2 WHERE id = $1", first.blob_id, state)
    assert await kept(place, second) == second.blob_id


async def test_a_reference_that_goes_while_a_purge_looks_gets_a_purge_of_its_own(
    place: Place,
) -> None:
    """A job that is at work may have looked too early; nothing in the row would tell."""
    first, second = await bring(place), await bring(place)
    blob_id = await kept(place, first)
    await kept(place, second)
    await deleted(place, first.sender.id)
    await place.pool.execute("UPDATE pgqueuer SET status = 'picked'")
    assert await purge(blob_id, place) is None  # another asset points to it
    await deleted(place, second.sender.id)
    await place.pool.execute("DELETE FROM pgqueuer WHERE status = 'picked'")  # it is done
    await purged(place)
    assert await place.pool.fetchval("SELECT count(*) FROM blob WHERE id = $1", blob_id) == 0
    await an_hour_later(place)
    await assert_whole(place)


@dataclass
class Gate:
    """Where somebody is held until the others have done what makes it hard."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)


class GatedConnection(asyncpg.Connection):
    """Holds a condemnation between its look at the blob and its decision."""

    gate: ClassVar[Gate]

    async def fetchrow(self, query: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as its parent's
        if "SET state = 'discarded'" in query:
            self.gate.reached.set()
            await self.gate.released.wait()
        return await super().fetchrow(query, *args, **kwargs)


async def test_a_blob_that_is_finished_and_reused_while_a_purge_begins_is_kept(
    place: Place, dsn: str
) -> None:
    """The purge read it before it had a digest, so it holds no lock and must not decide."""
    first, second = await bring(place), await bring(place)
    gate = GatedConnection.gate = Gate()
    async with asyncpg.create_pool(
        dsn, min_size=1, max_size=2, connection_class=GatedConnection
    ) as gated:
        purging = asyncio.create_task(purge(first.blob_id, Place(pool=gated, store=place.store)))
        await gate.reached.wait()
        await kept(place, first)
        async with place.pool.acquire() as conn, conn.transaction():
            assert await keep(conn, second) == first.blob_id
            await deleted(place, first.sender.id)
            gate.released.set()
            await asyncio.wait([purging], timeout=HELD_S)
        await purging
    await an_hour_later(place)
    await assert_whole(place)


async def settled(place: Place, run: AssetRun, brought: Brought) -> None:
    """As a fetch does it."""
    async with place.pool.acquire() as conn, unit_of_work(conn, now=NOW) as work:
        blob_id = await blobs.finish(conn, run.organisation_id, brought.blob_id, brought.stored)
        await settle_stored(work, run, blob_id, brought.stored, now=NOW)


async def test_a_deletion_does_not_wait_for_a_writer_that_waits_for_it(place: Place) -> None:
    """A run finishes its blob before it locks its avatar, which the deletion holds."""
    avatar = await add_avatar(place.pool)
    run = await start(place.pool, (await assets_of(place.pool, avatar))["video"].id, Work.FETCH)
    brought = await bring(place, sender=run)
    async with place.pool.acquire() as conn:
        async with conn.transaction():
            await avatars.lock(conn, avatar.id, organisation_id=None)
            late = asyncio.create_task(settled(place, run, brought))
            await held_up(late)
            await blobs.stop_writing(conn, [run.id])
            await conn.execute("DELETE FROM avatar WHERE id = $1", avatar.id)
            await conn.execute("DELETE FROM asset WHERE id = $1", run.id)
        with pytest.raises(ClaimLostError):
            await late
    await erase(place, brought.blob_id, brought.stored.key)  # as every run that hears so
    assert await place.pool.fetchval("SELECT count(*) FROM blob") == 0
    await assert_whole(place)


async def test_what_a_run_of_a_deleted_row_writes_is_erased_at_once_and_once_more(
    place: Place,
) -> None:
    sender = Sender()
    blob_id, key = await begin_object(sender, place)
    async with place.pool.acquire() as conn, conn.transaction():
        await blobs.stop_writing(conn, [sender.id])
    await purged(place)
    late = await place.store.put(key, chunks_of(CONTENTS[0]))  # the writer was alive
    with pytest.raises(ClaimLostError):
        await kept(place, Brought(sender=sender, blob_id=blob_id, stored=late))
    # and it is killed before it can clean up
    assert [stat.key async for stat in place.store.list()] == [key]
    await an_hour_later(place)
    assert await place.pool.fetchval("SELECT count(*) FROM blob") == 0
    await assert_whole(place)


async def test_bytes_that_come_again_heal_what_was_lost(place: Place) -> None:
    first, again = await bring(place), await bring(place)
    lost = await kept(place, first)
    await place.store.delete(first.stored.key)
    await place.pool.execute("UPDATE blob SET state = 'lost' WHERE state = 'stored'")
    assert await kept(place, again) == again.blob_id
    await purged(place)
    healed = await place.pool.fetchval("SELECT blob_id FROM asset WHERE id = $1", first.sender.id)
    assert healed == again.blob_id
    assert await place.pool.fetchval("SELECT count(*) FROM blob WHERE id = $1", lost) == 0
    await assert_whole(place)


async def test_who_holds_other_bytes_or_another_organisation_heals_nothing(place: Place) -> None:
    first = await bring(place)
    await kept(place, first)
    await place.pool.execute("UPDATE blob SET state = 'lost' WHERE state = 'stored'")
    await kept(place, await bring(place, CONTENTS[1]))
    await kept(place, await bring(place, sender=Sender(organisation_id="rival")))
    await purged(place)
    assert await purge(first.blob_id, place) is None
    sql = "SELECT b.state FROM asset a JOIN blob b ON b.id = a.blob_id WHERE a.id = $1"
    assert await place.pool.fetchval(sql, first.sender.id) == "lost"


@dataclass(slots=True, kw_only=True)
class Worker:
    """Stores, reuses, deletes and erases at random, and dies now and then."""

    place: Place
    alive: list[UUID]  # assets that anybody may delete
    chance: random.Random
    stored: int = 0
    removed: int = 0

    async def work(self, rounds: int) -> None:
        for _ in range(rounds):
            await self._store()
            if self.chance.random() < 0.9:
                await self._delete()
            if self.chance.random() < 0.5:
                await self._purge()
            if self.chance.random() < 0.02:
                await self._lose()

    async def _store(self) -> None:
        sender = Sender(organisation_id=self.chance.choice(ORGANISATIONS))
        brought = await bring(self.place, self.chance.choice(CONTENTS), sender)
        fate = self.chance.random()
        if fate < 0.05:
            return  # killed before the commit
        if fate < 0.1:
            await self._roll_back(brought)
        else:
            await kept(self.place, brought)
            self.alive.append(sender.id)
            self.stored += 1
        if fate < 0.9:  # else killed before it erases what a twin made needless
            await erase(self.place, brought.blob_id, brought.stored.key)

    async def _roll_back(self, brought: Brought) -> None:
        async with self.place.pool.acquire() as conn:
            transaction = conn.transaction()
            await transaction.start()
            await keep(conn, brought)
            await transaction.rollback()

    async def _delete(self) -> None:
        if self.alive:
            asset_id = self.alive.pop(self.chance.randrange(len(self.alive)))
            assert await deleted(self.place, asset_id) is not None
            self.removed += 1

    async def _purge(self) -> None:
        job = await self.place.pool.fetchrow(
            "SELECT id, payload FROM pgqueuer WHERE entrypoint = 'purge' ORDER BY random() LIMIT 1"
        )
        if job is not None:  # two may do the same job: PgQueuer gives it twice when one is late
            await purge(UUID(job["payload"].decode()), self.place)
            await self.place.pool.execute("DELETE FROM pgqueuer WHERE id = $1", job["id"])

    async def _lose(self) -> None:
        """What the reconciler does with an object that is gone; somebody brings the bytes again."""
        async with self.place.pool.acquire() as conn:
            lost = await conn.fetchrow(
                "UPDATE blob SET state = 'lost' WHERE id = ("
                " SELECT id FROM blob WHERE state = 'stored' LIMIT 1 FOR UPDATE SKIP LOCKED)"
                " RETURNING organisation_id, key, sha256"
            )
        if lost is None:
            return
        await self.place.store.delete(lost["key"])
        content = next(each for each in CONTENTS if sha256(each).hexdigest() == lost["sha256"])
        sender = Sender(organisation_id=lost["organisation_id"])
        await kept(self.place, await bring(self.place, content, sender))
        self.alive.append(sender.id)
        self.stored += 1


@asynccontextmanager
async def workers(dsn: str, stores: Sequence[AssetStore]) -> AsyncIterator[list[Worker]]:
    """One for each store, with connections of its own."""
    alive: list[UUID] = []
    async with AsyncExitStack() as stack:
        made = []
        for number, store in enumerate(stores):
            opening = asyncpg.create_pool(dsn, min_size=1, max_size=2)
            place = Place(pool=await stack.enter_async_context(opening), store=store)
            chance = random.Random(number)  # noqa: S311 - to be repeated, not to be secret
            made.append(Worker(place=place, alive=alive, chance=chance))
        yield made


async def race(dsn: str, rounds: int, stores: Sequence[AssetStore]) -> None:
    async with workers(dsn, stores) as racing:
        place = racing[0].place
        async with place.pool.acquire() as conn:
            for organisation in ORGANISATIONS:
                await add_organisation(conn, organisation)
        await asyncio.gather(*(worker.work(rounds) for worker in racing))
        await purged(place)
        await an_hour_later(place)
        await assert_whole(place)
        left = await place.pool.fetchval("SELECT count(*) FROM asset")
        assert left == sum(worker.stored - worker.removed for worker in racing)
        for asset_id in racing[0].alive:
            await deleted(place, asset_id)
        await purged(place)
        assert [stat.key async for stat in place.store.list()] == []
        assert await place.pool.fetchval("SELECT count(*) FROM blob") == 0


async def test_eight_workers_lose_nothing_and_leave_nothing(
    dsn: str, tmp_path: Path, rounds: int
) -> None:
    async with AsyncExitStack() as opened:
        stores = [
            await opened.enter_async_context(LocalStore(tmp_path / "assets"))
            for _ in range(WORKERS)
        ]
        await race(dsn, rounds, stores)


async def test_eight_workers_on_a_bucket_lose_nothing_and_leave_nothing(
    dsn: str, moto_server: S3Server, rounds: int
) -> None:
    async with S3Store(await make_bucket(moto_server)) as store:
        await race(dsn, max(1, rounds // 5), [store] * WORKERS)
