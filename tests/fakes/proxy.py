"""An operator's HTTP proxy on loopback: tunnels by CONNECT, plain requests in absolute form.

async with Proxy(names={"media.example": origin.port}) as proxy:
    Egress(guard=guard, connect_s=1, proxy=proxy.url())
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from yarl import URL

from tests.fakes.origin import Request, head

OK = head(200, {})
_OF_THE_PROXY = {"proxy-authorization", "proxy-connection"}


class Proxy:
    """Keeps requests. Every name leads to 127.0.0.1 at the port that *names* gives.

    *instead* is what it sends, whatever it is asked.
    """

    def __init__(
        self,
        *,
        names: Mapping[str, int] | None = None,
        instead: bytes | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.port = 0
        self._names = names or {}
        self._instead = instead
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, userinfo: str = "", *, host: str = "127.0.0.1") -> URL:
        return URL(f"http://{userinfo}{host}:{self.port}")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = _parse(await reader.readuntil(b"\r\n\r\n"))
        self.requests.append(request)
        if self._instead is not None:
            writer.write(self._instead)
            return
        text = f"//{request.target}" if request.method == "CONNECT" else request.target
        target = URL(text, encoded=True)
        port = self._names.get(target.raw_host or "")
        if port is None:
            writer.write(head(502, {"Proxy-Status": "proxy; error=dns_error"}))
            return
        there, thither = await asyncio.open_connection("127.0.0.1", port)
        if request.method == "CONNECT":
            writer.write(OK)
        else:
            thither.write(_in_origin_form(request, target))
        try:
            await asyncio.gather(_pass(reader, thither), _pass(there, writer))
        finally:
            thither.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


def _in_origin_form(request: Request, target: URL) -> bytes:
    kept = [f"{k}: {v}" for k, v in request.headers.items() if k not in _OF_THE_PROXY]
    first = f"{request.method} {target.raw_path_qs} HTTP/1.1"
    return "\r\n".join([first, *kept, "", ""]).encode("latin-1")


def _parse(text: bytes) -> Request:
    first, *lines = text.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return Request(method=method, target=target, headers=headers)
