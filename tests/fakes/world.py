"""The Internet on loopback, for one case: a name server, origins, and who was connected to.

Public addresses are stood in for by sockets that go to an origin of ours instead and note what
they were asked for. They are made where the connector makes its own, after the address was
judged; so guard, resolver, connector, TLS and fetcher are the real ones.
"""

import gzip
import re
import socket
from asyncio import StreamWriter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import chain, repeat
from types import TracebackType
from typing import Self, cast

from yarl import URL

from service.fetch.address import AddressGuard, parse_allowed_blocks
from service.fetch.limits import FetchLimits
from service.fetch.resolver import DnsResolver
from tests.cases.table import Case, Does, Page
from tests.fakes.authority import Authority, Certified
from tests.fakes.name_server import Answers, NameServer
from tests.fakes.origin import (
    Behaviour,
    Origin,
    Request,
    answer,
    endless,
    head,
    raw,
    reset,
    stalled,
)
from tests.fetching import fetching

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MAX_BYTES = 1 << 20
MEDIA = b"\0\0\0\x20ftypisom" + bytes(range(256)) * 64
BODIES: Mapping[str, bytes] = {
    "media": MEDIA,
    "page": b"<!DOCTYPE html><title>Sign in</title>",
    "gzip": gzip.compress(bytes(2 << 20)),
    "hls": b"#EXTM3U\n#EXTINF:1,\nhttp://169.254.169.254/latest/meta-data/\n",
    "ffconcat": b"ffconcat version 1.0\nfile 'http://169.254.169.254/'\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "mpd": b'<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1/</BaseURL></MPD>',
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/"/></svg>',
    "chunked": b"%x\r\n%b\r\n0\r\n\r\n" % (len(MEDIA), MEDIA),
    "chunk": b"10000\r\n%b\r\n" % bytes(1 << 16),
    "half a chunk": b"fff\r\nab",
}
# What resolves in every case unless the case says otherwise.
USUAL: Mapping[str, Answers] = {
    "example.com": [["93.184.216.34"]],
    "cdn.example": [["151.101.1.69"]],
}
HASTY = FetchLimits(connect_s=0.4, idle_s=0.3, min_bytes_per_s=50_000, rate_window_s=0.25)
_TLS_PORTS = {443, 8443}
_LINKS = re.compile(r"https?://[^/?#\s]+")


