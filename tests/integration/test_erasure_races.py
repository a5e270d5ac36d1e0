"""Deletion against everything that may be under way: whatever comes first, nothing of the deleted
stays, and nothing of the others is lost.

Real Postgres, a real store, real workers and the real API; delays are random and seeded.
"""

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from aiohttp import FormData
from structlog.testing import capture_logs

from service.db import avatars, blobs
from service.db.assets import Derivation
from service.db.claims import ClaimLostError
from service.db.types import Conn
from service.domain import AssetRun, AvatarRun, Work
from service.events.outbox import UnitOfWork, unit_of_work
from service.ids import parse_id
from service.ingest import settle
from service.ingest.deletion import Deletion, delete_avatar
from service.ingest.objects import begin_object
from service.ingest.pipeline import keep
from service.ingest.settle import DerivedGoneError, settle_derived, settle_stored
from service.times import now_utc
from storage.local import LocalStore
from storage.store import StoredAsset
from tests.api import Api
from tests.fakes.analyzer import FakeAnalyzer
from tests.fakes.origin import Behaviour, Request, head
from tests.fakes.recipes import FakeRecipes
from tests.integration.test_erasure import (
    SEEN_AND_HEARD,
    Person,
    api,
    chunk,
    complaints,
    create,
    delete,
    from_uploads,
    here,
    share_sources,
    until_purged,
    until_status,
)
from tests.integration.test_pipeline import Site, running
from tests.integration.test_upload_flow import begin, finalize, send
from tests.rows import made_by, start
from tests.traces import traces
from validators.analysis.wire import Analysis, AnalysisRequest
from validators.derive.derived import Derived
from validators.derive.recipes import Recipe
from validators.facts import Facts
from validators.inspect import Tools

__all__ = ["api", "here"]  # fixtures

AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """Seeded pauses, so that a round can be had again."""

    dice: random.Random

    async def pause(self, longest_s: float) -> None:
        await asyncio.sleep(self.dice.uniform(0, longest_s))


@dataclass
class SlowAnalyzer(FakeAnalyzer):
    chance: Chance | None = None

    async def analyze(self, request: AnalysisRequest, fds: Sequence[int]) -> Analysis:
        found = await super().analyze(request, fds)
        assert self.chance is not None
        await self.chance.pause(0.1)
        return found


@dataclass
class SlowRecipes(FakeRecipes):
    chance: Chance | None = None

    async def derive(
        self, recipe: Recipe, path: Path, facts: Facts, out: Path, tools: Tools
    ) -> Derived:
        assert self.chance is not None
        await self.chance.pause(0.1)
        return await super().derive(recipe, path, facts, out, tools)


class SlowStore(LocalStore):
    """A store that pauses where a process may be overtaken."""

    def __init__(self, root: Path, chance: Chance) -> None:
        super().__init__(root)
        self._chance = chance

    async def put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expected_sha256: str | None = None,
        replace: bool = False,
    ) -> StoredAsset:
        stored = await super().put(
            key, body, max_bytes=max_bytes, expected_sha256=expected_sha256, replace=replace
        )
        await self._chance.pause(0.05)
        return stored

    async def delete(self, key: str) -> None:
        await self._chance.pause(0.05)
        await super().delete(key)


