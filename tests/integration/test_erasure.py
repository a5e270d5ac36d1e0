"""Deleted means gone: what goes with an avatar or an asset, what stays, and what is refused."""

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import ClientResponse, FormData
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from structlog.testing import capture_logs

from service.db.events import ERASED
from service.db.keys import Scope
from service.db.types import Pool
from service.domain import AvatarRun, Work
from service.ids import avatar_spelling, new_id
from service.ingest.objects import begin_object
from service.ingest.scratch import scratch
from storage.local import LocalStore
from storage.store import StoreUnavailableError
from tests.api import Api, running_api, settings_for
from tests.facts import AUDIO, IMAGE
from tests.fakes.analyzer import FakeAnalyzer
from tests.fakes.origin import answer
from tests.integration.test_api import refusal
from tests.integration.test_pipeline import Hold, Site, running, ten_seconds
from tests.integration.test_upload_flow import begin, finalize, incoming, send, works
from tests.rows import start
from tests.traces import rows_as_text, traces
from validators.analysis.wire import Analysis, AnalysisRequest

SEEN_AND_HEARD = Analysis(
    speech=AUDIO.speech, speakers=AUDIO.speakers, faces=IMAGE.faces, overlays=IMAGE.overlays
)
AWAY = "UPDATE blob SET created_at = created_at - interval '1 day'"  # no writer can be alive


@pytest.fixture
async def api(dsn: str, tmp_path: Path) -> AsyncIterator[Api]:
    settings = replace(settings_for(dsn, tmp_path), fetch_ports=tuple(range(1, 1 << 16)))
    async with running_api(settings) as running_:
        yield running_


@pytest.fixture
async def here(api: Api, pool: Pool) -> AsyncIterator[Site]:
    async with works(api, pool) as site:
        site.analyzer.answer = SEEN_AND_HEARD
        yield replace(site, ports=replace(site.ports, sealer=api.base.sealer))


async def delete(api: Api, path: str) -> ClientResponse:
    return await api.call("DELETE", path)


async def feed(api: Api, **query: str) -> list[dict[str, Any]]:
    page = await (await api.get("/v1/events", params={"limit": "100", **query})).json()
    events: list[dict[str, Any]] = page["data"]
    return events


async def until_status(here: Site, avatar: str, status: str) -> None:
    await here.until("SELECT status = $2 FROM avatar WHERE id = $1", UUID(avatar), status)


async def count(here: Site, table: str) -> int:
    found: int = await here.pool.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 - a table of ours
    return found


