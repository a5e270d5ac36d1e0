"""From a claimed source to durable bytes, and from durable bytes to a verdict."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog

from service.db import assets, avatars
from service.db.assets import Progress
from service.db.types import DATABASE_AWAY, Pool
from service.domain import Run
from service.errors import (
    FailureCode,
    IngestError,
    InternalError,
    SourceError,
    UnavailableError,
)
from service.events.outbox import unit_of_work
from service.fetch.fetcher import Fetcher
from service.ids import new_id
from service.ingest.settle import settle_failed, settle_judged, settle_stored
from service.sealing import SealBrokenError, Sealer
from service.tasks import end
from storage.store import AssetStore, StoredAsset, StoreError, StoreUnavailableError, TooLargeError
from validators.facts import Kind
from validators.inspect import Tools, inspect
from validators.policy import POLICIES, PolicyName

log = structlog.get_logger()

PROGRESS_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything the work touches, handed in by the composition root."""

    pool: Pool
    store: AssetStore
    fetcher: Fetcher
    sealer: Sealer
    tools: Tools
    max_bytes: Mapping[Kind, int]
    clock: Callable[[], datetime]


async def fetch(run: Run, ports: Ports) -> None:
    """Stream the source of *run* into the store and settle it.

    Raises IngestError when it cannot be had, and ClaimLostError when the run was overtaken.
    """
    async with ports.pool.acquire() as conn:
        sealed = await assets.sealed_source_of(conn, run)
        await avatars.begin_fetching(conn, run.asset_id)
    url = _unsealed(sealed, ports.sealer)
    await _clear_abandoned(run, ports)
    blob_id = new_id()
    key = blob_id.hex
    async with ports.pool.acquire() as conn:
        await assets.begin_blob(conn, run, blob_id=blob_id, key=key)
    stored = await _stream(run, ports, url, key)
    try:
        kept = await _keep(run, ports, blob_id, stored)
    except assets.ClaimLostError:  # whoever overtook us may have forgotten this key already
        await _erase(ports, blob_id, key)
        raise
    if kept != blob_id:
        await _clear_abandoned(run, ports)


def _unsealed(sealed: bytes, sealer: Sealer) -> str:
    try:
        return sealer.open(sealed)
    except SealBrokenError as exc:
        detail = "the source URL was sealed with a key that is gone"
        raise InternalError(FailureCode.INTERNAL, detail) from exc


async def _keep(run: Run, ports: Ports, blob_id: UUID, stored: StoredAsset) -> UUID:
    async with ports.pool.acquire() as conn:
        now = ports.clock()
        async with unit_of_work(conn, now=now) as work:
            kept = await assets.finish_blob(conn, run, blob_id, stored)
            await settle_stored(work, run, kept, stored, now=now)
            return kept


async def _stream(run: Run, ports: Ports, url: str, key: str) -> StoredAsset:
    cap = ports.max_bytes[run.kind]
    async with _reporting(run, ports, "fetching", "bytes") as report:
        try:
            async with ports.fetcher.open(
                url,
                deadline=run.source_expires_at,
                max_bytes=cap,
                now=ports.clock(),
                progress=report,
            ) as source:
                return await ports.store.put(key, source.body(), max_bytes=cap)
        except TooLargeError as exc:
            raise SourceError(FailureCode.SOURCE_TOO_LARGE, f"over {cap} bytes") from exc
        except StoreUnavailableError as exc:
            raise UnavailableError(FailureCode.INTERNAL, "our store did not answer") from exc


async def _clear_abandoned(run: Run, ports: Ports) -> None:
    """Delete objects that earlier runs of this asset began, or that a twin made needless."""
    async with ports.pool.acquire() as conn:
        left = await assets.abandoned_blobs(conn, run.asset_id)
    for blob_id, key in left:
        await _erase(ports, blob_id, key)


async def _erase(ports: Ports, blob_id: UUID, key: str) -> None:
    """Delete an object and forget it; while the store is away its row stays, to be found again."""
    try:
        await ports.store.delete(key)
    except StoreUnavailableError as exc:
        log.warning("object_left_behind", key=key, error=repr(exc))
        return
    async with ports.pool.acquire() as conn:
        await assets.forget_blob(conn, blob_id)


async def judge(run: Run, ports: Ports) -> None:
    """Inspect the stored bytes of *run* and settle it.

    Raises InspectionError when no verdict could be reached, ClaimLostError when overtaken.
    """
    async with ports.pool.acquire() as conn:
        kept = await assets.bytes_of(conn, run)
    policy = POLICIES[PolicyName(kept.policy)]
    try:
        async with (
            ports.store.local_copy(kept.key, sha256=kept.sha256) as path,
            _reporting(run, ports, "inspecting", "s") as report,
        ):
            inspection = await inspect(
                path, run.kind, policy, ports.tools, on_progress=report.stage
            )
    except StoreUnavailableError as exc:
        raise UnavailableError(FailureCode.INTERNAL, "our store did not answer") from exc
    except StoreError as exc:  # gone, or no longer the bytes that we took in
        raise InternalError(FailureCode.INTERNAL, "the stored bytes cannot be read") from exc
    async with ports.pool.acquire() as conn:
        await settle_judged(conn, run, inspection.verdict, inspection.facts, now=ports.clock())


async def give_up(run: Run, ports: Ports, error: IngestError) -> None:
    async with ports.pool.acquire() as conn:
        await settle_failed(conn, run, error, now=ports.clock())
    await _clear_abandoned(run, ports)


class _Report:
    """The newest progress of a run; a task writes it down now and then."""

    def __init__(self, stage: str, unit: str) -> None:
        self.newest = Progress(stage=stage, done=None, total=None, unit=unit)

    def __call__(self, done: float, total: float | None) -> None:
        stage, unit = self.newest.stage, self.newest.unit
        self.newest = Progress(stage=stage, done=done, total=total, unit=unit)

    def stage(self, stage: str, done: float, total: float | None, unit: str) -> None:
        self.newest = Progress(stage=stage, done=done, total=total, unit=unit)


@contextlib.asynccontextmanager
async def _reporting(run: Run, ports: Ports, stage: str, unit: str) -> AsyncIterator[_Report]:
    report = _Report(stage, unit)
    task = asyncio.create_task(_keep_reporting(run, ports.pool, report))
    try:
        yield report
    finally:
        await end(task)


async def _keep_reporting(run: Run, pool: Pool, report: _Report) -> None:
    """Write progress down. Stops quietly when that fails: what matters, the run hears itself."""
    kept = None
    with contextlib.suppress(assets.ClaimLostError, *DATABASE_AWAY):
        while True:
            if kept != report.newest:
                kept = report.newest
                async with pool.acquire() as conn:
                    await assets.keep_progress(conn, run, kept)
            await asyncio.sleep(PROGRESS_INTERVAL_S)