def dripping(data: bytes, chance: Chance) -> Behaviour:
    async def behave(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"Content-Length": str(len(data))}))
        for at in range(0, len(data), 1 + len(data) // 4):
            writer.write(data[at : at + 1 + len(data) // 4])
            await writer.drain()
            await chance.pause(0.05)

    return behave


@dataclass(slots=True, kw_only=True)
class Race:
    """One installation under load, and what has to be true of it at the end."""

    api: Api
    here: Site
    chance: Chance
    gone: list[Person] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # avatars that must reach their fitter
    found: Counter[str] = field(default_factory=Counter)  # in which state deletions came

    async def portrait(self, person: Person, picture: bytes) -> str:
        """An avatar of family A; its UUID."""
        data = FormData()
        data.add_field("image", picture, filename="portrait.png")
        data.add_field("name", person.name)
        headers = {"Idempotency-Key": person.mark.decode()}
        answered = await self.api.post("/v1/avatars", data=data, headers=headers)
        assert answered.status == 201, await answered.text()
        return str(parse_id((await answered.json())["id"]))

    async def until(self, avatar: str, sql: str) -> None:
        """Wait for a state, or for its having passed."""
        async with asyncio.timeout(60):
            while not await self.here.pool.fetchval(sql, UUID(avatar)):  # noqa: ASYNC110 - the database does not wake us
                await asyncio.sleep(0.005)

    async def delete(self, person: Person, avatar: str) -> None:
        sql = """
            SELECT v.status || '/' || string_agg(a.state, ',') FROM avatar v
              JOIN source s ON s.avatar_id = v.id JOIN asset a ON a.id = s.asset_id
             WHERE v.id = $1 GROUP BY v.id
        """
        self.found[await self.here.pool.fetchval(sql, UUID(avatar))] += 1
        assert (await delete(self.api, f"/v1/avatars/{avatar}")).status == 204
        self.gone.append(person)


async def against_a_fetch(race: Race) -> None:
    person = Person()
    path = f"/{person.mark.decode()}.mp4"
    race.here.origin.serves(path, dripping(person.voice, race.chance))
    url = race.here.origin.url(f"{path}?sig={person.mark.decode()}")
    avatar = await create(race.api, person, {"video_url": url})
    started = """
        SELECT bool_or(a.claim > 0) FROM asset a JOIN source s ON s.asset_id = a.id
         WHERE s.avatar_id = $1
    """
    await race.until(avatar, started)
    await race.chance.pause(0.5)
    await race.delete(person, avatar)


async def against_an_upload(race: Race) -> None:
    """A portrait is deleted as soon as it is answered for; a form's file while it is adopted."""
    person = Person()
    if race.chance.dice.random() < 0.5:
        avatar = await race.portrait(person, person.picture)
        await race.chance.pause(0.05)
        await race.delete(person, avatar)
        return
    grant = await begin(race.api, "audio")
    assert (await send(race.api, grant, person.voice)).status == 204

    async def finish() -> None:
        await race.chance.pause(0.05)
        assert (await finalize(race.api, grant)).status in {200, 404}

    async def take_back() -> None:
        await race.chance.pause(0.15)
        assert (await delete(race.api, f"/v1/assets/{grant['audio_id']}")).status == 204

    await asyncio.gather(finish(), take_back())
    race.found["upload"] += 1
    race.gone.append(person)


async def against_an_inspection(race: Race) -> None:
    person = Person()
    avatar = await race.portrait(person, person.picture)
    await race.until(
        avatar,
        """
        SELECT bool_or(a.claim > 0) FROM asset a JOIN source s ON s.asset_id = a.id
         WHERE s.avatar_id = $1
        """,
    )
    await race.chance.pause(0.3)
    await race.delete(person, avatar)


async def against_a_derivation(race: Race) -> None:
    person = Person()
    avatar = await race.portrait(person, person.picture)
    await race.until(avatar, "SELECT claim > 0 FROM avatar WHERE id = $1")
    await race.chance.pause(0.25)
    await race.delete(person, avatar)


async def against_the_same_bytes(race: Race) -> None:
    """Somebody else sends the same picture while its first avatar is deleted."""
    person, other = Person(), Person()
    avatar = await race.portrait(person, other.picture)
    stage = race.chance.dice.choice(["a.state <> 'pending'", "a.state = 'ready'"])
    await race.until(
        avatar,
        f"""
        SELECT bool_or({stage}) FROM asset a JOIN source s ON s.asset_id = a.id
         WHERE s.avatar_id = $1
        """,  # noqa: S608 - literals of ours
    )

    async def again() -> None:
        await race.chance.pause(0.1)
        race.kept.append(await race.portrait(other, other.picture))

    async def take_away() -> None:
        await race.chance.pause(0.1)
        await race.delete(person, avatar)

    await asyncio.gather(again(), take_away())


KINDS: dict[str, Callable[[Race], Awaitable[None]]] = {
    "fetch": against_a_fetch,
    "upload": against_an_upload,
    "inspection": against_an_inspection,
    "derivation": against_a_derivation,
    "same bytes": against_the_same_bytes,
}


@asynccontextmanager
async def racing(api: Api, here: Site, seed: int) -> AsyncIterator[Race]:
    """Two workers and the API, all of them slow at random."""
    chance = Chance(dice=random.Random(seed))  # noqa: S311 - races, no secrets
    analyzer = SlowAnalyzer(answer=SEEN_AND_HEARD, chance=chance)
    recipes = SlowRecipes(chance=chance)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(asyncpg.create_pool(api.base.dsn, max_size=30))
        root = api.base.settings.data_dir / "assets"
        store = await stack.enter_async_context(SlowStore(root, chance))
        ports = replace(
            here.ports,
            pool=pool,
            store=store,
            tools=replace(here.ports.tools, analyzer=analyzer),
            compare=recipes.compare,
            derive=recipes.derive,
        )
        slow = replace(here, ports=ports, store=store)
        for worker in (slow.worker(), slow.worker()):
            _ = await stack.enter_async_context(running(worker))
        yield Race(api=api, here=slow, chance=chance)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deletion_takes_everything_and_nothing_else(
    api: Api, here: Site, kind: str, rounds: int
) -> None:
    turns, of_this_kind = asyncio.Semaphore(AT_ONCE), max(1, rounds // len(KINDS))
    with capture_logs() as logs:
        async with racing(api, here, seed=len(kind)) as race:

            async def one() -> None:
                async with turns:
                    await KINDS[kind](race)

            await asyncio.gather(*(one() for _ in range(of_this_kind)))
            for avatar in race.kept:
                await race.until(avatar, "SELECT status = 'fitting' FROM avatar WHERE id = $1")
            await idle(race)
    assert complaints(logs) == []
    assert len(race.gone) == of_this_kind
    await until_purged(here)
    await assert_nothing_is_left(race)
    await assert_the_others_are_whole(race)
    print(f"{kind}: {of_this_kind} rounds; deleted in {dict(race.found.most_common())}")  # noqa: T201 - the figures


async def idle(race: Race) -> None:
    await race.here.until(
        "SELECT NOT EXISTS (SELECT 1 FROM pgqueuer WHERE status <> 'failed')", within_s=60
    )


async def assert_nothing_is_left(race: Race) -> None:
    folders = [
        race.api.base.settings.data_dir,
        *Path(tempfile.gettempdir()).glob("greenroom-derive-*"),
    ]
    own = [mark for person in race.gone for mark in person.marks]
    assert await traces(race.here.pool, race.here.store, folders, own) == []


async def assert_the_others_are_whole(race: Race) -> None:
    """Every object belongs to a blob, every blob to an asset, and reads back as it was told."""
    pool, store = race.here.pool, race.here.store
    blobs = await pool.fetch("SELECT * FROM blob")
    used = {row["blob_id"] for row in await pool.fetch("SELECT blob_id FROM asset")}
    assert {row["id"] for row in blobs} == used
    assert {row["state"] for row in blobs} <= {"stored"}
    objects = [key for key in await race.here.keys() if not key.startswith("incoming/")]
    assert sorted(row["key"] for row in blobs) == objects
    for row in blobs:
        data = b"".join([chunk async for chunk in store.open(row["key"])])
        assert sha256(data).hexdigest() == row["sha256"]
    avatars = await pool.fetch("SELECT id, status, attempts, failures FROM avatar")
    assert {str(row["id"]) for row in avatars} == set(race.kept)
    assert all(tuple(row.values())[1:] == ("fitting", 0, 0) for row in avatars)
    assert await pool.fetchval("SELECT count(*) FROM idempotency") == len(race.kept)
    gaps = """
        SELECT count(*) FROM (SELECT count(*) AS n, max(sequence) AS last FROM event
                               GROUP BY subject_id) s WHERE n <> last
    """
    assert await pool.fetchval(gaps) == 0


@asynccontextmanager
async def held(doing: Callable[[UnitOfWork], Awaitable[Any]], here: Site) -> AsyncIterator[None]:
    """A transaction that has done its work, and commits when the body is through."""
    async with here.pool.acquire() as conn, unit_of_work(conn, now=now_utc()) as work:
        await doing(work)
        yield


async def waits(doing: Awaitable[Any]) -> "asyncio.Task[Any]":
    """*doing* as a task that has come to a lock."""
    task = asyncio.ensure_future(doing)
    await asyncio.sleep(0.3)
    assert not task.done()
    return task


async def taken_back(here: Site, avatar: str) -> None:
    async with here.pool.acquire() as conn, unit_of_work(conn, now=now_utc()) as work:
        assert await delete_avatar(work, UUID(avatar), EVERYBODYS)


EVERYBODYS = Deletion(organisation_id=None, traceparent=None)


async def stored_bytes(
    here: Site, person: Person, avatar: str
) -> tuple[AssetRun, UUID, StoredAsset]:
    """A fetch of the avatar's voice that has only to be settled."""
    sql = """
        SELECT asset_id FROM source WHERE avatar_id = $1 AND role = 'audio'
    """
    run = await start(here.pool, await here.pool.fetchval(sql, UUID(avatar)), Work.FETCH)
    blob_id, key = await begin_object(run, here.ports)
    return run, blob_id, await here.store.put(key, chunk(person.voice))


async def test_bytes_that_are_settled_just_before_a_deletion_go_with_it(
    api: Api, here: Site
) -> None:
    person = Person()
    avatar = await create(api, person, person.urls(here))
    run, blob_id, stored = await stored_bytes(here, person, avatar)

    async def settle(work: UnitOfWork) -> None:
        kept = await blobs.finish(work.conn, run.organisation_id, blob_id, stored)
        await settle_stored(work, run, kept, stored, now=now_utc())

    async with held(settle, here):
        deletion = await waits(taken_back(here, avatar))
    await deletion
    await until_purged(here)
    assert await traces(here.pool, here.store, [], person.marks) == []
    assert await here.keys() == []


async def test_bytes_that_come_while_a_deletion_commits_are_erased(api: Api, here: Site) -> None:
    """No deadlock either: the run holds its blob's row, and wants the avatar's."""
    person = Person()
    avatar = await create(api, person, person.urls(here))
    run, blob_id, stored = await stored_bytes(here, person, avatar)

    async def take_back(work: UnitOfWork) -> None:
        assert await delete_avatar(work, UUID(avatar), EVERYBODYS)

    async with held(take_back, here):
        late = await waits(keep(run, here.ports, blob_id, stored))
    with pytest.raises(ClaimLostError):
        await late
    assert await here.keys() == []
    await until_purged(here)
    assert await traces(here.pool, here.store, [], person.marks) == []


async def test_a_deletion_that_a_deadlock_ended_is_begun_again(api: Api, here: Site) -> None:
    """Somebody takes the locks the other way round, and Postgres lets the deletion go first."""
    person = Person()
    avatar = await create(api, person, person.urls(here))
    async with here.pool.acquire() as conn, conn.transaction():
        await conn.execute("SET LOCAL deadlock_timeout = '1min'")
        await conn.execute("SELECT 1 FROM asset FOR UPDATE")
        deletion = await waits(delete(api, f"/v1/avatars/{avatar}"))
        async with asyncio.timeout(10):
            await conn.execute("SELECT 1 FROM avatar FOR UPDATE")
    assert (await deletion).status == 204


async def shared_derivation(api: Api, here: Site) -> tuple[str, AvatarRun, list[Derivation]]:
    """An avatar, and a run for another that has found all that it needs derived already."""
    first = await from_uploads(api, here, Person())
    second = UUID(await share_sources(api, here))
    async with here.pool.acquire() as conn:
        run = await avatars.start_run(conn, second, now=now_utc())
    assert run is not None
    wanted, _ = await made_by(here.pool, run)
    return first, run, wanted


async def test_what_another_avatar_comes_to_use_just_before_a_deletion_stays(
    api: Api, here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, run, wanted = await shared_derivation(api, here)
    settled, go_on = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def lingering(conn: Conn, *, now: datetime) -> AsyncIterator[UnitOfWork]:
        async with unit_of_work(conn, now=now) as work:
            yield work
            settled.set()
            await go_on.wait()

    monkeypatch.setattr(settle, "unit_of_work", lingering)
    async with here.pool.acquire() as conn:
        settling = asyncio.create_task(settle_derived(conn, run, None, wanted, {}, now=now_utc()))
        await settled.wait()
        deletion = await waits(taken_back(here, first))
        go_on.set()
        await asyncio.gather(settling, deletion)
    assert await here.pool.fetchval("SELECT count(*) FROM derived") == len(wanted) == 2
    assert await here.pool.fetchval("SELECT count(*) FROM asset") == 4


async def test_what_goes_with_a_deletion_is_missed_by_who_wanted_to_share_it(
    api: Api, here: Site
) -> None:
    first, run, wanted = await shared_derivation(api, here)

    async def take_back(work: UnitOfWork) -> None:
        assert await delete_avatar(work, UUID(first), EVERYBODYS)

    async with here.pool.acquire() as conn:
        async with held(take_back, here):
            settling = await waits(settle_derived(conn, run, None, wanted, {}, now=now_utc()))
        with pytest.raises(DerivedGoneError):
            await settling
    assert await here.pool.fetchval("SELECT status FROM avatar") == "deriving"
    assert await here.pool.fetchval("SELECT count(*) FROM derived") == 0


async def test_two_deletions_of_avatars_that_share_everything_take_it_once(
    api: Api, here: Site
) -> None:
    first = await from_uploads(api, here, Person())
    second = await share_sources(api, here)
    async with running(here.worker()):
        await until_status(here, second, "fitting")

    async def take_back(work: UnitOfWork) -> None:
        assert await delete_avatar(work, UUID(first), EVERYBODYS)

    async with held(take_back, here):
        deletion = await waits(taken_back(here, second))
    await deletion
    rows = await here.pool.fetch("SELECT type, count(*) FROM event GROUP BY 1")
    said = {row["type"]: row["count"] for row in rows}
    assert (said["avatar.deleted"], said["asset.deleted"]) == (2, 2)
    await until_purged(here)
    assert len(await here.keys()) == 2
