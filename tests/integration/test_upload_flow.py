"""Files that are sent by a form: what takes them, what becomes of them, and what never counts."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import ClientResponse, FormData

from service.db import assets, uploads
from service.db.claims import ClaimLostError
from service.db.keys import Scope
from service.db.types import Pool
from service.domain import Work
from service.ids import new_id
from service.links import FORMS_PATH
from service.times import now_utc
from storage.local import LocalStore
from storage.store import AssetStat, AssetStore, StoredAsset, StoreUnavailableError
from tests.api import PUBLIC_URL, Api, running_api, settings_for
from tests.facts import AUDIO
from tests.forms import CONTENT_TYPE, Field, form
from tests.integration.test_api import refusal
from tests.integration.test_pipeline import Site, UnsteadyStore, running, site, ten_seconds
from validators.analysis.wire import Analysis
from validators.facts import Kind
from validators.policy import PolicyName

CAP_BYTES = 3 << 20  # over a block of the local store
HEARD = Analysis(speech=AUDIO.speech, speakers=AUDIO.speakers)
OTHER = b"\0\0\0\x20ftypM4A other" * 1000
Grant = dict[str, Any]  # what get_upload_url answers


@pytest.fixture
async def api(dsn: str, tmp_path: Path) -> AsyncIterator[Api]:
    settings = replace(settings_for(dsn, tmp_path), max_audio_bytes=CAP_BYTES)
    async with running_api(settings) as running_:
        yield running_


@asynccontextmanager
async def works(api: Api, pool: Pool) -> AsyncIterator[Site]:
    """Workers beside the service, on the same store."""
    async with site(pool, api.base.settings.data_dir) as here:
        here.analyzer.answer = HEARD
        yield here


async def begin(api: Api, kind: str = "audio", **headers: str) -> Grant:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await api.post(f"/uploads/{kind}/get_upload_url", headers=named)
    assert response.status == 200, await response.text()
    grant: Grant = await response.json()
    return grant


async def send(api: Api, grant: Grant, data: bytes, **more: str) -> ClientResponse:
    """Post the form as any client of S3 does: every field, then the file."""
    body = FormData(default_to_multipart=True)
    for name, value in (grant["upload_fields"] | more).items():
        body.add_field(name, value)
    body.add_field("file", io.BytesIO(data), filename="voice.wav")
    return await api.client.post(path_of(grant), data=body)


def path_of(grant: Grant) -> str:
    url: str = grant["upload_url"]
    assert url.startswith(PUBLIC_URL + FORMS_PATH)
    return url.removeprefix(PUBLIC_URL)


async def post(api: Api, grant: Grant, *fields: Field) -> ClientResponse:
    """The form, spelled out."""
    data = io.BytesIO(form(*fields))
    return await api.client.post(path_of(grant), data=data, headers={"Content-Type": CONTENT_TYPE})


async def finalize(api: Api, grant: Grant, kind: str = "audio") -> ClientResponse:
    body = {name: value for name, value in grant.items() if name.endswith("_id")}
    return await api.post(f"/uploads/{kind}/finalize_upload", json=body)


async def uploaded(api: Api, data: bytes) -> UUID:
    """The asset of a file that was sent and finalised."""
    grant = await begin(api)
    assert (await send(api, grant, data)).status == 204
    assert (await finalize(api, grant)).status == 200
    return UUID(grant["audio_id"])


async def incoming(api: Api) -> dict[str, bytes]:
    """What lies under keys that anybody with a form can write."""
    store = api.base.store
    return {
        stat.key: b"".join([chunk async for chunk in store.open(stat.key)])
        async for stat in store.list("incoming/")
    }


async def objects(api: Api) -> list[str]:
    return [stat.key async for stat in api.base.store.list()]


async def bytes_of(api: Api, asset_id: UUID) -> bytes:
    answer = await api.get(f"/v1/assets/{asset_id}/content")
    location = answer.headers["Location"].removeprefix(PUBLIC_URL)
    return await (await api.client.get(location)).read()


async def asset_of(api: Api, asset_id: UUID) -> dict[str, Any]:
    document: dict[str, Any] = await (await api.get(f"/v1/assets/{asset_id}")).json()
    return document


async def code_of(response: ClientResponse) -> tuple[int, str]:
    return response.status, (await refusal(response))["code"]


@pytest.mark.parametrize(
    ("kind", "max_bytes"), [("video", 500_000_000), ("image", 50_000_000), ("audio", CAP_BYTES)]
)
async def test_an_upload_is_a_form_with_a_limit_for_one_file(
    api: Api, kind: str, max_bytes: int
) -> None:
    grant = await begin(api, kind)
    assert set(grant) == {f"{kind}_id", "upload_url", "upload_fields", "max_file_size_bytes"}
    upload_id = UUID(grant[f"{kind}_id"])
    assert grant["max_file_size_bytes"] == max_bytes
    assert grant["upload_fields"] == {"key": f"incoming/{upload_id.hex}"}
    row = await api.base.pool.fetchrow("SELECT * FROM upload")
    assert row is not None
    assert (row["id"], row["organisation_id"], row["kind"]) == (upload_id, "acme", kind)
    assert (row["state"], row["max_bytes"], row["policy"]) == ("open", max_bytes, "standard")
    assert row["expires_at"] - row["created_at"] == timedelta(hours=1)
    assert (await api.get(f"/v1/assets/{upload_id}")).status == 404


async def test_a_sent_and_finalised_file_becomes_an_asset_that_is_judged(
    api: Api, pool: Pool
) -> None:
    grant, sound = await begin(api), ten_seconds()
    sent = await send(api, grant, sound, policy="x", **{"Content-Type": "audio/wav"})
    assert (sent.status, await sent.read()) == (204, b"")
    finalised = await finalize(api, grant)
    assert await finalised.json() == {"audio_id": grant["audio_id"]}
    asset_id = UUID(grant["audio_id"])
    pending = await asset_of(api, asset_id)
    assert (pending["state"], pending["kind"], pending["sha256"]) == ("pending", "audio", None)
    async with works(api, pool) as here, running(here.worker(Work.FETCH, Work.INSPECT)):
        await here.until_asset("ready")
    asset = await asset_of(api, asset_id)
    assert (asset["sha256"], asset["size_bytes"]) == (sha256(sound).hexdigest(), len(sound))
    assert (asset["source"], asset["verdict"]["verdict"]) == (None, "accepted")
    assert await bytes_of(api, asset_id) == sound
    feed = (await (await api.get("/v1/events")).json())["data"]
    assert [event["type"] for event in feed] == ["asset.stored", "asset.ready"]
    assert {event["subject"] for event in feed} == {str(asset_id)}
    assert [event["sequence"] for event in feed] == ["1".zfill(20), "2".zfill(20)]
    assert await objects(api) == [await pool.fetchval("SELECT key FROM blob")]
    assert await pool.fetchval("SELECT standalone AND origin = 'upload' FROM asset")


async def test_a_file_that_is_no_medium_is_rejected_and_not_failed(api: Api, pool: Pool) -> None:
    await uploaded(api, b"\x01\x02\x03" * 1000)
    async with works(api, pool) as here, running(here.worker(Work.FETCH, Work.INSPECT)):
        await here.until_asset("rejected")
        assert await here.events("asset.rejected") == 1
    assert await incoming(api) == {}


async def test_finalising_again_is_the_same_answer_and_one_asset_also_long_after(
    api: Api, pool: Pool
) -> None:
    grant = await begin(api)
    await send(api, grant, ten_seconds())
    first = await finalize(api, grant)
    again = await finalize(api, grant)
    async with works(api, pool) as here, running(here.worker(Work.FETCH)):
        await here.until_asset("stored")
    await pool.execute("DELETE FROM upload")  # as retention does
    late = await finalize(api, grant)
    assert [answer.status for answer in (first, again, late)] == [200, 200, 200]
    assert await first.json() == await again.json() == await late.json()
    assert await pool.fetchval("SELECT count(*) FROM asset") == 1
    assert await pool.fetchval("SELECT count(*) FROM pgqueuer WHERE entrypoint = 'fetch'") == 0
    await pool.execute("DELETE FROM asset")  # as deletion does
    assert await code_of(await finalize(api, grant)) == (404, "upload_not_found")


class MeetingStore(LocalStore):
    """Whoever asks for a size waits until two have asked."""

    barrier: asyncio.Barrier

    async def stat(self, key: str) -> AssetStat:
        found = await super().stat(key)
        await self.barrier.wait()
        return found


async def test_two_simultaneous_finalisings_make_one_asset(dsn: str, tmp_path: Path) -> None:
    settings = settings_for(dsn, tmp_path)
    async with running_api(settings) as api:
        grant = await begin(api)
        await send(api, grant, b"bytes")
        store = MeetingStore(tmp_path / "assets")
        store.barrier = asyncio.Barrier(2)
        async with store, running_api(settings, store=store) as met, asyncio.timeout(10):
            answers = await asyncio.gather(finalize(met, grant), finalize(met, grant))
        assert [answer.status for answer in answers] == [200, 200]
        assert await api.base.pool.fetchval("SELECT count(*) FROM asset") == 1
        assert await api.base.pool.fetchval("SELECT count(*) FROM pgqueuer") == 1


async def test_what_is_no_open_upload_of_the_caller_is_404(api: Api) -> None:
    grant = await begin(api)
    await send(api, grant, b"bytes")
    stranger = await api.as_other("rival")
    for caller, kind, id_ in (
        (stranger, "audio", grant["audio_id"]),
        (api, "audio", str(uuid4())),
        (api, "audio", "not-an-id"),
        (api, "video", grant["audio_id"]),
    ):
        response = await finalize(caller, {f"{kind}_id": id_}, kind)
        assert await code_of(response) == (404, "upload_not_found"), (kind, id_)
    assert await api.base.pool.fetchval("SELECT count(*) FROM asset") == 0
    assert (await finalize(api, grant)).status == 200
    assert await code_of(await finalize(stranger, grant)) == (404, "upload_not_found")


@pytest.mark.parametrize("change", ["state = 'void'", "expires_at = now() - interval '1 second'"])
async def test_an_upload_that_was_deleted_or_has_expired_is_404(api: Api, change: str) -> None:
    grant = await begin(api)
    await send(api, grant, b"bytes")
    await api.base.pool.execute(f"UPDATE upload SET {change}")  # noqa: S608 - literals above
    assert await code_of(await finalize(api, grant)) == (404, "upload_not_found")
    assert await api.base.pool.fetchval("SELECT count(*) FROM asset") == 0


async def test_finalising_before_anything_was_sent_is_400_and_can_be_done_later(api: Api) -> None:
    grant = await begin(api)
    assert await code_of(await finalize(api, grant)) == (400, "upload_missing")
    await send(api, grant, b"bytes")
    assert (await finalize(api, grant)).status == 200


async def test_a_file_over_its_limit_that_a_store_took_all_the_same_is_413(api: Api) -> None:
    grant = await begin(api)
    await api.base.store.put(grant["upload_fields"]["key"], once(bytes(CAP_BYTES + 1)))
    assert await code_of(await finalize(api, grant)) == (413, "upload_too_large")
    assert (await send(api, grant, b"less")).status == 204
    assert (await finalize(api, grant)).status == 200


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_field", "audio_id"),
        ({"video_id": str(uuid4())}, "missing_field", "audio_id"),
        ({"audio_id": 3}, "invalid_field", "audio_id"),
    ],
)
async def test_finalising_names_the_upload_in_the_field_of_its_kind(
    api: Api, body: dict[str, object], code: str, param: str
) -> None:
    response = await api.post("/uploads/audio/finalize_upload", json=body)
    error = await refusal(response)
    assert (response.status, error["code"], error["param"]) == (422, code, param)


async def test_uploads_are_of_three_kinds_and_want_the_scope_to_write(api: Api) -> None:
    for path in ("get_upload_url", "finalize_upload"):
        response = await api.post(f"/uploads/text/{path}", json={"text_id": str(uuid4())})
        assert await code_of(response) == (404, "route_not_found")
    reader = await api.as_other("acme", Scope.AVATARS_READ)
    for path in ("get_upload_url", "finalize_upload"):
        assert (await reader.post(f"/uploads/audio/{path}", json={})).status == 403


async def test_a_platform_key_names_whose_the_upload_is_and_the_header_its_policy(
    api: Api, pool: Pool
) -> None:
    platform = await api.as_other("*")
    unnamed = await platform.post("/uploads/audio/get_upload_url")
    assert await code_of(unnamed) == (422, "missing_field")
    lax = await api.post("/uploads/audio/get_upload_url", headers={"Greenroom-Policy": "lax"})
    assert (lax.status, (await refusal(lax))["param"]) == (422, "Greenroom-Policy")
    grant = await begin(platform, Greenroom_Organisation="acme", Greenroom_Policy="strict")
    await send(api, grant, ten_seconds())
    assert (await finalize(platform, grant)).status == 200
    row = await pool.fetchrow("SELECT organisation_id, policy FROM asset")
    assert row is not None
    assert tuple(row) == ("acme", PolicyName.STRICT)


# The local store's own form.


async def test_a_form_of_exactly_the_limit_lands_and_one_byte_more_leaves_nothing(
    api: Api,
) -> None:
    grant, whole = await begin(api), bytes(range(256)) * (CAP_BYTES // 256)
    key = grant["upload_fields"]["key"]
    assert await code_of(await send(api, grant, whole + b"\0")) == (413, "body_too_large")
    assert await incoming(api) == {}
    assert (await send(api, grant, whole)).status == 204
    assert await code_of(await send(api, grant, whole + b"\0")) == (413, "body_too_large")
    assert await incoming(api) == {key: whole}


async def test_the_last_file_of_a_form_that_is_used_again_wins(api: Api) -> None:
    grant = await begin(api)
    for data in (b"first", b"", b"second"):
        assert (await send(api, grant, data)).status == 204
        assert await incoming(api) == {grant["upload_fields"]["key"]: data}


async def test_fields_of_a_form_may_come_after_the_file(api: Api) -> None:
    grant = await begin(api)
    after = Field("x-amz-meta-\u00e4", b"\xff")
    assert (await post(api, grant, Field("file", b"bytes"), after)).status == 204
    assert await incoming(api) == {grant["upload_fields"]["key"]: b"bytes"}


FILE = Field("file", bytes(2 << 20), "v.wav")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (form(Field("key", b"k")), 422, "missing_field"),
        (form(FILE, Field("file", b"x")), 422, "invalid_field"),
        (form(FILE, Field("key", b"x" * 5000)), 413, "body_too_large"),
        (form(FILE)[:-9], 400, "malformed_body"),
        (form(FILE)[:-1000], 400, "malformed_body"),
        (form(FILE) + b"more", 400, "malformed_body"),
        (b"", 400, "malformed_body"),
    ],
)
async def test_what_is_no_form_with_one_file_changes_nothing(
    api: Api, body: bytes, status: int, code: str
) -> None:
    grant = await begin(api)
    await send(api, grant, b"good")
    response = await api.client.post(
        path_of(grant), data=io.BytesIO(body), headers={"Content-Type": CONTENT_TYPE}
    )
    assert await code_of(response) == (status, code)
    assert await incoming(api) == {grant["upload_fields"]["key"]: b"good"}
    json = await api.client.post(path_of(grant), json={"file": "x"})
    assert await code_of(json) == (415, "unsupported_media_type")


async def test_a_form_that_is_forged_or_a_link_to_bytes_is_403(api: Api) -> None:
    grant = await begin(api)
    path, links = path_of(grant), api.base.links
    key = grant["upload_fields"]["key"]
    hour = timedelta(hours=1)
    expired = replace(links, clock=lambda: now_utc() - 2 * hour)
    for wrong in (
        path[:-8] + "AAAAAAA=",
        f"{FORMS_PATH}nothing",
        FORMS_PATH + links.url(key, valid_for=hour, content_type="x").rsplit("/", 1)[1],
        expired.form(key, max_bytes=CAP_BYTES, valid_for=hour).url,
    ):
        response = await send(api, grant | {"upload_url": PUBLIC_URL + wrong}, b"bytes")
        assert await code_of(response) == (403, "signature_invalid")
    assert await incoming(api) == {}


async def test_a_key_in_the_fields_is_not_looked_at(api: Api) -> None:
    """The token says where the file goes: a form of one upload writes to no other."""
    grant, other = await begin(api), await begin(api)
    changed = grant | {"upload_fields": other["upload_fields"]}
    assert (await send(api, changed, b"bytes")).status == 204
    assert await incoming(api) == {grant["upload_fields"]["key"]: b"bytes"}


@pytest.mark.parametrize("change", ["state = 'finalised'", "state = 'void'", None])
async def test_a_form_whose_upload_is_over_takes_nothing(api: Api, change: str | None) -> None:
    grant = await begin(api)
    end = f"UPDATE upload SET {change}" if change else "DELETE FROM upload"  # noqa: S608 - literals above
    await api.base.pool.execute(end)
    assert await code_of(await send(api, grant, b"bytes")) == (410, "upload_closed")
    assert await incoming(api) == {}


async def test_a_form_whose_upload_is_over_is_refused_before_its_file_comes(api: Api) -> None:
    grant = await begin(api)
    await api.base.pool.execute("UPDATE upload SET state = 'void'")
    reader, writer = await asyncio.open_connection("127.0.0.1", api.client.port)
    head = [f"POST {path_of(grant)} HTTP/1.1", "Host: x", f"Content-Type: {CONTENT_TYPE}"]
    writer.write("\r\n".join([*head, "Content-Length: 1000", "", ""]).encode())
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 410 ")
    writer.close()
    await writer.wait_closed()


async def half_of(data: bytes, begun: asyncio.Event, rest: asyncio.Event) -> AsyncIterator[bytes]:
    yield data[: len(data) // 2]
    begun.set()
    await rest.wait()
    yield data[len(data) // 2 :]


@pytest.mark.parametrize("state", ["finalised", "void"])
async def test_a_file_that_is_on_its_way_when_its_upload_ends_never_lands(
    api: Api, state: str
) -> None:
    grant = await begin(api)
    await send(api, grant, b"first")
    begun, rest = asyncio.Event(), asyncio.Event()
    late = asyncio.create_task(
        api.client.post(
            path_of(grant),
            data=half_of(form(FILE), begun, rest),
            headers={"Content-Type": CONTENT_TYPE},
        )
    )
    async with asyncio.timeout(10):
        await begun.wait()
        await api.base.pool.execute("UPDATE upload SET state = $1", state)
        rest.set()
        assert await code_of(await late) == (410, "upload_closed")
    assert await incoming(api) == {grant["upload_fields"]["key"]: b"first"}


class HoldingStore(LocalStore):
    """A put that is held when its bytes have their name, before whoever put them hears of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.there = asyncio.Event()
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
        stored = await super().put(
            key, body, max_bytes=max_bytes, expected_sha256=expected_sha256, replace=replace
        )
        self.there.set()
        await self.released.wait()
        return stored


