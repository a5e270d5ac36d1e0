"""From a source URL to durable bytes and a verdict: every end that a fetch can come to.

A real worker works on a real database, a real store and a live origin.
"""

import asyncio
import io
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from service.db.avatars import Avatar
from service.db.types import Pool, Row
from service.domain import Work
from service.events.outbox import unit_of_work
from service.fetch.address import AddressGuard
from service.fetch.limits import FetchLimits
from service.fetch.source_url import parse_source_url
from service.ingest.accept import Request, accept
from service.ingest.jobs import Worker, WorkerLimits
from service.ingest.ports import Ports
from service.ingest.retention import Keep
from service.sealing import Sealer
from service.times import now_utc
from storage.local import LocalStore
from storage.store import AssetStore, StoredAsset, StoreUnavailableError
from tests.facts import AUDIO
from tests.fakes.analyzer import FakeAnalyzer
from tests.fakes.origin import Behaviour, Origin, answer, endless, head, raw
from tests.fakes.origin import Request as HttpRequest
from tests.fakes.recipes import FakeRecipes
from tests.fetching import fetching
from tests.rows import ORGANISATION, SEALER, add_organisation
from validators.analysis.wire import Analysis
from validators.facts import Kind, SpeechFacts
from validators.inspect import Tools
from validators.media.sandbox import Limits, Sandbox

AGES = timedelta(days=36_500)  # rows of tests are made at a time of their own
KEEP = Keep(events=AGES, job_log=AGES, answers=AGES, uploads=AGES, refused=AGES)
LIMITS = WorkerLimits(
    concurrency={
        Work.FETCH: 10,
        Work.INSPECT: 2,
        Work.DERIVE: 2,
        Work.PURGE: 4,
        Work.REBUILD: 2,
    },
    keep=KEEP,
    heartbeat_timeout=timedelta(seconds=6),
    sweep_interval_s=60,  # the sweeper of these tests runs when it is told to
    drain_timeout_s=10,
    fitting_timeout=timedelta(days=1),
)
CAP_BYTES = 1 << 20
NOTHING_HEARD = Analysis(speech=SpeechFacts(duration_s=10, speech=()))  # a refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One installation: what outlives a worker, and ways to look at it."""

    pool: Pool
    store: AssetStore
    origin: Origin
    ports: Ports
    analyzer: FakeAnalyzer = field(default_factory=FakeAnalyzer)
    recipes: FakeRecipes = field(default_factory=FakeRecipes)

    def worker(
        self, *kinds: Work, limits: WorkerLimits = LIMITS, store: AssetStore | None = None
    ) -> Worker:
        ports = replace(self.ports, store=store or self.store)
        return Worker(ports=ports, limits=limits, kinds=frozenset(kinds or Work))

    async def create(
        self, path: str, kind: Kind = Kind.AUDIO, *, organisation: str = ORGANISATION
    ) -> Avatar:
        """Accept an avatar with one source at *path* of the origin."""
        guard = AddressGuard(blocks=(self.origin.block,))
        request = Request(
            organisation_id=organisation,
            name="Eileen",
            runtime_type="mock",
            policy="standard",
            sources={kind: parse_source_url(self.origin.url(path), guard)},
            traceparent=None,
        )
        now = now_utc()
        async with self.pool.acquire() as conn:
            await add_organisation(conn, organisation)
            async with unit_of_work(conn, now=now) as work:
                return await accept(work, request, SEALER, now=now)

    async def asset(self, avatar: Avatar) -> Row:
        row = await self.pool.fetchrow(
            "SELECT a.* FROM asset a JOIN source s ON s.asset_id = a.id WHERE s.avatar_id = $1",
            avatar.id,
        )
        assert row is not None
        return row

    async def status(self, avatar: Avatar) -> tuple[str, str | None]:
        sql = "SELECT status, cause FROM avatar WHERE id = $1"
        row = await self.pool.fetchrow(sql, avatar.id)
        assert row is not None
        return row["status"], row["cause"]

    async def events(self, type_: str) -> int:
        count: int = await self.pool.fetchval("SELECT count(*) FROM event WHERE type = $1", type_)
        return count

    async def until(self, sql: str, *values: object, within_s: float = 20) -> None:
        """Wait until *sql* gives something true."""
        try:
            async with asyncio.timeout(within_s):
                while not await self.pool.fetchval(sql, *values):  # noqa: ASYNC110 - the database does not wake us
                    await asyncio.sleep(0.02)
        except TimeoutError as exc:
            rows = await self.pool.fetch("SELECT to_jsonb(asset) FROM asset")
            raise AssertionError(f"not within {within_s} s: {sql}; assets: {rows}") from exc

    async def until_asset(self, state: str, *, within_s: float = 20) -> None:
        """Wait until every asset is in *state*."""
        sql = "SELECT bool_and(state = $1) FROM asset"
        await self.until(sql, state, within_s=within_s)

    async def keys(self) -> list[str]:
        """What the store holds."""
        return sorted([stat.key async for stat in self.store.list()])


