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
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from service.fetch.address import AddressGuard, Allowed, Refused, Why
from service.fetch.framing import meter
from service.fetch.resolver import SilentNameServersError
from service.telemetry import EGRESS_EXCEPTIONS

# The request's own list: the tasks that connect run in copies of its context, and share it.
_noted: ContextVar[list[Refused] | None] = ContextVar("refusals", default=None)

# Of one name: to judge all that fit into a DNS answer, 4,000, holds the event loop up for 0.3 s.
_MOST_ADDRESSES = 256

SocketMaker = Callable[[int, int, int], socket.socket]
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
    new_socket: SocketMaker = socket.socket,
) -> TCPConnector:
    """A connector that opens a judged socket for each request and keeps none of them."""

    def open_socket(info: _AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        allowed = _refuse(guard, address[0], address[1])
        if allowed.block is not None:
            EGRESS_EXCEPTIONS.labels(str(allowed.block)).inc()
        return new_socket(family, kind, protocol)

    return _connector(GuardedResolver(resolver, guard, timeout_s=dns_timeout_s), open_socket, tls)


def proxied_connector(
    proxy: URL,
    resolver: AbstractResolver,
    *,
    dns_timeout_s: float,
    tls: ssl.SSLContext | None = None,
    new_socket: SocketMaker = socket.socket,
) -> TCPConnector:
    """A connector whose sockets lead to *proxy* alone, wherever that is: the operator named it."""
    names = ProxyResolver(resolver, proxy, timeout_s=dns_timeout_s)

    def open_socket(info: _AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not names.leads_to(address[0], address[1]):
            raise AddressRefusedError("not the proxy")
        return new_socket(family, kind, protocol)

    return _connector(names, open_socket, tls)


def _connector(
    resolver: AbstractResolver,
    open_socket: Callable[[_AddressInfo], socket.socket],
    tls: ssl.SSLContext | None,
) -> TCPConnector:
    return meter(
        TCPConnector(
            resolver=resolver,
            socket_factory=open_socket,
            ssl=True if tls is None else tls,
            use_dns_cache=False,  # an old answer is not the one that was judged
            force_close=True,  # requests to one origin are rare, and stale connections are not
            limit=0,  # the fetcher counts, so that waiting in line is nobody's timeout
        )
    )


class TimedResolver(AbstractResolver):
    """Waits for another resolver so long and no longer."""

    def __init__(self, inner: AbstractResolver, *, timeout_s: float) -> None:
        self._inner = inner
        self._timeout_s = timeout_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._inner.resolve(host, port, family)
        except TimeoutError as exc:
            raise SilentNameServersError("no answer") from exc

    async def close(self) -> None:
        await self._inner.close()


class GuardedResolver(TimedResolver):
    """One forbidden address in an answer refuses the name: the next attempt might pick it."""

    def __init__(self, inner: AbstractResolver, guard: AddressGuard, *, timeout_s: float) -> None:
        super().__init__(inner, timeout_s=timeout_s)
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        answer = (await super().resolve(host, port, family))[:_MOST_ADDRESSES]
        for found in answer:
            _refuse(self._guard, found["host"], port)
        return answer


class ProxyResolver(TimedResolver):
    """Resolves the proxy's name and no other, and knows what it led to."""

    def __init__(self, inner: AbstractResolver, proxy: URL, *, timeout_s: float) -> None:
        super().__init__(inner, timeout_s=timeout_s)
        self._host = proxy.raw_host or ""
        self._port = proxy.port
        self._addresses = {self._host}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host != self._host:
            raise AddressRefusedError("not the proxy")
        answer = await super().resolve(host, port, family)
        self._addresses |= {found["host"] for found in answer}
        return answer

    def leads_to(self, address: str, port: int) -> bool:
        return port == self._port and address in self._addresses


def judge(guard: AddressGuard, address: str, port: int) -> Allowed | Refused:
    """What *guard* says, and that no request ends at this host unless the operator says so."""
    verdict = guard.judge(address, port)
    if isinstance(verdict, Refused):
        return verdict
    wanted = verdict.block is not None and not guard.is_everywhere(port)
    if not wanted and is_this_host(address, port):
        return Refused(why=Why.SELF)
    return verdict


def is_this_host(address: str, port: int) -> bool:
    """Ask the kernel: what would be sent to an address of this host would come from it.

    A datagram socket that is connected sends nothing.
    """
    if ip_address(address).is_loopback:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect((address, port))
        except OSError:  # no way there
            return False
        return ip_address(asking.getsockname()[0]) == ip_address(address)


def _refuse(guard: AddressGuard, address: str, port: int) -> Allowed:
    verdict = judge(guard, address, port)
    if isinstance(verdict, Allowed):
        return verdict
    noted = _noted.get()
    if noted is not None:
        noted.append(replace(verdict, address=address))
    raise AddressRefusedError(f"refused: {verdict.why}")
