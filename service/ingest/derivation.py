"""From the accepted sources of an avatar to what its fitter needs: compare them, then derive."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog

from service.db import assets, avatars
from service.db.assets import Derivation, JudgedSource
from service.db.claims import ClaimLostError
from service.domain import AvatarRun, Cause, Run, Settlement, Status
from service.errors import FailureCode, IngestError, InternalError
from service.ingest.objects import (
    begin_object,
    clear_abandoned,
    erase,
    erased_on_error,
    store_errors,
)
from service.ingest.ports import Ports
from service.ingest.progress import Report, reporting
from service.ingest.scratch import scratch
from service.ingest.settle import DerivedGoneError, Made, settle_derived, settle_underived
from storage.store import AssetNotFoundError, ChecksumMismatchError, StoredAsset
from validators.derive.derived import Derived
from validators.derive.recipes import RECIPE_VERSIONS, Recipe
from validators.encoding import StaleFactsError, decode_facts
from validators.facts import Kind
from validators.inspect import measure
from validators.pairs import Judged
from validators.policy import POLICIES, PolicyName
from validators.verdict import Media, PairVerdict

log = structlog.get_logger()

CHUNK_BYTES = 1 << 20

# What each recipe is made from: the first that the avatar has.
_BEST_SOURCES: Mapping[Recipe, tuple[Kind, ...]] = {
    Recipe.PORTRAIT: (Kind.IMAGE, Kind.VIDEO),
    Recipe.VOICE_REFERENCE: (Kind.AUDIO, Kind.VIDEO),
    Recipe.PREVIEW: (Kind.VIDEO,),
}
_KINDS: Mapping[Recipe, Kind] = {
    Recipe.PORTRAIT: Kind.IMAGE,
    Recipe.VOICE_REFERENCE: Kind.AUDIO,
    Recipe.PREVIEW: Kind.VIDEO,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A source in hand: its asset, and its bytes as a file with what was measured of them."""

    asset_id: UUID
    judged: Judged


async def derive(run: AvatarRun, ports: Ports) -> None:
    """Compare the sources of *run*'s avatar, derive what its fitter needs, and settle it.

    Raises InspectionError or IngestError when that cannot be done, ClaimLostError when overtaken.
    """
    await clear_abandoned(run, ports)
    wanted: list[Derivation] = []
    made: dict[Recipe, Made] = {}
    with store_errors():
        async with (
            reporting(run, ports.pool, "read", "sources") as report,
            _lent(run, ports) as sources,
        ):
            pairs = await _compared(run, ports, sources, report)
            if pairs is None or pairs.accepted:
                wanted = _wanted(sources)
                made = await _make_missing(run, ports, wanted, sources, report)
    if pairs is not None and not pairs.accepted:
        await _refuse(run, ports, pairs)
        return
    await _settle(run, ports, pairs, wanted, made)
    await _erase_all(ports, made)  # of what did not count: others had the same, or just made it


async def _settle(
    run: AvatarRun,
    ports: Ports,
    pairs: PairVerdict | None,
    wanted: list[Derivation],
    made: Mapping[Recipe, Made],
) -> None:
    try:
        async with ports.pool.acquire() as conn:
            await settle_derived(conn, run, pairs, wanted, made, now=ports.clock())
    except (ClaimLostError, DerivedGoneError):  # of no other can we say that nothing points to them
        await _erase_all(ports, made)
        raise


def _wanted(sources: Mapping[Kind, _Source]) -> list[Derivation]:
    return [
        Derivation(
            recipe=recipe,
            version=RECIPE_VERSIONS[recipe],
            derived_from=sources[kind].asset_id,
        )
        for recipe, kind in best_sources(sources).items()
    ]


def best_sources(given: Iterable[Kind]) -> dict[Recipe, Kind]:
    """What is derived for an avatar, and from which of its sources."""
    has = set(given)
    found = {
        recipe: [kind for kind in kinds if kind in has] for recipe, kinds in _BEST_SOURCES.items()
    }
    return {recipe: kinds[0] for recipe, kinds in found.items() if kinds}


@contextlib.asynccontextmanager
async def _lent(run: AvatarRun, ports: Ports) -> AsyncIterator[dict[Kind, _Source]]:
    """The avatar's sources as files. Without one of them, what is left was never compared."""
    async with ports.pool.acquire() as conn:
        sources = await assets.judged_sources(conn, run.id)
        if len(sources) < len(await avatars.outcomes(conn, run.id)):
            raise InternalError(FailureCode.INTERNAL, "a source of the avatar is gone")
    async with contextlib.AsyncExitStack() as held:
        lent = {}
        for source in sources:
            path = await held.enter_async_context(_copy(ports, source))
            judged = await _judged(run, ports, source, path)
            lent[source.kind] = _Source(asset_id=source.asset_id, judged=judged)
        yield lent


