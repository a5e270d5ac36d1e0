"""Deleting an avatar or an asset: one transaction takes all that we know, a job takes the bytes.

Runs that are under way hear of it when they next write: their claim is gone with its row.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from service.db import avatars, blobs, erasure
from service.db.erasure import Held
from service.domain import EventType
from service.events.data import AssetDeleted, AvatarDeleted, avatar_ref
from service.events.outbox import Subject, UnitOfWork


class AssetInUseError(Exception):
    """An avatar uses the asset, or what was derived from it: nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """Who wants something deleted: no organisation means the platform, which sees all."""

    organisation_id: str | None
    traceparent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """What was deleted. *incoming* is where its upload may have left, or still leave, a file."""

    assets: int = 0
    incoming: str | None = None


async def delete_avatar(work: UnitOfWork, avatar_id: UUID, wanted: Deletion) -> Deleted | None:
    """Delete an avatar, and the assets that are its alone; None when there is none.

    What a caller has uploaded by itself stays, without what we derived from it.
    """
    conn = work.conn
    avatar = await avatars.lock(conn, avatar_id, organisation_id=wanted.organisation_id)
    if avatar is None:
        return None
    sources = await erasure.lock_sources(conn, avatar.id)
    derived = await erasure.lock_derived(conn, sources)
    used = await erasure.used_by_avatars(conn, [*sources, *derived], but_for=avatar.id)
    sequence = await erasure.remove_avatar(conn, avatar.id)
    subject = Subject(
        id=avatar.id,
        organisation_id=avatar.organisation_id,
        is_avatar=True,
        traceparent=wanted.traceparent,
    )
    said = AvatarDeleted(avatar=avatar_ref(avatar.id))
    work.announce_last(EventType.AVATAR_DELETED, subject, said, sequence=sequence + 1)
    going = going_along(sources, derived, used)
    await _remove(work, going, wanted)
    await _erase_traces(work, {avatar.id, *(asset.id for asset in going)})
    return Deleted(assets=len(going))


def going_along(
    sources: Sequence[Held], derived: Sequence[Held], used: Collection[UUID]
) -> list[Held]:
    """The assets that go with their avatar, those first that were made from others.

    *used* are those that other avatars use.
    """
    made = [asset for asset in derived if asset.id not in used]
    needed = {asset.derived_from for asset in derived if asset.id in used}
    alone = [
        asset
        for asset in sources
        if not asset.standalone and asset.id not in used and asset.id not in needed
    ]
    return made + alone


async def delete_asset(work: UnitOfWork, asset_id: UUID, wanted: Deletion) -> Deleted | None:
    """Delete an asset that no avatar uses, or an upload that never became one; None without either.

    Raises AssetInUseError.
    """
    conn, owner = work.conn, wanted.organisation_id
    incoming = await erasure.void_upload(conn, asset_id, organisation_id=owner)
    asset = await erasure.lock_asset(conn, asset_id, organisation_id=owner)
    if asset is None:
        return None if incoming is None else Deleted(incoming=incoming)
    derived = await erasure.lock_derived(conn, [asset])
    if await erasure.used_by_avatars(conn, [*derived, asset]):
        raise AssetInUseError(str(asset_id))
    await _remove(work, [*derived, asset], wanted)
    await _erase_traces(work, {one.id for one in (*derived, asset)})
    return Deleted(assets=1 + len(derived), incoming=incoming)


async def _remove(work: UnitOfWork, going: Sequence[Held], wanted: Deletion) -> None:
    """Remove assets, announce it, and have the bytes erased that nothing points to then."""
    sequences = await erasure.remove_assets(work.conn, [asset.id for asset in going])
    for asset in going:
        subject = Subject(
            id=asset.id,
            organisation_id=asset.organisation_id,
            is_avatar=False,
            traceparent=wanted.traceparent,
        )
        said = AssetDeleted(asset=str(asset.id), kind=asset.kind)
        work.announce_last(EventType.ASSET_DELETED, subject, said, sequence=sequences[asset.id] + 1)
    await blobs.release(work.conn, sorted({asset.blob_id for asset in going if asset.blob_id}))


async def _erase_traces(work: UnitOfWork, gone: Collection[UUID]) -> None:
    await blobs.stop_writing(work.conn, gone)
    await erasure.erase_events(work.conn, gone)
    await erasure.drop_jobs(work.conn, gone)
