"""The one way out for requests of ours to addresses that strangers chose.

EgressError          no answer came; `detail` is fit for the public
 |- RefusedError     we do not go there; `refusals` say why
 |- InvalidUrlError  the client library does not take the URL that we judged
 |- UnreachableError it could not be reached, or does not speak HTTP
 |- NoNameError      its name servers did not answer in time
 `- ProxyError       the operator's proxy is away, or does not know us: our own trouble
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import replace
from http import HTTPStatus
from importlib.metadata import version
from types import TracebackType
from typing import Self

from aiohttp import (
    ClientConnectorDNSError,
    ClientError,
    ClientHttpProxyError,
    ClientProxyConnectionError,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    ClientSSLError,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    InvalidURL,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver
from yarl import URL

from service.fetch.address import AddressGuard, Allowed, Refused, Why
from service.fetch.connector import (
    SocketMaker,
    guarded_connector,
    judge,
    noting_refusals,
    proxied_connector,
)
from service.fetch.resolver import (
    DnsResolver,
    NoAddressError,
    NoSuchNameError,
    SilentNameServersError,
)
from service.telemetry import EGRESS_EXCEPTIONS

USER_AGENT = f"greenroom/{version('greenroom')}"  # stable: source owners put it on allow-lists
_READ_BUFFER_BYTES = 1 << 18
_REFUSALS_OF_CONNECT = {HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED}
# How a proxy says that an answer is its own and not the origin's: RFC 9209, Squid, Smokescreen.
_PROXY_SAYS = ("Proxy-Status", "X-Squid-Error", "X-Smokescreen-Error")


class EgressError(Exception):
    """No answer came."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class RefusedError(EgressError):
    """We do not go there. What the first refusal says is for the log alone."""

    def __init__(self, refusals: Sequence[Refused]) -> None:
        super().__init__("an address or port that is not public")
        self.refusals = tuple(refusals)

    @property
    def why(self) -> Why:
        return self.refusals[0].why

    @property
    def address(self) -> str:
        return self.refusals[0].address


class InvalidUrlError(EgressError):
    """The client library does not take it."""


class UnreachableError(EgressError):
    """It could not be reached, or does not speak HTTP."""


class NoNameError(EgressError):
    """Its name servers did not answer in time."""


class ProxyError(EgressError):
    """The operator's proxy is away, or does not know us: nothing is known of the source."""


