"""Portraits that come with their request: what is taken, what is refused, and that nothing stays.

Liars speak over bare sockets: no HTTP library sends what they send.
"""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from aiohttp import ClientResponse, FormData
from structlog.testing import capture_logs

from service.api import incoming
from service.db import blobs
from service.db.keys import Scope
from service.db.types import Pool
from service.domain import Status, Work
from service.errors import FailureCode, InternalError
from service.fetch.limits import FetchLimits
from service.ids import parse_id
from service.ingest.receiving import receiving
from service.ingest.settle import settle_failed
from storage.local import LocalStore
from storage.store import StoredAsset, StoreUnavailableError
from tests.api import Api, running_api, settings_for
from tests.forms import BOUNDARY, CONTENT_TYPE, Field, form, jpeg, png
from tests.integration.test_api import refusal, report
from tests.integration.test_pipeline import running, site
from tests.integration.test_settling import judge
from tests.rows import NOW, start
from validators.facts import Kind
from validators.rules import KINDS
from validators.verdict import Code

CAP_BYTES = 3 << 20  # over a block of the local store
AVATAR_FIELDS = {"id", "object", "name", "runtime_type", "status", "is_demo", "created_at"}
IMAGE = Field("image", png(), "me.png")
PAUSE_S = 0.5  # the patience of services that have little


