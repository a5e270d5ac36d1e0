"""Transfers that break off: what is taken up again, and what must never be put together."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from aiohttp.abc import ResolveResult
from structlog.testing import capture_logs

from service.domain import Work
from service.errors import FailureCode
from service.fetch.address import AddressGuard
from service.fetch.fetcher import Fetcher
from service.fetch.limits import FetchLimits
from storage.local import LocalStore
from tests.fakes.origin import Behaviour, Breaking, Origin, Request, answer, head, raw, redirect
from tests.fetching import fetching
from tests.integration.test_fetcher import MEDIA, NOW, SECRET, FakeResolver, failure, fetch
from tests.integration.test_pipeline import BODY, Site, here, running

__all__ = ["here"]  # a fixture

HALF = len(MEDIA) // 2
TAG = {"ETag": '"v1"'}
DATED = {
    "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
    "Date": "Thu, 01 Jan 2026 00:01:00 GMT",
}
QUICK = FetchLimits(resume_pause_s=0.01)


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as made:
        yield made


@asynccontextmanager
async def allowed(origin: Origin, limits: FetchLimits = QUICK) -> AsyncIterator[Fetcher]:
    async with fetching(guard=AddressGuard(blocks=(origin.block,)), limits=limits) as made:
        yield made


@pytest.fixture
async def fetcher(origin: Origin) -> AsyncIterator[Fetcher]:
    async with allowed(origin) as made:
        yield made


def ranges(origin: Origin) -> list[tuple[str | None, str | None]]:
    """What each request asked for, and on which condition."""
    return [
        (request.headers.get("range"), request.headers.get("if-range"))
        for request in origin.requests
    ]


@pytest.mark.parametrize("by_reset", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("headers", "validator"),
    [(TAG, '"v1"'), (DATED, DATED["Last-Modified"]), ({**DATED, **TAG}, '"v1"')],
)
async def test_a_broken_transfer_goes_on_where_it_broke(  # noqa: PLR0917 - parameters of pytest
    fetcher: Fetcher,
    origin: Origin,
    headers: dict[str, str],
    validator: str,
    chunked: bool,
    by_reset: bool,
) -> None:
    breaks = [1000, HALF]
    origin.serves(
        "/a",
        Breaking(body=MEDIA, breaks_at=breaks, headers=headers, chunked=chunked, by_reset=by_reset),
    )
    seen: list[tuple[int, int | None]] = []
    with capture_logs() as logs:
        body = await fetch(
            fetcher, origin.url(f"/a?{SECRET}"), progress=lambda *step: seen.append(step)
        )
    assert body == MEDIA
    assert ranges(origin) == [
        (None, None),
        ("bytes=1000-", validator),
        (f"bytes={HALF}-", validator),
    ]
    assert seen == sorted(seen, key=lambda step: step[0])
    assert seen[-1] == (SIZE, SIZE)
    assert origin.at_once == 1
    resumed = [each for each in logs if each["event"] == "fetch_resumed"]
    assert [(each["at_bytes"], each["resumes"]) for each in resumed] == [(1000, 1), (HALF, 2)]
    assert SECRET not in str(logs)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ETag": 'W/"v1"'},
        {"ETag": "v1"},
        {"ETag": 'W/"v1"', **DATED},  # who has a tag may not fall back on a date
        {**TAG, "Accept-Ranges": "none"},
        {"Last-Modified": DATED["Last-Modified"]},
        {**DATED, "Date": "Thu, 01 Jan 2026 00:00:59 GMT"},
        {**DATED, "Last-Modified": "yesterday"},
    ],
)
async def test_without_a_strong_validator_it_is_over(
    fetcher: Fetcher, origin: Origin, headers: dict[str, str]
) -> None:
    origin.serves("/a", Breaking(body=MEDIA, breaks_at=[HALF], headers=headers))
    error = await failure(fetcher, origin.url("/a"))
    assert (error.code, error.retryable) == ("source_truncated", True)
    assert len(origin.requests) == 1


async def test_what_broke_before_its_first_byte_is_not_resumed(
    fetcher: Fetcher, origin: Origin
) -> None:
    origin.serves("/a", Breaking(body=MEDIA, breaks_at=[0], headers=TAG))
    assert (await failure(fetcher, origin.url("/a"))).code is FailureCode.SOURCE_TRUNCATED
    assert len(origin.requests) == 1


async def test_slowness_is_not_resumed(origin: Origin) -> None:
    async def stall(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"Content-Length": str(SIZE), **TAG}) + MEDIA[:HALF])
        await writer.drain()
        await asyncio.sleep(3600)

    origin.serves("/a", stall)
    async with allowed(origin, FetchLimits(idle_s=0.3)) as fetcher:
        assert (await failure(fetcher, origin.url("/a"))).code is FailureCode.SOURCE_TIMEOUT
    assert len(origin.requests) == 1


SIZE = len(MEDIA)


def rest(
    *,
    begins: int = 0,
    ends: int = SIZE,
    of: object = SIZE,
    unit: str = "bytes",
    more: bytes = b"",
    **headers: str,
) -> Behaviour:
    """An answer to a request for the rest, right but for what is given. *begins* is counted from
    where the rest was asked for.
    """

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        asked = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        body = MEDIA[asked + begins : ends] + more
        told = {
            "Content-Range": f"{unit} {asked + begins}-{ends - 1}/{of}",
            "Content-Length": str(len(body)),
            "ETag": '"v1"',
        }
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        writer.write(head(206, told | given) + body)
        await writer.drain()

    return behave


MULTIPART = {"Content-Type": "multipart/byteranges; boundary=x", **TAG}
OTHER = b"\1" * SIZE


@pytest.mark.parametrize(
    ("behaviour", "detail"),
    [
        (answer(OTHER, etag='"v2"'), "it had changed or could not be resumed"),
        (answer(MEDIA, etag='"v1"'), "could not be resumed"),
        (answer(b"", status=416, content_range="bytes */9"), "shorter"),
        (answer(b"busy", status=503), "HTTP status 503"),
        (answer(b"no", status=403), "HTTP status 403"),
        (answer(b"", status=412), "HTTP status 412"),
        (redirect("/whole"), "HTTP status 302"),
        (rest(ETag='"v2"'), "it had changed"),
        (rest(ETag='W/"v1"'), "it had changed"),
        (rest(ETag=""), "it had changed"),
        (rest(of=SIZE - 1, ends=SIZE - 1), "it had changed"),
        (rest(begins=-1), "other bytes"),
        (rest(begins=1), "other bytes"),
        (rest(ends=SIZE - 1), "other bytes"),
        (rest(of="*"), "form"),
        (rest(unit="items"), "form"),
        (rest(content_encoding="gzip"), "form"),
        (raw(head(206, MULTIPART) + b"--x"), "form"),
        (rest(more=b"x"), "length"),
    ],
)
async def test_two_objects_are_never_put_together(
    fetcher: Fetcher, origin: Origin, tmp_path: Path, behaviour: Behaviour, detail: str
) -> None:
    origin.serves("/a", Breaking(body=MEDIA, breaks_at=[HALF], headers=TAG, rest=behaviour))
    origin.serves("/whole", answer(MEDIA))
    async with LocalStore(tmp_path) as store:
        with pytest.raises(Exception, match="source_truncated") as caught:
            async with fetcher.open(origin.url("/a"), max_bytes=10 << 20, now=NOW) as source:
                await store.put("k", source.body())
        assert [asset async for asset in store.list()] == []
    assert detail in caught.value.detail  # type: ignore[attr-defined]  # a SourceError
    assert len(origin.requests) == 2


async def test_a_refusal_of_the_rest_that_says_expired_is_not_tried_again(
    fetcher: Fetcher, origin: Origin
) -> None:
    refusal = answer(b"<Message>Request has expired</Message>", status=403)
    origin.serves("/a", Breaking(body=MEDIA, breaks_at=[HALF], headers=TAG, rest=refusal))
    error = await failure(fetcher, origin.url("/a"))
    assert (error.code, error.retryable) == ("source_url_expired", False)


async def test_a_url_that_expired_meanwhile_is_not_asked_for_the_rest(origin: Origin) -> None:
    origin.serves("/a", Breaking(body=MEDIA, breaks_at=[HALF], headers=TAG))
    async with allowed(origin, FetchLimits(resume_pause_s=1.5)) as fetcher:
        soon = NOW + timedelta(seconds=1)
        error = await failure(fetcher, origin.url("/a"), deadline=soon)
    assert error.code is FailureCode.SOURCE_URL_EXPIRED
    assert len(origin.requests) == 1


async def test_the_rest_is_fetched_through_the_same_guard(origin: Origin) -> None:
    class Rebinding(FakeResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            found = await super().resolve(host, port, family)
            self.names["moves"] = ["127.0.0.2"]
            return found

    origin.serves("/a", Breaking(body=MEDIA, breaks_at=[HALF], headers=TAG))
    guard, resolver = AddressGuard(blocks=(origin.block,)), Rebinding(moves=["127.0.0.1"])
    async with fetching(guard=guard, limits=QUICK, resolver=resolver) as fetcher:
        error = await failure(fetcher, origin.url("/a", host="moves.example.com"))
    assert error.code is FailureCode.SOURCE_URL_FORBIDDEN
    assert origin.connections == 1


async def test_a_transfer_that_breaks_again_and_again_ends(
    fetcher: Fetcher, origin: Origin
) -> None:
    breaks = [1000 * number for number in range(1, 10)]
    origin.serves("/a", Breaking(body=MEDIA, breaks_at=breaks, headers=TAG))
    error = await failure(fetcher, origin.url("/a"))
    assert (error.code, error.retryable) == ("source_truncated", True)
    assert len(origin.requests) == 1 + QUICK.max_resumes


async def test_an_origin_that_is_away_for_a_moment_is_asked_again(
    fetcher: Fetcher, origin: Origin
) -> None:
    whole, left = Breaking(body=MEDIA, breaks_at=[HALF], headers=TAG), [raw(b""), raw(b"")]

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        asked = "range" in request.headers
        await (left.pop() if asked and left else whole)(request, writer)

    origin.serves("/a", behave)
    assert await fetch(fetcher, origin.url("/a")) == MEDIA
    assert len(origin.requests) == 4


async def test_pauses_and_resumes_stay_within_the_total_time(origin: Origin) -> None:
    origin.serves("/a", Breaking(body=MEDIA, breaks_at=[HALF], headers=TAG))
    began_s = asyncio.get_running_loop().time()
    async with allowed(origin, FetchLimits(resume_pause_s=60, total_s=0.5)) as fetcher:
        error = await failure(fetcher, origin.url("/a"))
    assert error.code is FailureCode.SOURCE_TIMEOUT
    assert asyncio.get_running_loop().time() - began_s < 5


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_cap_counts_the_bytes_of_all_parts(
    fetcher: Fetcher, origin: Origin, chunked: bool
) -> None:
    def serve() -> None:
        origin.serves("/a", Breaking(body=MEDIA, breaks_at=[HALF], headers=TAG, chunked=chunked))

    serve()
    assert await fetch(fetcher, origin.url("/a"), max_bytes=SIZE) == MEDIA
    serve()
    error = await failure(fetcher, origin.url("/a"), max_bytes=SIZE - 1)
    assert error.code is FailureCode.SOURCE_TOO_LARGE


async def test_a_resumed_transfer_keeps_to_its_slot(origin: Origin) -> None:
    async with allowed(origin, FetchLimits(per_host=1, resume_pause_s=0.05)) as fetcher:
        for path in ("/a", "/b"):
            origin.serves(path, Breaking(body=MEDIA, breaks_at=[HALF], headers=TAG))
        bodies = await asyncio.gather(*[fetch(fetcher, origin.url(path)) for path in ("/a", "/b")])
        assert fetcher._slots._lines == {}
    assert bodies == [MEDIA, MEDIA]
    assert origin.at_once == 1


async def test_a_stream_that_is_no_http_any_more_goes_on_where_it_broke(origin: Origin) -> None:
    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        if "range" in request.headers:
            await rest()(request, writer)
            return
        writer.write(head(200, {"Transfer-Encoding": "chunked", **TAG}))
        writer.write(b"%x\r\n%b\r\n" % (HALF, MEDIA[:HALF]))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"no length\r\n")  # and hold on
        await asyncio.sleep(3600)

    origin.serves("/a", behave)
    async with allowed(origin, FetchLimits(resume_pause_s=0.2)) as fetcher:
        assert await fetch(fetcher, origin.url("/a")) == MEDIA
    assert len(origin.requests) == 2


async def test_a_resumed_source_is_stored_at_the_first_attempt(here: Site) -> None:
    here.origin.serves(
        "/a", Breaking(body=BODY, breaks_at=[1000, 5000], headers=TAG, by_reset=True)
    )
    avatar = await here.create("/a")
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("stored")
    asset, blob = await here.asset(avatar), await here.pool.fetchrow("SELECT * FROM blob")
    assert blob is not None
    assert (asset["claim"], asset["blob_id"]) == (1, blob["id"])
    assert blob["sha256"] == sha256(BODY).hexdigest()
    assert datetime.now(UTC) - asset["created_at"] < timedelta(minutes=1)
