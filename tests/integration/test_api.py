"""The HTTP API on a real database: what callers may rely on, and what bad input gets."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import ClientPayloadError, ClientResponse, ServerDisconnectedError
from structlog.testing import capture_logs

from service.api import server
from service.db import assets, claims, idempotency
from service.db.claims import Progress
from service.db.keys import Scope
from service.domain import Cause, Settlement, Status
from service.errors import FailureCode, SourceError
from service.ids import avatar_spelling, parse_id
from service.ingest.settle import settle_failed, settle_underived
from service.times import now_utc
from storage.local import LocalStore
from storage.store import AssetStat, StoreUnavailableError
from tests.api import PUBLIC_URL, Api, running_api, settings_for
from tests.fakes.store import MemoryStore
from tests.integration.test_settling import judge
from tests.rows import (
    NOW,
    PAIR,
    add_avatar,
    assets_of,
    derive_all,
    start_deriving,
    store_all,
)
from validators.derive.recipes import Recipe
from validators.verdict import Decision, Outcome, PairCode, PairFinding, PairVerdict

VIDEO = {"name": "Founder", "sources": {"video_url": "https://media.example/v.mp4?sig=s3cret"}}
PAIR_OF_URLS = {
    "name": "Founder",
    "sources": {
        "image_url": "https://media.example/i.jpg",
        "audio_url": "https://media.example/a.wav",
    },
}
PROFILE_FIELDS = {"id", "video_preview_url", "name", "status", "status_message"}


@pytest.fixture
async def api(dsn: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(settings_for(dsn, tmp_path)) as running:
        yield running


async def create(api: Api, body: object = VIDEO, **headers: str) -> ClientResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.post("/avatar-profiles/create", json=body, headers=named)


async def refusal(response: ClientResponse) -> dict[str, Any]:
    """The error of an answer, once its envelope is what every refusal has."""
    body = await response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"type", "code", "message", "param", "request_id"}
    assert body["error"]["request_id"] == response.headers["X-Request-Id"]
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("body", [VIDEO, PAIR_OF_URLS])
async def test_creating_answers_with_a_pending_profile_that_can_be_read(
    api: Api, body: dict[str, Any]
) -> None:
    response = await create(api, body)
    assert response.status == 200
    profile = await response.json()
    assert set(profile) == PROFILE_FIELDS
    assert (profile["status"], profile["status_message"]) == ("pending", None)
    read = await api.get(f"/avatar-profiles/{profile['id']}")
    assert await read.json() == profile
    listed = await (await api.get("/avatar-profiles")).json()
    assert listed == {"avatar_profiles": [profile]}


async def test_an_avatar_is_found_under_both_spellings_of_its_id(api: Api) -> None:
    profile = await (await create(api)).json()
    other = avatar_spelling(parse_id(profile["id"]) or uuid4())
    assert await (await api.get(f"/avatar-profiles/{other}")).json() == profile
    assert (await api.get(f"/v1/avatars/{other}/verdict")).status == 200


async def test_the_secret_part_of_a_source_url_is_encrypted_and_never_shown(api: Api) -> None:
    profile = await (await create(api)).json()
    verdict = await (await api.get(f"/v1/avatars/{profile['id']}/verdict")).json()
    asset = await api.get(f"/v1/assets/{verdict['sources'][0]['asset_id']}")
    assert "s3cret" not in await asset.text()
    row = await api.base.pool.fetchrow("SELECT source_url, source_shown FROM asset")
    assert row is not None
    assert b"media.example" not in row["source_url"]
    assert api.base.sealer.open(row["source_url"]).endswith("?sig=s3cret")
    assert row["source_shown"] == "https://media.example/v.mp4"


URL = "https://m.example/"


def sources(**given: object) -> dict[str, object]:
    return {"name": "x", "sources": given}


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"sources": VIDEO["sources"]}, "missing_field", "name"),
        ({"name": "x"}, "missing_field", "sources"),
        ({"name": 3, "sources": VIDEO["sources"]}, "invalid_field", "name"),
        ({"name": "", "sources": VIDEO["sources"]}, "invalid_field", "name"),
        ({"name": "x" * 201, "sources": VIDEO["sources"]}, "invalid_field", "name"),
        ({"name": "a\x00b", "sources": VIDEO["sources"]}, "invalid_field", "name"),
        (sources(), "sources_incomplete", "sources"),
        (sources(image_url=URL), "sources_incomplete", "sources"),
        (sources(video_url=URL, video_id="1"), "source_conflict", "sources"),
        (sources(video_url=1), "invalid_field", "sources.video_url"),
        (sources(video_url="no url"), "source_url_invalid", "sources.video_url"),
        (sources(video_url="http://169.254.169.254/"), "source_url_forbidden", "sources.video_url"),
        (sources(video_url="file:///etc/passwd"), "source_url_forbidden", "sources.video_url"),
        (sources(video_id=str(UUID(int=7))), "asset_not_found", "sources.video_id"),
        ([], "invalid_field", None),
    ],
)
async def test_a_wrong_field_is_named(api: Api, body: object, code: str, param: str | None) -> None:
    response = await create(api, body)
    assert response.status == 422
    error = await refusal(response)
    assert (error["type"], error["code"], error["param"]) == ("unprocessable", code, param)
    assert await api.base.pool.fetchval("SELECT count(*) FROM avatar") == 0


async def test_family_b_ignores_fields_that_it_does_not_know(api: Api) -> None:
    assert (await create(api, {**VIDEO, "voice": "x"})).status == 200


@pytest.mark.parametrize(
    ("raw", "headers", "status", "code"),
    [
        (b"{", {}, 400, "malformed_body"),
        (b"\xff\xfe", {}, 400, "malformed_body"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b"x" * 70_000, {}, 413, "body_too_large"),
        (b"junk", {"Content-Encoding": "gzip"}, 415, "unsupported_content_encoding"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    api: Api, raw: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    sent = {"Content-Type": "application/json"} | headers
    response = await api.post("/avatar-profiles/create", data=raw, headers=sent)
    error = await refusal(response)
    assert (response.status, error["type"], error["code"]) == (status, "invalid_request", code)


async def test_a_body_without_a_length_is_capped_while_it_is_read(api: Api) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 4096

    response = await api.post(
        "/avatar-profiles/create", data=endless(), headers={"Content-Type": "application/json"}
    )
    assert (response.status, (await refusal(response))["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("path", "status", "type_", "code"),
    [
        ("/nowhere", 404, "not_found", "route_not_found"),
        ("/avatar-profiles/not-an-id", 404, "not_found", "avatar_not_found"),
        (f"/avatar-profiles/{UUID(int=7)}", 404, "not_found", "avatar_not_found"),
        (f"/v1/assets/{UUID(int=7)}", 404, "not_found", "asset_not_found"),
        ("/v1/events?after=!!", 400, "invalid_request", "invalid_cursor"),
        ("/v1/events?limit=0", 422, "unprocessable", "invalid_field"),
        ("/v1/events?type=nope", 422, "unprocessable", "invalid_field"),
        ("/v1/events?wait=61", 422, "unprocessable", "invalid_field"),
        ("/v1/bytes/forged", 403, "permission", "signature_invalid"),
        ("/schemas/events/nope/1", 404, "not_found", "schema_not_found"),
    ],
)
async def test_every_refusal_has_the_envelope(
    api: Api, path: str, status: int, type_: str, code: str
) -> None:
    response = await api.get(path)
    error = await refusal(response)
    assert (response.status, error["type"], error["code"]) == (status, type_, code)


async def test_a_method_that_a_path_does_not_take_is_405_and_says_which_it_takes(api: Api) -> None:
    response = await api.call("DELETE", "/avatar-profiles/create")
    error = await refusal(response)
    assert (response.status, error["code"]) == (405, "method_not_allowed")
    assert "POST" in response.headers["Allow"]


async def test_what_the_http_parser_refuses_has_the_envelope_too(api: Api) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.client.port)
    writer.write(b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b" 400 " in head.splitlines()[0]
    error = json.loads(body)["error"]
    assert (error["type"], error["code"]) == ("invalid_request", "malformed_request")
    assert error["request_id"].encode() in head


@pytest.mark.parametrize("said", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_never_ends_is_hung_up_on(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(server, "IDLE_S", 0.2)  # no setting
    async with running_api(settings_for(dsn, tmp_path)) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.client.port)
        writer.write(said)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    "header", ["", "Basic eDp5", "Bearer ", "Bearer sk_live_unknown", "Bearer sk_live_\udcff"]
)
async def test_no_valid_key_is_401(api: Api, header: str) -> None:
    response = await api.get("/avatar-profiles", headers={"Authorization": header})
    error = await refusal(response)
    assert (response.status, error["type"], error["code"]) == (
        401,
        "authentication",
        "invalid_api_key",
    )


async def test_a_key_without_the_scope_is_403(api: Api) -> None:
    reader = await api.as_other("acme", Scope.AVATARS_READ)
    response = await create(reader)
    error = await refusal(response)
    assert (response.status, error["code"]) == (403, "insufficient_scope")
    assert (await reader.get("/avatar-profiles")).status == 200


async def test_a_revoked_key_stops_working(api: Api) -> None:
    await api.base.pool.execute("UPDATE api_key SET revoked_at = now()")
    assert (await api.get("/avatar-profiles")).status == 401


async def test_another_organisation_sees_nothing(api: Api) -> None:
    profile = await (await create(api)).json()
    stranger = await api.as_other("rival")
    verdict = await (await api.get(f"/v1/avatars/{profile['id']}/verdict")).json()
    asset = verdict["sources"][0]["asset_id"]
    assert (await stranger.get(f"/v1/assets/{asset}")).status == 404
    assert (await stranger.get(f"/v1/assets/{asset}/content")).status == 404
    assert (await report(stranger, profile["id"], status="ready")).status == 404
    assert (await stranger.get(f"/avatar-profiles/{profile['id']}")).status == 404
    assert (await stranger.get(f"/v1/avatars/{profile['id']}/verdict")).status == 404
    assert await (await stranger.get("/avatar-profiles")).json() == {"avatar_profiles": []}
    feed = await (await stranger.get("/v1/events")).json()
    assert feed["data"] == []


async def test_a_platform_key_sees_all_and_names_whom_it_creates_for(api: Api) -> None:
    profile = await (await create(api)).json()
    platform = await api.as_other("*")
    assert (await platform.get(f"/avatar-profiles/{profile['id']}")).status == 200
    unnamed = await create(platform)
    assert (unnamed.status, (await refusal(unnamed))["code"]) == (422, "missing_field")
    for name in ("nobody", "*", "a\udcffb"):
        unknown = await create(platform, Greenroom_Organisation=name)
        assert unknown.status == 422
        assert (await refusal(unknown))["param"] == "Greenroom-Organisation"
    assert (await create(platform, Greenroom_Organisation="acme")).status == 200


async def test_request_ids_are_ours_or_the_callers_own_when_well_formed(api: Api) -> None:
    given = await api.get("/livez", headers={"X-Request-Id": "trace-me-12345"})
    assert given.headers["X-Request-Id"] == "trace-me-12345"
    odd = await api.get("/livez", headers={"X-Request-Id": "no spaces, please"})
    assert odd.headers["X-Request-Id"].startswith("req_")


async def test_the_callers_trace_goes_on_in_its_events(api: Api) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    await create(api, traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    feed = await (await api.get("/v1/events")).json()
    assert feed["data"][0]["traceparent"].split("-")[1] == trace


async def test_the_same_idempotency_key_replays_the_first_answer(api: Api) -> None:
    first = await create(api, Idempotency_Key="k1")
    again = await create(api, Idempotency_Key='"k1"')
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["X-Request-Id"] == first.headers["X-Request-Id"]
    assert await again.read() == await first.read()
    assert await api.base.pool.fetchval("SELECT count(*) FROM avatar") == 1


async def test_the_order_of_fields_makes_no_other_request(api: Api) -> None:
    await create(api, Idempotency_Key="k1")
    turned = dict(reversed(VIDEO.items()))
    assert list(turned) != list(VIDEO)
    again = await create(api, turned, Idempotency_Key="k1")
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_a_refusal_is_an_answer_that_is_kept_too(api: Api) -> None:
    first = await create(api, {"name": "x", "sources": {}}, Idempotency_Key="k1")
    again = await create(api, {"name": "x", "sources": {}}, Idempotency_Key="k1")
    assert (first.status, again.status) == (422, 422)
    assert await again.read() == await first.read()
    other = await create(api, VIDEO, Idempotency_Key="k1")
    assert (await refusal(other))["code"] == "idempotency_key_reused"


async def test_two_answers_under_one_key_cannot_both_commit(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the look-up had missed the first: the primary key decides."""
    await create(api, Idempotency_Key="k1")

    async def blind(*_: object, **__: object) -> None:
        return None

    monkeypatch.setattr(idempotency, "find", blind)
    assert (await create(api, Idempotency_Key="k1")).status == 500
    assert await api.base.pool.fetchval("SELECT count(*) FROM avatar") == 1