class World:
    """`asked` is every address that a socket was told to connect to, as `1.1.1.1:80`."""

    def __init__(self, case: Case, authority: Authority) -> None:
        self.case = case
        self.guard = guard_of(case)
        self.asked: list[str] = []
        self.server_names: list[str | None] = []
        self._authority = authority
        self._stack = AsyncExitStack()
        self._tls = authority.serving(case.certified_for or _hosts(case), Certified(case.certified))
        self._tls.sni_callback = lambda _, name, __: self.server_names.append(name)
        self.plain = Origin(otherwise=answer(MEDIA))
        self.secure = Origin(otherwise=answer(MEDIA), tls=self._tls)
        self.dns = NameServer({**USUAL, **case.names})
        for path, pages in case.pages.items():
            for origin in (self.plain, self.secure):
                origin.serves(path, _in_turn(pages))

    async def __aenter__(self) -> Self:
        for server in (self.plain, self.secure, self.dns):
            await self._stack.enter_async_context(server)
        self._closed = self._stack.enter_context(_bound())
        self._silent = self._stack.enter_context(_bound())
        self._silent.listen(0)
        for _ in range(2):  # its queue is full now, and Linux drops what comes after
            filler = self._stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(self._silent.getsockname())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    @property
    def requests(self) -> list[Request]:
        return [*self.plain.requests, *self.secure.requests]

    async def fetch(self, url: str | None = None, *, max_bytes: int = MAX_BYTES) -> bytes:
        """All bytes of the case's URL, or of *url*, as the service gets them; SourceError."""
        limits = HASTY if self.case.hasty else FetchLimits()
        names = DnsResolver(timeout_s=limits.connect_s, nameservers=[self.dns.address])
        async with (
            fetching(
                guard=self.guard,
                limits=limits,
                resolver=names,
                tls=self._authority.trusting(),
                new_socket=self.new_socket,
            ) as fetcher,
            fetcher.open(url or self.case.url, max_bytes=max_bytes, now=NOW) as source,
        ):
            return b"".join([chunk async for chunk in source.body()])

    def new_socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        return _StandIn(self, family, kind, protocol)

    def lead(self, address: str, port: int) -> tuple[str, int]:
        """Note who is asked for; return who answers for it."""
        self.asked.append(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
        match self.case.hosts.get(address):
            case "closed":
                return cast("tuple[str, int]", self._closed.getsockname())
            case "silent":
                return cast("tuple[str, int]", self._silent.getsockname())
            case _:
                origin = self.secure if port in _TLS_PORTS else self.plain
                return "127.0.0.1", origin.port


class _StandIn(socket.socket):
    """A real IPv4 socket that calls itself what was asked for, so that asyncio uses it."""

    def __init__(self, world: World, family: int, kind: int, protocol: int) -> None:
        super().__init__(socket.AF_INET, kind, protocol)
        self._world = world
        self._family = socket.AddressFamily(family)

    @property
    def family(self) -> socket.AddressFamily:
        return self._family

    def connect(self, address: tuple[str, int]) -> None:  # type: ignore[override] # no other kind
        super().connect(self._world.lead(address[0], address[1]))


def guard_of(case: Case) -> AddressGuard:
    own = (place.rsplit(":", 1) for place in case.own)
    return AddressGuard(
        blocks=parse_allowed_blocks(case.allow),
        own=frozenset((host, int(port)) for host, port in own),
    )


def reached_first(case: Case) -> tuple[str, ...]:
    """The sockets that a fetch of the case's URL opens first: its host's, as first answered."""
    url = URL(case.url)
    host, port = url.host or "", url.port
    if _is_address(host):
        return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}",)
    answers = {**USUAL, **case.names}.get((url.raw_host or "").lower().removesuffix("."), [[]])
    return tuple(
        f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
        for text in answers[0]
        if _is_address(text)
    )


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _hosts(case: Case) -> set[str]:
    """The hosts of the case's own links, for its certificate, as far as they are any."""
    pages = [page for turns in case.pages.values() for page in turns]
    texts = [case.url, *(page.headers.get("Location", "") for page in pages)]
    found = {"example.com", "cdn.example"}
    for link in (link for text in texts for link in _LINKS.findall(text)):
        try:
            host = URL(link).raw_host or ""
            host.encode("ascii")
        except ValueError:
            continue
        found.add(host.removesuffix(".") if "%" not in host else "example.com")
    return {host for host in found if host}


def _bound() -> socket.socket:
    """A port that nobody else can take, and that nobody listens at."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound


def _in_turn(pages: Sequence[Page]) -> Behaviour:
    turns = chain(map(_behaviour, pages), repeat(_behaviour(pages[-1])))

    async def behave(request: Request, writer: StreamWriter) -> None:
        await next(turns)(request, writer)

    return behave


def _behaviour(page: Page) -> Behaviour:
    body = BODIES.get(page.body, page.body.encode())[page.first : page.last]
    headers = {name.replace("-", "_"): value for name, value in page.headers.items()}
    begun = head(page.status, page.headers) + body
    match page.does:
        case Does.ENDLESS:
            return endless(body, every_s=page.every_s, **headers)
        case Does.STALL:
            return stalled(begun if page.status else body)
        case Does.RESET:
            return reset(begun if page.status else body)
        case Does.ANSWER if not page.status:
            return raw(body)
        case Does.ANSWER if page.headers.keys() & {"Transfer-Encoding", "Content-Length"}:
            return raw(begun)
        case Does.ANSWER:
            return answer(body, status=page.status, length=page.length, **headers)