@asynccontextmanager
async def site(pool: Pool, folder: Path) -> AsyncIterator[Site]:
    analyzer, recipes = FakeAnalyzer(answer=NOTHING_HEARD), FakeRecipes()
    async with (
        LocalStore(folder / "assets") as store,
        Origin() as origin,
        fetching(
            guard=AddressGuard(blocks=(origin.block,)),
            limits=FetchLimits(connect_s=2, idle_s=5),
        ) as fetcher,
    ):
        ports = Ports(
            pool=pool,
            store=store,
            fetcher=fetcher,
            sealer=SEALER,
            tools=Tools(
                sandbox=Sandbox(limits=Limits(wall_s=20, address_space_bytes=2 << 30)),
                analyzer=analyzer,
            ),
            compare=recipes.compare,
            derive=recipes.derive,
            max_bytes=dict.fromkeys(Kind, CAP_BYTES),
            clock=now_utc,
        )
        yield Site(
            pool=pool,
            store=store,
            origin=origin,
            ports=ports,
            analyzer=analyzer,
            recipes=recipes,
        )


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """Let *worker* work; it is drained at the end."""
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        worker.drain()
        async with asyncio.timeout(20):
            await task


@pytest.fixture
async def here(pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(pool, tmp_path) as opened:
        yield opened


BODY = b"\0\0\0\x20ftypM4A " + bytes(range(256)) * 1000


@dataclass
class Hold:
    """An origin that sends half of BODY and the rest when it is let go."""

    half_way: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, _: HttpRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"Content-Length": str(len(BODY))}) + BODY[:1000])
        await writer.drain()
        self.half_way.set()
        await self.released.wait()
        writer.write(BODY[1000:])
        await writer.drain()


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Each request gets the next behaviour; the last one stays."""
    left = list(behaviours)

    async def behave(request: HttpRequest, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(request, writer)

    return behave


class UnsteadyStore(LocalStore):
    """A store whose next *failing* puts, or loans of a file, find no disk."""

    def __init__(self, root: Path, *, failing: int) -> None:
        super().__init__(root)
        self.failing = failing

    async def put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expected_sha256: str | None = None,
        replace: bool = False,
    ) -> StoredAsset:
        self._perhaps_fail()
        return await super().put(
            key, body, max_bytes=max_bytes, expected_sha256=expected_sha256, replace=replace
        )

    @asynccontextmanager
    async def local_copy(self, key: str, *, sha256: str) -> AsyncIterator[Path]:
        self._perhaps_fail()
        async with super().local_copy(key, sha256=sha256) as path:
            yield path

    def _perhaps_fail(self) -> None:
        if self.failing:
            self.failing -= 1
            raise StoreUnavailableError("no disk")


def ten_seconds() -> bytes:
    """A WAV file as long as `tests.facts` says."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(range(1, 101)) * 3200)
    return file.getvalue()


async def test_the_key_is_committed_before_the_first_byte_and_the_url_erased_after_the_last(
    here: Site,
) -> None:
    hold = Hold()
    here.origin.serves("/a", hold)
    avatar = await here.create("/a?sig=s3cret")
    async with running(here.worker(Work.FETCH)):
        async with asyncio.timeout(10):
            await hold.half_way.wait()
        (blob,) = await here.pool.fetch("SELECT * FROM blob")
        asset = await here.asset(avatar)
        assert (blob["state"], blob["written_for"]) == ("writing", asset["id"])
        assert (asset["state"], asset["blob_id"]) == ("pending", None)
        assert b"s3cret" not in asset["source_url"]
        assert SEALER.open(asset["source_url"]) == here.origin.url("/a?sig=s3cret")
        assert await here.status(avatar) == ("fetching", None)
        assert await here.keys() == []
        hold.released.set()
        await here.until_asset("stored")
    asset, (blob,) = await here.asset(avatar), await here.pool.fetch("SELECT * FROM blob")
    assert (asset["source_url"], asset["blob_id"]) == (None, blob["id"])
    assert (blob["state"], blob["size_bytes"]) == ("stored", len(BODY))
    assert blob["sha256"] == sha256(BODY).hexdigest()
    assert await here.keys() == [blob["key"]]
    assert b"".join([chunk async for chunk in here.store.open(blob["key"])]) == BODY
    assert await here.status(avatar) == ("inspecting", None)


