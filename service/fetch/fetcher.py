"""A source as a capped stream of bytes, and one typed error for each way in which it can end.

Only GET is used: signed URLs are signed for one method, and HEAD fails on them. Bytes are taken
as they are on the wire; nothing is decompressed, so nothing can swell.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus

from aiohttp import ClientError, ClientResponse

from service.errors import FailureCode, SourceError
from service.fetch.egress import Egress, InvalidUrlError, RefusedError, UnreachableError
from service.fetch.limits import FetchLimits, Pace, Slots
from service.fetch.signed_url import expiry_of, says_expired
from service.fetch.source_url import SourceUrl, parse_source_url

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all where known

_SNIFFED_BYTES = 512
_REFUSAL_BYTES = 4096  # of a refusal's body, where stores say why
_REDIRECTS = {301, 302, 303, 307, 308}
_MAYBE_EXPIRED = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
# `aws-chunked` is left on objects by S3 clients; the stored bytes are plain.
_PLAIN_ENCODINGS = {"", "identity", "aws-chunked"}
_HTML_TYPES = {"text/html", "application/xhtml+xml"}
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.DOTALL
)
_WHOLE_RANGE = re.compile(r"bytes 0-(\d+)/(\d+)", re.ASCII)


@dataclass(slots=True, kw_only=True)
class Source:
    """An open source. Its first bytes have come, so it is neither empty nor a web page."""

    url: str  # where the redirects ended, without its query
    content_type: str  # as claimed; lower case, without parameters
    size_hint: int | None  # bytes, as claimed
    _response: ClientResponse = field(repr=False)
    _pace: Pace = field(repr=False)
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
                self._progress(done_bytes, self.size_hint)
            yield chunk
            chunk = await self._read()

    async def _read(self) -> bytes:
        """Whatever has come, or nothing at the end."""
        try:
            async with self._pace.waiting(self._pace.idle()):
                chunk = await self._response.content.readany()
        except (ClientError, OSError) as exc:  # Content-Length or chunks not met, among others
            raise SourceError(FailureCode.SOURCE_TRUNCATED) from exc
        if chunk:  # at the end it is complete, however slow it was
            self._pace.count(len(chunk))
        return chunk

    async def _peek(self) -> None:
        """Read enough to know a web page when we see one."""
        self._pace.begin_body()
        while len(self._head) < _SNIFFED_BYTES and (chunk := await self._read()):
            self._head += chunk
        if not self._head:
            raise SourceError(FailureCode.SOURCE_EMPTY)
        if _is_html(self.content_type, self._head[:_SNIFFED_BYTES]):
            raise SourceError(FailureCode.SOURCE_IS_HTML)


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
        target = parse_source_url(url, self._egress.guard)
        pace, status = Pace(self._limits), None
        for _ in range(self._limits.max_redirects + 1):
            wish.refuse_expired(target, pace)
            async with self._answer(target, pace) as response:
                location = _redirect(response)
                if location is None:
                    yield await _source(target, response, pace, wish)
                    return
                status = response.status
            target = target.follow(location, self._egress.guard)
        detail = f"more than {self._limits.max_redirects} redirects"
        raise SourceError(FailureCode.SOURCE_HTTP_ERROR, detail, status=status)

    @asynccontextmanager
    async def _answer(self, target: SourceUrl, pace: Pace) -> AsyncIterator[ClientResponse]:
        """One request's response; its connection is closed after, read to the end or not."""
        async with self._slots.one(target.host):
            response = await self._get(target, pace)
            try:
                yield response
            finally:
                response.close()

    async def _get(self, target: SourceUrl, pace: Pace) -> ClientResponse:
        within = pace.waiting(pace.answer())
        try:
            return await self._egress.request("GET", target.wire, within=within)
        except RefusedError as exc:
            raise SourceError(FailureCode.SOURCE_URL_FORBIDDEN, exc.detail) from exc
        except InvalidUrlError as exc:
            raise SourceError(FailureCode.SOURCE_URL_INVALID) from exc
        except UnreachableError as exc:
            raise SourceError(FailureCode.SOURCE_UNREACHABLE, exc.detail) from exc


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


async def _source(target: SourceUrl, response: ClientResponse, pace: Pace, wish: _Wish) -> Source:
    source = Source(
        url=target.without_query,
        content_type=response.content_type,
        size_hint=response.content_length,
        _response=response,
        _pace=pace,
        _max_bytes=wish.max_bytes,
        _progress=wish.progress,
    )
    await _check_status(response, source)
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _PLAIN_ENCODINGS:
        detail = "compressed, although that was not asked for"
        raise SourceError(FailureCode.SOURCE_HTTP_ERROR, detail, status=response.status)
    if source.size_hint is not None and source.size_hint > wish.max_bytes:
        raise _too_large(wish.max_bytes)
    await source._peek()  # noqa: SLF001 - a source is not handed out before its first bytes
    return source


async def _check_status(response: ClientResponse, source: Source) -> None:
    if response.status == HTTPStatus.OK:
        return
    if response.status == HTTPStatus.NO_CONTENT:
        raise SourceError(FailureCode.SOURCE_EMPTY)
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        if _is_whole(response.headers.get("Content-Range", "")):
            return
        raise SourceError(FailureCode.SOURCE_TRUNCATED, "a part was sent, the whole was asked for")
    if response.status in _MAYBE_EXPIRED and says_expired(await _refusal(source)):
        raise SourceError(FailureCode.SOURCE_URL_EXPIRED)
    detail = f"HTTP status {response.status}"
    raise SourceError(FailureCode.SOURCE_HTTP_ERROR, detail, status=response.status)


async def _refusal(source: Source) -> bytes:
    """The beginning of a refusal's body, as far as it can be had."""
    text = b""
    try:
        while len(text) < _REFUSAL_BYTES and (chunk := await source._read()):  # noqa: SLF001 - of this module
            text += chunk
    except SourceError:
        return text
    return text[:_REFUSAL_BYTES]


def _redirect(response: ClientResponse) -> str | None:
    """Where to go on; a redirect that does not say is an answer like any other."""
    return response.headers.get("Location") if response.status in _REDIRECTS else None


def _is_html(content_type: str, head: bytes) -> bool:
    """By its bytes; or by its type, unless the bytes are binary: PHP calls everything HTML."""
    if _HTML.match(head.lower()):
        return True
    return content_type in _HTML_TYPES and b"\0" not in head


def _is_whole(content_range: str) -> bool:
    match = _WHOLE_RANGE.fullmatch(content_range)
    return match is not None and int(match[1]) + 1 == int(match[2])


def _too_large(max_bytes: int) -> SourceError:
    return SourceError(FailureCode.SOURCE_TOO_LARGE, f"over {max_bytes} bytes")