@contextlib.asynccontextmanager
async def _copy(ports: Ports, source: JudgedSource) -> AsyncIterator[Path]:
    """A source as a file; the log says which one cannot be read."""
    async with contextlib.AsyncExitStack() as held:
        try:
            copy = ports.store.local_copy(source.key, sha256=source.sha256)
            path = await held.enter_async_context(copy)
        except (AssetNotFoundError, ChecksumMismatchError):
            log.error("source_is_lost", asset_id=str(source.asset_id))  # noqa: TRY400 - the run logs why
            raise
        yield path


async def _judged(run: AvatarRun, ports: Ports, source: JudgedSource, path: Path) -> Judged:
    try:
        facts = decode_facts(source.facts)
    except StaleFactsError:  # of an earlier release: an accepted medium stays accepted
        policy = POLICIES[PolicyName(run.policy)]
        facts = await measure(path, source.kind, ports.tools, policy=policy)
    return Judged(path=path, facts=facts)


async def _compared(
    run: AvatarRun, ports: Ports, sources: Mapping[Kind, _Source], report: Report
) -> PairVerdict | None:
    """How the video goes with the others; None where there is no pair."""
    video, *others = (
        sources[kind].judged if kind in sources else None
        for kind in (Kind.VIDEO, Kind.IMAGE, Kind.AUDIO)
    )
    pairs = sum(other is not None for other in others)
    if video is None or not pairs:
        return None
    report.stage("compare", 0, pairs, "pairs")
    image, audio = others
    policy = POLICIES[PolicyName(run.policy)]
    return await ports.compare(video, image, audio, ports.tools, policy)


async def _refuse(run: AvatarRun, ports: Ports, pairs: PairVerdict) -> None:
    codes = tuple(code.value for code in pairs.failed)
    to = Settlement(status=Status.FAILED, cause=Cause.REJECTED, codes=codes)
    async with ports.pool.acquire() as conn:
        await settle_underived(conn, run, to, pairs, now=ports.clock())


async def _make_missing(
    run: AvatarRun,
    ports: Ports,
    wanted: list[Derivation],
    sources: Mapping[Kind, _Source],
    report: Report,
) -> dict[Recipe, Made]:
    """Derive and store what no run has derived from these assets yet."""
    made: dict[Recipe, Made] = {}
    of_asset = {source.asset_id: source for source in sources.values()}
    async with scratch(run) as folder, _erased_after_errors(ports, made):
        for done, derivation in enumerate(wanted):
            report.stage(derivation.recipe.value, done, len(wanted), "assets")
            async with ports.pool.acquire() as conn:
                there = await assets.find_derived(conn, derivation)
            if there is None:
                judged = of_asset[derivation.derived_from].judged
                made[derivation.recipe] = await make(
                    run, ports, derivation.recipe, judged, folder / derivation.recipe.value
                )
    return made


@contextlib.asynccontextmanager
async def _erased_after_errors(ports: Ports, made: Mapping[Recipe, Made]) -> AsyncIterator[None]:
    """Delete what was *made* so far if the rest cannot be.

    Whoever overtook us may have forgotten these keys already: nobody else could find them.
    """
    async with contextlib.AsyncExitStack() as after_errors:
        after_errors.push_async_callback(_erase_all, ports, made)
        yield
        after_errors.pop_all()


async def _erase_all(ports: Ports, made: Mapping[Recipe, Made]) -> None:
    for one in made.values():
        await erase(ports, one.blob_id, one.stored.key)


async def make(run: Run, ports: Ports, recipe: Recipe, judged: Judged, out: Path) -> Made:
    """Derive one medium at *out* and store it, for the row that *run* works on."""
    derived = await ports.derive(recipe, judged.path, judged.facts, out, ports.tools)
    blob_id, key = await begin_object(run, ports)
    async with erased_on_error(ports, blob_id, key):
        stored = await ports.store.put(key, _chunks(out), expected_sha256=derived.sha256)
    return Made(blob_id=blob_id, stored=stored, media=_media(recipe, derived, stored))


def _media(recipe: Recipe, derived: Derived, stored: StoredAsset) -> Media:
    return Media(
        kind=_KINDS[recipe],
        duration_s=derived.duration_s,
        width=derived.width,
        height=derived.height,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
    )


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    """The file's bytes; none is held open while a run may be stopped."""
    start = 0
    while chunk := await asyncio.to_thread(_read, path, start):
        yield chunk
        start += len(chunk)


def _read(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(CHUNK_BYTES)


async def give_up(run: AvatarRun, ports: Ports, error: IngestError) -> None:
    """Fail the avatar: whatever stopped us, it is not its sources, which are ours by now."""
    to = Settlement(status=Status.FAILED, cause=Cause.INTERNAL, codes=(error.code.value,))
    async with ports.pool.acquire() as conn:
        await settle_underived(conn, run, to, None, now=ports.clock())
    await clear_abandoned(run, ports)
