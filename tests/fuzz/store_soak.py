"""Hundreds of puts through the real worker into a bucket whose connections fail.

`python -m tests.fuzz.store_soak --puts 500 --seed 1 --out report.json` starts Postgres, an S3
server (moto), a proxy that breaks at least one request of every put, and an origin; creates as many
avatars, and waits until every source is final. Then the proxy is healed, what is left over is
swept and reconciled, and everything is held against what the origin sent. It ends with status 1
where an asset that the database calls stored does not read back with its SHA-256, a source has no
typed end, or anything is left behind.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from service.db.blobs import WRITTEN_WITHIN
from service.db.embedded import EmbeddedPostgres
from service.db.migrate import migrate, migrations
from service.db.types import Pool, Row
from service.domain import Work
from service.errors import FailureCode
from service.ingest.jobs import Worker
from service.ingest.reconcile import Reconciler, Wanted
from service.times import now_utc
from storage.bucket import S3Options
from storage.s3 import S3Store
from storage.store import AssetStore
from storage.timed import StoreLimits, TimedStore
from tests.fakes.origin import Request, answer
from tests.fakes.unsteady import Call, Fault, Unsteady, fitting, steady
from tests.integration.test_pipeline import LIMITS, Site, running, site
from tests.servers.moto import moto
from tests.servers.s3 import S3Server, make_bucket, raw_client
from validators.facts import Kind

PART_BYTES = 5 << 20
LARGEST_BYTES = 64 << 20
SETTLED_WITHIN_S, SWEPT_WITHIN_S = 600.0, 300.0
A_PUT_S = 5.0  # that each may add, on a busy machine
OF_AN_ASSET = re.compile(r"/[^/]+/([0-9a-f]{32})")
# the store's own attempts are three: a burst outlasts them, and the run has to come again
ATTEMPTS, BURST = 3, 8
BURSTS, ABORTS, READS, DELETES = 0.15, 0.2, 0.15, 0.2  # shares of those that are struck
TWINS = 0.08  # share of sources whose bytes are another's again


def body_of(seed: int, number: int) -> bytes:
    """The bytes of a source: some none, most small, some of several parts, some another's again."""
    dice = random.Random(f"{seed}:{number}")  # noqa: S311 - to be repeated
    if number and dice.random() < TWINS:
        return body_of(seed, dice.randrange(number))
    (low, high), *_ = dice.choices(
        [(0, 0), (1, 100_000), (100_000, PART_BYTES), (PART_BYTES, 3 * PART_BYTES + 99)],
        weights=[2, 58, 30, 10],
    )
    return dice.randbytes(dice.randint(low, high))


@dataclass(slots=True, kw_only=True)
class _Plan:
    """What goes wrong with the put of one key."""

    fault: Fault
    operation: str  # at which it begins
    left: int  # requests that it still strikes


@dataclass(slots=True, kw_only=True)
class EveryPut:
    """Strikes every put once at least, somewhere; some reads, aborts and deletions as well."""

    seed: int
    plans: dict[str, _Plan] = field(default_factory=dict)
    begun: dict[str, tuple[Fault, str]] = field(default_factory=dict)  # what struck, and where
    operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)  # noqa: S311 - to be repeated

    def __call__(self, call: Call) -> Fault | None:
        found = OF_AN_ASSET.fullmatch(call.path)
        if found is None:
            return None
        fault = self._fault(found[1], call.operation)
        if fault is not None:
            self.operations[fault.value, call.operation] += 1
        return fault

    def _fault(self, key: str, operation: str) -> Fault | None:
        shares = {"get": READS, "abort": ABORTS, "delete": DELETES}
        if operation in shares:
            is_struck = self.dice.random() < shares[operation]
            return self.dice.choice(fitting(Fault, operation)) if is_struck else None
        if operation in {"put", "create"} and key not in self.plans:
            self.plans[key] = self._plan(operation)
        plan = self.plans.get(key)
        if plan is None or not plan.left or plan.operation not in {operation, "any"}:
            return None
        plan.left -= 1
        self.begun.setdefault(key, (plan.fault, operation))
        if plan.left:
            plan.operation = "any"
        return plan.fault if plan.fault in fitting(Fault, operation) else Fault.ERROR_500

    def _plan(self, operation: str) -> _Plan:
        if operation == "create":
            operation = self.dice.choice(["create", "part", "complete", "complete"])
        fault = self.dice.choice(fitting(Fault, operation))
        is_burst = self.dice.random() < BURSTS
        return _Plan(fault=fault, operation=operation, left=BURST if is_burst else 1)


