"""A request becomes an avatar, its assets, its jobs and its first event, in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from service.db import assets, avatars, blobs, jobs
from service.domain import EventType, Status, Work
from service.events.data import AssetStored, AvatarCreated, avatar_ref
from service.events.outbox import Subject, UnitOfWork
from service.fetch.signed_url import expiry_of
from service.fetch.source_url import SourceUrl
from service.ids import new_id
from service.ingest.settle import avatar_subject, settle_accepted
from service.sealing import Sealer
from storage.store import StoredAsset
from validators.facts import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """A source that came with the request: its bytes are in the store, nothing points to them."""

    asset_id: UUID
    blob_id: UUID
    stored: StoredAsset


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """A source that was uploaded by itself before, and perhaps used already."""

    asset_id: UUID


class NotUploadedError(LookupError):
    """The organisation has no uploaded asset of this kind, with its bytes, under that id."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind.value)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a caller asks for, already checked. Each role of the avatar has one source."""

    organisation_id: str
    name: str
    runtime_type: str
    policy: str
    sources: Mapping[Kind, SourceUrl | Uploaded | Existing]
    expected_sha256: Mapping[Kind, str] = field(default_factory=dict)  # of sources to be fetched
    traceparent: str | None


async def accept(
    work: UnitOfWork, request: Request, sealer: Sealer, *, now: datetime
) -> avatars.Avatar:
    """Record the avatar and everything that has to happen for it.

    Raises ClaimLostError when uploaded bytes were given up meanwhile, and NotUploadedError.
    """
    uploaded = [one for one in request.sources.values() if isinstance(one, Uploaded)]
    digests = (one.stored.sha256 for one in uploaded)
    await blobs.lock(work.conn, request.organisation_id, digests)
    await _hold_existing(work, request)
    avatar = avatars.Avatar(
        id=new_id(),
        organisation_id=request.organisation_id,
        name=request.name,
        runtime_type=request.runtime_type,
        policy=request.policy,
        status=Status.ACCEPTED,
        cause=None,
        codes=(),
        message=None,
        traceparent=request.traceparent,
        created_at=now,
        fitting_since=None,
    )
    used = {
        kind.value: await _add_asset(work, request, kind, sealer, now=now)
        for kind in request.sources
    }
    await avatars.insert(work.conn, avatar, used)
    work.announce(
        EventType.AVATAR_CREATED,
        avatar_subject(avatar),
        AvatarCreated(
            avatar=avatar_ref(avatar.id),
            organisation=avatar.organisation_id,
            name=avatar.name,
            runtime_type=avatar.runtime_type,
            roles=tuple(used),
        ),
    )
    for kind, source in request.sources.items():
        if isinstance(source, Uploaded):
            _announce_stored(work, request, kind, source)
    return await settle_accepted(work, avatar, now=now)


async def _hold_existing(work: UnitOfWork, request: Request) -> None:
    """Until the commit nobody deletes these assets, or settles them without this avatar."""
    wanted = {
        kind: source.asset_id
        for kind, source in request.sources.items()
        if isinstance(source, Existing)
    }
    if wanted:
        await assets.share(work.conn, wanted.values())
    for kind, asset_id in wanted.items():
        if not await assets.is_reusable(work.conn, asset_id, kind, request.organisation_id):
            raise NotUploadedError(kind)


async def _add_asset(
    work: UnitOfWork, request: Request, kind: Kind, sealer: Sealer, *, now: datetime
) -> UUID:
    source = request.sources[kind]
    if isinstance(source, Existing):
        return source.asset_id
    if isinstance(source, Uploaded):
        return await _add_uploaded(work, request, kind, source, now=now)
    asset = assets.NewAsset(
        id=new_id(),
        organisation_id=request.organisation_id,
        kind=kind,
        policy=request.policy,
        source_url=sealer.seal(str(source.wire)),
        source_shown=source.without_query,
        source_expires_at=expiry_of(str(source.wire)),
        expected_sha256=request.expected_sha256.get(kind),
        traceparent=request.traceparent,
        created_at=now,
    )
    await assets.insert(work.conn, asset)
    await jobs.enqueue(work.conn, Work.FETCH, [asset.id])
    return asset.id


async def _add_uploaded(
    work: UnitOfWork, request: Request, kind: Kind, source: Uploaded, *, now: datetime
) -> UUID:
    asset = assets.NewUploaded(
        id=source.asset_id,
        organisation_id=request.organisation_id,
        kind=kind,
        policy=request.policy,
        blob_id=await blobs.finish(
            work.conn, request.organisation_id, source.blob_id, source.stored
        ),
        stored=source.stored,
        traceparent=request.traceparent,
        created_at=now,
    )
    await assets.insert_uploaded(work.conn, asset)
    await jobs.enqueue(work.conn, Work.INSPECT, [asset.id])
    return asset.id


def _announce_stored(work: UnitOfWork, request: Request, kind: Kind, source: Uploaded) -> None:
    subject = Subject(
        id=source.asset_id,
        organisation_id=request.organisation_id,
        is_avatar=False,
        traceparent=request.traceparent,
    )
    said = AssetStored(
        asset=str(source.asset_id),
        kind=kind,
        sha256=source.stored.sha256,
        size_bytes=source.stored.size_bytes,
    )
    work.announce(EventType.ASSET_STORED, subject, said)
