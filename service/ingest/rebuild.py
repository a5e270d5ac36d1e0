"""A derived asset whose bytes were lost is made again, from its origin and by the same recipe.

The same bytes come out wherever the same tools work; another ffmpeg may write others. They replace
the lost ones then, and readers see the new checksum; what was announced before stays as it was.
"""

from pathlib import Path

import structlog

from service.db import assets, blobs
from service.db.assets import LostDerived
from service.db.claims import ClaimLostError
from service.domain import AssetRun
from service.errors import FailureCode, IngestError, InternalError
from service.ingest.derivation import make
from service.ingest.objects import clear_abandoned, erase, store_errors
from service.ingest.ports import Ports
from service.ingest.progress import reporting
from service.ingest.scratch import scratch
from service.ingest.settle import Made
from validators.derive.recipes import RECIPE_VERSIONS
from validators.encoding import StaleFactsError, decode_facts
from validators.facts import Facts
from validators.inspect import measure
from validators.pairs import Judged
from validators.policy import POLICIES, PolicyName

log = structlog.get_logger()


async def rebuild(run: AssetRun, ports: Ports) -> None:
    """Make the lost bytes of *run*'s asset again.

    Raises InternalError where that cannot be done, InspectionError where a tool fails, and
    ClaimLostError when the run was overtaken.
    """
    await clear_abandoned(run, ports)
    async with ports.pool.acquire() as conn:
        lost = await assets.lost_derived(conn, run)
    if lost.origin_lost:
        raise InternalError(FailureCode.INTERNAL, "what it was derived from is lost as well")
    if RECIPE_VERSIONS[lost.derivation.recipe] != lost.derivation.version:
        raise InternalError(FailureCode.INTERNAL, "this release has another version of its recipe")
    with store_errors():
        async with reporting(run, ports.pool, lost.derivation.recipe.value, "assets"):
            made = await _make(run, ports, lost)
    try:
        await _replace(run, ports, lost, made)
    except ClaimLostError:
        await erase(ports, made.blob_id, made.stored.key)
        raise
    await clear_abandoned(run, ports)


async def _make(run: AssetRun, ports: Ports, lost: LostDerived) -> Made:
    async with (
        ports.store.local_copy(lost.origin_key, sha256=lost.origin_sha256) as path,
        scratch(run) as folder,
    ):
        judged = Judged(path=path, facts=await _facts(path, ports, lost))
        recipe = lost.derivation.recipe
        return await make(run, ports, recipe, judged, folder / recipe.value)


async def _facts(path: Path, ports: Ports, lost: LostDerived) -> Facts:
    try:
        return decode_facts(lost.origin_facts)
    except StaleFactsError:
        policy = POLICIES[PolicyName(lost.origin_policy)]
        return await measure(path, lost.origin_kind, ports.tools, policy=policy)


async def _replace(run: AssetRun, ports: Ports, lost: LostDerived, made: Made) -> None:
    """Point the asset to what was made, unless its bytes have come back meanwhile."""
    async with ports.pool.acquire() as conn, conn.transaction():
        kept = await blobs.finish(conn, run.organisation_id, made.blob_id, made.stored)
        before = await assets.hold_blob(conn, run)
        if before.lost:
            await assets.keep_rebuilt(conn, run, kept, made.media)
        else:
            await assets.end_rebuild(conn, run)
        await blobs.release(conn, [before.id if before.lost else kept])
    same = made.stored.sha256 == lost.sha256
    log.info("asset_rebuilt", replaced=before.lost, same_bytes=same, before=lost.sha256)


async def give_up(run: AssetRun, ports: Ports, error: IngestError) -> None:
    """The asset stays lost. Whoever has mended the cause may have it tried from the start."""
    async with ports.pool.acquire() as conn:
        await assets.end_rebuild(conn, run)
    log.error("asset_not_rebuilt", asset_id=str(run.id), why=error.detail or error.message)