class Egress:
    """Requests through the guard. `resolver` is closed with it; by default c-ares on the system's
    name servers.

    *tls* says whose certificates are believed; by default the system's authorities. *new_socket*
    makes the socket of an address that was judged. Through a *proxy* (an http URL) names are the
    proxy's to resolve and to judge; addresses and ports that a URL shows are judged here first.
    """

    def __init__(
        self,
        *,
        guard: AddressGuard,
        connect_s: float,
        proxy: URL | None = None,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        new_socket: SocketMaker = socket.socket,
    ) -> None:
        self.guard = guard
        self._connect_s = connect_s
        self._proxy = proxy
        self._resolver = resolver
        self._tls = tls
        self._new_socket = new_socket
        self._stack = AsyncExitStack()
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        resolver = self._resolver or DnsResolver(timeout_s=self._connect_s)
        self._stack.push_async_callback(resolver.close)
        session = ClientSession(
            connector=self._connector(resolver),
            proxy=self._proxy,
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

    def _connector(self, resolver: AbstractResolver) -> TCPConnector:
        if self._proxy is None:
            return guarded_connector(
                self.guard,
                resolver,
                dns_timeout_s=self._connect_s,
                tls=self._tls,
                new_socket=self._new_socket,
            )
        return proxied_connector(
            self._proxy,
            resolver,
            dns_timeout_s=self._connect_s,
            tls=self._tls,
            new_socket=self._new_socket,
        )

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
        self._refuse_at_sight(url)
        with noting_refusals() as refusals:
            try:
                async with within or nullcontext():
                    response = await self._send(method, url, headers, data)
            except Exception as exc:
                if refusals:
                    raise RefusedError(refusals) from exc
                if isinstance(exc, ClientError | OSError):
                    raise self._error(exc) from exc
                raise
        if self._proxy is not None and url.scheme == "http":
            _raise_for_proxy(response)
        return response

    def _refuse_at_sight(self, url: URL) -> None:
        """Judge what the URL alone shows. Without a proxy the sockets judge addresses anyway."""
        host, port = url.raw_host or "", url.port or 0
        if self.guard.is_own(host, port):
            raise RefusedError([Refused(why=Why.SELF)])
        if self._proxy is None:
            return
        verdict = judge(self.guard, host, port)
        if isinstance(verdict, Allowed):
            if verdict.block is not None:
                EGRESS_EXCEPTIONS.labels(str(verdict.block)).inc()
        elif verdict.why is not Why.NOT_AN_ADDRESS:
            raise RefusedError([replace(verdict, address=host)])
        elif port not in self.guard.ports:
            raise RefusedError([Refused(why=Why.PORT)])

    async def _send(
        self, method: str, url: URL, headers: Mapping[str, str] | None, data: bytes | None
    ) -> ClientResponse:
        if self._session is None:
            raise RuntimeError("use `async with` around it")
        try:
            return await self._session.request(
                method, url, headers=headers, data=data, allow_redirects=False
            )
        except ConnectionTimeoutError as exc:
            if self._proxy is None or await _listens(self._proxy, self._connect_s):
                raise
            raise ProxyError("our proxy could not be reached") from exc

    def _error(self, exc: Exception) -> EgressError:
        if self._proxy is not None and isinstance(
            exc, ClientProxyConnectionError | ClientConnectorDNSError
        ):
            return ProxyError("our proxy could not be reached")
        match exc:
            case ClientHttpProxyError():
                return _answer_to_connect(exc)
            case InvalidURL():
                return InvalidUrlError("not a URL")
            case ClientConnectorDNSError(os_error=SilentNameServersError()):
                return NoNameError("its name servers did not answer in time")
            case _:
                return UnreachableError(_what_failed(exc))


async def _listens(proxy: URL, timeout_s: float) -> bool:
    """Whether the proxy takes connections: a time-out may be its own, or that of TLS behind it."""
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(proxy.raw_host, proxy.port)
    except OSError:
        return False
    writer.close()
    return True


def _answer_to_connect(exc: ClientHttpProxyError) -> EgressError:
    """What a proxy means that opens no tunnel."""
    if exc.headers is not None and "Proxy-Authenticate" in exc.headers:
        return ProxyError("our proxy wants other credentials")
    if exc.status in _REFUSALS_OF_CONNECT:
        return RefusedError([Refused(why=Why.PROXY)])
    return UnreachableError("the connection failed")


def _raise_for_proxy(response: ClientResponse) -> None:
    """Raise EgressError where the answer to a plain request is the proxy's own."""
    error: EgressError | None = None
    if response.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        error = RefusedError([Refused(why=Why.PROXY)])
        if "Proxy-Authenticate" in response.headers:
            error = ProxyError("our proxy wants other credentials")
    elif response.status >= HTTPStatus.INTERNAL_SERVER_ERROR and any(
        name in response.headers for name in _PROXY_SAYS
    ):
        error = UnreachableError("the connection failed")
    if error is not None:
        response.close()
        raise error


def _what_failed(exc: Exception) -> str:
    """What the caller may know of a request that got no answer."""
    match exc:
        case ClientSSLError():
            return "the TLS connection or its certificate is not valid"
        case ClientConnectorDNSError(os_error=NoSuchNameError()):
            return "its name does not exist"
        case ClientConnectorDNSError(os_error=NoAddressError()):
            return "its name has no address"
        case ClientConnectorDNSError():
            return "its name could not be resolved"
        case ClientResponseError():
            return "it did not answer in HTTP"
        case _:
            return "the connection failed"