async def test_progress_is_written_while_bytes_come_and_erased_at_the_end(here: Site) -> None:
    hold = Hold()
    here.origin.serves("/a", hold)
    avatar = await here.create("/a")
    async with running(here.worker(Work.FETCH)):
        await here.until("SELECT progress_done > 0 FROM asset")
        asset = await here.asset(avatar)
        assert (asset["stage"], asset["progress_unit"]) == ("fetching", "bytes")
        assert asset["progress_done"] < asset["progress_total"] == len(BODY)
        hold.released.set()
        await here.until_asset("stored")
    asset = await here.asset(avatar)
    assert (asset["stage"], asset["progress_done"], asset["claimed_at"]) == (None, None, None)


async def test_progress_that_cannot_be_written_does_not_stop_a_fetch(here: Site) -> None:
    await here.pool.execute(
        "ALTER TABLE asset ADD CONSTRAINT no_progress CHECK (progress_unit IS NULL)"
    )
    hold = Hold()
    here.origin.serves("/a", hold)
    await here.create("/a")
    async with running(here.worker(Work.FETCH)):
        async with asyncio.timeout(10):
            await hold.half_way.wait()
        hold.released.set()
        await here.until_asset("stored")
    assert await here.pool.fetchval("SELECT losses FROM asset") == 0


async def test_stored_bytes_are_inspected_at_once_and_not_when_the_sweeper_looks(
    here: Site,
) -> None:
    here.origin.serves("/a", answer(ten_seconds()))
    here.analyzer.answer = Analysis(speech=AUDIO.speech, speakers=AUDIO.speakers)
    avatar = await here.create("/a")
    async with running(here.worker(Work.FETCH, Work.INSPECT)):  # its sweeper sleeps for a minute
        await here.until_asset("ready")
        await here.until("SELECT bool_and(entrypoint = 'derive') FROM pgqueuer")
    assert await here.status(avatar) == ("deriving", None)
    types = [row["type"] for row in await here.pool.fetch("SELECT type FROM event ORDER BY 1")]
    assert types == ["asset.ready", "asset.stored", "avatar.created"]
    assert len(here.analyzer.received) == 1


async def test_bytes_that_are_no_medium_are_refused_and_not_failed(here: Site) -> None:
    here.origin.serves("/a", answer(b"\x01\x02\x03" * 1000))
    avatar = await here.create("/a")
    async with running(here.worker()):
        await here.until_asset("rejected")
    assert await here.status(avatar) == ("failed", "rejected")
    assert await here.pool.fetchval("SELECT codes FROM verdict") == ["unsupported_format"]
    assert (await here.events("asset.rejected"), await here.events("asset.failed")) == (1, 0)


async def test_a_missing_file_fails_the_source_at_once(here: Site) -> None:
    avatar = await here.create("/gone")
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("failed")
    asset = await here.asset(avatar)
    assert (asset["error_code"], asset["http_status"]) == ("source_http_error", 404)
    assert (asset["attempts"], asset["source_url"]) == (0, None)
    assert len(here.origin.requests) == 1
    assert await here.status(avatar) == ("failed", "source")
    assert await here.pool.fetchval("SELECT count(*) FROM blob") == 0
    assert (await here.events("asset.failed"), await here.events("avatar.failed")) == (1, 1)


async def test_a_server_that_is_busy_twice_is_asked_a_third_time(here: Site) -> None:
    busy = answer(b"later", status=503)
    here.origin.serves("/a", in_turn(busy, busy, answer(BODY)))
    avatar = await here.create("/a")
    async with running(here.worker(Work.FETCH)):
        await here.until("SELECT attempts = 2 FROM asset")
        await here.until_asset("stored")
    asset = await here.asset(avatar)
    assert (asset["attempts"], asset["losses"], asset["failures"]) == (0, 0, 0)
    assert len(here.origin.requests) == 3
    assert await here.keys() == [await here.pool.fetchval("SELECT key FROM blob")]


