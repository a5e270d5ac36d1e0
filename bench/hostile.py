"""What hostile origins cost the fetcher, beside what one would write in an afternoon with aiohttp.

Each number is of this process alone: the origin runs in another. A good fetch is 1 MB from
loopback, so its time is the fetcher's own; drippers have a host name each and come back when they
are cut off.
"""

import asyncio
import contextlib
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from socket import AF_INET, AI_NUMERICHOST, AddressFamily

import uvloop
from aiohttp import ClientSession, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from bench.cpu import forget_peak, peak_mib
from service.errors import SourceError
from service.fetch.address import AddressGuard, AllowedBlock
from service.fetch.egress import Egress
from service.fetch.fetcher import Fetcher, Source
from service.fetch.limits import FetchLimits
from storage.local import LocalStore

SAMPLES = 60
CROWDED_SAMPLES = 20
GOOD_S = 30.0  # how long a good fetch is waited for
GB_COUNTS = 100_000_000  # of fewer bytes the cost of a GB says nothing
CAP_BYTES = 500_000_000  # of a video, by default
ENDLESS_BYTES = 10_000_000_000

Fetch = Callable[[str], Awaitable[int]]


class Loopback(AbstractResolver):
    """Every name is here."""

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AF_INET
    ) -> list[ResolveResult]:
        del family
        return [
            ResolveResult(
                hostname=host,
                host="127.0.0.1",
                port=port,
                family=AF_INET,
                proto=0,
                flags=AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Holds nothing."""


@contextlib.contextmanager
def origin() -> Iterator[int]:
    """Its port."""
    argv = [sys.executable, "-m", "bench.dripping_origin"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - it was asked for
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@contextlib.asynccontextmanager
async def ours(port: int) -> AsyncIterator[Fetcher]:
    block = AllowedBlock(network=ip_network("127.0.0.1/32"), port=port)
    limits = FetchLimits()
    async with Egress(
        guard=AddressGuard(blocks=(block,)), connect_s=limits.connect_s, resolver=Loopback()
    ) as egress:
        yield Fetcher(egress, limits)


@contextlib.asynccontextmanager
async def fetching(port: int) -> AsyncIterator[Fetch]:
    async with ours(port) as fetcher:

        async def fetch(url: str) -> int:
            size = 0
            async with fetcher.open(url, max_bytes=CAP_BYTES, now=datetime.now(UTC)) as source:
                async for chunk in source.body():
                    size += len(chunk)
            return size

        yield fetch


@contextlib.asynccontextmanager
async def plain(_: int) -> AsyncIterator[Fetch]:
    """aiohttp as its tutorial uses it: one session, and `read`."""
    async with ClientSession(connector=TCPConnector(resolver=Loopback())) as session:

        async def fetch(url: str) -> int:
            async with session.get(url) as response:
                if (response.content_length or 0) > CAP_BYTES:
                    raise ValueError("too large")
                return len(await response.read())

        yield fetch


@contextlib.asynccontextmanager
async def dripping(fetch: Fetch, port: int, count: int) -> AsyncIterator[None]:
    async def again_and_again(name: str) -> None:
        while True:
            with contextlib.suppress(SourceError):
                await fetch(f"http://{name}.drip.example:{port}/drip")

    drippers = [asyncio.create_task(again_and_again(f"h{number}")) for number in range(count)]
    await asyncio.sleep(3 if count else 0)
    try:
        yield
    finally:
        for task in drippers:
            task.cancel()
        await asyncio.gather(*drippers, return_exceptions=True)


async def good_ms(fetch: Fetch, port: int, samples: int) -> list[float]:
    """Milliseconds of each good fetch; of none after one that did not end in GOOD_S."""
    found: list[float] = []
    for _ in range(samples):
        began = time.perf_counter()
        try:
            async with asyncio.timeout(GOOD_S):
                await fetch(f"http://good.example:{port}/good")
        except TimeoutError:
            break
        found.append(1000 * (time.perf_counter() - began))
        await asyncio.sleep(0.05)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Good fetches beside so many drippers."""

    drippers: int
    times_ms: list[float]

    @property
    def shown(self) -> str:
        if not self.times_ms:
            return f"none within {GOOD_S:.0f} s"
        middle = statistics.median(self.times_ms)
        return f"{middle:.1f} ({max(self.times_ms):.1f}, n = {len(self.times_ms)})"


async def beside(
    client: Callable[[int], contextlib.AbstractAsyncContextManager[Fetch]], port: int
) -> list[Beside]:
    found = []
    for drippers, samples in ((0, SAMPLES), (50, SAMPLES), (0, SAMPLES), (200, CROWDED_SAMPLES)):
        async with client(port) as fetch, dripping(fetch, port, drippers):
            times = await good_ms(fetch, port, samples)
        found.append(Beside(drippers=drippers, times_ms=times))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One fetch: bytes that were taken, how it ended, growth of the peak, and CPU seconds."""

    size_bytes: int
    ended: str
    growth_mib: float
    cpu_s: float


class Tally:
    """How many bytes have come."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def __call__(self, done_bytes: int, _: int | None = None) -> None:
        self.size_bytes = done_bytes


async def stream(work: Callable[[Tally], Awaitable[None]]) -> Stream:
    pid, tally, ended = os.getpid(), Tally(), "whole"
    forget_peak(pid)
    before_mib, before_s = peak_mib(pid), time.process_time()
    try:
        await work(tally)
    except SourceError as error:
        ended = f"`{error.code}`"
    return Stream(
        size_bytes=tally.size_bytes,
        ended=ended,
        growth_mib=peak_mib(pid) - before_mib,
        cpu_s=time.process_time() - before_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """What is done with a stream at *url*."""

    fetcher: Fetcher
    folder: Path

    def opened(self, url: str, tally: Tally) -> contextlib.AbstractAsyncContextManager[Source]:
        now = datetime.now(UTC)
        return self.fetcher.open(url, max_bytes=CAP_BYTES, now=now, progress=tally)

    async def fetched(self, url: str, tally: Tally) -> None:
        async with self.opened(url, tally) as source:
            async for _ in source.body():
                pass

    async def stored(self, url: str, tally: Tally) -> None:
        """What the worker does: into the local store, with its SHA-256 and a sync."""
        async with LocalStore(self.folder / "store") as store, self.opened(url, tally) as source:
            await store.put("bench", source.body(), max_bytes=CAP_BYTES)

    async def read(self, url: str, tally: Tally) -> None:
        """aiohttp, with the same cap by what was announced."""
        async with plain(0) as fetch:
            tally(await fetch(url))

    async def saved(self, url: str, tally: Tally) -> None:
        """aiohttp in chunks into a hashed file: no deadline, no guard, no sync."""
        digest, size = hashlib.sha256(), 0
        with (self.folder / "file").open("wb") as file:
            async with ClientSession() as session, session.get(url) as response:
                async for chunk in response.content.iter_chunked(1 << 16):
                    digest.update(chunk)
                    size += file.write(chunk)
        tally(size)


async def streams(port: int, folder: Path) -> dict[str, Stream]:
    base = f"http://127.0.0.1:{port}"
    endless, liar = f"{base}/flood/{ENDLESS_BYTES}", f"{base}/liar/{ENDLESS_BYTES}"
    flood = f"{base}/flood/{CAP_BYTES}"
    async with ours(port) as fetcher:
        how = Streams(fetcher=fetcher, folder=folder)
        rows = {
            "10 GB of no announced length: greenroom": (how.fetched, endless),
            "10 GB announced as 1 MB: greenroom": (how.fetched, liar),
            "10 GB announced as 1 MB: aiohttp, `read`": (how.read, liar),
            "500 MB of no announced length: aiohttp, `read`": (how.read, flood),
            "500 MB: greenroom, thrown away": (how.fetched, flood),
            "500 MB: greenroom, hashed and stored": (how.stored, flood),
            "500 MB: aiohttp in chunks, hashed and saved": (how.saved, flood),
        }
        return {name: await stream(partial(work, url)) for name, (work, url) in rows.items()}


def main() -> None:
    with origin() as port, tempfile.TemporaryDirectory(prefix="greenroom-bench-") as folder:
        by_client = {"greenroom": uvloop.run(beside(fetching, port))}
        by_client["aiohttp"] = uvloop.run(beside(plain, port))
        found = uvloop.run(streams(port, Path(folder)))
    print(*report(by_client, found), sep="\n")


def report(by_client: dict[str, list[Beside]], found: dict[str, Stream]) -> list[str]:
    """Lines of Markdown."""
    return [
        "A good fetch of 1 MB, median (and longest) in ms:",
        "",
        "| drippers | greenroom | aiohttp |",
        "| --- | --- | --- |",
        *(
            f"| {ours.drippers} | {ours.shown} | {theirs.shown} |"
            for ours, theirs in zip(by_client["greenroom"], by_client["aiohttp"], strict=True)
        ),
        "",
        "| stream | taken, MB | ended | peak grew, MiB | CPU s | CPU s per GB |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_stream_row(name, one) for name, one in found.items()),
    ]


def _stream_row(name: str, one: Stream) -> str:
    per_gb = f"{one.cpu_s / one.size_bytes * 1e9:.2f}" if one.size_bytes > GB_COUNTS else ""
    cells = (
        name,
        f"{one.size_bytes / 1e6:.1f}",
        one.ended,
        f"{one.growth_mib:.1f}",
        f"{one.cpu_s:.2f}",
        per_gb,
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