async def test_an_idempotency_key_is_not_taken_for_another_request(api: Api) -> None:
    await create(api, Idempotency_Key="k1")
    other = await create(api, PAIR_OF_URLS, Idempotency_Key="k1")
    assert (other.status, (await refusal(other))["code"]) == (422, "idempotency_key_reused")
    long = await create(api, Idempotency_Key="x" * 256)
    assert (long.status, (await refusal(long))["code"]) == (400, "invalid_idempotency_key")


async def test_simultaneous_requests_with_one_key_create_one_avatar(api: Api) -> None:
    answers = await asyncio.gather(*(create(api, Idempotency_Key="k1") for _ in range(8)))
    assert await api.base.pool.fetchval("SELECT count(*) FROM avatar") == 1
    assert {answer.status for answer in answers} <= {200, 409}
    bodies = {await answer.read() for answer in answers if answer.status == 200}
    assert len(bodies) == 1


async def test_lists_go_on_after_a_cursor_without_gap_or_repeat(api: Api) -> None:
    made = [(await (await create(api)).json())["id"] for _ in range(5)]
    first = await (await api.get("/avatar-profiles?limit=2")).json()
    ids = [profile["id"] for profile in first["avatar_profiles"]]
    await create(api)  # newer than the page: it must not shift what follows
    rest = await (await api.get(f"/avatar-profiles?limit=100&starting_after={ids[-1]}")).json()
    ids += [profile["id"] for profile in rest["avatar_profiles"]]
    assert ids == made[::-1]


