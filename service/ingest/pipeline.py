"""From a claimed source to durable bytes, and from durable bytes to a verdict."""

from uuid import UUID

from service.db import assets, avatars, blobs
from service.db.claims import ClaimLostError
from service.domain import AssetRun
from service.errors import (
    FailureCode,
    IngestError,
    InternalError,
    SourceError,
    UnavailableError,
)
from service.events.outbox import unit_of_work
from service.ingest.objects import begin_object, clear_abandoned, erase, store_errors
from service.ingest.ports import Ports
from service.ingest.progress import reporting
from service.ingest.settle import settle_failed, settle_judged, settle_stored
from service.sealing import SealBrokenError, Sealer
from storage.store import StoredAsset, StoreUnavailableError, TooLargeError
from validators.inspect import inspect
from validators.policy import POLICIES, PolicyName


async def fetch(run: AssetRun, ports: Ports) -> None:
    """Stream the source of *run* into the store and settle it.

    Raises IngestError when it cannot be had, and ClaimLostError when the run was overtaken.
    """
    async with ports.pool.acquire() as conn:
        sealed = await assets.sealed_source_of(conn, run)
        await avatars.begin_fetching(conn, run.id)
    url = _unsealed(sealed, ports.sealer)
    await clear_abandoned(run, ports)
    blob_id, key = await begin_object(run, ports)
    stored = await _stream(run, ports, url, key)
    try:
        kept = await _keep(run, ports, blob_id, stored)
    except ClaimLostError:  # whoever overtook us may have forgotten this key already
        await erase(ports, blob_id, key)
        raise
    if kept != blob_id:
        await clear_abandoned(run, ports)


def _unsealed(sealed: bytes, sealer: Sealer) -> str:
    try:
        return sealer.open(sealed)
    except SealBrokenError as exc:
        detail = "the source URL was sealed with a key that is gone"
        raise InternalError(FailureCode.INTERNAL, detail) from exc


async def _keep(run: AssetRun, ports: Ports, blob_id: UUID, stored: StoredAsset) -> UUID:
    async with ports.pool.acquire() as conn:
        now = ports.clock()
        async with unit_of_work(conn, now=now) as work:
            kept = await blobs.finish(conn, run, blob_id, stored)
            await settle_stored(work, run, kept, stored, now=now)
            return kept


async def _stream(run: AssetRun, ports: Ports, url: str, key: str) -> StoredAsset:
    cap = ports.max_bytes[run.kind]
    async with reporting(run, ports.pool, "fetching", "bytes") as report:
        try:
            async with ports.fetcher.open(
                url,
                deadline=run.deadline,
                max_bytes=cap,
                now=ports.clock(),
                progress=report,
            ) as source:
                return await ports.store.put(key, source.body(), max_bytes=cap)
        except TooLargeError as exc:
            raise SourceError(FailureCode.SOURCE_TOO_LARGE, f"over {cap} bytes") from exc
        except StoreUnavailableError as exc:
            raise UnavailableError(FailureCode.INTERNAL, "our store did not answer") from exc


async def judge(run: AssetRun, ports: Ports) -> None:
    """Inspect the stored bytes of *run* and settle it.

    Raises InspectionError when no verdict could be reached, ClaimLostError when overtaken.
    """
    async with ports.pool.acquire() as conn:
        kept = await assets.bytes_of(conn, run)
    policy = POLICIES[PolicyName(kept.policy)]
    with store_errors():
        async with (
            ports.store.local_copy(kept.key, sha256=kept.sha256) as path,
            reporting(run, ports.pool, "inspecting", "s") as report,
        ):
            inspection = await inspect(
                path, run.kind, policy, ports.tools, on_progress=report.stage
            )
    async with ports.pool.acquire() as conn:
        await settle_judged(conn, run, inspection.verdict, inspection.facts, now=ports.clock())


async def give_up(run: AssetRun, ports: Ports, error: IngestError) -> None:
    async with ports.pool.acquire() as conn:
        await settle_failed(conn, run, error, now=ports.clock())
    await clear_abandoned(run, ports)
