"""Avatars and assets for tests, made through the same functions as everywhere."""

from datetime import UTC, datetime
from hashlib import sha256 as sha256_of
from uuid import UUID

from cryptography.fernet import Fernet

from service.db import assets, avatars, blobs, keys
from service.db.assets import Asset, Derivation
from service.db.avatars import Avatar
from service.db.types import Conn, Pool
from service.domain import AssetRun, AvatarRun, Work
from service.events.outbox import unit_of_work
from service.fetch.address import AddressGuard, parse_allowed_blocks
from service.fetch.source_url import parse_source_url
from service.ids import new_id
from service.ingest.accept import Request, accept
from service.ingest.derivation import best_sources
from service.ingest.settle import Made, settle_derived, settle_stored
from service.sealing import Sealer
from storage.store import StoredAsset
from validators.derive.recipes import RECIPE_VERSIONS, Recipe
from validators.facts import FACTS_VERSION, Facts, Kind
from validators.verdict import Code, Decision, Finding, Media, Outcome, Verdict

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ORGANISATION = "acme"
SEALER = Sealer.with_keys((Fernet.generate_key().decode(),))
GUARD = AddressGuard(blocks=parse_allowed_blocks("127.0.0.1/32:9000"))
PAIR = (Kind.IMAGE, Kind.AUDIO)


async def add_organisation(conn: Conn, organisation: str = ORGANISATION) -> None:
    await keys.create_organisation(conn, organisation, organisation.title(), policy="standard")


async def add_avatar(
    pool: Pool, kinds: tuple[Kind, ...] = (Kind.VIDEO,), organisation: str = ORGANISATION
) -> Avatar:
    """Accept an avatar whose sources are URLs."""
    async with pool.acquire() as conn:
        await add_organisation(conn, organisation)
        wanted = Request(
            organisation_id=organisation,
            name="Eileen",
            runtime_type="mock",
            policy="standard",
            sources={
                kind: parse_source_url(f"https://media.example/{kind}?sig=secret", GUARD)
                for kind in kinds
            },
            traceparent=None,
        )
        async with unit_of_work(conn, now=NOW) as work:
            return await accept(work, wanted, SEALER, now=NOW)


async def assets_of(pool: Pool, avatar: Avatar) -> dict[str, Asset]:
    async with pool.acquire() as conn:
        return await assets.of_avatar(conn, avatar.id)


async def start(pool: Pool, asset_id: UUID, work: Work) -> AssetRun:
    async with pool.acquire() as conn:
        run = await assets.start_run(conn, asset_id, work, now=NOW)
    assert run is not None
    return run


async def store_all(pool: Pool, avatar: Avatar) -> dict[str, AssetRun]:
    """Take every source of *avatar* to `stored`, and claim its inspection."""
    runs = {}
    for role, asset in (await assets_of(pool, avatar)).items():
        run = await start(pool, asset.id, Work.FETCH)
        blob_id = new_id()
        stored = StoredAsset(key=blob_id.hex, size_bytes=3, sha256=asset.id.hex * 2)
        async with pool.acquire() as conn:
            await blobs.begin(conn, run, blob_id=blob_id, key=stored.key)
            async with unit_of_work(conn, now=NOW) as work:
                kept = await blobs.finish(conn, run.organisation_id, blob_id, stored)
                await settle_stored(work, run, kept, stored, now=NOW)
        runs[role] = await start(pool, asset.id, Work.INSPECT)
    return runs


def verdict_of(run: AssetRun, *, accepted: bool = True) -> tuple[Verdict, Facts]:
    """A verdict and facts as `validators` would have made them."""
    sha256 = run.id.hex * 2
    finding = Finding(
        code=Code.NO_FACE,
        outcome=Outcome.PASS if accepted else Outcome.FAIL,
        message="A face." if accepted else "No face.",
    )
    verdict = Verdict(
        verdict=Decision.ACCEPTED if accepted else Decision.REJECTED,
        policy="standard-1",
        media=Media(kind=run.kind, sha256=sha256, size_bytes=3),
        checks=(finding,),
    )
    return verdict, Facts(version=FACTS_VERSION, kind=run.kind, size_bytes=3, sha256=sha256)


async def start_deriving(pool: Pool, avatar: Avatar) -> AvatarRun:
    async with pool.acquire() as conn:
        run = await avatars.start_run(conn, avatar.id, now=NOW)
    assert run is not None
    return run


async def made_by(pool: Pool, run: AvatarRun) -> tuple[list[Derivation], dict[Recipe, Made]]:
    """Everything that is derived for the avatar of *run*, with three bytes each."""
    wanted, made = [], {}
    async with pool.acquire() as conn:
        sources = await assets.of_avatar(conn, run.id)
        for recipe, kind in best_sources(map(Kind, sources)).items():
            origin, blob_id = sources[kind.value].id, new_id()
            wanted.append(
                Derivation(recipe=recipe, version=RECIPE_VERSIONS[recipe], derived_from=origin)
            )
            sha256 = sha256_of(f"{recipe} of {origin}".encode()).hexdigest()
            await blobs.begin(conn, run, blob_id=blob_id, key=blob_id.hex)
            made[recipe] = Made(
                blob_id=blob_id,
                stored=StoredAsset(key=blob_id.hex, size_bytes=3, sha256=sha256),
                media=Media(kind=kind, sha256=sha256, size_bytes=3),
            )
    return wanted, made


async def derive_all(pool: Pool, avatar: Avatar) -> None:
    """Take an avatar whose sources are ready to `fitting`."""
    run = await start_deriving(pool, avatar)
    wanted, made = await made_by(pool, run)
    async with pool.acquire() as conn:
        await settle_derived(conn, run, None, wanted, made, now=NOW)