async def test_the_feed_is_cloudevents_in_order_and_goes_on_after_its_cursor(api: Api) -> None:
    await create(api)
    await create(api)
    page = await (await api.get("/v1/events?limit=1")).json()
    assert page["has_more"] is True
    rest = await (await api.get(f"/v1/events?after={page['next_cursor']}")).json()
    assert rest["has_more"] is False
    event = page["data"][0]
    assert event["specversion"] == "1.0"
    assert event["source"] == "/greenroom/acme"
    assert event["sequence"] == "00000000000000000001"
    assert event["id"] != rest["data"][0]["id"]
    assert event["dataschema"].startswith(PUBLIC_URL)
    schema = await api.get(event["dataschema"].removeprefix(PUBLIC_URL))
    assert set((await schema.json())["required"]) <= set(event["data"])
    empty = await (await api.get(f"/v1/events?after={rest['next_cursor']}")).json()
    assert (empty["data"], empty["next_cursor"]) == ([], rest["next_cursor"])


async def test_the_feed_waits_for_the_next_event(api: Api) -> None:
    await api.get("/v1/events")  # the listener is up
    waiting = asyncio.create_task(api.get("/v1/events?wait=10"))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await create(api)
    async with asyncio.timeout(5):
        page = await (await waiting).json()
    assert [event["type"] for event in page["data"]] == ["avatar.created"]