async def until_purged(here: Site) -> None:
    """What is due is erased; what may come back is looked at again when it cannot any more."""
    worker = here.worker(Work.PURGE)
    async with running(worker):
        await here.until("SELECT NOT EXISTS (SELECT 1 FROM pgqueuer)")
        await here.pool.execute(AWAY)
        await worker.sweep()
        await here.until("SELECT NOT EXISTS (SELECT 1 FROM pgqueuer)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody whose traces are looked for: every mark stands nowhere else."""

    mark: bytes = field(default_factory=lambda: b"mark" + uuid4().hex.encode())

    @property
    def name(self) -> str:
        return f"Eileen {self.mark.decode()}"

    @property
    def voice(self) -> bytes:
        """Ten seconds that are accepted, with the mark in their midst."""
        sound = bytearray(ten_seconds())
        sound[5000 : 5000 + len(self.mark)] = self.mark
        return bytes(sound)

    @property
    def picture(self) -> bytes:
        """A PNG that is accepted, with the mark in a comment."""
        out, said = io.BytesIO(), PngInfo()
        said.add_text("Comment", self.mark.decode())
        Image.new("RGB", (600, 600), (90, 80, 120)).save(out, "PNG", pnginfo=said)
        return out.getvalue()

    @property
    def marks(self) -> list[bytes]:
        """Of what is derived the fake recipes tell by the SHA-256 of its source."""
        return [
            self.mark,
            *(sha256(data).hexdigest().encode() for data in (self.voice, self.picture)),
        ]

    def urls(self, here: Site) -> dict[str, str]:
        """Marked URLs at which the origin serves picture and voice."""
        mark = self.mark.decode()
        here.origin.serves(f"/{mark}.png", answer(self.picture))
        here.origin.serves(f"/{mark}.wav", answer(self.voice))
        return {
            f"{kind}_url": here.origin.url(f"/{mark}.{suffix}?sig={mark}")
            for kind, suffix in (("image", "png"), ("audio", "wav"))
        }


async def create(api: Api, person: Person, sources: dict[str, str]) -> str:
    """An avatar of family B; its UUID. The answer is kept under a marked key."""
    body = {"name": person.name, "sources": sources}
    headers = {"Idempotency-Key": person.mark.decode()}
    answered = await api.post("/avatar-profiles/create", json=body, headers=headers)
    assert answered.status == 200, await answered.text()
    profile: dict[str, str] = await answered.json()
    return profile["id"]


async def fitting(api: Api, here: Site, person: Person) -> str:
    """An avatar from URLs that waits for its fitter."""
    avatar = await create(api, person, person.urls(here))
    async with running(here.worker()):
        await until_status(here, avatar, "fitting")
    return avatar


async def assert_nothing_is_left_of(here: Site, api: Api, person: Person) -> None:
    folders = [api.base.settings.data_dir, *Path(tempfile.gettempdir()).glob("greenroom-derive-*")]
    assert await traces(here.pool, here.store, folders, person.marks) == []


async def test_nothing_is_left_of_a_deleted_avatar_but_the_places_of_its_events(
    api: Api, here: Site
) -> None:
    person = Person()
    avatar = await fitting(api, here, person)
    before = await feed(api)
    assert "table idempotency" in await traces(here.pool, here.store, [], person.marks)
    rows = await here.pool.fetch("SELECT id, origin FROM asset")
    origins = {str(row["id"]): row["origin"] for row in rows}
    assert (await delete(api, f"/v1/avatars/{avatar}")).status == 204
    await until_purged(here)
    await assert_nothing_is_left_of(here, api, person)
    empty = ("avatar", "asset", "source", "derived", "verdict", "idempotency", "blob", "pgqueuer")
    assert {table: await count(here, table) for table in empty} == dict.fromkeys(empty, 0)
    assert await here.keys() == []
    after = await feed(api)
    last = len(before)
    kept = ("id", "type", "subject", "sequence", "time")
    assert [[event[name] for name in kept] for event in after[:last]] == [
        [event[name] for name in kept] for event in before
    ]
    assert all(event["data"] == ERASED for event in after[:last])
    assert not any("traceparent" in event or "dataschema" in event for event in after[:last])
    assert [event["type"] for event in after[last:]] == ["avatar.deleted", *["asset.deleted"] * 4]
    for subject in {event["subject"] for event in after}:
        numbers = [int(event["sequence"]) for event in after if event["subject"] == subject]
        assert numbers == list(range(1, len(numbers) + 1))
    assert after[last]["data"] == {"avatar": {"id": avatar_spelling(UUID(avatar)), "uuid": avatar}}
    gone = [origins[event["subject"]] for event in after[last + 1 :]]
    assert gone == ["derive", "derive", "fetch", "fetch"]


@pytest.mark.parametrize("spelling", [str, avatar_spelling])
async def test_a_deleted_avatar_is_unknown_everywhere(
    api: Api, here: Site, spelling: Callable[[UUID], str]
) -> None:
    avatar = await fitting(api, here, Person())
    path = f"/v1/avatars/{spelling(UUID(avatar))}"
    (source,) = (await (await api.get(f"{path}/verdict")).json())["sources"][:1]
    assert (await delete(api, path)).status == 204
    for response in (
        await api.get(path),
        await api.get(f"/avatar-profiles/{avatar}"),
        await api.get(f"{path}/verdict"),
        await api.post(f"{path}/fitting", json={"status": "ready"}),
        await api.get(f"/v1/assets/{source['asset_id']}"),
        await api.get(f"/v1/assets/{source['asset_id']}/content"),
        await delete(api, path),
        await delete(api, f"/v1/assets/{source['asset_id']}"),
    ):
        assert response.status == 404
    assert (await (await api.get("/avatar-profiles")).json())["avatar_profiles"] == []


async def test_the_feed_finds_a_deleted_avatars_own_events_alone(api: Api, here: Site) -> None:
    avatar = await fitting(api, here, Person())
    assert (await delete(api, f"/v1/avatars/{avatar}")).status == 204
    found = [event["type"] for event in await feed(api, avatar=avatar)]
    assert found == ["avatar.created", "avatar.ready_for_fitting", "avatar.deleted"]


@pytest.mark.parametrize("what", ["avatars", "assets"])
@pytest.mark.parametrize("named", ["x", "av_x", str(UUID(int=5))])
async def test_what_is_not_there_cannot_be_deleted(api: Api, what: str, named: str) -> None:
    response = await delete(api, f"/v1/{what}/{named}")
    assert response.status == 404
    assert (await refusal(response))["code"] == f"{what[:-1]}_not_found"


async def test_nobody_deletes_what_is_anothers(api: Api, here: Site) -> None:
    person = Person()
    avatar = await create(api, person, person.urls(here))
    grant = await begin(api)
    other = await api.as_other("other", *Scope)
    assert (await delete(other, f"/v1/avatars/{avatar}")).status == 404
    for asset in await here.pool.fetch("SELECT id FROM asset"):
        assert (await delete(other, f"/v1/assets/{asset['id']}")).status == 404
    assert (await delete(other, f"/v1/assets/{grant['audio_id']}")).status == 404
    assert await here.pool.fetchval("SELECT state FROM upload") == "open"
    reader = await api.as_other("acme", Scope.AVATARS_READ, Scope.ASSETS_READ)
    assert (await delete(reader, f"/v1/avatars/{avatar}")).status == 403
    platform = await api.as_other("*", Scope.AVATARS_WRITE)
    assert (await delete(platform, f"/v1/avatars/{avatar}")).status == 204


async def test_an_asset_that_an_avatar_uses_is_not_deleted(api: Api, here: Site) -> None:
    """Neither a source, fetched or uploaded, nor what was derived; and nothing changes."""
    await fitting(api, here, Person())
    await from_uploads(api, here, Person())
    before = await rows_as_text(here.pool)
    used = await here.pool.fetch("SELECT id FROM asset")
    assert len(used) == 8
    for asset in used:
        response = await delete(api, f"/v1/assets/{asset['id']}")
        assert response.status == 409
        assert (await refusal(response))["code"] == "asset_in_use"
    assert await rows_as_text(here.pool) == before


async def uploaded(api: Api, kind: str, data: bytes) -> str:
    """The asset of a file that was sent and finalised."""
    grant = await begin(api, kind)
    assert (await send(api, grant, data)).status == 204
    assert (await finalize(api, grant, kind)).status == 200
    asset: str = grant[f"{kind}_id"]
    return asset


async def from_uploads(api: Api, here: Site, person: Person) -> str:
    """An avatar from uploaded files that waits for its fitter."""
    sources = {
        "image_id": await uploaded(api, "image", person.picture),
        "audio_id": await uploaded(api, "audio", person.voice),
    }
    avatar = await create(api, person, sources)
    async with running(here.worker()):
        await until_status(here, avatar, "fitting")
    return avatar


async def test_an_upload_outlives_its_avatar_without_what_was_derived_from_it(
    api: Api, here: Site
) -> None:
    person = Person()
    avatar = await from_uploads(api, here, person)
    assert (await delete(api, f"/v1/avatars/{avatar}")).status == 204
    await until_purged(here)
    rows = await here.pool.fetch("SELECT id, origin, state FROM asset")
    assert {(row["origin"], row["state"]) for row in rows} == {("upload", "ready")}
    assert len(await here.keys()) == len(rows) == 2
    for row in rows:
        assert (await delete(api, f"/v1/assets/{row['id']}")).status == 204
    await until_purged(here)
    await assert_nothing_is_left_of(here, api, person)
    assert await here.keys() == []
    states = await here.pool.fetch("SELECT DISTINCT state FROM upload")
    assert [row["state"] for row in states] == ["void"]  # their forms have not expired


async def share_sources(api: Api, here: Site) -> str:
    """A second avatar from the uploads of the first: its UUID."""
    used = await here.pool.fetch("SELECT role, asset_id FROM source")
    sources = {f"{row['role']}_id": str(row["asset_id"]) for row in used}
    return await create(api, Person(), sources)


async def test_what_two_avatars_share_goes_with_the_second(api: Api, here: Site) -> None:
    first = await from_uploads(api, here, Person())
    second = await share_sources(api, here)
    async with running(here.worker()):
        await until_status(here, second, "fitting")
    assert await count(here, "asset") == 4
    assert (await delete(api, f"/v1/avatars/{first}")).status == 204
    await until_purged(here)
    assert (await count(here, "asset"), await count(here, "derived")) == (4, 2)
    assert len(await here.keys()) == 4
    assert (await delete(api, f"/v1/avatars/{second}")).status == 204
    await until_purged(here)
    assert (await count(here, "asset"), len(await here.keys())) == (2, 2)


async def test_what_was_derived_goes_with_its_upload(api: Api, here: Site) -> None:
    """A recipe of an earlier release: no avatar uses it, and its upload is deleted by itself."""
    await from_uploads(api, here, Person())
    await here.pool.execute("DELETE FROM derived")
    await here.pool.execute("DELETE FROM source")
    (image,) = await here.pool.fetch(
        "SELECT id FROM asset WHERE kind = 'image' AND origin = 'upload'"
    )
    assert (await delete(api, f"/v1/assets/{image['id']}")).status == 204
    rows = await here.pool.fetch("SELECT kind FROM asset")
    assert [row["kind"] for row in rows] == ["audio", "audio"]
    await until_purged(here)
    assert len(await here.keys()) == 2


async def test_equal_bytes_of_another_avatar_stay(api: Api, here: Site) -> None:
    """One blob, two assets: whoever is deleted first takes no bytes along."""
    person = Person()
    first = await fitting(api, here, person)
    second = await create(api, Person(), person.urls(here))
    async with running(here.worker()):
        await until_status(here, second, "fitting")
    await until_purged(here)  # what the second has stored in vain
    objects = await here.keys()
    assert len(objects) == 4
    assert (await delete(api, f"/v1/avatars/{first}")).status == 204
    await until_purged(here)
    assert await here.keys() == objects
    assert (await delete(api, f"/v1/avatars/{second}")).status == 204
    await until_purged(here)
    assert await here.keys() == []


async def test_a_portrait_that_came_with_its_avatar_goes_with_it(api: Api, here: Site) -> None:
    person = Person()
    data = FormData()
    data.add_field("image", person.picture, filename="portrait.png")
    data.add_field("name", person.name)
    avatar = await (await api.post("/v1/avatars", data=data)).json()
    assert (await delete(api, f"/v1/avatars/{avatar['id']}")).status == 204
    await until_purged(here)
    await assert_nothing_is_left_of(here, api, person)
    assert await count(here, "asset") == 0


async def test_an_idempotency_key_is_free_again_after_its_avatar_is_deleted(
    api: Api, here: Site
) -> None:
    person = Person()
    first = await create(api, person, person.urls(here))
    assert await create(api, person, person.urls(here)) == first
    assert (await delete(api, f"/v1/avatars/{first}")).status == 204
    assert await create(api, person, person.urls(here)) != first


async def test_an_upload_that_was_not_finalised_takes_nothing_more(api: Api, here: Site) -> None:
    person, grant = Person(), await begin(api)
    assert (await send(api, grant, person.voice)).status == 204
    assert list((await incoming(api)).values()) == [person.voice]
    assert (await delete(api, f"/v1/assets/{grant['audio_id']}")).status == 204
    await assert_nothing_is_left_of(here, api, person)
    assert (await send(api, grant, person.voice)).status >= HTTPStatus.BAD_REQUEST
    assert (await finalize(api, grant)).status == 404
    assert (await delete(api, f"/v1/assets/{grant['audio_id']}")).status == 404
    await assert_nothing_is_left_of(here, api, person)
    assert await here.pool.fetchval("SELECT state FROM upload") == "void"
    assert await count(here, "event") == 0


async def test_an_upload_that_is_finalised_and_not_copied_yet_is_deleted(
    api: Api, here: Site
) -> None:
    person = Person()
    asset = await uploaded(api, "audio", person.voice)
    assert (await delete(api, f"/v1/assets/{asset}")).status == 204
    await until_purged(here)
    await assert_nothing_is_left_of(here, api, person)
    assert [event["type"] for event in await feed(api)] == ["asset.deleted"]
    assert (await count(here, "asset"), await here.keys()) == (0, [])


class AwayStore(LocalStore):
    """A store that erases nothing for now."""

    async def delete(self, key: str) -> None:
        raise StoreUnavailableError(key)


async def test_a_store_that_is_away_delays_the_bytes_and_nothing_else(api: Api, here: Site) -> None:
    person = Person()
    avatar = await fitting(api, here, person)
    assert (await delete(api, f"/v1/avatars/{avatar}")).status == 204
    away = AwayStore(api.base.settings.data_dir / "assets")
    async with running(here.worker(Work.PURGE, store=away)):
        await here.until("SELECT bool_and(attempts > 0) FROM pgqueuer")
    assert await here.pool.fetchval("SELECT count(*) FROM blob WHERE state = 'discarded'") == 4
    measured = await (await api.get("/metrics")).text()
    assert "greenroom_objects_to_erase 4.0" in measured
    assert "greenroom_erasure_age_seconds 0.0" not in measured
    await until_purged(here)
    await assert_nothing_is_left_of(here, api, person)
    assert await here.keys() == []
    measured = await (await api.get("/metrics")).text()
    assert "greenroom_objects_to_erase 0.0" in measured
    assert "greenroom_erasure_age_seconds 0.0" in measured


async def test_jobs_of_the_deleted_go_with_their_tracebacks(api: Api, here: Site) -> None:
    """A job that failed is held for ever, and what it raised may quote a row."""
    person, other = Person(), Person()
    avatar = await create(api, person, person.urls(here))
    await create(api, other, other.urls(here))
    await here.pool.execute(
        """
        INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority, traceback)
        SELECT id, 'exception', entrypoint, priority, jsonb_build_object('said', $1::text)
          FROM pgqueuer
        """,
        person.name,
    )
    await here.pool.execute("UPDATE pgqueuer SET status = 'failed'")
    assert (await delete(api, f"/v1/avatars/{avatar}")).status == 204
    rows = await here.pool.fetch("SELECT payload FROM pgqueuer")
    sources = await here.pool.fetch("SELECT asset_id FROM source")
    assert {UUID(row["payload"].decode()) for row in rows} == {row["asset_id"] for row in sources}
    assert len(rows) == 2
    sql = "SELECT count(*) FROM pgqueuer_log WHERE traceback IS NOT NULL"
    assert await here.pool.fetchval(sql) == 2


class HeldAnalyzer(FakeAnalyzer):
    """An analyzer that looks until it is let go."""

    def __init__(self) -> None:
        super().__init__(answer=SEEN_AND_HEARD)
        self.looking, self.released = asyncio.Event(), asyncio.Event()

    async def analyze(self, request: AnalysisRequest, fds: Sequence[int]) -> Analysis:
        found = await super().analyze(request, fds)
        self.looking.set()
        await self.released.wait()
        return found


def complaints(logs: list[MutableMapping[str, Any]]) -> list[str]:
    return [log["event"] for log in logs if log["log_level"] in {"error", "critical"}]


async def test_a_fetch_under_way_ends_with_its_asset(api: Api, here: Site) -> None:
    """At once: the origin never sends the rest."""
    person, hold = Person(), Hold()
    here.origin.serves("/held", hold)
    avatar = await create(api, person, {"video_url": here.origin.url("/held")})
    with capture_logs() as logs:
        async with running(here.worker()):
            async with asyncio.timeout(10):
                await hold.half_way.wait()
            await here.until("SELECT progress_done > 0 FROM asset")  # and no more will come
            assert (await delete(api, f"/v1/avatars/{avatar}")).status == 204
            async with asyncio.timeout(4):  # well before the fetch gives its source up
                while "claim_lost" not in [log["event"] for log in logs]:  # noqa: ASYNC110 - a log wakes nobody
                    await asyncio.sleep(0.01)
    assert complaints(logs) == []
    await until_purged(here)
    await assert_nothing_is_left_of(here, api, person)
    assert await here.keys() == []


async def test_an_inspection_under_way_writes_nothing_of_what_is_deleted(
    api: Api, here: Site
) -> None:
    person, analyzer = Person(), HeldAnalyzer()
    tools = replace(here.ports.tools, analyzer=analyzer)
    site = replace(here, ports=replace(here.ports, tools=tools))
    avatar = await create(api, person, person.urls(here))
    with capture_logs() as logs:
        async with running(site.worker()):
            async with asyncio.timeout(10):
                await analyzer.looking.wait()
            assert (await delete(api, f"/v1/avatars/{avatar}")).status == 204
            await here.until("SELECT NOT EXISTS (SELECT 1 FROM blob WHERE state = 'stored')")
            analyzer.released.set()
    assert complaints(logs) == []
    await until_purged(here)
    await assert_nothing_is_left_of(here, api, person)
    assert (await count(here, "verdict"), await here.keys()) == (0, [])


async def test_a_derivation_under_way_leaves_neither_object_nor_folder(
    api: Api, here: Site
) -> None:
    person = Person()
    here.recipes.released.clear()
    avatar = await create(api, person, person.urls(here))
    with capture_logs() as logs:
        async with running(here.worker()):
            async with asyncio.timeout(20):
                await here.recipes.waiting.wait()
            assert folders_of(avatar)
            assert (await delete(api, f"/v1/avatars/{avatar}")).status == 204
            here.recipes.released.set()
    assert complaints(logs) == []
    await until_purged(here)
    await assert_nothing_is_left_of(here, api, person)
    assert (folders_of(avatar), await here.keys()) == ([], [])


def folders_of(avatar: str) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"greenroom-*{avatar}*"))