async def test_finalising_waits_for_a_file_that_is_about_to_land(dsn: str, tmp_path: Path) -> None:
    """So the file that it takes is the one that stays: what lands is in place by then."""
    settings = settings_for(dsn, tmp_path)
    async with (
        running_api(settings) as api,
        HoldingStore(tmp_path / "assets") as store,
        running_api(settings, store=store) as slow,
    ):
        grant = await begin(api)
        await send(api, grant, b"first")
        landing = asyncio.create_task(send(slow, grant, b"second"))
        async with asyncio.timeout(10):
            await store.there.wait()
            ending = asyncio.create_task(finalize(api, grant))
            await until_blocked(api.base.pool)
            assert await api.base.pool.fetchval("SELECT state FROM upload") == "open"
            store.released.set()
            assert (await landing).status == 204
            assert (await ending).status == 200
        assert list((await incoming(api)).values()) == [b"second"]


async def until_blocked(pool: Pool) -> None:
    """Until somebody waits for a lock of somebody else."""
    waits = """
        SELECT EXISTS (SELECT 1 FROM pg_stat_activity
                        WHERE wait_event_type = 'Lock' AND datname = current_database())
    """
    while not await pool.fetchval(waits):  # noqa: ASYNC110 - the database does not wake us
        await asyncio.sleep(0.01)


