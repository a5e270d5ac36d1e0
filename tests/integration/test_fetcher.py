"""The fetcher against an origin that misbehaves in every way we know, over real sockets."""

import asyncio
import gzip
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp import ClientConnectorError, ClientSession
from aiohttp.abc import AbstractResolver, ResolveResult

from service.errors import FailureCode, HostBusyError, SourceError, Who
from service.fetch.address import AddressGuard, AllowedBlock, Refused, Why
from service.fetch.connector import (
    AddressRefusedError,
    GuardedResolver,
    guarded_connector,
    noting_refusals,
)
from service.fetch.egress import Egress
from service.fetch.fetcher import Fetcher, Progress
from service.fetch.limits import FetchLimits
from storage.local import LocalStore
from tests.fakes.authority import Authority, Certified
from tests.fakes.origin import (
    Behaviour,
    Origin,
    Request,
    answer,
    endless,
    head,
    raw,
    redirect,
    reset,
    stalled,
)
from tests.fetching import fetching

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MEDIA = b"\0\0\0\x20ftypisom" + bytes(range(256)) * 4096  # 1 MiB and 12 bytes
QUICK = FetchLimits(connect_s=0.5, idle_s=0.4, min_bytes_per_s=50_000, rate_window_s=0.3)
SECRET = "X-Signature=do-not-log-me"  # noqa: S105 - of nothing


class FakeResolver(AbstractResolver):
    """Answers from a table; a name outside it does not exist, and `hangs` never answers."""

    def __init__(self, **names: list[str]) -> None:
        self.names = names
        self.closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        del family
        name = host.partition(".")[0]
        if name == "hangs":
            await asyncio.sleep(3600)
        if name not in self.names:
            raise OSError("no such name")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self.names[name]
        ]

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as made:
        yield made


@pytest.fixture
async def fetcher(origin: Origin) -> AsyncIterator[Fetcher]:
    async with fetching(guard=AddressGuard(blocks=(origin.block,))) as made:
        yield made


@pytest.fixture
async def hasty(origin: Origin) -> AsyncIterator[Fetcher]:
    """A fetcher that waits for nothing for long; on a busy machine it may be too hasty to judge
    anything but what never comes.
    """
    async with fetching(guard=AddressGuard(blocks=(origin.block,)), limits=QUICK) as made:
        yield made


async def fetch(
    fetcher: Fetcher,
    url: str,
    *,
    max_bytes: int = 10 << 20,
    now: datetime = NOW,
    deadline: datetime | None = None,
    progress: Progress | None = None,
) -> bytes:
    async with fetcher.open(
        url, max_bytes=max_bytes, now=now, deadline=deadline, progress=progress
    ) as source:
        return b"".join([chunk async for chunk in source.body()])


async def failure(fetcher: Fetcher, url: str, **wish: int | datetime | None) -> SourceError:
    """The error that fetching *url* ends in; it never shows a query."""
    with pytest.raises(SourceError) as caught:
        await fetch(fetcher, url, **wish)  # type: ignore[arg-type] # a test's shorthand
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.detail}"
    return caught.value


async def test_a_source_is_streamed_as_it_is(fetcher: Fetcher, origin: Origin) -> None:
    origin.serves("/a.mp4", answer(MEDIA, content_type="Video/MP4; codecs=x"))
    url = origin.url("/a.mp4")
    seen: list[tuple[int, int | None]] = []
    async with fetcher.open(
        url, max_bytes=len(MEDIA), now=NOW, progress=lambda *step: seen.append(step)
    ) as source:
        assert (source.size_hint, source.content_type) == (len(MEDIA), "video/mp4")
        assert source.url == url
        assert b"".join([chunk async for chunk in source.body()]) == MEDIA
    assert seen[-1] == (len(MEDIA), len(MEDIA))
    assert seen == sorted(seen)


async def test_a_source_of_unknown_size_is_streamed(fetcher: Fetcher, origin: Origin) -> None:
    origin.serves("/close", raw(head(200, {}) + MEDIA))
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(MEDIA), MEDIA)
    origin.serves("/chunked", raw(head(200, {"Transfer-Encoding": "chunked"}) + chunked))
    assert await fetch(fetcher, origin.url("/close")) == MEDIA
    assert await fetch(fetcher, origin.url("/chunked")) == MEDIA


async def test_a_signed_query_arrives_byte_for_byte(fetcher: Fetcher, origin: Origin) -> None:
    origin.serves("/a/%2Fb/../c", answer(MEDIA))
    target = "/a/%2Fb/../c?X-Amz-Signature=abc%2Fdef%2b+&x=%7E~%20[]&empty="
    await fetch(fetcher, origin.url(target))
    assert [request.target for request in origin.requests] == [target]


