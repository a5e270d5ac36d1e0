"""A proxy on loopback between us and an S3 server, which fails in every way that a network and a
server know. It understands requests, so that a fault can strike at a chosen one.

async with Unsteady(port_of_the_server) as proxy:
    proxy.strike = once(Fault.ANSWER_LOST, "complete")
    S3Options(endpoint=proxy.url, ...)
"""

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from tests.fakes.origin import head


class Fault(StrEnum):
    """What goes wrong with one request."""

    REFUSED = "refused"  # nobody listens, for a moment
    CUT_BEFORE = "cut before the request was passed on"
    CUT_IN_REQUEST = "cut in the request's body"
    ERROR_500 = "500, and nothing was done"
    SLOW_DOWN = "503 SlowDown"
    SLOW_DOWN_RETRY_AFTER = "503 SlowDown with Retry-After"
    FULL = "507, no room is left"
    HANG = "no answer, and nothing was done"
    ERROR_IN_200 = "200 whose body is an error"
    ANSWER_LOST = "done, and the answer was cut off"
    ERROR_AFTER = "done, and then 500"
    HANG_AFTER = "done, and no answer"
    CUT_IN_ANSWER = "reset in the answer"
    TRUNCATED = "the answer ended before its Content-Length"
    HANG_IN_ANSWER = "silence in the answer"
    WRONG_BYTES = "a wrong byte in the answer's body"
    DRIP = "the answer drips"


_UNDONE = {  # the request never reaches the server
    Fault.REFUSED,
    Fault.CUT_BEFORE,
    Fault.ERROR_500,
    Fault.SLOW_DOWN,
    Fault.SLOW_DOWN_RETRY_AFTER,
    Fault.FULL,
    Fault.HANG,
    Fault.ERROR_IN_200,
}
WRITES = ("put", "create", "part", "complete", "copy")
OF_READS = {Fault.WRONG_BYTES, Fault.TRUNCATED}  # they say nothing where an answer has no body


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, as far as its head tells."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def operation(self) -> str:
        """put, create, part, complete, abort, copy, tag, form, get, head, delete or list."""
        if "tagging" in self.query:
            return "tag"
        if "uploadId" in self.query:
            return {"PUT": "part", "POST": "complete", "DELETE": "abort"}.get(self.method, "list")
        if "x-amz-copy-source" in self.headers:
            return "copy"
        if self.method == "POST":
            return {"uploads": "create", "delete": "delete"}.get("".join(self.query), "form")
        is_of_bucket = self.path.strip("/").count("/") == 0
        return "list" if self.method == "GET" and is_of_bucket else self.method.lower()


Strike = Callable[[Call], Fault | None]


def steady(_: Call) -> None:
    """No fault."""


def once(fault: Fault, operation: str, *, nth: int = 1, times: int = 1) -> Strike:
    """*fault* at the *nth* request of an *operation*, and at the next ones, *times* in all."""
    seen = 0

    def strike(call: Call) -> Fault | None:
        nonlocal seen
        if call.operation != operation:
            return None
        seen += 1
        return fault if nth <= seen < nth + times else None

    return strike


def always(fault: Fault) -> Strike:
    return lambda _: fault


