"""From a claimed source to durable bytes, and from durable bytes to a verdict."""

from uuid import UUID

import structlog

from service.db import assets, avatars, blobs, measurements
from service.db.claims import ClaimLostError
from service.db.types import Conn
from service.domain import AssetRun
from service.errors import (
    FailureCode,
    IngestError,
    InternalError,
    SourceError,
)
from service.events.outbox import unit_of_work
from service.fetch.refusals import REFUSALS, log_refused
from service.ingest.objects import (
    away,
    begin_object,
    clear_abandoned,
    erase,
    erased_on_error,
    store_errors,
)
from service.ingest.ports import Ports
from service.ingest.progress import reporting
from service.ingest.settle import settle_failed, settle_judged, settle_stored
from service.sealing import SealBrokenError, Sealer
from service.telemetry import FACTS_REUSED
from storage.store import (
    ChecksumMismatchError,
    StoredAsset,
    StoreUnavailableError,
    TooLargeError,
)
from validators import rules
from validators.encoding import StaleFactsError, decode_facts
from validators.facts import Facts
from validators.inspect import measure
from validators.policy import POLICIES, Policy, PolicyName

log = structlog.get_logger()


async def fetch(run: AssetRun, ports: Ports) -> None:
    """Stream the source of *run* into the store and settle it.

    Raises IngestError when it cannot be had, and ClaimLostError when the run was overtaken.
    """
    async with ports.pool.acquire() as conn:
        sealed = await assets.sealed_source_of(conn, run)
        await avatars.begin_fetching(conn, run.id)
    url = _unsealed(sealed.url, ports.sealer)
    await clear_abandoned(run, ports)
    blob_id, key = await begin_object(run, ports)
    async with erased_on_error(ports, blob_id, key):
        stored = await _stream(run, ports, url, key, expected_sha256=sealed.expected_sha256)
    await keep(run, ports, blob_id, stored)


def _unsealed(sealed: bytes, sealer: Sealer) -> str:
    try:
        return sealer.open(sealed)
    except SealBrokenError as exc:
        detail = "the source URL was sealed with a key that is gone"
        raise InternalError(FailureCode.INTERNAL, detail) from exc


async def keep(run: AssetRun, ports: Ports, blob_id: UUID, stored: StoredAsset) -> None:
    """Make what *run* has stored count, or erase it; raise ClaimLostError if it was overtaken."""
    try:
        kept = await _settle(run, ports, blob_id, stored)
    except ClaimLostError:  # whoever overtook us may have forgotten this key already
        await erase(ports, blob_id, stored.key)
        raise
    if kept != blob_id:  # by its own name: the next run of the row may have begun
        await erase(ports, blob_id, stored.key)


async def _settle(run: AssetRun, ports: Ports, blob_id: UUID, stored: StoredAsset) -> UUID:
    async with ports.pool.acquire() as conn:
        now = ports.clock()
        async with unit_of_work(conn, now=now) as work:
            kept = await blobs.finish(conn, run.organisation_id, blob_id, stored)
            await settle_stored(work, run, kept, stored, now=now)
            return kept


async def _stream(
    run: AssetRun, ports: Ports, url: str, key: str, *, expected_sha256: str | None
) -> StoredAsset:
    """The store hashes what it keeps, so it is the one that compares: hashing is most of the cost
    of a fetch, and bytes with another checksum never get a name.
    """
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
                return await ports.store.put(
                    key, source.body(), max_bytes=cap, expected_sha256=expected_sha256
                )
        except SourceError as error:
            _log_if_refused(error, run, url)
            raise
        except TooLargeError as exc:
            raise SourceError(FailureCode.SOURCE_TOO_LARGE, f"over {cap} bytes") from exc
        except ChecksumMismatchError as exc:
            raise SourceError(FailureCode.SOURCE_CHECKSUM_MISMATCH) from exc
        except StoreUnavailableError as exc:
            raise away(exc) from exc


def _log_if_refused(error: SourceError, run: AssetRun, url: str) -> None:
    if error.code in REFUSALS:
        log_refused(
            error,
            url=url,
            organisation=run.organisation_id,
            asset_id=str(run.id),
            role=run.kind.value,
        )


async def judge(run: AssetRun, ports: Ports) -> None:
    """Inspect the stored bytes of *run* and settle it.

    Raises InspectionError when no verdict could be reached, ClaimLostError when overtaken.
    """
    async with ports.pool.acquire() as conn:
        kept = await assets.bytes_of(conn, run)
        policy = POLICIES[PolicyName(kept.policy)]
        measured_by = ports.measured_by(policy)
        facts = await _known_facts(conn, run, kept, measured_by)
    if facts is None:
        facts = await _measured(run, ports, kept, policy)
    verdict = rules.judge(facts, policy)
    # what a tool was stopped at may be measured by another machine, or a calmer one
    name = None if facts.strained else measured_by
    async with ports.pool.acquire() as conn:
        await settle_judged(conn, run, verdict, facts, measured_by=name, now=ports.clock())


async def _known_facts(
    conn: Conn, run: AssetRun, kept: assets.StoredBytes, measured_by: str | None
) -> Facts | None:
    """What the same instruments measured of the same bytes before, for this organisation."""
    known = await measurements.known_facts(conn, run, sha256=kept.sha256, measured_by=measured_by)
    if known is None:
        return None
    try:
        facts = decode_facts(known)
    except StaleFactsError:
        return None
    log.info("facts_reused")
    FACTS_REUSED.inc()
    return facts


async def _measured(run: AssetRun, ports: Ports, kept: assets.StoredBytes, policy: Policy) -> Facts:
    with store_errors():
        async with (
            ports.store.local_copy(kept.key, sha256=kept.sha256) as path,
            reporting(run, ports.pool, "inspecting", "s") as report,
        ):
            return await measure(
                path, run.kind, ports.tools, policy=policy, on_progress=report.stage
            )


async def give_up(run: AssetRun, ports: Ports, error: IngestError) -> None:
    async with ports.pool.acquire() as conn:
        await settle_failed(conn, run, error, now=ports.clock())
    await clear_abandoned(run, ports)