@dataclass(slots=True, kw_only=True)
class Report:
    """What became of all puts, and what must not be."""

    seed: int
    puts: int
    took_s: float = 0.0
    struck: dict[str, int] = field(default_factory=dict)  # by fault and operation
    puts_by_fault: dict[str, Counter[str]] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    swept: Counter[str] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "puts": self.puts,
            "took_s": round(self.took_s, 1),
            "ends": dict(self.ends),
            "swept": dict(self.swept),
            "puts_by_fault": {name: dict(count) for name, count in self.puts_by_fault.items()},
            "struck": self.struck,
            "breaches": self.breaches,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where a soak takes place."""

    here: Site
    proxy: Unsteady
    options: S3Options  # of the bucket, without the proxy
    store: AssetStore  # through the proxy
    seed: int

    def worker(self) -> Worker:
        ports = replace(
            self.here.ports, store=self.store, max_bytes=dict.fromkeys(Kind, LARGEST_BYTES)
        )
        return Worker(ports=ports, limits=LIMITS, kinds=frozenset({Work.FETCH, Work.INSPECT}))


@asynccontextmanager
async def prepared(pool: Pool, folder: Path, server: S3Server, seed: int) -> AsyncIterator[Ground]:
    options = await make_bucket(server, part_bytes=PART_BYTES)
    port = int(server.endpoint.rpartition(":")[2])
    async with site(pool, folder) as here, Unsteady(port, seed=seed) as proxy:
        broken = replace(
            options,
            endpoint=proxy.url,
            connect_timeout_s=1.0,
            read_timeout_s=1.5,
            call_timeout_s=10.0,
            attempts=ATTEMPTS,
        )
        limits = StoreLimits(stall_s=20.0, total_s=60.0)
        async with TimedStore(S3Store(broken), limits) as store:
            yield Ground(here=here, proxy=proxy, options=options, store=store, seed=seed)


async def soak(ground: Ground, puts: int) -> Report:
    """Create, break, heal, sweep, and look."""
    here, strike = ground.here, EveryPut(seed=ground.seed)
    report = Report(seed=ground.seed, puts=puts)
    for number in range(puts):
        here.origin.serves(f"/{number}", serving(ground.seed, number))
    began = time.monotonic()
    ground.proxy.strike = strike
    async with running(ground.worker()):
        for number in range(puts):
            await here.create(f"/{number}")
        await _settled(here, report)
    ground.proxy.strike = steady
    report.took_s = time.monotonic() - began
    report.struck = {f"{fault}: {op}": n for (fault, op), n in sorted(strike.operations.items())}
    await _sweep(ground, report)
    await _look(ground, report)
    await _count_by_fault(ground, strike, report)
    return report


def serving(seed: int, number: int) -> Any:  # noqa: ANN401 - a behaviour of the origin
    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(await asyncio.to_thread(body_of, seed, number))(request, writer)

    return behave


async def _settled(here: Site, report: Report) -> None:
    sql = "SELECT bool_and(state NOT IN ('pending', 'stored')) FROM asset"
    try:
        await here.until(sql, within_s=SETTLED_WITHIN_S + report.puts * A_PUT_S)
    except AssertionError:
        late = await here.pool.fetch("SELECT id FROM asset WHERE state IN ('pending', 'stored')")
        report.breaches.append(f"{len(late)} sources without an end")


async def _sweep(ground: Ground, report: Report) -> None:
    """All that is done about leftovers, an hour later."""
    pool = ground.here.pool
    await pool.execute("UPDATE blob SET created_at = created_at - $1::interval", WRITTEN_WITHIN)
    before = await pool.fetchval("SELECT count(*) FROM blob WHERE state <> 'stored'")
    report.swept["blobs that nobody finished"] = before
    report.swept["objects without an asset"] = len(await _objects(ground)) - await _stored(pool)
    report.swept["multipart uploads"] = len(await _uploads(ground.options))
    worker = replace(
        ground.worker(), kinds=frozenset({Work.PURGE}), limits=replace(LIMITS, sweep_interval_s=0.5)
    )
    sql = "SELECT count(*) = 0 FROM blob WHERE state <> 'stored'"
    async with running(worker):
        await ground.here.until(sql, within_s=SWEPT_WITHIN_S)
    cleared = await ground.store.clear_unfinished(older_than=timedelta(0))
    report.swept["unfinished puts cleared"] = cleared
    async with pool.acquire() as conn:
        reconciler = Reconciler(
            shelf=worker.ports, conn=conn, wanted=Wanted(verify=True), clock=now_utc
        )
        report.breaches += [f"reconcile: {found}" async for found in reconciler.findings()]


async def _stored(pool: Pool) -> int:
    count: int = await pool.fetchval("SELECT count(*) FROM blob WHERE state = 'stored'")
    return count


async def _objects(ground: Ground) -> set[str]:
    """Every object of the bucket by its name, as the server itself lists it."""
    async with raw_client(ground.options) as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=ground.options.bucket)
        return {found["Key"] async for page in pages for found in page.get("Contents", ())}


async def _uploads(options: S3Options) -> list[str]:
    async with raw_client(options) as client:
        found = await client.list_multipart_uploads(Bucket=options.bucket)
    return [upload["Key"] for upload in found.get("Uploads", ())]


_SOURCES = """
    SELECT a.*, b.key, b.state AS blob_state, b.sha256 AS blob_sha256,
           coalesce(a.source_shown, '') AS shown
      FROM asset a LEFT JOIN blob b ON b.id = a.blob_id