class Unsteady:
    """Passes requests on to the server on *port*, but for what `strike` says. Counts `struck`.

    A connection carries one request.
    """

    def __init__(self, port: int, *, seed: int = 1, drip_s: float = 1.0) -> None:
        self.strike: Strike = steady
        self.calls: list[Call] = []
        self.struck: Counter[Fault] = Counter()
        self.open_connections = 0
        self.port = 0
        self.refused_s = 0.3
        self._server_port = port
        self._random = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self._drip_s = drip_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()
        await asyncio.sleep(0.05)  # whoever was let in last has a task by now
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def refuse(self, seconds: float) -> None:
        """Listen to nobody for so long."""
        self._close()
        await asyncio.sleep(seconds)
        await self._listen()

    async def _listen(self) -> None:
        if self._server is None:
            opened = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = opened.sockets[0].getsockname()[1]
            self._server = opened

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_connections += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = await reader.readuntil(b"\r\n\r\n")
        call = _parse(text)
        self.calls.append(call)
        fault = self.strike(call)
        if fault is not None:
            self.struck[fault] += 1
        if fault is Fault.CUT_BEFORE:
            _reset(writer)
            return
        if "expect" in call.headers:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._body(call, reader, cut=fault is Fault.CUT_IN_REQUEST)
        if fault in _UNDONE:
            await self._fail(fault, call, reader, writer)
            return
        answer = await self._ask(text, call, body)
        if fault is Fault.CUT_IN_REQUEST:
            _reset(writer)
            return
        if fault is Fault.ERROR_AFTER:
            writer.write(_error(call, 500, "InternalError"))
            return
        await self._answer(fault, answer, reader, writer)

    async def _body(self, call: Call, reader: asyncio.StreamReader, *, cut: bool) -> bytes:
        """The request's body, or as much of it as comes before the cut."""
        if call.headers.get("transfer-encoding") == "chunked":
            return await _dechunked(reader)
        size = int(call.headers.get("content-length", "0"))
        return await reader.readexactly(self._random.randrange(size) if cut and size else size)

    async def _ask(self, text: bytes, call: Call, body: bytes) -> bytes:
        """What the server answers. Of a body that is too short it hears no end, but a reset."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            writer.write(_one_request_only(text, call, body) + body)
            await writer.drain()
            if len(body) < int(call.headers.get("content-length", "0")):
                _reset(writer)
                return b""
            return await reader.read()
        finally:
            writer.close()

    async def _fail(
        self, fault: Fault, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        match fault:
            case Fault.ERROR_500:
                writer.write(_error(call, 500, "InternalError"))
            case Fault.SLOW_DOWN:
                writer.write(_error(call, 503, "SlowDown"))
            case Fault.SLOW_DOWN_RETRY_AFTER:
                writer.write(_error(call, 503, "SlowDown", {"Retry-After": "1"}))
            case Fault.FULL:
                writer.write(_error(call, 507, "InsufficientStorage"))
            case Fault.ERROR_IN_200:
                writer.write(_error(call, 200, "InternalError"))
            case Fault.HANG:
                await reader.read()  # until they give up
            case _:
                _reset(writer)
                await self.refuse(self.refused_s)

    async def _answer(
        self,
        fault: Fault | None,
        answer: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        match fault:
            case Fault.ANSWER_LOST:
                _reset(writer)
            case Fault.HANG_AFTER:
                await reader.read()
            case Fault.CUT_IN_ANSWER | Fault.TRUNCATED | Fault.HANG_IN_ANSWER:
                await self._break_off(fault, answer, reader, writer)
            case Fault.WRONG_BYTES:
                writer.write(self._with_a_wrong_byte(answer))
            case Fault.DRIP:
                await self._drip(answer, writer)
            case _:
                writer.write(answer)
                await writer.drain()

    async def _break_off(
        self,
        fault: Fault,
        answer: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        first = _body_at(answer) if fault is Fault.TRUNCATED else 0
        writer.write(answer[: self._random.randrange(first, max(first + 1, len(answer)))])
        await writer.drain()
        if fault is Fault.HANG_IN_ANSWER:
            await reader.read()
        elif fault is Fault.CUT_IN_ANSWER:
            await asyncio.sleep(0.02)  # a reset overtakes what has not been read yet
            _reset(writer)

    async def _drip(self, answer: bytes, writer: asyncio.StreamWriter) -> None:
        pieces = 20
        step = len(answer) // pieces + 1
        for at in range(0, len(answer), step):
            writer.write(answer[at : at + step])
            await writer.drain()
            await asyncio.sleep(self._drip_s / pieces)

    def _with_a_wrong_byte(self, answer: bytes) -> bytes:
        first = _body_at(answer)
        if first == len(answer):
            return answer
        at = self._random.randrange(first, len(answer))
        return answer[:at] + bytes([answer[at] ^ 0x01]) + answer[at + 1 :]


def _parse(text: bytes) -> Call:
    first, *lines = text.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    url = urlsplit(target)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    return Call(method=method, path=url.path, query=query, headers=headers)


def _one_request_only(text: bytes, call: Call, body: bytes) -> bytes:
    """The same head, for a connection of its own; what is signed stays as it was."""
    dropped = ("connection:", "expect:", "transfer-encoding:")
    first, *lines = text.decode("latin-1").rstrip("\r\n").split("\r\n")
    kept = [line for line in lines if not line.lower().startswith(dropped)]
    if "content-length" not in call.headers:
        kept.append(f"Content-Length: {len(body)}")
    return "\r\n".join([first, *kept, "Connection: close", "", ""]).encode("latin-1")


async def _dechunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return body


def _body_at(answer: bytes) -> int:
    return answer.index(b"\r\n\r\n") + 4


def _error(call: Call, status: int, code: str, headers: Mapping[str, str] | None = None) -> bytes:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'.encode()
    told = {"Content-Type": "application/xml", "Content-Length": str(len(body))}
    answer = head(status, {**told, **(headers or {}), "Connection": "close"})
    return answer if call.method == "HEAD" else answer + body


def _reset(writer: asyncio.StreamWriter) -> None:
    peer: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):  # it is gone already
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def fitting(faults: Iterable[Fault], operation: str) -> list[Fault]:
    """Those of *faults* that mean something for a request of this *operation*."""
    return [
        fault
        for fault in faults
        if not (fault is Fault.ERROR_IN_200 and operation not in {"complete", "copy"})
        and not (fault in OF_READS and operation != "get")
        and not (fault is Fault.CUT_IN_REQUEST and operation not in {"put", "part"})
    ]