async def test_we_say_who_we_are_and_little_else(origin: Origin) -> None:
    origin.serves("/first", answer(b"", status=302, location="/a", set_cookie="a=b"))
    origin.serves("/a", answer(MEDIA))
    guard, resolver = AddressGuard(blocks=(origin.block,)), FakeResolver(named=["127.0.0.1"])
    async with fetching(guard=guard, resolver=resolver) as fetcher:  # cookies need a name
        await fetch(fetcher, origin.url("/first", host="named.example.com"))
    assert len(origin.requests) == 2
    for request in origin.requests:
        assert request.method == "GET"
        assert request.headers["user-agent"].startswith("greenroom/")
        assert request.headers["accept-encoding"] == "identity"
        ours = {"host", "user-agent", "accept", "accept-encoding", "connection"}
        assert set(request.headers) <= ours


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(fetcher: Fetcher, origin: Origin, status: int) -> None:
    origin.serves("/a", redirect("b/c?x=%2F", status=status))
    origin.serves("/b/c", redirect(origin.url("/d"), status=status))
    origin.serves("/d", answer(MEDIA))
    assert await fetch(fetcher, origin.url("/a")) == MEDIA
    assert [request.target for request in origin.requests] == ["/a", "/b/c?x=%2F", "/d"]


async def test_a_redirect_loop_ends(fetcher: Fetcher, origin: Origin) -> None:
    origin.serves("/a", redirect(f"/a?{SECRET}"))
    error = await failure(fetcher, origin.url("/a"))
    assert (error.code, error.status, error.retryable) == ("source_http_error", 302, False)
    assert len(origin.requests) == FetchLimits().max_redirects + 1


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/",
        "//127.0.0.1:8080/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:7f00:1]/",
        "http://2130706433/",
        "http://example.com:6379/",
        "http://user:pw@example.com/",
        "file:///etc/passwd",
    ],
)
async def test_a_redirect_to_where_we_may_not_go_is_refused(
    fetcher: Fetcher, origin: Origin, location: str
) -> None:
    origin.serves("/a", redirect(location))
    error = await failure(fetcher, origin.url("/a"))
    assert (error.code, error.retryable, error.who) == ("source_url_forbidden", False, Who.CALLER)
    assert origin.connections == 1


async def test_a_redirect_without_a_target_is_an_http_error(
    fetcher: Fetcher, origin: Origin
) -> None:
    origin.serves("/a", answer(b"", status=302))
    error = await failure(fetcher, origin.url("/a"))
    assert (error.code, error.status) == ("source_http_error", 302)


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(status, False) for status in (400, 401, 403, 404, 410, 304)]
    + [(status, True) for status in (408, 429, 500, 503)],
)
async def test_an_http_error_says_whether_to_try_again(
    fetcher: Fetcher, origin: Origin, status: int, retryable: bool
) -> None:
    origin.serves("/a", answer(b"" if status == 304 else b"<Error/>", status=status))
    error = await failure(fetcher, origin.url(f"/a?{SECRET}"))
    assert (error.code, error.status) == ("source_http_error", status)
    assert error.retryable is retryable


HTML = b"<!-- hello\n -->\n<!DOCTYPE html><p>Sign in"


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (answer(b""), FailureCode.SOURCE_EMPTY),
        (raw(head(200, {})), FailureCode.SOURCE_EMPTY),
        (raw(head(204, {})), FailureCode.SOURCE_EMPTY),
        (answer(b"", length=100), FailureCode.SOURCE_TRUNCATED),
        (answer(MEDIA, length=len(MEDIA) + 1), FailureCode.SOURCE_TRUNCATED),
        (
            raw(head(200, {"Transfer-Encoding": "chunked"}) + b"fff\r\nab"),
            FailureCode.SOURCE_TRUNCATED,
        ),
        (answer(MEDIA, status=206), FailureCode.SOURCE_TRUNCATED),
        (answer(MEDIA, status=206, content_range="bytes 0-9/99"), FailureCode.SOURCE_TRUNCATED),
        (
            answer(MEDIA, status=206, content_range=f"bytes 0-{len(MEDIA)}/{len(MEDIA) + 1}"),
            FailureCode.SOURCE_TRUNCATED,
        ),
        (
            raw(
                head(206, {"Content-Range": "bytes 0-99/100", "Transfer-Encoding": "chunked"})
                + b"2\r\nab\r\n0\r\n\r\n"
            ),
            FailureCode.SOURCE_TRUNCATED,
        ),
        (reset(head(200, {"Content-Length": "9999"}) + MEDIA[:999]), FailureCode.SOURCE_TRUNCATED),
        (answer(HTML, content_type="video/mp4"), FailureCode.SOURCE_IS_HTML),
        (answer(b"Sign in", content_type="text/html"), FailureCode.SOURCE_IS_HTML),
        (answer(gzip.compress(MEDIA), content_encoding="gzip"), FailureCode.SOURCE_HTTP_ERROR),
        (endless(b"x" * 65536), FailureCode.SOURCE_TOO_LARGE),
        (answer(b"x", length=1 << 40), FailureCode.SOURCE_TOO_LARGE),
        (raw(b""), FailureCode.SOURCE_UNREACHABLE),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), FailureCode.SOURCE_UNREACHABLE),
        (reset(b""), FailureCode.SOURCE_UNREACHABLE),
        (raw(head(200, {"Content-Length": "-5"}) + MEDIA), FailureCode.SOURCE_UNREACHABLE),
    ],
)
async def test_every_misbehaviour_has_its_code(
    fetcher: Fetcher, origin: Origin, behaviour: Behaviour, code: FailureCode
) -> None:
    origin.serves("/a", behaviour)
    error = await failure(fetcher, origin.url(f"/a?{SECRET}"), max_bytes=2 << 20)
    assert error.code is code