async def test_a_server_that_stays_busy_is_given_up_after_six_attempts(here: Site) -> None:
    here.origin.serves("/a", answer(b"later", status=503))
    avatar = await here.create("/a")
    await here.pool.execute("UPDATE asset SET attempts = 5")
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("failed")
    asset = await here.asset(avatar)
    assert (asset["error_code"], asset["http_status"]) == ("source_http_error", 503)
    assert len(here.origin.requests) == 1
    assert await here.status(avatar) == ("failed", "source")


async def test_a_signed_url_that_has_expired_is_never_requested(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    avatar = await here.create("/a?X-Amz-Date=20250101T000000Z&X-Amz-Expires=900&X-Amz-Signature=s")
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("failed")
    asset = await here.asset(avatar)
    assert (asset["error_code"], asset["attempts"]) == ("source_url_expired", 0)
    assert here.origin.connections == 0
    assert await here.status(avatar) == ("failed", "source")


async def test_no_retry_is_planned_for_after_a_signed_url_expires(here: Site) -> None:
    here.origin.serves("/a", answer(b"later", status=503))
    signed_at = now_utc().strftime("%Y%m%dT%H%M%SZ")
    avatar = await here.create(f"/a?X-Amz-Date={signed_at}&X-Amz-Expires=60&X-Amz-Signature=s")
    await here.pool.execute("UPDATE asset SET attempts = 4, source_expires_at = now() + '10 s'")
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("failed")
    assert (await here.asset(avatar))["error_code"] == "source_http_error"
    assert len(here.origin.requests) == 1


@pytest.mark.parametrize("honest", [True, False])
async def test_a_body_over_the_cap_leaves_nothing_behind(here: Site, *, honest: bool) -> None:
    if honest:
        here.origin.serves("/a", answer(b"\0" * (CAP_BYTES + 1)))
    else:
        here.origin.serves("/a", endless(b"\0" * 65_536))
    avatar = await here.create("/a")
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("failed")
    assert (await here.asset(avatar))["error_code"] == "source_too_large"
    assert await here.pool.fetchval("SELECT count(*) FROM blob") == 0
    assert await here.keys() == []


async def test_a_body_of_exactly_the_cap_is_kept(here: Site) -> None:
    here.origin.serves("/a", answer(b"\0" * CAP_BYTES))
    await here.create("/a")
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("stored")
    assert await here.pool.fetchval("SELECT size_bytes FROM blob") == CAP_BYTES


async def test_an_origin_that_dies_half_way_is_asked_again(here: Site) -> None:
    half = raw(head(200, {"Content-Length": str(len(BODY))}) + BODY[:1000])
    here.origin.serves("/a", in_turn(half, answer(BODY)))
    await here.create("/a")
    async with running(here.worker(Work.FETCH)):
        await here.until("SELECT attempts = 1 FROM asset")
        await here.until_asset("stored")
    assert await here.pool.fetchval("SELECT sha256 FROM blob") == sha256(BODY).hexdigest()
    assert await here.pool.fetchval("SELECT count(*) FROM blob") == 1
    assert len(await here.keys()) == 1


async def test_a_source_that_always_ends_early_fails_as_truncated(here: Site) -> None:
    here.origin.serves("/a", answer(BODY[:1000], length=len(BODY)))
    avatar = await here.create("/a")
    await here.pool.execute("UPDATE asset SET attempts = 5")
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("failed")
    assert (await here.asset(avatar))["error_code"] == "source_truncated"
    assert await here.pool.fetchval("SELECT count(*) FROM blob") == 0


async def test_a_store_that_is_away_for_a_moment_costs_a_wait_and_no_attempt_of_the_source(
    here: Site, tmp_path: Path
) -> None:
    here.origin.serves("/a", answer(BODY))
    avatar = await here.create("/a")
    await here.pool.execute("UPDATE asset SET attempts = 5")
    store = UnsteadyStore(tmp_path / "assets", failing=1)
    async with running(here.worker(Work.FETCH, store=store)):
        await here.until("SELECT waits = 1 AND attempts = 5 FROM asset")
        await here.until_asset("stored")
    asset = await here.asset(avatar)
    assert (asset["waits"], asset["attempts"]) == (0, 0)  # the inspection has its own patience


async def test_a_sources_attempts_do_not_use_up_the_patience_with_our_store(here: Site) -> None:
    here.origin.serves("/a", in_turn(answer(b"later", status=503), answer(BODY)))
    await here.create("/a")
    await here.pool.execute("UPDATE asset SET waits = 19")
    async with running(here.worker(Work.FETCH)):
        await here.until("SELECT waits = 19 AND attempts = 1 FROM asset")
        await here.until_asset("stored")


async def test_no_wait_for_our_store_is_planned_for_after_a_signed_url_expires(
    here: Site, tmp_path: Path
) -> None:
    here.origin.serves("/a", answer(BODY))
    signed_at = now_utc().strftime("%Y%m%dT%H%M%SZ")
    avatar = await here.create(f"/a?X-Amz-Date={signed_at}&X-Amz-Expires=60&X-Amz-Signature=s")
    await here.pool.execute("UPDATE asset SET waits = 4, source_expires_at = now() + '10 s'")
    store = UnsteadyStore(tmp_path / "assets", failing=9)
    async with running(here.worker(Work.FETCH, store=store)):
        await here.until_asset("failed")
    assert (await here.asset(avatar))["error_code"] == "internal"
    assert store.failing == 8


async def test_a_store_that_stays_away_is_our_fault_and_not_the_sources(
    here: Site, tmp_path: Path
) -> None:
    here.origin.serves("/a", answer(BODY))
    avatar = await here.create("/a")
    await here.pool.execute("UPDATE asset SET waits = 19")
    store = UnsteadyStore(tmp_path / "assets", failing=9)
    async with running(here.worker(Work.FETCH, store=store)):
        await here.until_asset("failed")
    asset = await here.asset(avatar)
    assert asset["error_code"] == "internal"
    assert asset["error_message"].endswith("(our store did not answer)")
    assert await here.status(avatar) == ("failed", "internal")


async def test_an_expired_url_does_not_hurry_the_inspection_of_bytes_that_are_stored(
    here: Site, tmp_path: Path
) -> None:
    """While the store is away, an inspection is tried again even after its URL has expired."""
    here.origin.serves("/a", answer(b"\x01\x02\x03" * 1000))
    await here.create("/a")
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("stored")
    await here.pool.execute("UPDATE asset SET source_expires_at = now() - interval '1 day'")
    store = UnsteadyStore(tmp_path / "assets", failing=1)
    async with running(here.worker(Work.INSPECT, store=store)):
        await here.until("SELECT waits = 1 FROM asset")
        await here.until_asset("rejected")


class Misreading(LocalStore):
    """A store that gives a wrong byte in its next *misread* loans."""

    def __init__(self, root: Path, *, misread: int) -> None:
        super().__init__(root)
        self.misread = misread

    @asynccontextmanager
    async def local_copy(self, key: str, *, sha256: str) -> AsyncIterator[Path]:
        if self.misread:
            self.misread -= 1
            sha256 = "0" * 64
        async with super().local_copy(key, sha256=sha256) as path:
            yield path


@pytest.mark.parametrize(("misread", "state"), [(2, "rejected"), (9, "failed")])
async def test_bytes_that_are_read_wrong_are_read_again_and_never_judged(
    here: Site, tmp_path: Path, misread: int, state: str
) -> None:
    here.origin.serves("/a", answer(b"\x01\x02\x03" * 1000))
    avatar = await here.create("/a")
    store = Misreading(tmp_path / "assets", misread=misread)
    async with running(here.worker(Work.FETCH, Work.INSPECT, store=store)):
        await here.until_asset(state)
    judged = await here.pool.fetchval("SELECT count(*) FROM verdict")
    if state == "rejected":
        assert (judged, store.misread) == (1, 0)
        return
    assert (judged, store.misread) == (0, 6)
    assert (await here.asset(avatar))["error_code"] == "internal"
    assert await here.status(avatar) == ("failed", "internal")


async def test_a_sealed_url_of_a_dropped_key_does_not_stop_the_worker(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    lost = await here.create("/a")
    other = Sealer.with_keys((Fernet.generate_key().decode(),))
    await here.pool.execute("UPDATE asset SET source_url = $1", other.seal("http://x/"))
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("failed")
        fine = await here.create("/a")
        await here.until("SELECT bool_or(state = 'stored') FROM asset")
    assert (await here.asset(fine))["state"] == "stored"
    assert (await here.asset(lost))["error_code"] == "internal"
    assert (await here.asset(lost))["claim"] == 1  # trying again would not bring the key back