async def test_a_wait_that_sees_nothing_ends_empty_and_in_time(api: Api) -> None:
    async with asyncio.timeout(5):
        page = await (await api.get("/v1/events?wait=1")).json()
    assert page["data"] == []


async def test_the_feed_can_be_narrowed_to_types_and_to_one_avatar(api: Api) -> None:
    mine = await add_avatar(api.base.pool)
    await add_avatar(api.base.pool)
    await store_all(api.base.pool, mine)
    page = await (await api.get(f"/v1/events?avatar={mine.id}")).json()
    assert [event["type"] for event in page["data"]] == ["avatar.created", "asset.stored"]
    page = await (await api.get("/v1/events?type=asset.stored,asset.ready")).json()
    assert [event["type"] for event in page["data"]] == ["asset.stored"]


async def fitting_avatar(api: Api) -> str:
    avatar = await add_avatar(api.base.pool, PAIR)
    for run in (await store_all(api.base.pool, avatar)).values():
        await judge(api.base.pool, run)
    await derive_all(api.base.pool, avatar)
    return str(avatar.id)


async def report(api: Api, avatar: str, **said: str) -> ClientResponse:
    return await api.post(f"/v1/avatars/{avatar}/fitting", json=said)


async def test_the_fitter_makes_an_avatar_ready_once(api: Api) -> None:
    avatar = await fitting_avatar(api)
    assert (await report(api, avatar, status="ready")).status == 200
    assert (await report(api, avatar, status="ready")).status == 200  # said again
    profile = await (await api.get(f"/avatar-profiles/{avatar}")).json()
    assert profile["status"] == "ready"
    page = await (await api.get("/v1/events?type=avatar.ready")).json()
    assert len(page["data"]) == 1
    late = await report(api, avatar, status="failed", code="too_late")
    assert (late.status, (await refusal(late))["code"]) == (409, "not_fitting")


