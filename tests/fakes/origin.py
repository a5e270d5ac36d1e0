"""A hostile origin server on loopback: real sockets, and an answer for every way to misbehave.

async with Origin() as origin:
    origin.serves("/a", answer(b"..."))
    fetch(origin.url("/a"), allowed=[origin.block])
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_network
from types import TracebackType
from typing import Self

from service.fetch.address import AllowedBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it came. Header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]


_READ_S = 0.05  # an end, and a reset all the more, overtakes what the other side has not read yet

Behaviour = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


class Origin:
    """Counts connections and keeps requests; whatever it does not serve is *otherwise*, a 404."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        otherwise: Behaviour | None = None,
    ) -> None:
        self.connections = 0
        self.at_once = 0  # the most connections that were open together
        self.requests: list[Request] = []
        self._host = host
        self._tls = tls
        self._otherwise = otherwise or answer(b"no such file", status=404)
        self._behaviours: dict[str, Behaviour] = {}
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self._host, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for _ in range(3):  # the loop's steps from a connection that it took to its handler
            await asyncio.sleep(0)
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def open_connections(self) -> int:
        return len(self._handlers)

    @property
    def block(self) -> AllowedBlock:
        """What lets a fetcher in here."""
        return AllowedBlock(network=ip_network(self._host), port=self.port)

    def serves(self, path: str, behaviour: Behaviour) -> None:
        self._behaviours[path] = behaviour

    def url(self, path: str, *, host: str | None = None) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{host or self._host}:{self.port}{path}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self.at_once = max(self.at_once, len(self._handlers))
        try:
            # Cancelled when the origin shuts down, which is how an endless answer ends.
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                request = _parse(await reader.readuntil(b"\r\n\r\n"))
                self.requests.append(request)
                path = request.target.partition("?")[0]
                await self._behaviours.get(path, self._otherwise)(request, writer)
        finally:
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self._handlers.discard(task)


def _parse(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return Request(method=method, target=target, headers=headers)


def head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [
        f"HTTP/1.1 {status} Whatever",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer(
    body: bytes, *, status: int = 200, length: int | None = None, **headers: str
) -> Behaviour:
    """Send *body* with an honest Content-Length, or the *length* given. `a_b="c"` is `a-b: c`."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    told = {"Content-Length": str(len(body) if length is None else length), **given}
    return raw(head(status, told) + body)


def raw(data: bytes) -> Behaviour:
    """Send *data*, whatever it is, and hang up."""

    async def behave(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return behave


def redirect(location: str, *, status: int = 302) -> Behaviour:
    return answer(b"moved", status=status, location=location)


def endless(chunk: bytes, *, every_s: float = 0.0, **headers: str) -> Behaviour:
    """Send *chunk* again and again and never say how much is to come."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}

    async def behave(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, given))
        while True:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(every_s)

    return behave


def stalled(data: bytes) -> Behaviour:
    """Send *data* and then nothing, with the connection open."""

    async def behave(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(3600)

    return behave


def reset(data: bytes) -> Behaviour:
    """Send *data* and a TCP reset."""

    async def behave(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(_READ_S)
        peer: socket.socket = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return behave


@dataclass(kw_only=True)
class Breaking:
    """A file that takes ranges, and whose transfers break off: each at the next of *breaks_at*
    (offsets in the file), by an end or a reset; when they are used up it is sent whole.

    *rest*, where given, answers the requests for ranges instead.
    """

    body: bytes
    breaks_at: list[int]
    headers: Mapping[str, str]
    by_reset: bool = False
    chunked: bool = False
    rest: Behaviour | None = None

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        asked = request.headers.get("range")
        if asked is not None and self.rest is not None:
            await self.rest(request, writer)
            return
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        until = self.breaks_at.pop(0) if self.breaks_at else len(self.body)
        data = self._head(first, ranged=asked is not None) + self._sent(first, until)
        if self.by_reset:
            await reset(data)(request, writer)
            return
        await raw(data)(request, writer)
        if until < len(self.body):
            await asyncio.sleep(_READ_S)

    def _head(self, first: int, *, ranged: bool) -> bytes:
        size = len(self.body)
        told = dict(self.headers)
        if self.chunked:
            told["Transfer-Encoding"] = "chunked"
        else:
            told["Content-Length"] = str(size - first)
        if ranged:
            told["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
        return head(206 if ranged else 200, told)

    def _sent(self, first: int, until: int) -> bytes:
        data = self.body[first:until]
        if not self.chunked:
            return data
        end = b"0\r\n\r\n" if until == len(self.body) else b""
        return b"%x\r\n%b\r\n%b" % (len(data), data, end)