CHUNKED = head(200, {"Transfer-Encoding": "chunked"})


def again_and_again(first: bytes, then: bytes) -> Behaviour:
    async def behave(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(then)
            await writer.drain()

    return behave


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        pytest.param(
            again_and_again(b"", head(103, {"Link": "</a>"}) * 999),
            FailureCode.SOURCE_UNREACHABLE,
            id="interim answers",
        ),
        pytest.param(
            again_and_again(b"", b"\r\n" * 9999), FailureCode.SOURCE_UNREACHABLE, id="blank lines"
        ),
        pytest.param(
            again_and_again(CHUNKED, b"1\r\nx\r\n" * 9999),
            FailureCode.SOURCE_TRUNCATED,
            id="chunks of one byte",
        ),
        pytest.param(
            again_and_again(CHUNKED + b"1;", b"x" * 9999),
            FailureCode.SOURCE_TRUNCATED,
            id="an extension of a chunk",
        ),
    ],
)
async def test_framing_without_end_is_hung_up_on(
    origin: Origin, behaviour: Behaviour, code: FailureCode
) -> None:
    """None of it is body, so no cap on bodies ends it; and it is dear to parse."""
    origin.serves("/a", behaviour)
    async with fetching(guard=AddressGuard(blocks=(origin.block,))) as fetcher:
        error = await failure(fetcher, origin.url("/a"), max_bytes=1 << 19)
    assert error.code is code


async def test_small_chunks_and_a_few_interim_answers_are_fine(
    fetcher: Fetcher, origin: Origin
) -> None:
    chunks = [b"40\r\n%b\r\n" % MEDIA[at : at + 64] for at in range(0, len(MEDIA) - 64, 64)]
    sent = head(103, {}) * 9 + CHUNKED + b"".join(chunks) + b"0\r\n\r\n"
    origin.serves("/a", raw(sent))
    assert await fetch(fetcher, origin.url("/a")) == MEDIA[: 64 * len(chunks)]


async def test_comments_are_read_once_in_search_of_a_page(fetcher: Fetcher, origin: Origin) -> None:
    """Each could end where any other does: tried in all ways, these would take seconds."""
    comments = b"<!---->" * 25 + b"x"
    origin.serves("/a", answer(comments))
    began_s = time.process_time()
    assert await fetch(fetcher, origin.url("/a")) == comments
    assert time.process_time() - began_s < 2


def longer_than_it_said(*, pause_s: float) -> Behaviour:
    """Say one mebibyte, and never stop."""

    async def behave(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"Content-Length": str(1 << 20)}))
        while True:
            writer.write(b"x" * (1 << 20))
            await writer.drain()
            await asyncio.sleep(pause_s)

    return behave


@pytest.mark.parametrize("pause_s", [0.0, 0.2])
async def test_a_body_ends_where_its_origin_said_however_much_follows(
    fetcher: Fetcher, origin: Origin, pause_s: float
) -> None:
    origin.serves("/a", longer_than_it_said(pause_s=pause_s))
    assert len(await fetch(fetcher, origin.url("/a"))) == 1 << 20
    async with asyncio.timeout(5):
        while origin.open_connections:  # noqa: ASYNC110 - we hung up, and the origin notices
            await asyncio.sleep(0.01)


async def test_a_stream_that_is_no_http_any_more_is_not_waited_for(
    fetcher: Fetcher, origin: Origin
) -> None:
    async def behave(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"Transfer-Encoding": "chunked"}))
        writer.write(b"%x\r\n%b\r\n" % (len(MEDIA), MEDIA))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"no length\r\n")  # and the connection stays open
        await asyncio.sleep(3600)

    origin.serves("/a", behave)
    async with asyncio.timeout(FetchLimits().idle_s / 2):
        error = await failure(fetcher, origin.url("/a"))
    assert error.code is FailureCode.SOURCE_TRUNCATED


