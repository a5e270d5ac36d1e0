"""The bytes of one source, over as many answers as it takes: at most one is open at a time."""

from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import structlog
from aiohttp import ClientError, ClientPayloadError, ClientResponse

from service.errors import FailureCode, SourceError
from service.fetch.limits import FetchLimits, Pace
from service.fetch.resume import (
    Validator,
    asking_for_the_rest,
    part_of,
    strong_validator,
    why_not_the_rest,
)
from service.fetch.signed_url import says_expired

log = structlog.get_logger()

Ask = Callable[[Mapping[str, str]], Awaitable[ClientResponse]]

_REFUSAL_BYTES = 4096  # of a refusal's body, where stores say why
_MAYBE_EXPIRED = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


class Transfer:
    """One body. *ask* sends the request again, with further headers, to the very same URL.

    A transfer that breaks after some bytes is taken up where it broke, where the origin can do
    that safely; one that is slow is not. Whatever had come but was not read yet comes again.
    """

    def __init__(
        self, ask: Ask, response: ClientResponse, pace: Pace, limits: FetchLimits, shown: str
    ) -> None:
        self.response = _told_of_its_end(response)
        self.size_bytes = response.content_length  # of the whole, as claimed
        self.done_bytes = 0
        self._ask = ask
        self._pace = pace
        self._limits = limits
        self._shown = shown
        self._resumes = 0
        self._validator = strong_validator(response.headers)

    async def read(self) -> bytes:
        """Whatever has come, or nothing at the end; raise SourceError."""
        chunk = await self._read_on()
        self.done_bytes += len(chunk)
        if self.size_bytes is not None and not self._fits(is_end=not chunk):
            raise SourceError(FailureCode.SOURCE_TRUNCATED, "other than the length announced")
        return chunk

    def _fits(self, *, is_end: bool) -> bool:
        size_bytes = self.size_bytes or 0
        return self.done_bytes == size_bytes if is_end else self.done_bytes <= size_bytes

    async def _read_on(self) -> bytes:
        while True:
            try:
                return await self._read()
            except (ClientError, OSError) as exc:  # length or chunks not met, among others
                await self._go_on(exc)

    async def _read(self) -> bytes:
        async with self._pace.waiting(self._pace.idle()):
            chunk = await self.response.content.readany()
        if chunk:  # at the end it is complete, however slow it was
            self._pace.count(len(chunk))
        return chunk

    async def check_status(self) -> None:
        """Raise what the first answer means, unless it brings the whole source."""
        status = self.response.status
        if status == HTTPStatus.OK:
            return
        if status == HTTPStatus.NO_CONTENT:
            raise SourceError(FailureCode.SOURCE_EMPTY)
        if status == HTTPStatus.PARTIAL_CONTENT:
            part = part_of(self.response.headers)
            if part is not None and part.is_whole:
                self.size_bytes = part.total  # however long the answer calls itself
                return
            detail = "a part was sent, the whole was asked for"
            raise SourceError(FailureCode.SOURCE_TRUNCATED, detail)
        await self._refuse_expired()
        raise SourceError(FailureCode.SOURCE_HTTP_ERROR, f"HTTP status {status}", status=status)

    async def _refuse_expired(self) -> None:
        if self.response.status in _MAYBE_EXPIRED and says_expired(await self._refusal()):
            raise SourceError(FailureCode.SOURCE_URL_EXPIRED)

    async def _refusal(self) -> bytes:
        """The beginning of a refusal's body, as far as it can be had."""
        text = b""
        try:
            while len(text) < _REFUSAL_BYTES and (chunk := await self._read()):
                text += chunk
        except (SourceError, ClientError, OSError):
            return text
        return text[:_REFUSAL_BYTES]

    async def _go_on(self, broke: Exception) -> None:
        """Have the rest; raise SourceError where it cannot be had, or not safely."""
        validator = self._validator
        while validator is not None and self.done_bytes and self._may_resume():
            self.close()
            await self._pause()
            try:
                headers = asking_for_the_rest(validator, self.done_bytes)
                self.response = _told_of_its_end(await self._ask(headers))
            except SourceError as error:
                if error.code is not FailureCode.SOURCE_UNREACHABLE:
                    raise
                continue
            await self._accept_rest(validator)
            log.info(
                "fetch_resumed",
                source=self._shown,
                at_bytes=self.done_bytes,
                size_bytes=self.size_bytes,
                resumes=self._resumes,
            )
            return
        raise SourceError(FailureCode.SOURCE_TRUNCATED) from broke

    def _may_resume(self) -> bool:
        self._resumes += 1
        return self._resumes <= self._limits.max_resumes

    async def _pause(self) -> None:
        """A pause is the source's time as well: it is the one that broke off."""
        pause_s = self._limits.resume_pause_s * 2 ** (self._resumes - 1)
        await self._pace.rest(pause_s)

    async def _accept_rest(self, validator: Validator) -> None:
        await self._refuse_expired()
        trouble = why_not_the_rest(
            self.response.status,
            self.response.headers,
            validator,
            self.done_bytes,
            self.size_bytes,
        )
        part = part_of(self.response.headers)
        if trouble is not None or part is None:
            raise SourceError(FailureCode.SOURCE_TRUNCATED, trouble or "")
        self.size_bytes = part.total

    def close(self) -> None:
        """Hang up, whatever is left to read."""
        self.response.close()


def _told_of_its_end(response: ClientResponse) -> ClientResponse:
    """*response*, whose reader hears when its connection is gone.

    aiohttp 3.14 hangs up on a body that is not HTTP, a chunk without a length for example, and
    leaves its reader waiting for ever.
    """
    content = response.content
    protocol = None if response.connection is None else response.connection.protocol
    closed = None if protocol is None else protocol.closed

    def tell(closed: Future[None]) -> None:
        if not closed.cancelled():
            closed.exception()  # seen: a clean end and a reset mean the same here
        if not content.is_eof() and content.exception() is None:
            content.set_exception(ClientPayloadError("the connection is gone"))

    if closed is not None:
        closed.add_done_callback(tell)
    return response
