"""Names to addresses by c-ares, which waits for any number of name servers at once.

getaddrinfo holds a thread for each name: as many names as there are threads, with name servers
that hang, would hold up every other fetch's look-up.

OSError                       no address
 |- NoSuchNameError           the name does not exist
 |- NoAddressError            it exists and has no address
 `- SilentNameServersError    nobody answered in time
"""

import socket
from collections.abc import Sequence
from typing import Any

import aiodns
import pycares
from aiohttp.abc import AbstractResolver, ResolveResult

_TRIES = 3
_TIMEOUTS_IN_ALL = 1 + 2 + 4  # c-ares doubles its patience at each try
# A name is looked up as it is given: no search list of resolv.conf, no aliases of HOSTALIASES.
_FLAGS = pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_NOALIASES


class NoSuchNameError(OSError):
    """The name does not exist."""


class NoAddressError(OSError):
    """The name exists and has no address."""


class SilentNameServersError(OSError):
    """Nobody answered in time. No TimeoutError: the source's own clock would take it for its."""


class DnsResolver(AbstractResolver):
    """Asks *nameservers* (`127.0.0.1:5353`), by default those of the system; /etc/hosts goes first.

    c-ares gives up after about *timeout_s*, and keeps answers for as long as their TTL says.
    """

    def __init__(self, *, timeout_s: float, nameservers: Sequence[str] = ()) -> None:
        self._timeout_s = timeout_s
        self._nameservers = tuple(nameservers)
        self._cares: aiodns.DNSResolver | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            answer = await self._opened().getaddrinfo(
                host, family=family, port=port, type=socket.SOCK_STREAM
            )
        except aiodns.error.DNSError as exc:
            raise _error(exc) from exc
        if not answer.nodes:
            raise NoAddressError(host)
        return [_result(host, port, node) for node in answer.nodes]

    async def close(self) -> None:
        if self._cares is not None:
            await self._cares.close()
            self._cares = None

    def _opened(self) -> aiodns.DNSResolver:
        if self._cares is None:
            self._cares = aiodns.DNSResolver(
                nameservers=self._nameservers,
                timeout=self._timeout_s / _TIMEOUTS_IN_ALL,
                tries=_TRIES,
                # No `lookups`: pycares 5.2.1 frees that text before c-ares has read it.
                flags=_FLAGS,
            )
        return self._cares


def _error(exc: aiodns.error.DNSError) -> OSError:
    match exc.args[0]:
        case aiodns.error.ARES_ENOTFOUND:
            return NoSuchNameError("no such name")
        case aiodns.error.ARES_ENODATA:
            return NoAddressError("no address")
        case aiodns.error.ARES_ETIMEOUT:
            return SilentNameServersError("no answer")
        case _:
            return OSError("the name servers failed")


def _result(host: str, port: int, node: pycares.AddrInfoNode) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=_numeric(node.addr),
        port=port,
        family=node.family,
        proto=0,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )


def _numeric(address: tuple[Any, ...]) -> str:
    """The address with its zone, if it has one: then it is refused."""
    host = address[0].decode("ascii")
    zone = address[3] if len(address) > len(("host", "port", "flow")) else 0
    return f"{host}%{zone}" if zone and "%" not in host else host
