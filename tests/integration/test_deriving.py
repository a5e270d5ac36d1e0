"""From accepted sources to what the fitter needs: every end that a derivation can come to.

Recipes are fakes here, so that they can be held, broken and counted; tests/e2e runs the real ones.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest

from service.db import assets, avatars, claims
from service.db.assets import Derivation
from service.db.avatars import Avatar
from service.db.claims import ClaimLostError, Progress
from service.db.types import Conn, Pool
from service.domain import AvatarRun, Cause, Settlement, Status, Work
from service.ingest import derivation
from service.ingest.derivation import best_sources
from service.ingest.objects import clear_abandoned
from service.ingest.settle import settle_derived, settle_underived
from service.times import now_utc
from storage.local import LocalStore
from storage.store import StoredAsset
from tests.integration.test_pipeline import LIMITS, Site, UnsteadyStore, running, site
from tests.integration.test_settling import judge, types_of
from tests.rows import NOW, PAIR, add_avatar, made_by, start_deriving, store_all
from validators.derive.recipes import Recipe
from validators.errors import AnalysisCrashedError
from validators.facts import Kind
from validators.verdict import Decision, Outcome, PairCode, PairFinding, PairVerdict

EVERYTHING = (Kind.VIDEO, Kind.IMAGE, Kind.AUDIO)
OTHER_FACE = PairVerdict(
    verdict=Decision.REJECTED,
    policy="standard-1",
    checks=(
        PairFinding(code=PairCode.FACE_MISMATCH, outcome=Outcome.FAIL, message="Two people."),
        PairFinding(code=PairCode.VOICE_MISMATCH, outcome=Outcome.PASS, message="One voice."),
    ),
)


@pytest.fixture
async def here(pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(pool, tmp_path) as opened:
        yield opened


async def content(text: str) -> AsyncIterator[bytes]:
    yield text.encode()


async def deriving(here: Site, kinds: tuple[Kind, ...] = (Kind.VIDEO,)) -> Avatar:
    """An avatar whose sources are judged and lie in the store."""
    avatar = await add_avatar(here.pool, kinds)
    runs = await store_all(here.pool, avatar)
    for blob in await here.pool.fetch("SELECT id, key FROM blob WHERE size_bytes = 3"):
        stored = await here.store.put(blob["key"], content(f"source {blob['id']}"))
        change = "UPDATE blob SET sha256 = $2, size_bytes = $3 WHERE id = $1"
        await here.pool.execute(change, blob["id"], stored.sha256, stored.size_bytes)
    for run in runs.values():
        await judge(here.pool, run)
    return avatar


async def until_final(here: Site, avatar: Avatar) -> None:
    sql = "SELECT status IN ('fitting', 'failed') FROM avatar WHERE id = $1"
    await here.until(sql, avatar.id)


async def counts(here: Site) -> tuple[int, int, int]:
    row = await here.pool.fetchrow("SELECT attempts, failures, losses FROM avatar")
    assert row is not None
    return row["attempts"], row["failures"], row["losses"]


async def assert_nothing_is_orphaned(here: Site) -> None:
    """Every blob is stored and used, and the store holds its object and no other.

    A row stays for a while where a writer may be alive; its object does not.
    """
    blobs = await here.pool.fetch("SELECT * FROM blob WHERE state <> 'discarded'")
    used = {row["blob_id"] for row in await here.pool.fetch("SELECT blob_id FROM asset")}
    assert {blob["id"] for blob in blobs} == used
    assert {blob["state"] for blob in blobs} == {"stored"}
    assert sorted(blob["key"] for blob in blobs) == await here.keys()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({Kind.IMAGE}, {Recipe.PORTRAIT: Kind.IMAGE}),
        (set(PAIR), {Recipe.PORTRAIT: Kind.IMAGE, Recipe.VOICE_REFERENCE: Kind.AUDIO}),
        ({Kind.VIDEO}, dict.fromkeys(Recipe, Kind.VIDEO)),
        (
            set(EVERYTHING),
            {
                Recipe.PORTRAIT: Kind.IMAGE,
                Recipe.VOICE_REFERENCE: Kind.AUDIO,
                Recipe.PREVIEW: Kind.VIDEO,
            },
        ),
    ],
)
def test_the_callers_own_portrait_and_recording_come_before_the_video(
    given: set[Kind], expected: dict[Recipe, Kind]
) -> None:
    assert best_sources(given) == expected


async def test_what_was_derived_is_durable_and_can_be_made_again(here: Site) -> None:
    avatar = await deriving(here)
    assert await here.status(avatar) == ("deriving", None)
    async with running(here.worker(Work.DERIVE)):
        await until_final(here, avatar)
    assert await here.status(avatar) == ("fitting", None)
    async with here.pool.acquire() as conn:
        source = (await assets.of_avatar(conn, avatar.id))["video"]
        derived = await assets.derived_of(conn, avatar.id)
    assert set(derived) == set(Recipe)
    for recipe, asset in derived.items():
        assert asset.derivation is not None
        assert asset.derivation.derived_from == source.id
        assert (asset.origin, asset.state) == ("derive", "ready")
        assert asset.media is not None
        assert asset.key is not None
        stored = b"".join([chunk async for chunk in here.store.open(asset.key)])
        assert sha256(stored).hexdigest() == asset.sha256 == asset.media.sha256
        assert stored.startswith(recipe.encode())
    assert derived[Recipe.PORTRAIT].kind is Kind.IMAGE
    assert await here.events("avatar.ready_for_fitting") == 1
    assert here.recipes.compared == []
    await assert_nothing_is_orphaned(here)


async def test_an_avatar_of_a_picture_alone_gets_a_portrait_alone(here: Site) -> None:
    avatar = await deriving(here, (Kind.IMAGE,))
    async with running(here.worker(Work.DERIVE)):
        await until_final(here, avatar)
    assert here.recipes.asked == [Recipe.PORTRAIT]
    sql = "SELECT data FROM event WHERE type = 'avatar.ready_for_fitting'"
    said = json.loads(await here.pool.fetchval(sql))
    assert set(said) == {
        *("avatar", "organisation", "name", "runtime_type"),
        *("sources", "portrait"),
    }


class LookingStore(LocalStore):
    """A store that looks up, whenever it is given an asset, what the database knows of its key."""

    def __init__(self, root: Path, pool: Pool) -> None:
        super().__init__(root)
        self.pool = pool
        self.seen: list[str | None] = []

    async def put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expected_sha256: str | None = None,
        replace: bool = False,
    ) -> StoredAsset:
        sql = "SELECT state FROM blob WHERE key = $1"
        self.seen.append(await self.pool.fetchval(sql, key))
        return await super().put(
            key, body, max_bytes=max_bytes, expected_sha256=expected_sha256, replace=replace
        )


async def test_a_derivations_key_is_committed_before_its_first_byte(
    here: Site, tmp_path: Path
) -> None:
    avatar = await deriving(here)
    store = LookingStore(tmp_path / "assets", here.pool)
    async with running(here.worker(Work.DERIVE, store=store)):
        await until_final(here, avatar)
    assert store.seen == ["writing"] * 3


async def test_progress_is_shown_while_deriving_and_erased_at_the_end(here: Site) -> None:
    avatar = await deriving(here)
    here.recipes.released.clear()
    async with running(here.worker(Work.DERIVE)):
        await here.until("SELECT stage = 'portrait' FROM avatar")
        async with here.pool.acquire() as conn:
            seen = await avatars.get(conn, avatar.id, organisation_id=None)
        assert seen is not None
        assert seen.progress == Progress(stage="portrait", done=0, total=3, unit="assets")
        here.recipes.released.set()
        await until_final(here, avatar)
    assert await here.pool.fetchval("SELECT stage FROM avatar") is None


async def test_sources_that_do_not_go_together_fail_the_avatar_as_refused(here: Site) -> None:
    avatar = await deriving(here, EVERYTHING)
    here.recipes.pairs = OTHER_FACE
    async with running(here.worker(Work.DERIVE)):
        await until_final(here, avatar)
    row = await here.pool.fetchrow("SELECT * FROM avatar")
    assert row is not None
    assert (row["status"], row["cause"], row["codes"]) == ("failed", "rejected", ["face_mismatch"])
    assert row["message"] == "The sources do not qualify: face_mismatch."
    types = await types_of(here.pool)
    assert types.count("avatar.failed") == 1
    assert "avatar.ready_for_fitting" not in types
    assert here.recipes.asked == []
    async with here.pool.acquire() as conn:
        seen = await avatars.get(conn, avatar.id, organisation_id=None)
    assert seen is not None
    assert seen.pairs == OTHER_FACE
    await assert_nothing_is_orphaned(here)


async def test_pair_checks_that_pass_are_kept_too(here: Site) -> None:
    avatar = await deriving(here, (Kind.VIDEO, Kind.IMAGE))
    fine = replace(OTHER_FACE, verdict=Decision.ACCEPTED, checks=OTHER_FACE.checks[1:])
    here.recipes.pairs = fine
    async with running(here.worker(Work.DERIVE)):
        await until_final(here, avatar)
    async with here.pool.acquire() as conn:
        seen = await avatars.get(conn, avatar.id, organisation_id=None)
    assert seen is not None
    assert (seen.status, seen.pairs) == (Status.FITTING, fine)
    ((video, image, audio),) = here.recipes.compared
    assert (video is not None, image is not None, audio) == (True, True, None)


async def test_a_recipe_that_fails_three_times_is_our_fault(here: Site) -> None:
    avatar = await deriving(here)
    here.recipes.error = AnalysisCrashedError("killed")
    async with running(here.worker(Work.DERIVE)):
        await until_final(here, avatar)
    assert len(here.recipes.asked) == 3
    row = await here.pool.fetchrow("SELECT * FROM avatar")
    assert row is not None
    assert (row["status"], row["cause"], row["codes"]) == ("failed", "internal", ["internal"])
    assert (await types_of(here.pool)).count("avatar.failed") == 1
    await assert_nothing_is_orphaned(here)


async def test_a_recipe_that_fails_once_is_tried_again(here: Site) -> None:
    avatar = await deriving(here)
    here.recipes.error = AnalysisCrashedError("killed")
    async with running(here.worker(Work.DERIVE)):
        await here.until("SELECT failures = 1 FROM avatar")
        here.recipes.error = None
        await until_final(here, avatar)
    assert await here.status(avatar) == ("fitting", None)
    await assert_nothing_is_orphaned(here)


@pytest.mark.parametrize(("losses", "state"), [(18, "fitting"), (19, "failed")])
async def test_the_twentieth_lost_worker_is_the_last(here: Site, losses: int, state: str) -> None:
    avatar = await deriving(here)
    await here.pool.execute("UPDATE avatar SET losses = $1, claimed_at = now()", losses)
    async with running(here.worker(Work.DERIVE)):
        await until_final(here, avatar)
    assert (await here.status(avatar))[0] == state
    assert (await counts(here))[2] == losses + 1


async def test_a_store_that_is_away_for_a_moment_costs_a_wait(here: Site, tmp_path: Path) -> None:
    avatar = await deriving(here)
    store = UnsteadyStore(tmp_path / "assets", failing=1)
    async with running(here.worker(Work.DERIVE, store=store)):
        await here.until("SELECT waits = 1 FROM avatar")
        await until_final(here, avatar)
    assert await here.status(avatar) == ("fitting", None)


async def test_a_derivation_that_outlasts_the_drain_is_handed_back_uncounted(here: Site) -> None:
    avatar = await deriving(here)
    here.recipes.released.clear()
    worker = here.worker(Work.DERIVE, limits=replace(LIMITS, drain_timeout_s=0.3))
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        await here.recipes.waiting.wait()
    worker.drain()
    async with asyncio.timeout(10):
        await task
    row = await here.pool.fetchrow("SELECT status, claimed_at FROM avatar")
    assert row is not None
    assert (row["status"], row["claimed_at"]) == ("deriving", None)
    assert await counts(here) == (0, 0, 0)
    here.recipes.released.set()
    async with running(here.worker(Work.DERIVE)):
        await until_final(here, avatar)
    assert await counts(here) == (0, 0, 0)


class HoldingStore(LocalStore):
    """A store that stops in the middle of the first asset that it is given, until let go."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.half_way = asyncio.Event()
        self.released = asyncio.Event()

    async def put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expected_sha256: str | None = None,
        replace: bool = False,
    ) -> StoredAsset:
        held = self._held(body)
        return await super().put(
            key, held, max_bytes=max_bytes, expected_sha256=expected_sha256, replace=replace
        )

    async def _held(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in body:
            yield chunk
            self.half_way.set()
            await self.released.wait()


async def late_run(here: Site, avatar: Avatar, store: HoldingStore) -> asyncio.Task[None]:
    """A run that will be thought dead: it is in the middle of storing its first asset."""
    async with here.pool.acquire() as conn:
        late = await avatars.start_run(conn, avatar.id, now=now_utc())
    assert late is not None
    ports = replace(here.ports, store=store)
    task = asyncio.create_task(derivation.derive(late, ports))
    async with asyncio.timeout(10):
        await store.half_way.wait()
    return task


async def test_of_two_runs_for_one_avatar_the_overtaken_one_writes_nothing(
    here: Site, tmp_path: Path
) -> None:
    """Its successor is through before it comes back."""
    avatar = await deriving(here)
    store = HoldingStore(tmp_path / "assets")
    late = await late_run(here, avatar, store)
    await here.worker(Work.DERIVE).handle(Work.DERIVE, avatar.id)
    before = await here.pool.fetch("SELECT to_jsonb(a) FROM asset a ORDER BY id")
    store.released.set()
    with pytest.raises(ClaimLostError):
        await late
    assert await here.pool.fetch("SELECT to_jsonb(a) FROM asset a ORDER BY id") == before
    assert await here.events("avatar.ready_for_fitting") == 1
    assert await counts(here) == (0, 0, 1)
    await assert_nothing_is_orphaned(here)


async def test_an_overtaken_run_that_fails_leaves_no_object_behind(
    here: Site, tmp_path: Path
) -> None:
    """Its successor has forgotten its keys already, and is not through yet."""
    avatar = await deriving(here)
    store = HoldingStore(tmp_path / "assets")
    late = await late_run(here, avatar, store)
    await clear_abandoned(await start_deriving(here.pool, avatar), here.ports)
    here.recipes.error = AnalysisCrashedError("killed")
    store.released.set()
    with pytest.raises(AnalysisCrashedError):
        await late
    await assert_nothing_is_orphaned(here)


async def test_what_a_killed_run_stored_is_deleted_before_the_next_derives(here: Site) -> None:
    avatar = await deriving(here)
    dead = await start_deriving(here.pool, avatar)
    _, made = await made_by(here.pool, dead)
    for one in made.values():
        await here.store.put(one.stored.key, content("half"))
    here.recipes.released.clear()
    async with running(here.worker(Work.DERIVE)):
        async with asyncio.timeout(20):
            await here.recipes.waiting.wait()
        assert not {one.stored.key for one in made.values()} & set(await here.keys())
        here.recipes.released.set()
        await until_final(here, avatar)
    assert await here.pool.fetchval("SELECT count(*) FROM asset WHERE recipe = 'portrait'") == 1
    await assert_nothing_is_orphaned(here)


async def share_a_source(here: Site) -> tuple[Avatar, Avatar]:
    """Two avatars that are made from one asset, as uploads allow."""
    first = await deriving(here)
    second = await add_avatar(here.pool)
    await here.pool.execute(
        "UPDATE source SET asset_id = (SELECT asset_id FROM source WHERE avatar_id = $1)"
        " WHERE avatar_id = $2",
        first.id,
        second.id,
    )
    await here.pool.execute("DELETE FROM asset WHERE state = 'pending'")
    await here.pool.execute("DELETE FROM pgqueuer")
    await here.pool.execute("UPDATE avatar SET status = 'deriving' WHERE id = $1", second.id)
    return first, second


async def test_what_was_derived_for_one_avatar_serves_another(here: Site) -> None:
    first, second = await share_a_source(here)
    worker = here.worker(Work.DERIVE)
    await worker.handle(Work.DERIVE, first.id)
    await worker.handle(Work.DERIVE, second.id)
    assert len(here.recipes.asked) == 3
    assert await here.pool.fetchval("SELECT count(*) FROM derived") == 6
    assert await here.events("avatar.ready_for_fitting") == 2
    await assert_nothing_is_orphaned(here)


async def test_two_avatars_that_derive_the_same_at_once_keep_it_once(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has looked acts only a while later: only the lock on the source keeps them apart."""
    first, second = await share_a_source(here)
    look = assets.find_derived

    async def look_and_linger(conn: Conn, derivation: Derivation) -> UUID | None:
        found = await look(conn, derivation)
        await asyncio.sleep(0.3)
        return found

    monkeypatch.setattr(assets, "find_derived", look_and_linger)
    here.recipes.varying = True  # equal bytes would meet at the blob's lock already
    here.recipes.released.clear()
    worker = here.worker(Work.DERIVE)
    both = [
        asyncio.create_task(worker.handle(Work.DERIVE, avatar.id)) for avatar in (first, second)
    ]
    while len(here.recipes.asked) < 2:  # noqa: ASYNC110 - it has one event for both
        await asyncio.sleep(0.01)
    here.recipes.released.set()
    await asyncio.gather(*both)
    assert len(here.recipes.asked) > 3
    assert await here.pool.fetchval("SELECT count(*) FROM asset WHERE origin = 'derive'") == 3
    assert await here.events("avatar.ready_for_fitting") == 2
    await assert_nothing_is_orphaned(here)


async def test_the_sweeper_finds_an_avatar_that_nobody_derives_from(here: Site) -> None:
    avatar = await deriving(here)
    await here.pool.execute("DELETE FROM pgqueuer")
    worker = here.worker()
    await worker.sweep()
    await worker.sweep()
    jobs = await here.pool.fetch("SELECT entrypoint, payload FROM pgqueuer")
    assert [(job["entrypoint"], job["payload"]) for job in jobs] == [
        ("derive", str(avatar.id).encode())
    ]


@pytest.mark.parametrize(("age", "found"), [(14, 0), (16, 1)])
async def test_a_claim_that_may_be_alive_is_left_alone(here: Site, age: int, found: int) -> None:
    await deriving(here)
    await here.pool.execute("DELETE FROM pgqueuer")
    await here.pool.execute(
        "UPDATE avatar SET claimed_at = now() - $1::interval", timedelta(minutes=age)
    )
    await here.worker().sweep()
    assert await here.pool.fetchval("SELECT count(*) FROM pgqueuer") == found


Write = Callable[[Conn, AvatarRun], Awaitable[None]]


async def refused(conn: Conn, run: AvatarRun) -> None:
    to = Settlement(status=Status.FAILED, cause=Cause.REJECTED, codes=("face_mismatch",))
    await settle_underived(conn, run, to, OTHER_FACE, now=NOW)


async def derived(conn: Conn, run: AvatarRun) -> None:
    await settle_derived(conn, run, None, [], {}, now=NOW)


async def reported(conn: Conn, run: AvatarRun) -> None:
    await claims.keep_progress(conn, run, Progress(stage="x", done=1, total=2, unit="s"))


@pytest.mark.parametrize(
    "write",
    [refused, derived, reported, claims.hand_back, claims.count_attempt, claims.count_failure],
)
async def test_a_late_run_that_lost_its_claim_writes_nothing(here: Site, write: Write) -> None:
    avatar = await deriving(here)
    late = await start_deriving(here.pool, avatar)
    await start_deriving(here.pool, avatar)
    before = await here.pool.fetch("SELECT to_jsonb(avatar) FROM avatar")
    events = await types_of(here.pool)
    async with here.pool.acquire() as conn:
        with pytest.raises(ClaimLostError):
            await write(conn, late)
    assert await here.pool.fetch("SELECT to_jsonb(avatar) FROM avatar") == before
    assert await types_of(here.pool) == events


async def test_an_avatar_that_does_not_derive_cannot_be_claimed(here: Site) -> None:
    avatar = await deriving(here)
    worker = here.worker(Work.DERIVE)
    await worker.handle(Work.DERIVE, avatar.id)
    await worker.handle(Work.DERIVE, avatar.id)  # a job that comes twice
    assert await here.pool.fetchval("SELECT claim FROM avatar") == 1
    assert await here.events("avatar.ready_for_fitting") == 1


async def test_an_inspection_waits_while_a_derivation_has_the_processors_turn(here: Site) -> None:
    """Both want an analysis child: what is claimed must not wait for one."""
    await deriving(here)
    unjudged = await store_all(here.pool, await add_avatar(here.pool))
    async with here.pool.acquire() as conn:
        await claims.hand_back(conn, unjudged["video"])
    here.recipes.released.clear()
    narrow = replace(LIMITS, concurrency={Work.INSPECT: 1, Work.DERIVE: 1})
    worker = here.worker(Work.DERIVE, Work.INSPECT, limits=narrow)
    held = asyncio.create_task(worker.handle(Work.DERIVE, await here.pool.fetchval(DERIVING)))
    async with asyncio.timeout(10):
        await here.recipes.waiting.wait()
    waiting = asyncio.create_task(worker.handle(Work.INSPECT, unjudged["video"].id))
    await asyncio.sleep(0.3)
    claim = "SELECT claim FROM asset WHERE id = $1"
    assert await here.pool.fetchval(claim, unjudged["video"].id) == unjudged["video"].claim
    waiting.cancel()
    here.recipes.released.set()
    await held


DERIVING = "SELECT id FROM avatar WHERE status = 'deriving'"
