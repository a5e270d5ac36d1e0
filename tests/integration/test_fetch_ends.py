"""Every way in which the fetch of an asset can end, as its caller sees it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from service.domain import Work
from service.errors import FailureCode, SourceError, Who
from service.events.outbox import unit_of_work
from service.fetch.address import AddressGuard
from service.fetch.limits import FetchLimits
from service.fetch.source_url import parse_source_url
from service.ingest import pipeline
from service.ingest.accept import Request, accept
from service.times import now_utc
from service.wiring import open_worker
from tests.api import Api, running_api, settings_for
from tests.fakes.origin import (
    Behaviour,
    Origin,
    answer,
    endless,
    head,
    raw,
    redirect,
    stalled,
)
from tests.fakes.origin import Request as HttpRequest
from tests.fetching import fetching
from tests.integration.test_pipeline import BODY, Site, here, running
from tests.rows import ORGANISATION, SEALER, add_organisation, start
from validators.facts import Kind

__all__ = ["here"]  # a fixture

EXPIRED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What a source does, and what becomes of its fetch."""

    behaviour: Behaviour
    who: Who
    retryable: bool = False
    expected_sha256: str | None = None


ENDS: Mapping[FailureCode, End] = {
    FailureCode.SOURCE_URL_INVALID: End(behaviour=redirect("http://a..b/"), who=Who.CALLER),
    FailureCode.SOURCE_URL_FORBIDDEN: End(
        behaviour=redirect("http://169.254.169.254/"), who=Who.CALLER
    ),
    FailureCode.SOURCE_URL_EXPIRED: End(behaviour=answer(EXPIRED, status=403), who=Who.CALLER),
    FailureCode.SOURCE_UNREACHABLE: End(behaviour=raw(b""), who=Who.SOURCE_OWNER, retryable=True),
    FailureCode.SOURCE_HTTP_ERROR: End(behaviour=answer(b"", status=404), who=Who.SOURCE_OWNER),
    FailureCode.SOURCE_TIMEOUT: End(
        behaviour=stalled(head(200, {}) + BODY), who=Who.SOURCE_OWNER, retryable=True
    ),
    FailureCode.SOURCE_TOO_LARGE: End(behaviour=endless(BODY), who=Who.CALLER),
    FailureCode.SOURCE_EMPTY: End(behaviour=answer(b""), who=Who.SOURCE_OWNER),
    FailureCode.SOURCE_TRUNCATED: End(
        behaviour=answer(BODY, length=len(BODY) + 1), who=Who.SOURCE_OWNER, retryable=True
    ),
    FailureCode.SOURCE_IS_HTML: End(
        behaviour=answer(b"<!doctype html><title>Sign in</title>"), who=Who.CALLER
    ),
    FailureCode.SOURCE_CHECKSUM_MISMATCH: End(
        behaviour=answer(BODY), who=Who.CALLER, expected_sha256=sha256(b"other").hexdigest()
    ),
}


async def attempt(here: Site, path: str, *, expected_sha256: str | None = None) -> None:
    """One fetch of *path*, as a worker begins it."""
    guard, now = AddressGuard(blocks=(here.origin.block,)), now_utc()
    request = Request(
        organisation_id=ORGANISATION,
        name="Eileen",
        runtime_type="mock",
        policy="standard",
        sources={Kind.AUDIO: parse_source_url(here.origin.url(path), guard)},
        expected_sha256={Kind.AUDIO: expected_sha256} if expected_sha256 else {},
        traceparent=None,
    )
    async with here.pool.acquire() as conn:
        await add_organisation(conn)
        async with unit_of_work(conn, now=now) as work:
            avatar = await accept(work, request, SEALER, now=now)
    run = await start(here.pool, (await here.asset(avatar))["id"], Work.FETCH)
    limits = FetchLimits(connect_s=2, idle_s=0.5)
    async with fetching(guard=guard, limits=limits) as fetcher:
        await pipeline.fetch(run, replace(here.ports, fetcher=fetcher))


def test_every_code_of_a_fetch_has_an_end_here() -> None:
    others = {FailureCode.ASSET_NOT_FOUND, FailureCode.INTERNAL}
    assert set(ENDS) == set(FailureCode) - others


@pytest.mark.parametrize("code", ENDS)
async def test_a_fetch_ends_in_its_code_and_keeps_no_bytes(here: Site, code: FailureCode) -> None:
    end = ENDS[code]
    here.origin.serves("/a", end.behaviour)
    with pytest.raises(SourceError) as caught:
        await attempt(here, "/a", expected_sha256=end.expected_sha256)
    error = caught.value
    assert (error.code, error.who, error.retryable) == (code, end.who, end.retryable)
    assert await here.keys() == []


async def test_bytes_with_the_checksum_that_was_given_are_stored(here: Site) -> None:
    here.origin.serves("/a", answer(BODY))
    await attempt(here, "/a", expected_sha256=sha256(BODY).hexdigest())
    assert len(await here.keys()) == 1