async def test_two_lengths_at_once_are_never_believed(fetcher: Fetcher, origin: Origin) -> None:
    both = {"Content-Length": "5", "Transfer-Encoding": "chunked"}
    origin.serves("/a", raw(head(200, both) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(MEDIA), MEDIA)))
    error = await failure(fetcher, origin.url("/a"))
    assert error.code in {FailureCode.SOURCE_TRUNCATED, FailureCode.SOURCE_UNREACHABLE}


@pytest.mark.parametrize(
    ("given", "found", "hint"),
    [
        ("www.dropbox.com", "www.dropbox.com", "dl=1"),
        ("drive.google.com", "accounts.google.com", "Google Drive"),  # by what was given first
        ("short.example", "www.youtube.com", "YouTube"),
        ("short.example", "media.example", ""),
    ],
)
async def test_who_sends_a_share_page_is_told_what_to_send(
    origin: Origin, given: str, found: str, hint: str
) -> None:
    origin.serves("/a", redirect(origin.url("/page", host=found)))
    origin.serves("/page", answer(HTML))
    names = {host.partition(".")[0]: ["127.0.0.1"] for host in (given, found)}
    guard, resolver = AddressGuard(blocks=(origin.block,)), FakeResolver(**names)
    async with fetching(guard=guard, resolver=resolver) as fetcher:
        error = await failure(fetcher, origin.url(f"/a?{SECRET}", host=given))
    assert error.code is FailureCode.SOURCE_IS_HTML
    assert hint in error.detail
    assert bool(error.detail) == bool(hint)


@pytest.mark.parametrize(
    "behaviour",
    [
        stalled(b""),
        stalled(b"HTTP/1.1 200 OK\r\nX-"),
        stalled(head(200, {})),
        stalled(head(200, {}) + MEDIA),
        endless(b"x", every_s=0.05),
    ],
)
async def test_what_never_comes_is_not_waited_for(
    hasty: Fetcher, origin: Origin, behaviour: Behaviour
) -> None:
    origin.serves("/a", behaviour)
    began_s = asyncio.get_running_loop().time()
    error = await failure(hasty, origin.url(f"/a?{SECRET}"))
    assert (error.code, error.retryable) == ("source_timeout", True)
    assert asyncio.get_running_loop().time() - began_s < 10


@pytest.mark.parametrize(
    "behaviour",
    [
        answer(MEDIA, content_type="text/html"),  # what a PHP script calls everything
        answer(MEDIA, status=206, content_range=f"bytes 0-{len(MEDIA) - 1}/{len(MEDIA)}"),
        answer(MEDIA, content_encoding="aws-chunked"),
        answer(MEDIA, content_encoding="identity"),
    ],
)
async def test_harmless_oddities_pass(
    fetcher: Fetcher, origin: Origin, behaviour: Behaviour
) -> None:
    origin.serves("/a", behaviour)
    assert await fetch(fetcher, origin.url("/a")) == MEDIA


async def test_a_source_of_exactly_the_limit_passes(fetcher: Fetcher, origin: Origin) -> None:
    origin.serves("/a", raw(head(200, {}) + MEDIA))
    assert await fetch(fetcher, origin.url("/a"), max_bytes=len(MEDIA)) == MEDIA
    error = await failure(fetcher, origin.url("/a"), max_bytes=len(MEDIA) - 1)
    assert error.code is FailureCode.SOURCE_TOO_LARGE


async def test_a_size_that_is_too_large_is_refused_before_the_body(
    fetcher: Fetcher, origin: Origin
) -> None:
    origin.serves("/a", stalled(head(200, {"Content-Length": str(1 << 40)})))
    assert (await failure(fetcher, origin.url("/a"))).code is FailureCode.SOURCE_TOO_LARGE


async def test_bytes_are_never_decompressed(fetcher: Fetcher, origin: Origin) -> None:
    packed = gzip.compress(b"<Message>Request has expired</Message>")
    origin.serves("/a", answer(packed, content_type="application/gzip"))
    assert await fetch(fetcher, origin.url("/a"), max_bytes=len(packed)) == packed
    origin.serves("/b", answer(packed, status=403, content_encoding="gzip"))
    error = await failure(fetcher, origin.url("/b"))  # not even to read why it was refused
    assert error.code is FailureCode.SOURCE_HTTP_ERROR


