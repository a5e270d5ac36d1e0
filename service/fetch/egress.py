"""The one way out for requests of ours to addresses that strangers chose.

EgressError          no answer came; `detail` is fit for the public
 |- RefusedError     we do not go there; `refusals` say why
 |- InvalidUrlError  the client library does not take the URL that we judged
 `- UnreachableError it could not be reached, or does not speak HTTP
"""

import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from importlib.metadata import version
from types import TracebackType
from typing import Self

from aiohttp import (
    ClientConnectorDNSError,
    ClientError,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    ClientSSLError,
    ClientTimeout,
    DummyCookieJar,
    InvalidURL,
)
from aiohttp.abc import AbstractResolver
from yarl import URL

from service.fetch.address import AddressGuard, Refused
from service.fetch.connector import SystemResolver, guarded_connector, noting_refusals

USER_AGENT = f"greenroom/{version('greenroom')}"  # stable: source owners put it on allow-lists
_READ_BUFFER_BYTES = 1 << 18

SocketMaker = Callable[[int, int, int], socket.socket]


class EgressError(Exception):
    """No answer came."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class RefusedError(EgressError):
    """We do not go there."""

    def __init__(self, refusals: Sequence[Refused]) -> None:
        super().__init__("an address or port that is not public")
        self.refusals = tuple(refusals)


class InvalidUrlError(EgressError):
    """The client library does not take it."""


class UnreachableError(EgressError):
    """It could not be reached, or does not speak HTTP."""


class Egress:
    """Requests through the guard. `resolver` is closed with it; by default the system's.

    *tls* says whose certificates are believed; by default the system's authorities. *new_socket*
    makes the socket of an address that was judged.
    """

    def __init__(
        self,
        *,
        guard: AddressGuard,
        connect_s: float,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        new_socket: SocketMaker = socket.socket,
    ) -> None:
        self.guard = guard
        self._connect_s = connect_s
        self._resolver = resolver
        self._tls = tls
        self._new_socket = new_socket
        self._stack = AsyncExitStack()
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        resolver = self._resolver or SystemResolver()
        self._stack.push_async_callback(resolver.close)
        session = ClientSession(
            connector=guarded_connector(
                self.guard,
                resolver,
                dns_timeout_s=self._connect_s,
                tls=self._tls,
                new_socket=self._new_socket,
            ),
            timeout=ClientTimeout(total=None, sock_connect=self._connect_s),
            cookie_jar=DummyCookieJar(),
            trust_env=False,  # neither a proxy nor .netrc: the guard would judge the wrong host
            auto_decompress=False,
            read_bufsize=_READ_BUFFER_BYTES,
            headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
        )
        self._session = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._session = None
        await self._stack.aclose()

    async def request(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        within: AbstractAsyncContextManager[None] | None = None,
    ) -> ClientResponse:
        """One request, up to the end of its answer's headers; redirects are not followed.

        *within* is its deadline, and raises what it likes. A refusal goes before whatever else
        happened: of several addresses one may have been refused while another hung.
        """
        if self._session is None:
            raise RuntimeError("use `async with` around it")
        with noting_refusals() as refusals:
            try:
                async with within or nullcontext():
                    return await self._session.request(
                        method, url, headers=headers, data=data, allow_redirects=False
                    )
            except Exception as exc:
                if refusals:
                    raise RefusedError(refusals) from exc
                if isinstance(exc, InvalidURL):
                    raise InvalidUrlError("not a URL") from exc
                if isinstance(exc, ClientError | OSError):
                    raise UnreachableError(_what_failed(exc)) from exc
                raise


def _what_failed(exc: Exception) -> str:
    """What the caller may know of a request that got no answer."""
    match exc:
        case ClientSSLError():
            return "the TLS connection or its certificate is not valid"
        case ClientConnectorDNSError():
            return "its name could not be resolved"
        case ClientResponseError():
            return "it did not answer in HTTP"
        case _:
            return "the connection failed"