"""


async def _look(ground: Ground, report: Report) -> None:
    """Hold every row against what the origin sent, and the bucket against the rows."""
    rows = await ground.here.pool.fetch(_SOURCES)
    async with raw_client(ground.options) as client:
        for row in rows:
            report.ends[row["error_code"] or row["state"]] += 1
            number = int(row["shown"].rpartition("/")[2])
            if row["state"] == "failed":
                is_right = row["error_code"] in set(FailureCode) and row["blob_id"] is None
            else:
                sent = await asyncio.to_thread(body_of, ground.seed, number)
                found = await client.get_object(Bucket=ground.options.bucket, Key=row["key"])
                is_right = _is_whole(row, sent, await found["Body"].read())
            if not is_right:
                report.breaches.append(f"source {number} is {row['state']}, and wrongly so")
    await _look_for_strays(ground, report, {row["key"] for row in rows if row["key"]})
    if len(rows) != report.puts:
        report.breaches.append(f"{len(rows)} assets of {report.puts}")


def _is_whole(row: Row, sent: bytes, read: bytes) -> bool:
    digests = {sha256(sent).hexdigest(), sha256(read).hexdigest(), row["sha256"]}
    return digests == {row["blob_sha256"]} and row["size_bytes"] == len(sent)


async def _look_for_strays(ground: Ground, report: Report, keys: set[str]) -> None:
    if stray := await _objects(ground) - keys:
        report.breaches.append(f"{len(stray)} objects are left: {sorted(stray)[:3]}")
    if uploads := await _uploads(ground.options):
        report.breaches.append(f"{len(uploads)} multipart uploads are left")
    if await ground.here.pool.fetchval("SELECT count(*) FROM blob") != len(keys):
        report.breaches.append("blobs are left that no asset points to")


async def _count_by_fault(ground: Ground, strike: EveryPut, report: Report) -> None:
    """Whether puts outlived their fault, or were made again under another key (or as a twin's)."""
    kept = {row["key"] for row in await ground.here.pool.fetch("SELECT key FROM blob")}
    for key, (fault, operation) in strike.begun.items():
        what = report.puts_by_fault.setdefault(fault.value, Counter())
        what["puts"] += 1
        what["kept" if key in kept else "again"] += 1
        what[operation] += 1


def show(report: Report, console: Console) -> None:
    operations = ("put", "create", "part", "complete")
    table = Table("fault", "puts", "kept", "again", *operations)
    for name, count in sorted(report.puts_by_fault.items()):
        cells = [str(count[word]) for word in ("puts", "kept", "again", *operations)]
        table.add_row(name, *cells)
    console.print(table)
    console.print(f"ends: {dict(report.ends)}")
    console.print(f"left over, and swept: {dict(report.swept)}")
    console.print(f"{report.puts} puts in {report.took_s:.0f} s; breaches: {report.breaches or 0}")


async def _run(puts: int, seed: int, folder: Path, dsn: str) -> Report:
    with moto() as server:
        async with (
            asyncpg.create_pool(dsn, min_size=1, max_size=20) as pool,
            prepared(pool, folder, server, seed) as ground,
        ):
            return await soak(ground, puts)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.store_soak", description=__doc__)
    parser.add_argument("--puts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/store-soak.json"))
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="greenroom-store-soak-") as name:
        folder = Path(name)
        with EmbeddedPostgres(folder / "postgres", durable=False) as postgres:
            dsn = postgres.dsn()
            asyncio.run(migrate(dsn, migrations()))
            report = asyncio.run(_run(chosen.puts, chosen.seed, folder, dsn))
    show(report, Console())
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(report.document(), indent=2))
    return 1 if report.breaches else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
