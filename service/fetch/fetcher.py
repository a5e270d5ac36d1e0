"""A source as a capped stream of bytes, and one typed error for each way in which it can end.

Only GET is used: signed URLs are signed for one method, and HEAD fails on them. Bytes are taken
as they are on the wire; nothing is decompressed, so nothing can swell.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from aiohttp import ClientResponse

from service.errors import FailureCode, SourceError, UnavailableError
from service.fetch.egress import (
    Egress,
    InvalidUrlError,
    NoNameError,
    ProxyError,
    RefusedError,
    UnreachableError,
)
from service.fetch.limits import FetchLimits, Pace, Slots
from service.fetch.refusals import ForbiddenError
from service.fetch.resume import is_plain
from service.fetch.share_page import what_to_send
from service.fetch.signed_url import expiry_of
from service.fetch.source_url import SourceUrl, parse_source_url
from service.fetch.transfer import Transfer

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all where known

_SNIFFED_BYTES = 512
_REDIRECTS = {301, 302, 303, 307, 308}
_HTML_TYPES = {"text/html", "application/xhtml+xml"}
# Possessive: a stranger's comments, each of which could end at any other's end, are read once.
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?:<!--.*?-->\s*+)*+<(?:!doctype\s+html|html|head|body)\b", re.DOTALL
)


@dataclass(slots=True, kw_only=True)
class Source:
    """An open source. Its first bytes have come, so it is neither empty nor a web page."""

    url: str  # where the redirects ended, without its query
    content_type: str  # as claimed; lower case, without parameters
    size_hint: int | None  # bytes, as claimed
    _transfer: Transfer = field(repr=False)
    _max_bytes: int
    _progress: Progress | None = field(repr=False)
    _head: bytes = field(default=b"", repr=False)

    async def body(self) -> AsyncGenerator[bytes]:
        """All bytes, once. SourceError: timeout, too large or truncated."""
        done_bytes, chunk = 0, self._head
        while chunk:
            done_bytes += len(chunk)
            if done_bytes > self._max_bytes:
                raise _too_large(self._max_bytes)
            if self._progress is not None:
                self._progress(done_bytes, self._transfer.size_bytes)
            yield chunk
            chunk = await self._transfer.read()


class Fetcher:
    """Opens sources within limits, by a way out that is open for as long as it is used."""

    def __init__(self, egress: Egress, limits: FetchLimits | None = None) -> None:
        self._egress = egress
        self._limits = limits or FetchLimits()
        self._slots = Slots(self._limits)

    def open(
        self,
        url: str,
        *,
        max_bytes: int,
        now: datetime,
        deadline: datetime | None = None,
        progress: Progress | None = None,
    ) -> AbstractAsyncContextManager[Source]:
        """Open *url*, through redirects, up to its first bytes; raise SourceError.

        Raises HostBusyError where too many other fetches wait for one of the hosts on the way.

        *deadline* is when the URL expires if the caller knows better than the URL itself: a
        fetch begins before it or not at all, and one that has begun may end after it, as the
        stores allow.
        """
        return self._open(url, _Wish(now, deadline, max_bytes, progress))

    @asynccontextmanager
    async def _open(self, url: str, wish: "_Wish") -> AsyncIterator[Source]:
        target = first = parse_source_url(url, self._egress.guard)
        pace, status = Pace(self._limits), None
        for _ in range(self._limits.max_redirects + 1):
            async with self._transfer(target, pace, wish) as transfer:
                location = _redirect(transfer.response)
                if location is None:
                    pace.begin_body()
                    yield await _source((target, first), transfer, wish)
                    return
                status = transfer.response.status
            target = target.follow(location, self._egress.guard)
        detail = f"more than {self._limits.max_redirects} redirects"
        raise SourceError(FailureCode.SOURCE_HTTP_ERROR, detail, status=status)

    @asynccontextmanager
    async def _transfer(
        self, target: SourceUrl, pace: Pace, wish: "_Wish"
    ) -> AsyncIterator[Transfer]:
        """One URL's answer; its connection is closed after, read to the end or not."""

        async def ask(headers: Mapping[str, str]) -> ClientResponse:
            wish.refuse_expired(target, pace)
            return await self._get(target, pace, headers)

        async with self._slots.one(target.host, pace):
            response = await ask({})
            transfer = Transfer(ask, response, pace, self._limits, target.without_query)
            try:
                yield transfer
            finally:
                transfer.close()

    async def _get(
        self, target: SourceUrl, pace: Pace, headers: Mapping[str, str]
    ) -> ClientResponse:
        within = pace.waiting(pace.answer())
        try:
            return await self._egress.request("GET", target.wire, headers=headers, within=within)
        except RefusedError as exc:
            raise ForbiddenError(
                exc.detail, why=exc.why, address=exc.address, url=target.without_query
            ) from exc
        except InvalidUrlError as exc:
            raise SourceError(FailureCode.SOURCE_URL_INVALID) from exc
        except UnreachableError as exc:
            raise SourceError(FailureCode.SOURCE_UNREACHABLE, exc.detail) from exc
        except NoNameError as exc:
            raise SourceError(FailureCode.SOURCE_TIMEOUT, exc.detail) from exc
        except ProxyError as exc:  # nothing is known of the source: it is no fault of its owner's
            raise UnavailableError(FailureCode.INTERNAL, exc.detail) from exc


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the caller of `open` asked for."""

    now: datetime
    deadline: datetime | None
    max_bytes: int
    progress: Progress | None

    def refuse_expired(self, target: SourceUrl, pace: Pace) -> None:
        expiries = (self.deadline, expiry_of(str(target.wire)))
        now = self.now + timedelta(seconds=pace.spent_s)
        if any(expiry is not None and expiry <= now for expiry in expiries):
            raise SourceError(FailureCode.SOURCE_URL_EXPIRED)


async def _source(urls: tuple[SourceUrl, SourceUrl], transfer: Transfer, wish: _Wish) -> Source:
    """The source once its first bytes have come. *urls*: where it was found, and what was given."""
    response = transfer.response
    await transfer.check_status()
    if not is_plain(response.headers):
        detail = "compressed, although that was not asked for"
        raise SourceError(FailureCode.SOURCE_HTTP_ERROR, detail, status=response.status)
    if transfer.size_bytes is not None and transfer.size_bytes > wish.max_bytes:
        raise _too_large(wish.max_bytes)
    head = await _first_bytes(transfer)
    if _is_html(response.content_type, head[:_SNIFFED_BYTES]):
        found, given = urls
        hint = what_to_send(given.host, given.path) or what_to_send(found.host, found.path)
        raise SourceError(FailureCode.SOURCE_IS_HTML, hint or "")
    return Source(
        url=urls[0].without_query,
        content_type=response.content_type,
        size_hint=transfer.size_bytes,
        _transfer=transfer,
        _max_bytes=wish.max_bytes,
        _progress=wish.progress,
        _head=head,
    )


async def _first_bytes(transfer: Transfer) -> bytes:
    """Enough to know a web page when we see one."""
    head = b""
    while len(head) < _SNIFFED_BYTES and (chunk := await transfer.read()):
        head += chunk
    if not head:
        raise SourceError(FailureCode.SOURCE_EMPTY)
    return head


def _redirect(response: ClientResponse) -> str | None:
    """Where to go on; a redirect that does not say is an answer like any other."""
    return response.headers.get("Location") if response.status in _REDIRECTS else None


def _is_html(content_type: str, head: bytes) -> bool:
    """By its bytes; or by its type, unless the bytes are binary: PHP calls everything HTML."""
    if _HTML.match(head.lower()):
        return True
    return content_type in _HTML_TYPES and b"\0" not in head


def _too_large(max_bytes: int) -> SourceError:
    return SourceError(FailureCode.SOURCE_TOO_LARGE, f"over {max_bytes} bytes")