async def test_the_total_time_is_limited_however_fast_the_bytes(origin: Origin) -> None:
    origin.serves("/a", endless(b"x" * 10_000, every_s=0.01))
    limits = FetchLimits(total_s=0.5)
    async with fetching(guard=AddressGuard(blocks=(origin.block,)), limits=limits) as fetcher:
        began = asyncio.get_running_loop().time()
        error = await failure(fetcher, origin.url("/a"), max_bytes=1 << 40)
    assert error.code is FailureCode.SOURCE_TIMEOUT
    assert 0.4 < asyncio.get_running_loop().time() - began < 2


async def test_our_own_slowness_is_not_the_source_s_fault(hasty: Fetcher, origin: Origin) -> None:
    origin.serves("/a", answer(MEDIA * 4))
    size = 0
    async with hasty.open(origin.url("/a"), max_bytes=len(MEDIA) * 4, now=NOW) as source:
        async for chunk in source.body():
            if size < QUICK.rate_window_s * QUICK.min_bytes_per_s:
                await asyncio.sleep(QUICK.idle_s * 2)  # a disk that takes its time
            size += len(chunk)
    assert size == len(MEDIA) * 4


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"),
        (400, b"<Error><Code>ExpiredToken</Code></Error>"),
        (403, b"Signature not valid in the specified time frame: Start [x] Expiry [y]"),
    ],
)
async def test_a_refusal_that_says_expired_is_never_tried_again(
    fetcher: Fetcher, origin: Origin, status: int, body: bytes
) -> None:
    origin.serves("/a", answer(body, status=status))
    error = await failure(fetcher, origin.url("/a"))
    assert (error.code, error.retryable) == ("source_url_expired", False)


async def test_an_expired_url_is_not_even_asked_for(fetcher: Fetcher, origin: Origin) -> None:
    signed = "/a?X-Amz-Date=20251231T230000Z&X-Amz-Expires=3600"  # until midnight, which is NOW
    origin.serves("/a", answer(MEDIA))
    assert (await failure(fetcher, origin.url(signed))).code is FailureCode.SOURCE_URL_EXPIRED
    assert origin.connections == 0
    assert await fetch(fetcher, origin.url(signed), now=NOW - timedelta(seconds=1)) == MEDIA


async def test_a_fetch_begins_before_its_deadline_or_not_at_all(
    fetcher: Fetcher, origin: Origin
) -> None:
    origin.serves("/a", answer(MEDIA))
    elsewhere = timezone(timedelta(hours=5))
    late = await failure(fetcher, origin.url("/a"), deadline=NOW.astimezone(elsewhere))
    assert late.code is FailureCode.SOURCE_URL_EXPIRED
    soon = NOW + timedelta(seconds=1)
    assert await fetch(fetcher, origin.url("/a"), deadline=soon) == MEDIA


async def test_a_redirect_to_an_expired_url_is_expired(fetcher: Fetcher, origin: Origin) -> None:
    origin.serves("/a", redirect("/b?se=2025-01-01T00:00:00Z&sig=x"))
    assert (await failure(fetcher, origin.url("/a"))).code is FailureCode.SOURCE_URL_EXPIRED
    assert len(origin.requests) == 1


async def test_a_port_where_nobody_listens_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with fetching(guard=allowing("127.0.0.1/32", port), limits=QUICK) as fetcher:
            error = await failure(fetcher, f"http://127.0.0.1:{port}/?{SECRET}")
    assert (error.code, error.retryable) == ("source_unreachable", True)
    assert error.who is Who.SOURCE_OWNER


def allowing(network: str, port: int) -> AddressGuard:
    return AddressGuard(blocks=(AllowedBlock(network=ip_network(network), port=port),))


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::1", "127.0.0.1"],
        ["198.51.100.7", "127.0.0.1"],  # the first would be allowed
        ["127.0.0.1", "198.51.100.7"],
        ["1.1.1.1"],  # public, but not on this port
        ["64:ff9b::7f00:1"],
        ["fe80::1%1"],
        ["not an address"],
    ],
)
async def test_a_name_that_leads_inside_is_refused_before_any_connection(
    origin: Origin, addresses: list[str]
) -> None:
    guard = allowing("198.51.100.0/24", origin.port)  # so that the port is not the reason
    resolver = FakeResolver(inside=addresses)
    async with fetching(guard=guard, limits=QUICK, resolver=resolver) as fetcher:
        error = await failure(fetcher, origin.url(f"/?{SECRET}", host="inside.example.com"))
    assert (error.code, error.retryable) == ("source_url_forbidden", False)
    assert origin.connections == 0
    assert resolver.closed