async def test_a_killed_derivations_folder_goes_though_no_run_comes_back_for_it(
    here: Site,
) -> None:
    run = AvatarRun(
        id=new_id(),
        organisation_id="acme",
        policy="standard",
        claim=1,
        attempts=0,
        failures=0,
        losses=0,
        traceparent=None,
    )
    dead = Path(tempfile.mkdtemp(prefix=f"greenroom-derive-{run.id}-"))
    (dead / "portrait").write_bytes(b"a face")
    async with scratch(run) as alive:
        (alive / "portrait").write_bytes(b"a face")
        await here.worker().sweep()
        assert (dead.exists(), (alive / "portrait").exists()) == (False, True)
    assert not alive.exists()


async def test_an_object_whose_writer_died_is_erased_when_no_put_can_bring_it_back(
    api: Api, here: Site
) -> None:
    """Its blob was begun, and its object has come since the purge: the process was killed."""
    person = Person()
    avatar = await create(api, person, person.urls(here))
    (asset,) = await here.pool.fetch("SELECT * FROM asset WHERE kind = 'audio'")
    run = await start(here.pool, asset["id"], Work.FETCH)
    _, key = await begin_object(run, here.ports)
    assert (await delete(api, f"/v1/avatars/{avatar}")).status == 204
    async with running(here.worker(Work.PURGE)):
        await here.until("SELECT NOT EXISTS (SELECT 1 FROM pgqueuer)")
    await here.store.put(key, chunk(person.voice))
    assert await here.pool.fetchval("SELECT state FROM blob WHERE key = $1", key) == "discarded"
    await until_purged(here)
    await assert_nothing_is_left_of(here, api, person)
    assert (await count(here, "blob"), await here.keys()) == (0, [])


async def chunk(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_a_derivation_that_loses_what_it_shared_makes_it_again_uncounted(
    api: Api, here: Site
) -> None:
    """The second avatar's voice is to be made, its portrait is there; then that is deleted."""
    first = await from_uploads(api, here, Person())
    voice = "SELECT asset_id FROM derived WHERE recipe = 'voice_reference'"
    asset = await here.pool.fetchval(voice)
    await here.pool.execute("DELETE FROM derived WHERE recipe = 'voice_reference'")
    await here.pool.execute("DELETE FROM asset WHERE id = $1", asset)
    second = await share_sources(api, here)
    here.recipes.waiting.clear()
    here.recipes.released.clear()
    async with running(here.worker()):
        async with asyncio.timeout(20):
            await here.recipes.waiting.wait()
        assert (await delete(api, f"/v1/avatars/{first}")).status == 204
        here.recipes.released.set()
        await until_status(here, second, "fitting")
    row = await here.pool.fetchrow("SELECT attempts, failures, losses, claim FROM avatar")
    assert row is not None
    assert tuple(row.values()) == (0, 0, 0, 2)
    assert await here.pool.fetchval("SELECT count(*) FROM derived") == 2