@pytest.mark.parametrize("wrong", ["A" * 64, "g" * 64, "a" * 63])
async def test_the_database_takes_no_other_checksum(here: Site, wrong: str) -> None:
    here.origin.serves("/a", answer(BODY))
    await attempt(here, "/a")
    with pytest.raises(Exception, match="asset_expected_sha256_shape"):
        await here.pool.execute("UPDATE asset SET expected_sha256 = $1", wrong)


def slowly(body: bytes, let_go: asyncio.Event) -> Behaviour:
    """Say how much is to come, send it in twentieths, and the last when it is let go."""

    async def behave(_: HttpRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"Content-Length": str(len(body))}))
        step = len(body) // 20
        for begin in range(0, len(body), step):
            if begin + step >= len(body):
                await let_go.wait()
            writer.write(body[begin : begin + step])
            await writer.drain()
            await asyncio.sleep(0.15)

    return behave


@asynccontextmanager
async def serving(dsn: str, folder: Path, origin: Origin) -> AsyncIterator[Api]:
    """The API, and a worker that fetches, as the composition root makes them."""
    settings = replace(settings_for(dsn, folder), fetch_allow=(origin.block,))
    async with (
        running_api(settings) as api,
        open_worker(api.base, frozenset({Work.FETCH})) as worker,
        running(worker),
    ):
        yield api


async def create(api: Api, **sources: str) -> str:
    """Create an avatar; where its verdict is."""
    body = {"name": "x", "sources": sources}
    created = await (await api.post("/avatar-profiles/create", json=body)).json()
    return f"/v1/avatars/{created['id']}/verdict"


async def until_not(api: Api, path: str, *states: str) -> dict[str, Any]:
    """The verdict at *path* once it is in none of *states*."""
    async with asyncio.timeout(30):
        while True:
            verdict: dict[str, Any] = await (await api.get(path)).json()
            if verdict["state"] not in states:
                return verdict
            await asyncio.sleep(0.05)


async def test_a_caller_sees_the_bytes_come(dsn: str, tmp_path: Path) -> None:
    let_go, body = asyncio.Event(), BODY * 4
    seen: list[float] = []
    async with Origin() as origin, serving(dsn, tmp_path, origin) as api:
        origin.serves("/v.mp4", slowly(body, let_go))
        digest = sha256(body).hexdigest()
        path = await create(api, video_url=origin.url("/v.mp4"), video_sha256=digest)
        async with asyncio.timeout(30):
            while len(seen) < 3:
                progress = (await (await api.get(path)).json())["progress"]
                if progress and progress["done"] and progress["done"] not in seen:
                    assert (progress["stage"], progress["unit"]) == ("fetching", "bytes")
                    assert progress["total"] == len(body)
                    seen.append(progress["done"])
                await asyncio.sleep(0.05)
        let_go.set()
        verdict = await until_not(api, path, "accepted", "fetching")
    assert seen == sorted(seen)
    assert seen[-1] < len(body)
    assert (verdict["state"], verdict["progress"]) == ("inspecting", None)


async def test_a_checksum_that_is_not_met_is_reported(dsn: str, tmp_path: Path) -> None:
    async with Origin() as origin, serving(dsn, tmp_path, origin) as api:
        origin.serves("/v.mp4", answer(BODY))
        path = await create(api, video_url=origin.url("/v.mp4"), video_sha256="A" * 64)
        verdict = await until_not(api, path, "accepted", "fetching")
    (source,) = verdict["sources"]
    assert (verdict["state"], verdict["cause"]) == ("failed", "source")
    assert source["error"]["code"] == "source_checksum_mismatch"
    assert (source["error"]["retryable"], source["error"]["who"]) == (False, "caller")
    assert len(origin.requests) == 1


URL = "https://m.example/v.mp4"


@pytest.mark.parametrize(
    ("sources", "param"),
    [
        ({"video_url": URL, "video_sha256": "a" * 63}, "sources.video_sha256"),
        ({"video_url": URL, "video_sha256": "g" * 64}, "sources.video_sha256"),
        ({"video_url": URL, "video_sha256": 5}, "sources.video_sha256"),
        ({"video_url": URL, "audio_sha256": "a" * 64}, "sources.audio_sha256"),
        ({"video_url": URL, "image_id": "x", "image_sha256": "a" * 64}, "sources.image_sha256"),
    ],
)
async def test_a_checksum_that_can_be_of_nothing_is_named(
    dsn: str, tmp_path: Path, sources: dict[str, object], param: str
) -> None:
    async with running_api(settings_for(dsn, tmp_path)) as api:
        refused = await api.post("/avatar-profiles/create", json={"name": "x", "sources": sources})
        assert refused.status == 422
        error = (await refused.json())["error"]
        assert (error["code"], error["param"]) == ("invalid_field", param)


async def test_a_checksum_is_kept_in_lower_case(dsn: str, tmp_path: Path) -> None:
    async with running_api(settings_for(dsn, tmp_path)) as api:
        await create(api, video_url=URL, video_sha256="AB" * 32)
        kept = await api.base.pool.fetchval("SELECT expected_sha256 FROM asset")
    assert kept == "ab" * 32