async def test_the_fitter_can_fail_an_avatar_with_its_reason(api: Api) -> None:
    avatar = await fitting_avatar(api)
    await report(api, avatar, status="failed", code="bad_mesh", message="The mesh broke.")
    profile = await (await api.get(f"/avatar-profiles/{avatar}")).json()
    assert (profile["status"], profile["status_message"]) == ("failed", "The mesh broke.")
    page = await (await api.get("/v1/events?type=avatar.failed")).json()
    assert page["data"][0]["data"]["cause"] == "fitting"
    assert page["data"][0]["data"]["codes"] == ["bad_mesh"]


async def test_an_avatar_that_is_not_fitting_takes_no_report(api: Api) -> None:
    profile = await (await create(api)).json()
    response = await report(api, profile["id"], status="ready")
    assert (response.status, (await refusal(response))["code"]) == (409, "not_fitting")
    unknown = await report(api, profile["id"], status="ready", extra="x")
    assert (unknown.status, (await refusal(unknown))["code"]) == (422, "unknown_field")


async def test_ready_for_fitting_carries_what_the_fitter_needs(api: Api) -> None:
    avatar = await fitting_avatar(api)
    page = await (await api.get("/v1/events?type=avatar.ready_for_fitting")).json()
    data = page["data"][0]["data"]
    assert data["avatar"] == {"id": avatar_spelling(parse_id(avatar) or uuid4()), "uuid": avatar}
    assert (data["organisation"], data["runtime_type"]) == ("acme", "mock")
    assert set(data["sources"]) == {"image", "audio"}
    source = data["sources"]["audio"]
    assert source["content"] == f"/v1/assets/{source['asset']}/content"
    assert len(source["sha256"]) == 64
    for recipe, kind in (("portrait", "image"), ("voice_reference", "audio")):
        derived = data[recipe]
        assert derived["content"] == f"/v1/assets/{derived['asset']}/content"
        assert derived["media"]["kind"] == kind
        document = await (await api.get(f"/v1/assets/{derived['asset']}")).json()
        assert (document["recipe"], document["recipe_version"]) == (recipe, 1)
        assert document["derived_from"] == data["sources"][kind]["asset"]
        assert document["sha256"] == derived["sha256"] == document["media"]["sha256"]
    assert "preview" not in data  # there is no video


async def test_a_profile_has_a_signed_preview_once_there_is_one(api: Api) -> None:
    avatar = await add_avatar(api.base.pool)
    for run in (await store_all(api.base.pool, avatar)).values():
        await judge(api.base.pool, run)
    profile = await (await api.get(f"/avatar-profiles/{avatar.id}")).json()
    assert profile["video_preview_url"] is None
    await derive_all(api.base.pool, avatar)
    async with api.base.pool.acquire() as conn:
        preview = (await assets.derived_of(conn, avatar.id))[Recipe.PREVIEW]
    assert preview.derivation is not None
    made = f"preview of {preview.derivation.derived_from}".encode()  # as tests.rows hashes it

    async def body() -> AsyncIterator[bytes]:
        yield made

    await api.base.store.put(preview.key or "", body())
    profile = await (await api.get(f"/avatar-profiles/{avatar.id}")).json()
    (listed,) = (await (await api.get("/avatar-profiles")).json())["avatar_profiles"]
    for url in (profile["video_preview_url"], listed["video_preview_url"]):
        bytes_ = await api.client.get(url.removeprefix(PUBLIC_URL))  # without a key
        assert await bytes_.read() == made
        assert bytes_.headers["Content-Type"] == "video/mp4"
        assert bytes_.headers["Content-Disposition"] == "attachment"
        assert bytes_.headers["X-Content-Type-Options"] == "nosniff"
        assert bytes_.headers["Content-Security-Policy"] == "sandbox"


