"""What it costs to take a large source from HTTP into a bucket, beside what one would use instead.

    python -m bench store [MB [ROUNDS]]

A body of 2000 MB from an origin on loopback goes into a real S3 server: Ceph where it is installed
(`make test-s3` installs it), else moto, which keeps everything in memory and says little about
speed. Every way runs in a process of its own, in turns. Memory is the growth of its peak over what
the open process held before; CPU seconds are its own and its tools', not the origin's or the
server's.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aioboto3
import boto3  # type: ignore[import-untyped]  # its types are no dependency of ours
import uvloop
from aiohttp import ClientSession
from botocore.config import Config

from bench.cpu import Spent, forget_peak, peak_mib
from bench.hostile import origin, ours
from storage.s3 import S3Options, S3Store
from tests.servers import ceph
from tests.servers.moto import moto
from tests.servers.s3 import S3Server, make_bucket, raw_client

ROUNDS = 3
SIZE_MB = 2000
WAY_S = 900.0
MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One transfer: megabytes a second of wall time, MiB over idle, and CPU seconds."""

    mb_per_s: float
    growth_mib: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What a process is told to do."""

    way: str
    url: str
    size_bytes: int
    options: S3Options

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Transfer":
        read = json.loads(text)
        return cls(**{**read, "options": S3Options(**read["options"])})


async def stored(transfer: Transfer) -> Cost:
    """What the worker does: guarded, counted, hashed, and whole or not at all."""
    port = int(transfer.url.split(":")[2].partition("/")[0])
    now, most = datetime.now(UTC), transfer.size_bytes
    async with S3Store(transfer.options) as store, ours(port) as fetcher:

        async def put() -> None:
            async with fetcher.open(transfer.url, max_bytes=most, now=now) as source:
                asset = await store.put("bench", source.body(), max_bytes=most)
            assert asset.size_bytes == most  # noqa: S101 - or the figure is of something else

        return await measured(put, transfer)


async def uploaded(transfer: Transfer) -> Cost:
    """aioboto3's own `upload_fileobj`, as its documentation has it."""
    to = transfer.options
    async with ClientSession() as session, aioboto3.Session().client(**client_of(to)) as client:

        async def put() -> None:
            async with session.get(transfer.url) as response:
                await client.upload_fileobj(response.content, to.bucket, "bench")

        return await measured(put, transfer)


async def piped(transfer: Transfer) -> Cost:
    """`curl` into boto3's `upload_fileobj`, which is what `aws s3 cp -` does with a stream."""
    to = transfer.options
    client = boto3.client(**client_of(to))

    async def put() -> None:
        argv = ["curl", "-sS", transfer.url]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as curl:  # noqa: ASYNC220 - alone here
            assert curl.stdout is not None  # noqa: S101 - it was asked for
            client.upload_fileobj(curl.stdout, to.bucket, "bench")

    return await measured(put, transfer)


WAYS: Mapping[str, Callable[[Transfer], Coroutine[Any, Any, Cost]]] = {
    "greenroom": stored,
    "`curl`, boto3 `upload_fileobj`": piped,
    "aioboto3 `upload_fileobj`": uploaded,
}
PEER = "`curl`, boto3 `upload_fileobj`"
AWS = "`curl`, `aws s3 cp -`"


def client_of(to: S3Options) -> dict[str, Any]:
    return {
        "service_name": "s3",
        "endpoint_url": to.endpoint,
        "region_name": to.region,
        "aws_access_key_id": to.access_key_id,
        "aws_secret_access_key": to.secret_access_key,
        "config": Config(s3={"addressing_style": "path"}),
    }


async def measured(work: Callable[[], Awaitable[None]], transfer: Transfer) -> Cost:
    pid = os.getpid()
    forget_peak(pid)
    idle_mib, before, began = peak_mib(pid), Spent.until_now(), time.perf_counter()
    await work()
    took_s = time.perf_counter() - began
    return Cost(
        mb_per_s=transfer.size_bytes / MB / took_s,
        growth_mib=peak_mib(pid) - idle_mib,
        cpu_s=(Spent.until_now() - before).total,
    )


