"""The only way out: every name's answer and every socket is judged before it is used.

The socket factory is the hook that sees each address actually connected to, IP literals and
redirects included; a resolver is never asked about literals. But when several addresses fail,
happy eyeballs merge their exceptions into a plain OSError. So a refusal is raised *and* noted
on the request that caused it.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from service.fetch.address import AddressGuard, Refused

_DNS_THREADS = 16

# The request's own list: the tasks that connect run in copies of its context, and share it.
_noted: ContextVar[list[Refused] | None] = ContextVar("refusals", default=None)

_AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, Any]


class AddressRefusedError(OSError):
    """An OSError, because that is all that the connector passes on."""


@contextmanager
def noting_refusals() -> Iterator[list[Refused]]:
    """The refusals that requests of this block meet, whatever becomes of their exceptions."""
    refusals: list[Refused] = []
    token = _noted.set(refusals)
    try:
        yield refusals
    finally:
        _noted.reset(token)


def guarded_connector(
    guard: AddressGuard,
    resolver: AbstractResolver,
    *,
    dns_timeout_s: float,
    tls: ssl.SSLContext | None = None,
    new_socket: Callable[[int, int, int], socket.socket] = socket.socket,
) -> TCPConnector:
    """A connector that opens a judged socket for each request and keeps none of them."""

    def open_socket(info: _AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        _refuse(guard, address[0], address[1])
        return new_socket(family, kind, protocol)

    return TCPConnector(
        resolver=GuardedResolver(resolver, guard, timeout_s=dns_timeout_s),
        socket_factory=open_socket,
        ssl=True if tls is None else tls,
        use_dns_cache=False,  # an old answer is not the one that was judged
        force_close=True,  # requests to one origin are rare, and stale connections are not
        limit=0,  # the fetcher counts, so that waiting in line is nobody's timeout
    )


class GuardedResolver(AbstractResolver):
    """One forbidden address in an answer refuses the name: the next attempt might pick it."""

    def __init__(self, inner: AbstractResolver, guard: AddressGuard, *, timeout_s: float) -> None:
        self._inner = inner
        self._guard = guard
        self._timeout_s = timeout_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        async with asyncio.timeout(self._timeout_s):
            answer = await self._inner.resolve(host, port, family)
        for found in answer:
            _refuse(self._guard, found["host"], port)
        return answer

    async def close(self) -> None:
        await self._inner.close()


class SystemResolver(AbstractResolver):
    """getaddrinfo in threads of its own: names that hang must not hold up the disk's threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_DNS_THREADS, thread_name_prefix="dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, _look_up, host, port, family)
        if not answer:
            raise OSError("no address")
        return answer

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    infos = socket.getaddrinfo(
        host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return [
        ResolveResult(
            hostname=host,
            host=_numeric(address),
            port=port,
            family=found_family,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for found_family, _, protocol, _, address in infos
    ]


def _numeric(address: tuple[Any, ...]) -> str:
    """The address with its zone, if it has one: then it is refused."""
    host = str(address[0])
    zone = address[3] if len(address) > len(("host", "port", "flow")) else 0
    return f"{host}%{zone}" if zone and "%" not in host else host


def _refuse(guard: AddressGuard, host: str, port: int) -> None:
    verdict = guard.judge(host, port)
    if isinstance(verdict, Refused):
        noted = _noted.get()
        if noted is not None:
            noted.append(verdict)
        raise AddressRefusedError(f"refused: {verdict.why}")