class SigningStore(LocalStore):
    """Signs without ever waiting, and remembers what else had run by each time."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.rounds = 0
        self.signed_in: list[int] = []

    async def signed_url(
        self,
        key: str,
        *,
        valid_for: timedelta,  # noqa: ARG002 - the protocol's
        content_type: str,  # noqa: ARG002 - the protocol's
        sha256: str | None = None,  # noqa: ARG002 - the protocol's
    ) -> str:
        self.signed_in.append(self.rounds)
        return f"/{key}"

    async def count_rounds(self) -> None:
        while True:
            self.rounds += 1
            await asyncio.sleep(0)


async def test_a_long_list_is_signed_while_others_are_served(dsn: str, tmp_path: Path) -> None:
    async with (
        SigningStore(tmp_path / "assets") as store,
        running_api(settings_for(dsn, tmp_path), store=store) as api,
    ):
        for _ in range(3):
            avatar = await add_avatar(api.base.pool)
            for run in (await store_all(api.base.pool, avatar)).values():
                await judge(api.base.pool, run)
            await derive_all(api.base.pool, avatar)
        other = asyncio.create_task(store.count_rounds())
        try:
            assert (await api.get("/avatar-profiles")).status == 200
        finally:
            other.cancel()
    assert len(set(store.signed_in)) == 3


async def test_a_verdict_shows_how_far_a_derivation_is_and_how_the_sources_compare(
    api: Api,
) -> None:
    avatar = await add_avatar(api.base.pool)
    for run in (await store_all(api.base.pool, avatar)).values():
        await judge(api.base.pool, run)
    deriving = await start_deriving(api.base.pool, avatar)
    progress = Progress(stage="portrait", done=0, total=3, unit="assets")
    async with api.base.pool.acquire() as conn:
        await claims.keep_progress(conn, deriving, progress)
    shown = await (await api.get(f"/v1/avatars/{avatar.id}/verdict")).json()
    assert (shown["state"], shown["checks"]) == ("deriving", [])
    assert shown["progress"] == {"stage": "portrait", "done": 0, "total": 3, "unit": "assets"}
    finding = PairFinding(
        code=PairCode.FACE_MISMATCH, outcome=Outcome.FAIL, value=0.9, message="Two people."
    )
    pairs = PairVerdict(verdict=Decision.REJECTED, policy="standard-1", checks=(finding,))
    to = Settlement(status=Status.FAILED, cause=Cause.REJECTED, codes=("face_mismatch",))
    async with api.base.pool.acquire() as conn:
        await settle_underived(conn, deriving, to, pairs, now=NOW)
    shown = await (await api.get(f"/v1/avatars/{avatar.id}/verdict")).json()
    assert (shown["state"], shown["cause"], shown["progress"]) == ("failed", "rejected", None)
    (check,) = shown["checks"]
    assert (check["code"], check["outcome"], check["value"]) == ("face_mismatch", "fail", 0.9)


@pytest.mark.parametrize(("age_s", "status"), [(870, 200), (901, 403)])
async def test_a_signed_url_is_good_for_fifteen_minutes(api: Api, age_s: int, status: int) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"abc"

    await api.base.store.put("k", body())
    then = now_utc() - timedelta(seconds=age_s)
    url = replace(api.base.links, clock=lambda: then).url(
        "k", valid_for=timedelta(minutes=15), content_type="audio/wav"
    )
    assert (await api.client.get(url)).status == status


@pytest.mark.parametrize(
    ("asked", "status", "got", "range_"),
    [
        ("bytes=0-1", 206, b"ab", "bytes 0-1/6"),
        ("bytes=4-", 206, b"ef", "bytes 4-5/6"),
        ("bytes=-2", 206, b"ef", "bytes 4-5/6"),
        ("bytes=2-99", 206, b"cdef", "bytes 2-5/6"),
        ("bytes=0-1,3-4", 200, b"abcdef", None),
        ("bytes=3-1", 200, b"abcdef", None),
        ("lines=1-2", 200, b"abcdef", None),
    ],
)
async def test_a_part_of_the_bytes_is_sent_as_players_ask_for_it(
    api: Api, asked: str, status: int, got: bytes, range_: str | None
) -> None:
    url = await stored_link(api, b"abcdef")
    response = await api.client.get(url, headers={"Range": asked})
    assert (response.status, await response.read()) == (status, got)
    assert response.headers.get("Content-Range") == range_
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Content-Security-Policy"] == "sandbox"
    unvalidated = await api.client.get(url, headers={"Range": asked, "If-Range": '"x"'})
    assert (unvalidated.status, await unvalidated.read()) == (200, b"abcdef")


async def test_a_part_past_the_end_is_416_and_says_how_many_bytes_there_are(api: Api) -> None:
    url = await stored_link(api, b"abcdef")
    response = await api.client.get(url, headers={"Range": "bytes=6-"})
    error = await refusal(response)
    assert (response.status, error["code"]) == (416, "range_not_satisfiable")
    assert response.headers["Content-Range"] == "bytes */6"


async def test_a_head_of_a_signed_url_tells_its_size_and_reads_no_bytes(api: Api) -> None:
    url = await stored_link(api, b"abcdef")
    response = await api.client.head(url)
    assert (response.status, await response.read()) == (200, b"")
    assert response.headers["Content-Length"] == "6"
    assert response.headers["Content-Type"] == "video/mp4"


async def stored_link(api: Api, body: bytes) -> str:
    async def chunks() -> AsyncIterator[bytes]:
        yield body

    await api.base.store.put("k", chunks())
    return await api.base.store.signed_url(
        "k", valid_for=timedelta(minutes=15), content_type="video/mp4"
    )


async def test_a_signed_url_of_erased_bytes_is_404(api: Api) -> None:
    url = await api.base.store.signed_url(
        "gone", valid_for=timedelta(minutes=15), content_type="audio/wav"
    )
    response = await api.client.get(url)
    assert (response.status, (await refusal(response))["code"]) == (404, "asset_not_found")


async def stored_asset(api: Api, body: bytes) -> tuple[UUID, str]:
    """An asset whose bytes are in the store and have the SHA-256 that the database promises: its
    id and its key.
    """
    avatar = await add_avatar(api.base.pool)
    await store_all(api.base.pool, avatar)
    asset = (await assets_of(api.base.pool, avatar))["video"]

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    await api.base.store.put(asset.key or "", chunks())
    for table, column in (("asset", "id"), ("blob", "key")):
        await api.base.pool.execute(
            f"UPDATE {table} SET sha256 = $1, size_bytes = $2 WHERE {column} = $3",  # noqa: S608 - literals
            sha256(body).hexdigest(),
            len(body),
            asset.id if table == "asset" else asset.key,
        )
    return asset.id, asset.key or ""


async def content_path(api: Api, asset_id: UUID) -> str:
    response = await api.get(f"/v1/assets/{asset_id}/content")
    assert response.status == 307
    return response.headers["Location"].removeprefix(PUBLIC_URL)


async def test_bytes_that_went_wrong_in_the_store_are_cut_off_before_they_are_whole(
    api: Api,
) -> None:
    body = bytes(range(256)) * (3 << 12)  # three blocks
    asset_id, key = await stored_asset(api, body)
    path = await content_path(api, asset_id)
    assert await (await api.client.get(path)).read() == body
    stored = api.base.settings.data_dir / "assets" / key
    stored.write_bytes(body[:-1] + b"x")
    with capture_logs() as records:
        response = await api.client.get(path)
        assert response.status == 200
        with pytest.raises((ClientPayloadError, ServerDisconnectedError)):
            await response.read()
    assert "answer_cut" in {record["event"] for record in records}
    # of a part nothing was promised: it comes as it lies there
    part = await api.client.get(path, headers={"Range": "bytes=0-9"})
    assert (part.status, await part.read()) == (206, body[:10])


async def test_a_small_file_that_went_wrong_in_the_store_is_503_and_no_byte_of_it_comes(
    api: Api,
) -> None:
    asset_id, key = await stored_asset(api, b"abc")
    path = await content_path(api, asset_id)
    for wrong in (b"abd", b"ab", b""):
        (api.base.settings.data_dir / "assets" / key).write_bytes(wrong)
        with capture_logs() as records:
            response = await api.client.get(path)
            error = await refusal(response)
        assert (response.status, error["code"]) == (503, "asset_bytes_lost")
        assert [record["event"] for record in records] == ["asset_damaged"]


async def test_an_assets_bytes_come_by_a_signed_url_and_cannot_run_anywhere(api: Api) -> None:
    asset_id, _ = await stored_asset(api, b"abc")
    path = await content_path(api, asset_id)
    bytes_ = await api.client.get(path)  # without a key
    assert await bytes_.read() == b"abc"
    assert bytes_.headers["Content-Disposition"] == "attachment"
    assert bytes_.headers["X-Content-Type-Options"] == "nosniff"
    assert bytes_.headers["Content-Security-Policy"] == "sandbox"
    pending = await add_avatar(api.base.pool)
    unstored = (await assets_of(api.base.pool, pending))["video"]
    refused = await api.get(f"/v1/assets/{unstored.id}/content")
    assert (refused.status, (await refusal(refused))["code"]) == (409, "asset_not_stored")


class Faulty(MemoryStore):
    """Gives a few bytes and some more, and then its disk is gone."""

    async def open(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        del key, start, end
        yield b"a"
        yield b"b"
        raise StoreUnavailableError("the disk is gone")

    async def stat(self, key: str) -> AssetStat:
        return AssetStat(key=key, size_bytes=3, modified_at=NOW)


async def test_a_download_that_fails_half_way_is_cut_and_never_looks_whole(
    dsn: str, tmp_path: Path
) -> None:
    async with running_api(settings_for(dsn, tmp_path), store=(store := Faulty())) as api:
        store.links = api.base.links
        avatar = await add_avatar(api.base.pool)
        await store_all(api.base.pool, avatar)
        asset = (await assets_of(api.base.pool, avatar))["video"]
        located = await api.get(f"/v1/assets/{asset.id}/content")
        path = located.headers["Location"].removeprefix(PUBLIC_URL)
        with pytest.raises((ClientPayloadError, ServerDisconnectedError)):
            await (await api.client.get(path)).read()


class Away(MemoryStore):
    """Its volume is not there."""

    async def stat(self, key: str) -> AssetStat:
        raise StoreUnavailableError(f"no disk for {key}")


async def test_a_store_that_cannot_be_reached_is_503_and_worth_a_retry(
    dsn: str, tmp_path: Path
) -> None:
    async with running_api(settings_for(dsn, tmp_path), store=(store := Away())) as api:
        store.links = api.base.links
        url = await store.signed_url("k", valid_for=timedelta(minutes=15), content_type="video/mp4")
        response = await api.client.get(url)
        error = await refusal(response)
    assert (response.status, error["code"]) == (503, "store_unreachable")
    assert response.headers["Retry-After"]


async def test_every_answer_has_a_request_id_streamed_ones_included(api: Api) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"abc"

    await api.base.store.put("k", body())
    url = await api.base.store.signed_url(
        "k", valid_for=timedelta(minutes=15), content_type="audio/wav"
    )
    response = await api.client.get(url)
    assert response.headers["X-Request-Id"].startswith("req_")


async def test_a_database_that_cannot_be_reached_is_503_and_worth_a_retry(api: Api) -> None:
    await api.base.pool.close()
    response = await api.get("/avatar-profiles")
    error = await refusal(response)
    assert (response.status, error["type"]) == (503, "service_unavailable")
    assert response.headers["Retry-After"]
    assert (await api.client.get("/livez")).status == 200


async def test_no_key_and_no_signature_reaches_the_log(api: Api) -> None:
    # without the key that the handler wants
    token = api.base.sealer.seal_values({"type": "video/mp4", "until": "9999999999"})
    with capture_logs() as records:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.client.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer sk_5ecret\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()
        assert (await api.client.get(f"/v1/bytes/{token}")).status == 500
    assert [record["event"] for record in records] == ["request_refused", "request_failed"]
    assert "5ecret" not in str(records)
    assert token not in str(records)


async def test_a_failed_sources_error_says_whether_it_may_pass(api: Api) -> None:
    for status, retryable in ((503, True), (404, False)):
        avatar = await add_avatar(api.base.pool)
        run = (await store_all(api.base.pool, avatar))["video"]
        error = SourceError(FailureCode.SOURCE_HTTP_ERROR, status=status)
        async with api.base.pool.acquire() as conn:
            await settle_failed(conn, run, error, now=NOW)
        verdict = await (await api.get(f"/v1/avatars/{avatar.id}/verdict")).json()
        assert verdict["sources"][0]["error"]["retryable"] is retryable
        assert verdict["sources"][0]["error"]["status"] == status


async def test_a_filtered_feed_goes_on_past_what_it_did_not_want(api: Api) -> None:
    await create(api)
    page = await (await api.get("/v1/events?type=webhook_endpoint.disabled")).json()
    assert page["data"] == []
    rest = await (await api.get(f"/v1/events?after={page['next_cursor']}")).json()
    assert rest["data"] == []


async def test_readiness_names_each_dependency_and_fails_while_draining(api: Api) -> None:
    response = await api.get("/readyz")
    body = await response.json()
    assert (response.status, body["status"]) == (200, "pass")
    assert {"database", "store", "queue"} <= set(body["checks"])
    assert all(check["latency_ms"] >= 0 for check in body["checks"].values())
    api.draining.set()
    response = await api.get("/readyz")
    assert (response.status, (await response.json())["draining"]) == (503, True)
    assert (await api.get("/livez")).status == 200


async def test_readiness_fails_while_a_migration_is_lacking(api: Api) -> None:
    await api.base.pool.execute("DELETE FROM migration")
    body = await (await api.get("/readyz")).json()
    assert body["checks"]["database"]["status"] == "fail"
    assert "migrations to apply" in body["checks"]["database"]["output"]


async def test_metrics_count_answers_by_route_and_never_by_path(api: Api) -> None:
    await create(api)
    await api.get(f"/avatar-profiles/{uuid4()}")
    text = await (await api.get("/metrics")).text()
    assert 'route="/avatar-profiles/{id}"' in text
    assert 'greenroom_queue_jobs{work="fetch"} 1.0' in text