def in_its_process(transfer: Transfer) -> Cost:
    argv = [sys.executable, "-m", "bench.store", transfer.to_json()]
    ended = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=WAY_S)
    return Cost(**json.loads(ended.stdout))


def with_the_aws_command(transfer: Transfer) -> Cost:
    """The whole of both commands: of their memory only the peak is known, start included."""
    to = transfer.options
    target = f"s3://{to.bucket}/bench --endpoint-url {to.endpoint} --only-show-errors"
    command = f"curl -sS {transfer.url} | aws s3 cp - {target}"
    keys = {
        "AWS_ACCESS_KEY_ID": to.access_key_id or "",
        "AWS_SECRET_ACCESS_KEY": to.secret_access_key or "",
        "AWS_DEFAULT_REGION": to.region,
    }
    began = time.perf_counter()
    process = subprocess.Popen(["sh", "-c", command], env={**os.environ, **keys})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise RuntimeError(f"{command} ended with {status}")
    took_s = time.perf_counter() - began
    return Cost(
        mb_per_s=transfer.size_bytes / MB / took_s,
        growth_mib=used.ru_maxrss / 1024,
        cpu_s=used.ru_utime + used.ru_stime,
    )


@contextmanager
def server() -> Iterator[S3Server]:
    if ceph.missing():
        with moto() as running:
            yield running
        return
    with (
        tempfile.TemporaryDirectory(prefix="greenroom-bench-") as folder,
        ceph.ceph(Path(folder) / "ceph") as running,
    ):
        yield running


async def erase(options: S3Options) -> None:
    async with raw_client(options) as client:
        found = await client.head_object(Bucket=options.bucket, Key="bench")
        await client.delete_object(Bucket=options.bucket, Key="bench")
    print(f"  {found['ContentLength'] / MB:.0f} MB stored", file=sys.stderr)


def measure(size_bytes: int, rounds: int) -> tuple[str, dict[str, list[Cost]]]:
    """The server's name, and the rounds of each way."""
    with server() as running, origin() as port:
        url = f"http://127.0.0.1:{port}/flood/{size_bytes}"
        options = asyncio.run(make_bucket(running))
        ways = [*WAYS, *([AWS] if shutil.which("aws") else [])]
        found: dict[str, list[Cost]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                transfer = Transfer(way=way, url=url, size_bytes=size_bytes, options=options)
                run = with_the_aws_command if way == AWS else in_its_process
                found[way].append(run(transfer))
                print(f"{way}: {found[way][-1]}", file=sys.stderr)
                asyncio.run(erase(options))
        return running.name, found


def main(arguments: Sequence[str]) -> None:
    size_mb, rounds, *_ = (*map(int, arguments), *(SIZE_MB, ROUNDS)[len(arguments) :])
    name, found = measure(size_mb * MB, rounds)
    print(*report(name, size_mb, found), sep="\n")


def report(server_name: str, size_mb: int, found: Mapping[str, Sequence[Cost]]) -> list[str]:
    """Lines of Markdown: medians, and the largest peak."""
    peer = statistics.median(each.mb_per_s for each in found[PEER])
    return [
        f"{size_mb} MB into {server_name}, medians of {len(found[PEER])}, and of memory the most:",
        "",
        "| way | MB/s | of the peer's | peak over idle, MiB | CPU s | CPU s per GB |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(way, costs, peer, size_mb) for way, costs in found.items()),
    ]


def _row(way: str, costs: Sequence[Cost], peer: float, size_mb: int) -> str:
    speed = statistics.median(each.mb_per_s for each in costs)
    cpu_s = statistics.median(each.cpu_s for each in costs)
    growth = max(each.growth_mib for each in costs)
    cells = (
        way,
        f"{speed:.0f}",
        f"{speed / peer:.2f}×",  # noqa: RUF001 - a ratio
        f"{growth:.0f}{' in all' if way == AWS else ''}",
        f"{cpu_s:.1f}",
        f"{1000 * cpu_s / size_mb:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def run_one(transfer: Transfer) -> None:
    cost = uvloop.run(WAYS[transfer.way](transfer))
    print(json.dumps(asdict(cost)))


if __name__ == "__main__":
    run_one(Transfer.from_json(sys.argv[1]))