@pytest.fixture
async def api(dsn: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(settings_for(dsn, tmp_path)) as running_:
        yield running_


@contextlib.asynccontextmanager
async def strict(
    dsn: str, folder: Path, *, idle_s: float = 20, total_s: float = 300
) -> AsyncIterator[Api]:
    """The same service with little room, and perhaps little patience."""
    settings = replace(
        settings_for(dsn, folder),
        max_portrait_bytes=CAP_BYTES,
        body_idle_timeout_s=idle_s,
        body_total_timeout_s=total_s,
    )
    async with running_api(settings) as running_:
        yield running_


@pytest.fixture
async def small(dsn: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with strict(dsn, tmp_path) as running_:
        yield running_


@pytest.fixture
async def hasty(dsn: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with strict(dsn, tmp_path, idle_s=PAUSE_S) as running_:
        yield running_


@pytest.fixture
async def brief(dsn: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with strict(dsn, tmp_path, total_s=2 * PAUSE_S) as running_:
        yield running_


async def send(
    api: Api, *fields: Field, boundary: str = BOUNDARY, **headers: str
) -> ClientResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content_type = CONTENT_TYPE.replace(BOUNDARY, boundary)
    return await api.post(
        "/v1/avatars",
        data=io.BytesIO(form(*fields, boundary=boundary)),
        headers={"Content-Type": content_type} | named,
    )


async def objects(api: Api) -> list[str]:
    return [stat.key async for stat in api.base.store.list()]


async def count(api: Api, table: str) -> int:
    rows: int = await api.base.pool.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 - a table of ours
    return rows


async def assert_nothing_is_left(api: Api) -> None:
    """No row, no job, no object and no half of one."""
    for table in ("avatar", "asset", "blob", "event", "pgqueuer", "source"):
        assert await count(api, table) == 0, table
    assert await objects(api) == []
    partials = api.base.settings.data_dir / "assets" / ".partial"
    assert not await asyncio.to_thread(lambda: list(partials.iterdir()))


async def assert_takes_the_next(api: Api) -> None:
    assert (await send(api, IMAGE)).status == 201


async def test_a_portrait_becomes_an_avatar_in_processing(api: Api) -> None:
    picture = jpeg(64)
    response = await send(
        api,
        Field("name", "  Zoë ".encode()),
        Field("image", picture, "ä.exe", ("Content-Type: application/octet-stream",)),
        Field("runtime_type", b"gaussian"),
    )
    assert response.status == 201
    avatar = await response.json()
    assert set(avatar) == AVATAR_FIELDS
    assert avatar["id"].startswith("av_")
    assert (avatar["object"], avatar["name"], avatar["runtime_type"]) == (
        "avatar",
        "Zoë",
        "gaussian",
    )
    assert (avatar["status"], avatar["is_demo"]) == ("processing", False)
    assert avatar["created_at"].endswith("Z")
    for spelling in (avatar["id"], str(parse_id(avatar["id"]))):
        assert await (await api.get(f"/v1/avatars/{spelling}")).json() == avatar
    verdict = await (await api.get(f"/v1/avatars/{avatar['id']}/verdict")).json()
    (source,) = verdict["sources"]
    assert (verdict["state"], source["role"], source["state"]) == ("inspecting", "image", "stored")
    asset = await (await api.get(f"/v1/assets/{source['asset_id']}")).json()
    assert (asset["sha256"], asset["size_bytes"]) == (sha256(picture).hexdigest(), len(picture))
    assert asset["source"] is None
    (key,) = await objects(api)
    assert b"".join([chunk async for chunk in api.base.store.open(key)]) == picture
    feed = (await (await api.get("/v1/events")).json())["data"]
    assert [event["type"] for event in feed] == ["avatar.created", "asset.stored"]
    assert feed[0]["data"]["roles"] == ["image"]
    assert (feed[1]["subject"], feed[1]["data"]["sha256"]) == (asset["id"], asset["sha256"])
    jobs = await api.base.pool.fetch("SELECT entrypoint, payload FROM pgqueuer")
    assert [tuple(job) for job in jobs] == [("inspect", asset["id"].encode())]


async def test_the_image_alone_is_enough(api: Api) -> None:
    avatar = await (await send(api, IMAGE)).json()
    assert (avatar["name"], avatar["runtime_type"]) == ("Custom Avatar", "mock")  # the setting's


async def test_a_form_as_an_http_library_sends_it_is_taken(api: Api) -> None:
    data = FormData(default_to_multipart=True)
    data.add_field("name", "Custom Avatar")
    data.add_field("image", png(), filename="portrait.png", content_type="image/png")
    assert (await api.post("/v1/avatars", data=data)).status == 201


async def test_a_form_as_curl_sends_it_is_taken(api: Api, tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "me.jpg").write_bytes, jpeg())
    curl = await asyncio.create_subprocess_exec(
        *("curl", "-sS", str(api.client.make_url("/v1/avatars")), "-w", "%{http_code}"),
        *("-H", f"Authorization: Bearer {api.key}", "-F", f"image=@{tmp_path}/me.jpg"),
        *("-F", "name=Custom Avatar", "-F", "runtime_type=avtr1", "-o", "/dev/null"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await curl.communicate()
    assert out == b"201"


@pytest.mark.parametrize("path", ["not-an-id", "av_0", "av_" + "0" * 26])
async def test_no_such_avatar_is_404(api: Api, path: str) -> None:
    response = await api.get(f"/v1/avatars/{path}")
    assert (response.status, (await refusal(response))["code"]) == (404, "avatar_not_found")


@pytest.mark.parametrize("key", [None, "k1"], ids=["once", "with a key"])
@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ([], "missing_field", "image"),
        ([Field("name", b"x")], "missing_field", "image"),
        ([Field("image", b"", "me.png")], "image_unsupported", "image"),
        ([Field("image", b"GIF89a" + bytes(64), "me.png")], "image_unsupported", "image"),
        ([Field("image", b"<svg/>", "me.svg"), Field("name", b"x")], "image_unsupported", "image"),
        ([Field("image", png()[:7], "me.png")], "image_unsupported", "image"),
        ([IMAGE, Field("runtime_type", b"nope")], "runtime_type_unsupported", "runtime_type"),
        ([IMAGE, Field("runtime_type", b"")], "runtime_type_unsupported", "runtime_type"),
        ([IMAGE, Field("name", b" ")], "invalid_field", "name"),
        ([IMAGE, Field("name", b"x" * 201)], "invalid_field", "name"),
        ([IMAGE, Field("name", b"a\x00b")], "invalid_field", "name"),
        ([IMAGE, Field("name", b"\xff")], "invalid_field", "name"),
        ([IMAGE, Field("name", b"a"), Field("name", b"b")], "invalid_field", "name"),
        ([IMAGE, IMAGE], "invalid_field", "image"),
        ([IMAGE, Field("voice", b"x")], "unknown_field", "voice"),
        ([Field("größe", bytes(9000)), IMAGE], "unknown_field", "größe"),
        ([Field("", b"")], "unknown_field", ""),
        ([Field("_charset_", b"utf-16"), IMAGE], "unknown_field", "_charset_"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_kept(
    api: Api, fields: list[Field], code: str, param: str, key: str | None
) -> None:
    headers = {} if key is None else {"Idempotency_Key": key}
    response = await send(api, *fields, **headers)
    error = await refusal(response)
    assert (response.status, error["type"], error["code"], error["param"]) == (
        422,
        "unprocessable",
        code,
        param,
    )
    await assert_nothing_is_left(api)
    await assert_takes_the_next(api)


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{}", {"Content-Type": "application/json"}, 415, "unsupported_media_type"),
        (form(IMAGE), {"Content-Type": "multipart/mixed; boundary=b"}, 415, None),
        (form(IMAGE), {"Content-Type": "multipart/form-data"}, 400, "malformed_body"),
        (form(IMAGE), {"Content-Encoding": "gzip"}, 415, "unsupported_content_encoding"),
        (form(IMAGE)[:-9], {}, 400, "malformed_body"),
        (b"", {}, 400, "malformed_body"),
        (form(Field("image", png() + bytes(CAP_BYTES))), {}, 413, "body_too_large"),
        (form(IMAGE, Field("name", b"x" * 5000)), {}, 413, "body_too_large"),
        (form(IMAGE) + b"more", {}, 400, "malformed_body"),
    ],
)
async def test_what_is_no_form_or_too_large_is_refused(
    small: Api, body: bytes, headers: dict[str, str], status: int, code: str | None
) -> None:
    sent = {"Content-Type": CONTENT_TYPE, "Idempotency-Key": "k"} | headers
    response = await small.post("/v1/avatars", data=io.BytesIO(body), headers=sent)
    error = await refusal(response)
    assert (response.status, error["type"]) == (status, "invalid_request")
    assert code in (None, error["code"])
    await assert_nothing_is_left(small)
    assert await count(small, "idempotency") == 0
    await assert_takes_the_next(small)


async def test_an_image_of_exactly_the_cap_is_taken(small: Api) -> None:
    picture = png().ljust(CAP_BYTES, b"\x00")
    assert (await send(small, Field("image", picture))).status == 201
    over = await send(small, Field("image", picture + b"\x00"))
    assert (over.status, (await refusal(over))["param"]) == (413, "image")


async def test_scope_policy_and_organisation_are_those_of_family_b(api: Api) -> None:
    reader = await api.as_other("acme", Scope.AVATARS_READ)
    assert (await send(reader, IMAGE)).status == 403
    lax = await send(api, IMAGE, Greenroom_Policy="lax")
    assert (lax.status, (await refusal(lax))["param"]) == (422, "Greenroom-Policy")
    platform = await api.as_other("*")
    unnamed = await send(platform, IMAGE)
    assert (unnamed.status, (await refusal(unnamed))["code"]) == (422, "missing_field")
    await assert_nothing_is_left(api)
    for_acme = await send(platform, IMAGE, Greenroom_Organisation="acme", Greenroom_Policy="strict")
    avatar = (await for_acme.json())["id"]
    assert (await api.get(f"/v1/avatars/{avatar}")).status == 200
    rows = await api.base.pool.fetch("SELECT organisation_id, policy FROM asset")
    assert [tuple(row) for row in rows] == [("acme", "strict")]
    stranger = await api.as_other("rival")
    assert (await stranger.get(f"/v1/avatars/{avatar}")).status == 404


async def test_a_failed_avatar_says_why(api: Api) -> None:
    avatar = await (await send(api, IMAGE)).json()
    asset_id = await api.base.pool.fetchval("SELECT id FROM asset")
    run = await start(api.base.pool, asset_id, Work.INSPECT)
    async with api.base.pool.acquire() as conn:
        await settle_failed(conn, run, InternalError(FailureCode.INTERNAL), now=NOW)
    failed = await (await api.get(f"/v1/avatars/{avatar['id']}")).json()
    assert set(failed) == AVATAR_FIELDS | {"failure_reason"}
    assert failed["status"] == "failed"
    assert failed["failure_reason"].endswith(".")


async def test_equal_pictures_of_one_organisation_are_one_object(api: Api) -> None:
    for _ in range(2):
        assert (await send(api, IMAGE)).status == 201
    assert await count(api, "asset") == 2
    assert await count(api, "blob") == 1
    assert await objects(api) == [await api.base.pool.fetchval("SELECT key FROM blob")]


async def test_the_same_form_in_another_boundary_and_order_is_the_same_request(api: Api) -> None:
    name = Field("name", b"Ann")
    first = await send(api, IMAGE, name, Idempotency_Key="k1")
    again = await send(api, name, IMAGE, boundary="another", Idempotency_Key="k1")
    assert (first.status, again.status) == (201, 201)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["X-Request-Id"] == first.headers["X-Request-Id"]
    assert await again.read() == await first.read()
    assert await count(api, "avatar") == 1
    assert len(await objects(api)) == await count(api, "blob") == 1


async def test_a_key_is_not_taken_for_another_picture_not_even_after_a_refusal(api: Api) -> None:
    wrong = Field("image", b"GIF89a")
    refused = await send(api, wrong, Idempotency_Key="k1")
    replayed = await send(api, wrong, Idempotency_Key="k1")
    assert (refused.status, replayed.status) == (422, 422)
    assert await replayed.read() == await refused.read()
    assert replayed.headers["Idempotent-Replayed"] == "true"
    other = await send(api, IMAGE, Idempotency_Key="k1")
    assert (other.status, (await refusal(other))["code"]) == (422, "idempotency_key_reused")
    await assert_nothing_is_left(api)


async def test_a_wrong_key_is_refused_before_the_picture_is_read(api: Api) -> None:
    response = await send(api, Field("image", b"GIF"), Idempotency_Key="x" * 256)
    assert (await refusal(response))["code"] == "invalid_idempotency_key"


class MeetingStore(LocalStore):
    """Every put waits until *expected* of them have all their bytes."""

    expected = 0
    waiting = 0
    met: asyncio.Event

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
        self.waiting += 1
        if self.waiting == self.expected:
            self.met.set()
        await self.met.wait()
        return stored


async def test_simultaneous_uploads_with_one_key_make_one_avatar_and_keep_one_object(
    dsn: str, tmp_path: Path
) -> None:
    store = MeetingStore(tmp_path / "assets")
    store.expected, store.met = 6, asyncio.Event()
    async with store, running_api(settings_for(dsn, tmp_path), store=store) as api:
        async with asyncio.timeout(20):
            answers = await asyncio.gather(
                *(send(api, IMAGE, Idempotency_Key="k1") for _ in range(store.expected))
            )
        assert await count(api, "avatar") == 1
        assert {answer.status for answer in answers} <= {201, 409}
        assert len({await answer.read() for answer in answers if answer.status == 201}) == 1
        assert await objects(api) == [await api.base.pool.fetchval("SELECT key FROM blob")]


class BrokenStore(LocalStore):
    """Its disk is gone in the middle of a write."""

    async def put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expected_sha256: str | None = None,
        replace: bool = False,
    ) -> StoredAsset:
        del max_bytes, expected_sha256, replace
        await anext(body)
        raise StoreUnavailableError(key)


async def test_a_store_that_breaks_is_503_and_the_form_can_be_sent_again(
    dsn: str, tmp_path: Path
) -> None:
    async with (
        BrokenStore(tmp_path / "assets") as store,
        running_api(settings_for(dsn, tmp_path), store=store) as api,
    ):
        response = await send(api, IMAGE, Idempotency_Key="k1")
        assert (response.status, (await refusal(response))["code"]) == (503, "store_unreachable")
        await assert_nothing_is_left(api)
        assert await count(api, "idempotency") == 0


class SweptStore(LocalStore):
    """The sweeper gives a blob up, and has erased and *forgotten* it or not when it is written."""

    pool: Pool
    forgotten: bool

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
        async with self.pool.acquire() as conn:
            assert await blobs.give_up(conn, UUID(key))
            if self.forgotten:
                await blobs.forget(conn, UUID(key), ended=True)
        return stored


@pytest.mark.parametrize("forgotten", [False, True])
async def test_bytes_that_were_swept_meanwhile_make_no_avatar_and_do_not_stay(
    dsn: str, tmp_path: Path, pool: Pool, forgotten: bool
) -> None:
    store = SweptStore(tmp_path / "assets")
    store.pool, store.forgotten = pool, forgotten
    async with store, running_api(settings_for(dsn, tmp_path), store=store) as api:
        assert (await send(api, IMAGE)).status == 500
        await assert_nothing_is_left(api)


async def swept(api: Api, pool: Pool) -> None:
    """A worker sweeps, and erases what it finds."""
    async with site(pool, api.base.settings.data_dir) as here:
        worker = here.worker(Work.PURGE)
        await worker.sweep()
        async with running(worker):
            await here.until(
                "SELECT NOT EXISTS (SELECT 1 FROM pgqueuer WHERE entrypoint = 'purge')"
            )


async def test_an_upload_whose_process_died_is_found_and_erased(api: Api, pool: Pool) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield png()

    lost = receiving(api.base, "acme")
    upload = await lost.__aenter__()
    await upload.keep(body(), max_bytes=CAP_BYTES)  # and then nothing: no commit, no clean-up
    await swept(api, pool)
    assert len(await objects(api)) == 1  # its request may still run
    await api.base.pool.execute(
        "UPDATE blob SET created_at = now() - $1::interval",
        blobs.WRITTEN_WITHIN + timedelta(minutes=1),
    )
    await swept(api, pool)
    await assert_nothing_is_left(api)


async def test_a_sweep_leaves_what_counts_and_what_is_in_work(api: Api, pool: Pool) -> None:
    await send(api, IMAGE)
    await api.post(
        "/avatar-profiles/create",
        json={"name": "x", "sources": {"video_url": "https://media.example/v.mp4"}},
    )
    pending = await api.base.pool.fetchval("SELECT id FROM asset WHERE state = 'pending'")
    await api.base.pool.execute(
        "INSERT INTO blob (id, organisation_id, key, written_for) VALUES ($1, 'acme', 'k', $1)",
        pending,
    )
    await api.base.pool.execute(
        "UPDATE blob SET created_at = now() - interval '2 hours' WHERE state = 'stored'"
    )
    await swept(api, pool)
    assert await count(api, "blob") == 2
    await api.base.pool.execute("UPDATE blob SET created_at = now() - interval '2 hours'")
    await swept(api, pool)  # no run takes as long: nobody will come back for the object
    assert await api.base.pool.fetchval("SELECT string_agg(state, ' ') FROM blob") == "stored"


async def test_bytes_whose_commit_is_in_doubt_are_erased_only_if_they_do_not_count(
    api: Api,
) -> None:
    """The commit went through and its answer was lost: the database is asked, not our memory."""

    async def body() -> AsyncIterator[bytes]:
        yield png()

    with contextlib.suppress(ConnectionError):
        async with receiving(api.base, "acme") as upload:
            await upload.keep(body(), max_bytes=CAP_BYTES)
            await api.base.pool.execute(
                "UPDATE blob SET state = 'stored', sha256 = $1, size_bytes = 1", "0" * 64
            )
            raise ConnectionResetError
    assert len(await objects(api)) == 1


async def test_the_picture_is_inspected_by_the_same_job_as_a_fetched_one(
    api: Api, pool: Pool
) -> None:
    avatar = await (await send(api, Field("image", png(600)[:900]))).json()  # a PNG's first bytes
    async with (
        site(pool, api.base.settings.data_dir) as here,
        running(here.worker(Work.INSPECT)),
    ):
        await here.until_asset("rejected")
    failed = await (await api.get(f"/v1/avatars/{avatar['id']}")).json()
    assert failed["status"] == "failed"
    assert "unreadable" in failed["failure_reason"]
    verdict = await (await api.get(f"/v1/avatars/{avatar['id']}/verdict")).json()
    checks = verdict["sources"][0]["verdict"]["checks"]
    assert {check["code"] for check in checks} == {
        code.value for code in Code if Kind.IMAGE in KINDS[code]
    }


async def test_a_portrait_alone_goes_to_the_fitter_with_what_was_derived_from_it(
    api: Api, pool: Pool
) -> None:
    avatar = await (await send(api, IMAGE)).json()
    run = await start(pool, await pool.fetchval("SELECT id FROM asset"), Work.INSPECT)
    await judge(pool, run)
    async with (
        site(pool, api.base.settings.data_dir) as here,
        running(here.worker(Work.DERIVE)),
    ):
        await here.until("SELECT status = 'fitting' FROM avatar")
    assert await (await api.get(f"/v1/avatars/{avatar['id']}")).json() == avatar  # processing
    (event,) = (await (await api.get("/v1/events?type=avatar.ready_for_fitting")).json())["data"]
    assert set(event["data"]["sources"]) == {"image"}
    assert "portrait" in event["data"]
    assert not {"voice_reference", "preview"} & set(event["data"])
    assert (await report(api, avatar["id"], status="ready")).status == 200
    ready = await (await api.get(f"/v1/avatars/{avatar['id']}")).json()
    assert ready == avatar | {"status": Status.READY}


# Liars, over bare sockets.


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """A connection that has sent the head of an upload and nothing of its body."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, within_s: float = 10) -> tuple[int, dict[str, Any]]:
        async with asyncio.timeout(within_s):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode().lower().split("\r\n")
            (length,) = (line.split(":")[1] for line in lines if line.startswith("content-length"))
            return int(lines[0].split()[1]), json.loads(await self.reader.readexactly(int(length)))

    async def refusal(self, *, within_s: float = 10) -> tuple[int, str]:
        status, body = await self.answer(within_s=within_s)
        assert set(body["error"]) == {"type", "code", "message", "param", "request_id"}
        return status, body["error"]["code"]


@contextlib.asynccontextmanager
async def wire(api: Api, *headers: str) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.client.port)
    head = [
        "POST /v1/avatars HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {api.key}",
        f"Content-Type: {CONTENT_TYPE}",
        *headers,
    ]
    writer.write("\r\n".join([*head, "", ""]).encode())
    try:
        yield Wire(reader=reader, writer=writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


CHUNKED = "Transfer-Encoding: chunked"
OPENED = form(IMAGE).removesuffix(f"\r\n--{BOUNDARY}--\r\n".encode())  # an image without an end


async def until_nothing_is_left(api: Api) -> None:
    """Who goes away is noticed at once, but not by us."""
    for _ in range(100):
        with contextlib.suppress(AssertionError):
            return await assert_nothing_is_left(api)
        await asyncio.sleep(0.05)
    return await assert_nothing_is_left(api)


async def test_a_length_that_is_too_long_is_refused_before_the_body(small: Api) -> None:
    async with wire(small, f"Content-Length: {10 * CAP_BYTES}") as liar:
        assert await liar.refusal(within_s=1) == (413, "body_too_large")
    await assert_nothing_is_left(small)


@pytest.mark.parametrize("rest", [b"", form(IMAGE).removeprefix(OPENED)], ids=["cut", "and more"])
@pytest.mark.parametrize("headers", [[f"Content-Length: {len(OPENED)}"], []])
async def test_a_length_that_is_too_short_or_absent_cuts_the_form(
    small: Api, headers: list[str], rest: bytes
) -> None:
    """What comes after it is the next request, and none at all: its refusal may be the first."""
    async with wire(small, *headers) as liar:
        await liar.say(OPENED * bool(headers) + rest)
        status, code = await liar.refusal()
    assert (status, code) == (400, "malformed_request" if rest else "malformed_body")
    await assert_nothing_is_left(small)


async def test_a_length_that_is_never_met_ends_in_time(hasty: Api) -> None:
    async with wire(hasty, f"Content-Length: {len(form(IMAGE)) + 1}") as liar:
        await liar.say(form(IMAGE))
        assert await liar.refusal(within_s=5) == (408, "request_timeout")
    await assert_nothing_is_left(hasty)


async def test_chunks_are_taken_however_small(small: Api) -> None:
    async with wire(small, CHUNKED) as honest:
        for byte in form(IMAGE):
            honest.writer.write(chunk(bytes([byte])))
        await honest.say(chunk(b""))
        status, avatar = await honest.answer()
    assert (status, avatar["status"]) == (201, "processing")


async def test_chunks_that_are_none_are_refused(small: Api) -> None:
    async with wire(small, CHUNKED) as liar:
        await liar.say(chunk(OPENED) + b"zz\r\n")
        assert (await liar.refusal())[0] == 400
    await until_nothing_is_left(small)


async def flood(wire_: Wire, data: Callable[[], bytes], *, most: int) -> None:
    """Send until the service has had enough, or *most* bytes went."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < most and not wire_.reader._buffer:  # type: ignore[attr-defined]  # the answer has come
            await wire_.say(chunk(piece := data()))
            sent += len(piece)
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("begin", "piece", "status"),
    [
        pytest.param(OPENED, bytes(1 << 16), 413, id="an endless image"),
        pytest.param(b"", form(IMAGE).split(b"--greenroom-form--")[0], 422, id="endless parts"),
        pytest.param(
            f"--{BOUNDARY}\r\nX: ".encode(), b"x" * (1 << 16), 413, id="an endless header"
        ),
        pytest.param(
            f"--{BOUNDARY}".encode(), b"-greenroom" * 999, 413, id="a boundary that never ends"
        ),
        pytest.param(b"\r\n", b"\r\n" * 9999, 400, id="an endless preamble"),
        pytest.param(form(Field("name", b"x")), b"\r\n" * 9999, 413, id="an endless end"),
    ],
)
async def test_what_never_ends_is_cut_off(
    small: Api, begin: bytes, piece: bytes, status: int
) -> None:
    async with wire(small, CHUNKED) as liar:
        await liar.say(chunk(begin) if begin else b"")
        await flood(liar, lambda: piece, most=50 * CAP_BYTES)
        assert (await liar.refusal())[0] == status
    await until_nothing_is_left(small)
    await assert_takes_the_next(small)


@pytest.mark.parametrize("key", [None, "k1"])
async def test_a_thousand_parts_are_refused(small: Api, key: str | None) -> None:
    fields = [Field(f"f{number}", b"") for number in range(1000)]
    headers = {} if key is None else {"Idempotency_Key": key}
    response = await send(small, *fields, **headers)
    assert response.status == (422 if key is None else 413)
    await assert_nothing_is_left(small)


async def test_a_slow_drip_is_cut_off_by_the_clock(brief: Api) -> None:
    """Never quiet for long enough to be idle: the deadline of the whole ends it."""
    began_s = asyncio.get_running_loop().time()
    async with wire(brief, CHUNKED) as liar:
        await liar.say(chunk(OPENED[:200]))
        with contextlib.suppress(ConnectionError):
            while not liar.reader._buffer:  # type: ignore[attr-defined]  # the answer has come
                await liar.say(chunk(b"x"))
                await asyncio.sleep(PAUSE_S / 4)
        assert await liar.refusal() == (408, "request_timeout")
    assert asyncio.get_running_loop().time() - began_s > 2 * PAUSE_S - 0.1
    await until_nothing_is_left(brief)


async def test_a_drip_that_never_pauses_is_cut_off_by_its_rate(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window of ten seconds is no setting; here it is shorter."""
    limits = FetchLimits(rate_window_s=PAUSE_S)
    monkeypatch.setattr(incoming, "body_limits", lambda _: limits)
    async with wire(api, CHUNKED) as liar:
        await liar.say(chunk(OPENED[:200]))
        with contextlib.suppress(ConnectionError):
            while not liar.reader._buffer:  # type: ignore[attr-defined]  # the answer has come
                await liar.say(chunk(b"x"))
                await asyncio.sleep(PAUSE_S / 20)
        assert await liar.refusal() == (408, "request_timeout")
    await until_nothing_is_left(api)


async def test_a_json_body_that_drips_is_cut_off_too(hasty: Api) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.client.port)
    writer.write(
        f"POST /avatar-profiles/create HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hasty.key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
    )
    assert await Wire(reader=reader, writer=writer).refusal(within_s=5) == (408, "request_timeout")
    writer.close()


async def until_it_is_written(api: Api) -> None:
    """Its blob is committed: from here on there is something to leave behind."""
    async with asyncio.timeout(5):
        while not await count(api, "blob"):  # noqa: ASYNC110 - the database does not wake us
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("headers", [CHUNKED, "Content-Length: 999"])
async def test_json_whose_caller_goes_away_too_early_is_not_taken(api: Api, headers: str) -> None:
    """All of it came, but for the word that this is all: perhaps it is not."""
    said = b'{"name": "x", "sources": {"video_url": "https://media.example/v.mp4"}}'
    _, writer = await asyncio.open_connection("127.0.0.1", api.client.port)
    writer.write(
        f"POST /avatar-profiles/create HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\n"
        f"Content-Type: application/json\r\n{headers}\r\n\r\n".encode()
    )
    writer.write(chunk(said) if headers == CHUNKED else said)
    await asyncio.sleep(0.2)
    writer.close()
    await asyncio.sleep(0.3)
    await assert_nothing_is_left(api)


async def test_json_that_is_deeper_than_anybody_means_is_no_failure_of_ours(api: Api) -> None:
    """Python's parser gives up where ours says no; an Idempotency-Key has both read it."""
    response = await api.post(
        "/avatar-profiles/create",
        data=b"[" * 5000 + b"]" * 5000,
        headers={"Content-Type": "application/json", "Idempotency-Key": "k1"},
    )
    assert (response.status, (await refusal(response))["code"]) == (400, "malformed_body")


async def leave(liar: Wire) -> None:
    liar.writer.close()


async def abort(liar: Wire) -> None:
    liar.writer.transport.abort()


async def close_half(liar: Wire) -> None:
    liar.writer.write_eof()


@pytest.mark.parametrize("go", [leave, abort, close_half])
@pytest.mark.parametrize("headers", [CHUNKED, f"Content-Length: {CAP_BYTES}"])
async def test_who_goes_away_in_the_middle_leaves_nothing(
    small: Api, headers: str, go: Callable[[Wire], Awaitable[None]]
) -> None:
    data = OPENED + bytes(CAP_BYTES // 2)
    with capture_logs() as records:
        async with wire(small, headers) as liar:
            await liar.say(chunk(data) if headers == CHUNKED else data)
            await until_it_is_written(small)
            await go(liar)
            await until_nothing_is_left(small)
        await assert_takes_the_next(small)
    assert records == []  # it is no failure of ours


async def test_an_upload_that_stops_with_the_service_leaves_nothing(
    dsn: str, tmp_path: Path
) -> None:
    async with running_api(settings_for(dsn, tmp_path)) as api, wire(api, CHUNKED) as honest:
        await honest.say(chunk(OPENED))
        await until_it_is_written(api)
        runner = api.client.server.runner
        assert runner is not None
        assert runner.server is not None
        await runner.server.shutdown(0.1)  # as a signal does, with more patience
        await until_nothing_is_left(api)


async def test_memory_stays_flat_under_a_body_far_over_the_cap(small: Api) -> None:
    process, piece = psutil.Process(), bytes(1 << 18)
    before = process.memory_info().rss
    most = before
    async with wire(small, CHUNKED) as liar:
        await liar.say(chunk(OPENED))
        with contextlib.suppress(ConnectionError):
            for _ in range(1024):  # a quarter of a gigabyte
                await liar.say(chunk(piece))
                most = max(most, process.memory_info().rss)
        assert await liar.refusal() == (413, "body_too_large")
    assert most - before < 16 << 20
    await until_nothing_is_left(small)