@pytest.mark.parametrize("addresses", [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"]])
async def test_one_forbidden_address_refuses_a_name_that_could_be_reached(
    origin: Origin, addresses: list[str]
) -> None:
    guard, resolver = AddressGuard(blocks=(origin.block,)), FakeResolver(mixed=addresses)
    async with fetching(guard=guard, resolver=resolver) as fetcher:
        error = await failure(fetcher, origin.url("/", host="mixed.example.com"))
    assert error.code is FailureCode.SOURCE_URL_FORBIDDEN
    assert origin.connections == 0


async def test_of_very_many_addresses_the_first_are_judged_and_used() -> None:
    many = [f"93.184.{number >> 8}.{number & 255}" for number in range(4000)]
    names = GuardedResolver(FakeResolver(many=many), AddressGuard(), timeout_s=1)
    found = await names.resolve("many.example.com", 80)
    assert [one["host"] for one in found] == many[:256]


async def test_the_system_s_own_names_for_loopback_lead_nowhere(origin: Origin) -> None:
    async with fetching(guard=allowing("198.51.100.0/24", origin.port), limits=QUICK) as fetcher:
        error = await failure(fetcher, origin.url("/", host="localhost"))
    assert error.code is FailureCode.SOURCE_URL_FORBIDDEN
    assert origin.connections == 0


async def test_a_name_is_judged_again_at_every_redirect(origin: Origin) -> None:
    class Rebinding(FakeResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            answer = await super().resolve(host, port, family)
            self.names["moves"] = ["127.0.0.2"]
            return answer

    origin.serves("/a", redirect("/b"))
    origin.serves("/b", answer(MEDIA))
    guard = AddressGuard(blocks=(origin.block,))
    resolver = Rebinding(moves=["127.0.0.1"])
    async with fetching(guard=guard, limits=QUICK, resolver=resolver) as fetcher:
        error = await failure(fetcher, origin.url("/a", host="moves.example.com"))
    assert error.code is FailureCode.SOURCE_URL_FORBIDDEN
    assert origin.connections == 1


async def test_the_socket_guard_alone_refuses_literals_that_no_resolver_sees(
    origin: Origin,
) -> None:
    connector = guarded_connector(AddressGuard(), FakeResolver(), dns_timeout_s=1)
    async with ClientSession(connector=connector) as session:
        with noting_refusals() as refusals, pytest.raises(ClientConnectorError):
            await session.get(origin.url("/"))
    assert refusals == [Refused(why=Why.LOOPBACK)]
    assert origin.connections == 0


async def test_a_refusal_is_noted_even_where_happy_eyeballs_swallow_it(origin: Origin) -> None:
    connector = guarded_connector(AddressGuard(), FakeResolver(), dns_timeout_s=1)
    connector._resolver = FakeResolver(inside=["127.0.0.1", "::ffff:127.0.0.1"])  # unguarded
    async with ClientSession(connector=connector) as session:
        with noting_refusals() as refusals, pytest.raises(ClientConnectorError) as caught:
            await session.get(origin.url("/", host="inside.example.com"))
    assert not isinstance(caught.value.os_error, AddressRefusedError)  # merged with the other
    assert {refused.why for refused in refusals} == {Why.LOOPBACK, Why.EMBEDDED}
    assert origin.connections == 0


async def test_a_name_that_does_not_exist_may_be_tried_again(origin: Origin) -> None:
    guard = AddressGuard(blocks=(origin.block,))
    async with fetching(guard=guard, resolver=FakeResolver()) as fetcher:
        error = await failure(fetcher, origin.url(f"/?{SECRET}", host="missing.example.com"))
    assert (error.code, error.retryable) == ("source_unreachable", True)
    assert "name" in error.detail


async def test_a_name_server_that_hangs_is_not_waited_for(origin: Origin) -> None:
    guard, limits = AddressGuard(blocks=(origin.block,)), FetchLimits(connect_s=0.2)
    began_s = asyncio.get_running_loop().time()
    async with fetching(guard=guard, limits=limits, resolver=FakeResolver()) as fetcher:
        error = await failure(fetcher, origin.url(f"/?{SECRET}", host="hangs.example.com"))
    assert (error.code, error.retryable) == ("source_timeout", True)
    assert asyncio.get_running_loop().time() - began_s < limits.idle_s / 2


async def test_a_proxy_in_the_environment_is_not_used(
    fetcher: Fetcher, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Origin() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        origin.serves("/a", answer(MEDIA))
        assert await fetch(fetcher, origin.url("/a")) == MEDIA
        assert proxy.connections == 0


async def slow(_: Request, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.3)
    writer.write(head(200, {}) + MEDIA)


async def test_one_host_gets_so_many_requests_at_once_and_the_rest_wait(origin: Origin) -> None:
    limits = FetchLimits(per_host=2, total_s=0.8)
    origin.serves("/a", slow)
    async with fetching(guard=AddressGuard(blocks=(origin.block,)), limits=limits) as fetcher:
        bodies = await asyncio.gather(*[fetch(fetcher, origin.url("/a")) for _ in range(6)])
        assert bodies == [MEDIA] * 6  # the last waited 0.6 s in line, which was not its fault
        assert fetcher._slots._lines == {}
    assert origin.at_once == 2


async def test_fifty_slow_sources_of_one_host_do_not_hold_up_another_host(origin: Origin) -> None:
    origin.serves("/never", stalled(b""))
    origin.serves("/a", answer(MEDIA))
    limits, turns = FetchLimits(per_host=2, per_process=10), asyncio.Semaphore(10)

    async def work(ours: Fetcher, url: str) -> bytes:
        async with turns:  # as many as a worker takes on at once
            return await fetch(ours, url)

    guard = AddressGuard(blocks=(origin.block,))
    resolver = FakeResolver(slow=["127.0.0.1"], other=["127.0.0.1"])
    async with fetching(guard=guard, limits=limits, resolver=resolver) as fetcher:
        slow_url = origin.url(f"/never?{SECRET}", host="slow.example.com")
        waiting = [asyncio.create_task(work(fetcher, slow_url)) for _ in range(50)]
        async with asyncio.timeout(5):
            assert await work(fetcher, origin.url("/a", host="other.example.com")) == MEDIA
        turned_away = [task.exception() for task in waiting if task.done()]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert fetcher._slots._lines == {}
    assert len(turned_away) == 50 - 2 * 3  # two at work, four in line
    assert all(isinstance(error, HostBusyError) and error.retryable for error in turned_away)
    assert not any(SECRET in f"{error!r} {error}" for error in turned_away)


async def test_a_host_with_a_long_line_is_taken_up_again_once_it_is_shorter(
    origin: Origin,
) -> None:
    origin.serves("/a", slow)
    guard, limits = AddressGuard(blocks=(origin.block,)), FetchLimits(per_host=1)
    async with fetching(guard=guard, limits=limits) as fetcher:
        line = [asyncio.create_task(fetch(fetcher, origin.url("/a"))) for _ in range(3)]
        await asyncio.wait(line, timeout=0.01)
        with pytest.raises(HostBusyError):
            await fetch(fetcher, origin.url("/a"))
        await asyncio.wait(line, return_when=asyncio.FIRST_COMPLETED)
        assert await fetch(fetcher, origin.url("/a")) == MEDIA
        await asyncio.gather(*line)


async def test_all_hosts_together_are_limited_too(origin: Origin) -> None:
    origin.serves("/a", slow)
    limits = FetchLimits(per_process=3, per_host=2)
    names = {f"h{number}": ["127.0.0.1"] for number in range(8)}
    guard = AddressGuard(blocks=(origin.block,))
    async with fetching(guard=guard, limits=limits, resolver=FakeResolver(**names)) as fetcher:
        urls = [origin.url("/a", host=f"{name}.example.com") for name in names]
        bodies = await asyncio.gather(*[fetch(fetcher, url) for url in urls])
    assert bodies == [MEDIA] * 8
    assert origin.at_once == 3


MANY = 20
CROWDING = FetchLimits(per_process=MANY, crowded_s=0.4)


@asynccontextmanager
async def crowd(
    origin: Origin, behaviour: Behaviour, *, hosts: int, each: int = 1
) -> AsyncIterator[tuple[Fetcher, list[asyncio.Task[bytes]]]]:
    """A fetcher, and fetches from many hosts that have all begun."""
    origin.serves("/slow", behaviour)
    origin.serves("/a", answer(MEDIA))
    names = {f"h{number}": ["127.0.0.1"] for number in range(hosts)}
    guard, resolver = (
        AddressGuard(blocks=(origin.block,)),
        FakeResolver(**names, good=["127.0.0.1"]),
    )
    async with fetching(guard=guard, limits=CROWDING, resolver=resolver) as fetcher:
        urls = [origin.url("/slow", host=f"{name}.example.com") for name in names] * each
        tasks = [asyncio.create_task(fetch(fetcher, url, max_bytes=1 << 30)) for url in urls]
        await asyncio.sleep(0.1)
        assert fetcher._slots._members == len(tasks)
        try:
            yield fetcher, tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def fetch_good(fetcher: Fetcher, origin: Origin) -> bytes:
    return await fetch(fetcher, origin.url("/a", host="good.example.com"))


@pytest.mark.parametrize(
    "behaviour",
    [
        endless(b"x", every_s=0.05),  # lives for a whole window by itself: 10 s
        stalled(b""),  # 40 s
        stalled(head(200, {})),  # 20 s
    ],
)
async def test_slow_sources_on_many_hosts_do_not_take_the_last_slots(
    origin: Origin, behaviour: Behaviour
) -> None:
    async with crowd(origin, behaviour, hosts=MANY) as (fetcher, slow):
        async with asyncio.timeout(5):
            assert await fetch_good(fetcher, origin) == MEDIA
            while fetcher._slots._members > MANY * 3 // 4:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        ended = [task.exception() for task in slow if task.done()]
        # with the good one they were one more; the others may go on, as there is room
        assert len(ended) == MANY // 4 + 1
    for error in ended:
        assert isinstance(error, SourceError)
        assert (error.code, error.retryable) == ("source_timeout", True)
        assert "while others waited" in error.detail


async def test_a_line_for_slow_hosts_does_not_take_the_last_turns(origin: Origin) -> None:
    hosts, turns = 1, asyncio.Semaphore(MANY)
    async with crowd(origin, stalled(b""), hosts=hosts, each=MANY) as (fetcher, slow):
        for _ in slow:
            await turns.acquire()  # each of them has a worker's turn, though eight have slots
        for task in slow:
            task.add_done_callback(lambda _: turns.release())
        assert len(fetcher._slots._at_work) == FetchLimits().per_host
        async with asyncio.timeout(5), turns:
            assert await fetch_good(fetcher, origin) == MEDIA


async def test_a_source_that_is_fast_enough_is_never_cut_off(origin: Origin) -> None:
    chunk, every_s = b"x" * 4096, 0.05  # five times the minimum
    async with crowd(origin, endless(chunk, every_s=every_s), hosts=MANY) as (fetcher, steady):
        await asyncio.sleep(4 * CROWDING.crowded_s)
        assert not any(task.done() for task in steady)
        assert len(fetcher._slots._at_work) == MANY


async def test_slow_sources_go_on_while_there_is_room(origin: Origin) -> None:
    few = MANY * 3 // 4
    async with crowd(origin, endless(b"x", every_s=0.05), hosts=few) as (_, slow):
        await asyncio.sleep(4 * CROWDING.crowded_s)
        assert not any(task.done() for task in slow)


class Watched:
    """A behaviour that never stops sending, and knows when it began and who hung up."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.hung_up = asyncio.Event()

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.began.set()
        try:
            await endless(MEDIA)(request, writer)
        except ConnectionError:
            self.hung_up.set()


async def test_a_source_that_is_left_unread_is_hung_up_on(fetcher: Fetcher, origin: Origin) -> None:
    origin.serves("/a", watched := Watched())
    async with fetcher.open(origin.url("/a"), max_bytes=1 << 40, now=NOW) as source:
        pass
    async with asyncio.timeout(5):
        await watched.hung_up.wait()
    assert source.size_hint is None  # still held here: not the collector's doing


async def test_a_cancelled_fetch_hangs_up_and_frees_its_place(
    fetcher: Fetcher, origin: Origin
) -> None:
    origin.serves("/a", watched := Watched())
    task = asyncio.create_task(fetch(fetcher, origin.url("/a"), max_bytes=1 << 40))
    await watched.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fetcher._slots._lines == {}
    async with asyncio.timeout(5):
        await watched.hung_up.wait()


async def test_a_source_that_ends_early_leaves_nothing_in_the_store(
    fetcher: Fetcher, origin: Origin, tmp_path: Path
) -> None:
    origin.serves("/short", answer(MEDIA, length=len(MEDIA) + 1))
    origin.serves("/whole", answer(MEDIA))
    async with LocalStore(tmp_path) as store:
        with pytest.raises(SourceError) as caught:
            async with fetcher.open(origin.url("/short"), max_bytes=10 << 20, now=NOW) as source:
                await store.put("k", source.body())
        assert caught.value.code is FailureCode.SOURCE_TRUNCATED
        assert [asset async for asset in store.list()] == []
        async with fetcher.open(origin.url("/whole"), max_bytes=10 << 20, now=NOW) as source:
            asset = await store.put("k", source.body())
    assert asset.sha256 == sha256(MEDIA).hexdigest()


async def test_a_certificate_that_nobody_vouches_for_is_refused(tls: ssl.SSLContext) -> None:
    async with Origin(tls=tls) as origin:
        origin.serves("/a", answer(MEDIA))
        guard = AddressGuard(blocks=(origin.block,))
        async with fetching(guard=guard, limits=QUICK) as fetcher:
            error = await failure(fetcher, origin.url(f"/a?{SECRET}"))
    assert error.code is FailureCode.SOURCE_UNREACHABLE
    assert "certificate" in error.detail
    assert origin.requests == []


async def test_a_fetcher_that_was_not_entered_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await fetch(Fetcher(Egress(guard=AddressGuard(), connect_s=1)), "http://1.1.1.1/")


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """A server context with a certificate of its own making, right but for who signed it."""
    return Authority(tmp_path).serving(["127.0.0.1"], Certified.SELF_SIGNED)
