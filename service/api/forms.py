"""multipart/form-data, read as it comes: RFC 7578, as strict as the clients that send it.

    body  = 1*(delimiter CRLF headers CRLF value CRLF) delimiter "--" [white space]
    value = what comes before the next CRLF delimiter

What no client sends is refused and not guessed at: text before the first delimiter or after the
last, folded headers, parts within parts, encoded parts. File names are never looked at.
"""

import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus

from aiohttp import web

from service.api.incoming import (
    body_chunks,
    malformed,
    too_large,
    unsupported_encoding,
    unsupported_type,
)
from service.api.problem import ApiError, ErrorType, invalid_field, missing_field

MAX_PARTS = 16
MAX_HEADERS_BYTES = 8192  # of one part
MAX_FIELD_BYTES = 4096
OVERHEAD_BYTES = 65_536  # what a form may have beside its file
_SHOWN_NAME = 64

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - of RFC 9110, 5.6.2
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_TOKEN})=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')
_HEADER = re.compile(rf"({_TOKEN}):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046, 5.1.1
# A part that is sent in one of these is sent as it is (RFC 2045, 6.2).
_PLAIN_TRANSFER = {"7bit", "8bit", "binary"}

Sink = Callable[[AsyncIterator[bytes]], Awaitable[None]]
Digests = list[tuple[str, bytes]]


@dataclass(slots=True, kw_only=True)
class Form:
    """What a body held. `digests` has the SHA-256 of every value, by name, as they came."""

    fields: dict[str, str] = field(default_factory=dict)
    digests: Digests = field(default_factory=list)
    fault: ApiError | None = None  # the first thing that is wrong with what was said


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The parts of a form by name: a file goes to its sink and must be there, fields need not."""

    files: Mapping[str, Sink]
    fields: Collection[str]
    max_file_bytes: int

    def cap_of(self, name: str) -> int:
        return self.max_file_bytes if name in self.files else MAX_FIELD_BYTES


async def read_form(request: web.Request, expected: Expected, *, to_the_end: bool) -> Form:
    """Read a form, its files into their sinks; ApiError as soon as it is no form.

    A fault in what it says is raised at once as well, or else, *to_the_end*, kept as the form's:
    the fingerprint of an Idempotency-Key is of the whole.
    """
    boundary = _boundary_of_form(request)
    form, limit = Form(), expected.max_file_bytes + OVERHEAD_BYTES
    async with aclosing(body_chunks(request, max_bytes=limit)) as chunks:
        reader = FormReader(boundary, chunks)
        while (name := await reader.next_part()) is not None:
            value = _Value(reader)
            try:
                await _take(form, expected, name, value)
            except ApiError as fault:
                if fault.status != HTTPStatus.UNPROCESSABLE_ENTITY or not to_the_end:
                    raise
                form.fault = form.fault or fault
                async for _ in value.chunks(limit, None):
                    pass
            form.digests.append((name, value.digest.digest()))
    form.fault = form.fault or _missing(form, expected)
    return form


async def lone_file(request: web.Request, name: str, *, max_bytes: int) -> AsyncGenerator[bytes]:
    """The file *name* of a form as it comes; fields beside it are read and not looked at.

    Whoever has its last byte has not seen the end of the form: an ApiError may still follow.
    """
    boundary, limit = _boundary_of_form(request), max_bytes + OVERHEAD_BYTES
    found = False
    async with aclosing(body_chunks(request, max_bytes=limit)) as chunks:
        reader = FormReader(boundary, chunks)
        while (part := await reader.next_part()) is not None:
            wanted = part == name
            if wanted and found:
                raise invalid_field(name, f"{name} is given twice.")
            found = found or wanted
            left = max_bytes if wanted else MAX_FIELD_BYTES
            while chunk := await reader.read():
                left -= len(chunk)
                if left < 0:
                    raise too_large("A part of the form is over its limit.", _shown(part))
                if wanted:
                    yield chunk
    if not found:
        raise missing_field(name)


async def _take(form: Form, expected: Expected, name: str, value: "_Value") -> None:
    if name not in expected.files and name not in expected.fields:
        message = "This field is not known here."
        raise ApiError(ErrorType.UNPROCESSABLE, "unknown_field", message, param=_shown(name))
    if any(name == seen for seen, _ in form.digests):
        raise invalid_field(name, f"{name} is given twice.")
    chunks = value.chunks(expected.cap_of(name), name)
    if (sink := expected.files.get(name)) is not None:
        await sink(chunks)
        return
    try:
        form.fields[name] = b"".join([chunk async for chunk in chunks]).decode()
    except UnicodeDecodeError as exc:
        raise invalid_field(name, f"{name} is not UTF-8.") from exc


def _missing(form: Form, expected: Expected) -> ApiError | None:
    given = {name for name, _ in form.digests}
    absent = next((name for name in expected.files if name not in given), None)
    return missing_field(absent) if absent else None


def _shown(name: str) -> str:
    """A name that a caller made up: headers were read as Latin-1, and most callers send UTF-8."""
    return name.encode("latin-1").decode(errors="replace")[:_SHOWN_NAME]


class _Value:
    """The value of the part at hand, hashed on its way."""

    def __init__(self, reader: "FormReader") -> None:
        self._reader = reader
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    async def chunks(self, max_bytes: int, name: str | None) -> AsyncGenerator[bytes]:
        """What is left of it; ApiError 413 when all of it is over *max_bytes*."""
        while chunk := await self._reader.read():
            self.size_bytes += len(chunk)
            if self.size_bytes > max_bytes:
                raise too_large(f"The part is over {max_bytes} bytes.", name)
            self.digest.update(chunk)
            yield chunk


class FormReader:
    """The parts of a body, one after the other: `next_part`, then `read` until it is empty."""

    def __init__(self, boundary: bytes, chunks: AsyncGenerator[bytes]) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._chunks = chunks
        self._buffer = bytearray(b"\r\n")  # makes the first delimiter one like the others
        self._parts = 0

    async def next_part(self) -> str | None:
        """The name of the next part, or None after the last; the one before was read."""
        await self._expect(self._delimiter)
        if await self._follows(b"--"):
            await self._expect_nothing()
            return None
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise too_large(f"The form has more than {MAX_PARTS} parts.")
        return _name_of(await self._headers())

    async def read(self) -> bytes:
        """Some bytes of the part's value, or none at its end."""
        while True:
            end = self._buffer.find(self._delimiter)
            # without a delimiter in sight one may still begin in the last bytes
            ready = end if end >= 0 else len(self._buffer) - len(self._delimiter) + 1
            if end == 0:
                return b""
            if ready > 0:
                return self._cut(ready)
            await self._fill()

    async def _headers(self) -> Mapping[str, str]:
        """The headers of the part, by lower-case name; the CRLF before them is not read yet."""
        while (end := self._buffer.find(b"\r\n\r\n", 0, MAX_HEADERS_BYTES)) < 0:
            if len(self._buffer) >= MAX_HEADERS_BYTES:
                raise too_large(f"The headers of a part are over {MAX_HEADERS_BYTES} bytes.")
            await self._fill()
        first, *lines = self._cut(end + 4)[:-4].decode("latin-1").split("\r\n")
        if first:
            raise malformed("A delimiter is not followed by the end of its line.")
        headers = {}
        for line in lines:
            match = _HEADER.fullmatch(line)
            if match is None or match[1].lower() in headers:
                raise malformed("A part has a header that is none, or has it twice.")
            headers[match[1].lower()] = match[2].strip()
        return headers

    async def _expect(self, mark: bytes) -> None:
        if not await self._follows(mark):
            raise malformed("The body does not begin with its delimiter.")

    async def _follows(self, mark: bytes) -> bool:
        """Whether *mark* comes next; if so, it is read."""
        while len(self._buffer) < len(mark):
            await self._fill()
        found = self._buffer.startswith(mark)
        if found:
            del self._buffer[: len(mark)]
        return found

    async def _expect_nothing(self) -> None:
        """Read what follows the last delimiter: nothing but white space, as some clients send."""
        rest = bytes(self._buffer)
        while not rest.strip():
            rest = await anext(self._chunks, b"")
            if not rest:
                return
        raise malformed("Something follows the last delimiter.")

    async def _fill(self) -> None:
        chunk = await anext(self._chunks, b"")
        if not chunk:
            raise malformed("The body ended before its last delimiter.")
        self._buffer += chunk

    def _cut(self, size_bytes: int) -> bytes:
        taken = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return taken


def _name_of(headers: Mapping[str, str]) -> str:
    """The name of a part that comes as it is; ApiError for one that is encoded or nested."""
    type_, disposition = _parameters(headers.get("content-disposition", ""))
    if type_ != "form-data" or "name" not in disposition:
        raise malformed("A part has no Content-Disposition of form-data with a name.")
    name = disposition["name"]
    transfer = headers.get("content-transfer-encoding", "binary").lower()
    encoding = headers.get("content-encoding", "identity").lower()
    if transfer not in _PLAIN_TRANSFER or encoding != "identity":
        raise unsupported_encoding("Send each part as it is, not encoded.", _shown(name))
    if headers.get("content-type", "").lower().startswith("multipart/"):
        raise unsupported_type("A part cannot have parts of its own.", _shown(name))
    return name


def _boundary_of_form(request: web.Request) -> bytes:
    if request.content_type != "multipart/form-data":
        raise unsupported_type("Send the body as multipart/form-data.")
    return _boundary_of(request.headers["Content-Type"])


def _boundary_of(content_type: str) -> bytes:
    boundary = _parameters(content_type)[1].get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise malformed("The Content-Type names no boundary, or one that cannot be.")
    return boundary.encode()


def _parameters(header: str) -> tuple[str, dict[str, str]]:
    """The value of a header in lower case, and its parameters by lower-case name."""
    value = header.partition(";")[0]
    found: dict[str, str] = {}
    at = len(value)
    while match := _PARAMETER.match(header, at):
        name, quoted, bare = match.groups()
        if name.lower() in found:
            raise malformed("A header has a parameter twice.")
        found[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if bare is None else bare
        at = match.end()
    if header[at:].strip(" \t;"):
        raise malformed("A header has a parameter that is none.")
    return value.strip().lower(), found
