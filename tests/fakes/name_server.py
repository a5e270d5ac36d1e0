"""A name server on loopback, over UDP and TCP, that answers from a table and lies as it is told.

A name has a list of answers, one for each time it is asked; the last is given again and again.
An answer is a list of records: an address, `CNAME other.name`, or one of the words of `Fate`.
"""

import asyncio
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from enum import IntEnum
from ipaddress import ip_address
from types import TracebackType
from typing import Self, cast

Answers = Sequence[Sequence[str]]

_HEADER = struct.Struct("!6H")
_RESPONSE, _TRUNCATED = 0x8180, 0x0200  # an answer of a recursive server; its "too long" bit
_UDP_BYTES = 1232  # what resolvers announce since DNS Flag Day 2020
_ENDED_CHAIN = 32
_TTL_S = 0  # nothing may be kept: the next question may get another answer


class Kind(IntEnum):
    """Record types, RFC 1035 and RFC 3596."""

    A = 1
    CNAME = 5
    AAAA = 28


class Fate(IntEnum):
    """Answers without records: response codes of RFC 1035, and no answer at all."""

    EMPTY = 0
    SERVFAIL = 2
    NXDOMAIN = 3
    REFUSED = 5
    HANG = -1


class NameServer:
    """`questions` is what it was asked, as (name, type), in order. Unknown names do not exist."""

    def __init__(self, names: Mapping[str, Answers]) -> None:
        self.questions: list[tuple[str, str]] = []
        self._names = {name.lower(): answers for name, answers in names.items()}
        self._asked: Counter[tuple[str, int]] = Counter()
        self._stack = AsyncExitStack()
        self.address = ""

    async def __aenter__(self) -> Self:
        while not self.address:
            with suppress(OSError):  # somebody else has that port over UDP
                await self._listen()
        return self

    async def _listen(self) -> None:
        tcp = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._stack.push_async_callback(tcp.wait_closed)
        self._stack.callback(tcp.close)
        host, port = tcp.sockets[0].getsockname()[:2]
        udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(host, port)
        )
        self._stack.callback(udp.close)
        self.address = f"{host}:{port}"

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def answer(self, query: bytes) -> bytes | None:
        """The whole response to *query*, however long; None where it is never answered."""
        name, kind, question = _question(query)
        self.questions.append((name, _type_name(kind)))
        records, fate = self._look_up(name.lower(), kind)
        if fate is Fate.HANG:
            return None
        header = _HEADER.pack(int.from_bytes(query[:2]), _RESPONSE | fate, 1, len(records), 0, 0)
        return header + question + b"".join(records)

    def _look_up(self, name: str, kind: int) -> tuple[list[bytes], Fate]:
        """The records of the whole chain, as a recursive server sends them."""
        chain: list[bytes] = []
        for _ in range(_ENDED_CHAIN):
            records = self._next(name, kind)
            if len(records) == 1 and records[0] in Fate.__members__:
                return chain, Fate[records[0]]
            alias = next((text for text in records if text.startswith("CNAME ")), None)
            if alias is None:
                return chain + [
                    _record(name, text)
                    for text in records
                    if kind == (Kind.AAAA if ":" in text else Kind.A)
                ], Fate.EMPTY
            target = alias.removeprefix("CNAME ").lower()
            chain.append(_encoded(name, Kind.CNAME, _wire_name(target)))
            name = target
        return chain, Fate.SERVFAIL

    def _next(self, name: str, kind: int) -> Sequence[str]:
        answers = self._names.get(name)
        if answers is None:
            return ["NXDOMAIN"]
        turn = self._asked[name, kind]
        self._asked[name, kind] += 1
        return answers[min(turn, len(answers) - 1)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                response = self.answer(query)
                if response is not None:
                    writer.write(len(response).to_bytes(2) + response)
                    await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # 3.11 has no such base

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = self._server.answer(data)
        if response is None or self._transport is None:
            return
        if len(response) > _UDP_BYTES:  # the client asks again over TCP
            question = _question(data)[2]
            flags = _RESPONSE | _TRUNCATED
            response = _HEADER.pack(int.from_bytes(data[:2]), flags, 1, 0, 0, 0) + question
        self._transport.sendto(response, addr)


def _question(query: bytes) -> tuple[str, int, bytes]:
    """The name as it was spelt, the type, and the question's own bytes."""
    labels, at = [], _HEADER.size
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    kind = int.from_bytes(query[at + 1 : at + 3])
    return ".".join(labels), kind, query[_HEADER.size : at + 5]


def _type_name(kind: int) -> str:
    return Kind(kind).name if kind in set(Kind) else str(kind)


def _record(name: str, address: str) -> bytes:
    value = ip_address(address)
    return _encoded(name, Kind.AAAA if value.version == 6 else Kind.A, value.packed)


def _encoded(name: str, kind: Kind, data: bytes) -> bytes:
    return _wire_name(name) + struct.pack("!HHIH", kind, 1, _TTL_S, len(data)) + data


def _wire_name(name: str) -> bytes:
    labels = name.rstrip(".").split(".")
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in labels) + b"\0"