# The copy, and what comes after it.


class PausingStore(LocalStore):
    """A copy that is held after its first block."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.half_way = asyncio.Event()
        self.released = asyncio.Event()

    async def open(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        async for chunk in super().open(key, start=start, end=end):
            yield chunk
            self.half_way.set()
            await self.released.wait()


async def test_an_upload_url_used_again_changes_nothing_that_was_judged(
    api: Api, pool: Pool
) -> None:
    """Not after finalising, not while it is copied, not when it was judged; nor behind our back."""
    grant, sound = await begin(api), ten_seconds().ljust(CAP_BYTES, b"\0")
    await send(api, grant, sound)
    await finalize(api, grant)
    key, closed = grant["upload_fields"]["key"], (410, "upload_closed")
    assert await code_of(await send(api, grant, OTHER)) == closed
    async with (
        works(api, pool) as here,
        PausingStore(api.base.settings.data_dir / "assets") as store,
        running(here.worker(Work.FETCH, store=store)),
        running(here.worker(Work.INSPECT)),
    ):
        async with asyncio.timeout(10):
            await store.half_way.wait()
        assert await code_of(await send(api, grant, OTHER)) == closed
        await here.store.put(key, once(OTHER), replace=True)  # as a form of S3 would
        store.released.set()
        await here.until_asset("ready")
    assert await code_of(await send(api, grant, OTHER)) == closed
    asset = await asset_of(api, UUID(grant["audio_id"]))
    assert asset["sha256"] == sha256(sound).hexdigest()
    assert asset["verdict"]["media"]["sha256"] == sha256(sound).hexdigest()
    assert await bytes_of(api, UUID(grant["audio_id"])) == sound
    assert await incoming(api) == {}
    assert len(await objects(api)) == 1


async def failed_code(api: Api, pool: Pool, asset_id: UUID, store: AssetStore | None = None) -> str:
    async with works(api, pool) as here, running(here.worker(Work.FETCH, store=store)):
        await here.until_asset("failed")
        assert await here.events("asset.failed") == 1
    assert await pool.fetchval("SELECT count(*) FROM blob") == 0
    assert await objects(api) == []
    code: str = (await asset_of(api, asset_id))["error"]["code"]
    return code


async def test_an_upload_of_no_bytes_fails_as_an_empty_source(api: Api, pool: Pool) -> None:
    assert await failed_code(api, pool, await uploaded(api, b"")) == "source_empty"


async def test_a_file_that_is_gone_before_its_copy_fails_as_an_empty_source(
    api: Api, pool: Pool
) -> None:
    asset_id = await uploaded(api, b"bytes")
    await api.base.store.delete(uploads.incoming_key(asset_id))
    assert await failed_code(api, pool, asset_id) == "source_empty"


async def test_a_file_that_grew_over_its_limit_before_its_copy_fails_as_too_large(
    api: Api, pool: Pool
) -> None:
    asset_id = await uploaded(api, b"bytes")
    key = uploads.incoming_key(asset_id)
    await api.base.store.put(key, once(bytes(CAP_BYTES + 1)), replace=True)
    assert await failed_code(api, pool, asset_id) == "source_too_large"


async def test_a_store_that_is_away_is_asked_again(api: Api, pool: Pool) -> None:
    await uploaded(api, ten_seconds())
    store = UnsteadyStore(api.base.settings.data_dir / "assets", failing=1)
    async with works(api, pool) as here, running(here.worker(Work.FETCH, store=store)):
        await here.until_asset("stored")
    assert await incoming(api) == {}
    assert await pool.fetchval("SELECT count(*) FROM blob WHERE state = 'stored'") == 1
    assert len(await objects(api)) == 1


class UndeletingStore(LocalStore):
    """It cannot erase what lies under incoming/."""

    async def delete(self, key: str) -> None:
        if key.startswith("incoming/"):
            raise StoreUnavailableError("no disk")
        await super().delete(key)


async def test_a_file_that_cannot_be_erased_after_its_copy_stops_nothing(
    api: Api, pool: Pool
) -> None:
    asset_id = await uploaded(api, ten_seconds())
    async with (
        works(api, pool) as here,
        UndeletingStore(api.base.settings.data_dir / "assets") as store,
        running(here.worker(Work.FETCH, store=store)),
    ):
        await here.until_asset("stored")
    assert list(await incoming(api)) == [uploads.incoming_key(asset_id)]
    assert await pool.fetchval("SELECT failures + losses + attempts FROM asset") == 0


async def test_a_copy_that_was_overtaken_writes_nothing_and_leaves_no_object(
    api: Api, pool: Pool
) -> None:
    """The copy that counts has erased the file meanwhile: it was open, and is read to its end."""
    asset_id = await uploaded(api, ten_seconds().ljust(CAP_BYTES, b"\0"))
    async with (
        works(api, pool) as here,
        PausingStore(api.base.settings.data_dir / "assets") as store,
        running(slow := here.worker(Work.FETCH, store=store)),
    ):
        async with asyncio.timeout(10):
            await store.half_way.wait()
        other = here.worker(Work.FETCH)
        await other.handle(Work.FETCH, asset_id)
        assert (await asset_of(api, asset_id))["state"] == "stored"
        store.released.set()
        slow.drain()
    assert len(await objects(api)) == 1
    row = await pool.fetchrow("SELECT claim, state, losses FROM asset")
    assert row is not None
    assert tuple(row) == (2, "stored", 1)
    assert await pool.fetchval("SELECT count(*) FROM event") == 1


async def test_equal_files_of_one_organisation_are_one_object(api: Api, pool: Pool) -> None:
    ids = [await uploaded(api, ten_seconds()) for _ in range(2)]
    async with works(api, pool) as here, running(here.worker(Work.FETCH, Work.INSPECT)):
        await here.until_asset("ready")
    assert len(await objects(api)) == 1
    assert {(await asset_of(api, id_))["state"] for id_ in ids} == {"ready"}


async def test_a_finalised_upload_whose_job_was_lost_is_found_by_the_sweeper(
    api: Api, pool: Pool
) -> None:
    await uploaded(api, ten_seconds())
    await pool.execute("DELETE FROM pgqueuer")
    await pool.execute("UPDATE asset SET created_at = created_at - interval '1 minute'")
    async with works(api, pool) as here:
        await here.worker().sweep()
        assert await pool.fetchval("SELECT entrypoint FROM pgqueuer") == "fetch"
        async with running(here.worker(Work.FETCH)):
            await here.until_asset("stored")


async def test_a_run_that_does_not_hold_the_claim_is_told_no_key(api: Api, pool: Pool) -> None:
    asset_id = await uploaded(api, b"bytes")
    async with pool.acquire() as conn:
        run = await assets.start_run(conn, asset_id, Work.FETCH, now=now_utc())
        assert run is not None
        assert (await uploads.incoming_of(conn, run)).max_bytes == CAP_BYTES
        for late in (replace(run, claim=0), replace(run, id=new_id())):
            with pytest.raises(ClaimLostError):
                await uploads.incoming_of(conn, late)
    assert Kind.AUDIO is run.kind
