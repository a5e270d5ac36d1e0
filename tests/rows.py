"""Avatars and assets for tests, made through the same functions as everywhere."""

from datetime import UTC, datetime
from uuid import UUID

from cryptography.fernet import Fernet

from service.db import assets, keys
from service.db.assets import Asset
from service.db.avatars import Avatar
from service.db.types import Conn, Pool
from service.domain import Run, Work
from service.events.outbox import unit_of_work
from service.fetch.address import AddressGuard, parse_allowed_blocks
from service.fetch.source_url import parse_source_url
from service.ids import new_id
from service.ingest.accept import Request, accept
from service.ingest.settle import settle_stored
from service.sealing import Sealer
from storage.store import StoredAsset
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


async def start(pool: Pool, asset_id: UUID, work: Work) -> Run:
    async with pool.acquire() as conn:
        run = await assets.start_run(conn, asset_id, work, now=NOW)
    assert run is not None
    return run


async def store_all(pool: Pool, avatar: Avatar) -> dict[str, Run]:
    """Take every source of *avatar* to `stored`, and claim its inspection."""
    runs = {}
    for role, asset in (await assets_of(pool, avatar)).items():
        run = await start(pool, asset.id, Work.FETCH)
        blob_id = new_id()
        stored = StoredAsset(key=blob_id.hex, size_bytes=3, sha256=asset.id.hex * 2)
        async with pool.acquire() as conn:
            await assets.begin_blob(conn, run, blob_id=blob_id, key=stored.key)
            async with unit_of_work(conn, now=NOW) as work:
                kept = await assets.finish_blob(conn, run, blob_id, stored)
                await settle_stored(work, run, kept, stored, now=NOW)
        runs[role] = await start(pool, asset.id, Work.INSPECT)
    return runs


def verdict_of(run: Run, *, accepted: bool = True) -> tuple[Verdict, Facts]:
    """A verdict and facts as `validators` would have made them."""
    sha256 = run.asset_id.hex * 2
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
