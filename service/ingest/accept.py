"""A request becomes an avatar, its assets, its jobs and its first event, in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from service.db import assets, avatars, jobs
from service.domain import EventType, Status, Work
from service.events.data import AvatarCreated, avatar_ref
from service.events.outbox import Subject, UnitOfWork
from service.fetch.signed_url import expiry_of
from service.fetch.source_url import SourceUrl
from service.ids import new_id
from service.sealing import Sealer
from validators.facts import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a caller asks for, already checked. Each role of the avatar has one source."""

    organisation_id: str
    name: str
    runtime_type: str
    policy: str
    sources: Mapping[Kind, SourceUrl]
    traceparent: str | None


async def accept(
    work: UnitOfWork, request: Request, sealer: Sealer, *, now: datetime
) -> avatars.Avatar:
    """Record the avatar and everything that has to happen for it."""
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
    await jobs.enqueue(work.conn, Work.FETCH, list(used.values()))
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
    return avatar


async def _add_asset(
    work: UnitOfWork, request: Request, kind: Kind, sealer: Sealer, *, now: datetime
) -> UUID:
    source = request.sources[kind]
    asset = assets.NewAsset(
        id=new_id(),
        organisation_id=request.organisation_id,
        kind=kind,
        policy=request.policy,
        source_url=sealer.seal(str(source.wire)),
        source_shown=source.without_query,
        source_expires_at=expiry_of(str(source.wire)),
        traceparent=request.traceparent,
        created_at=now,
    )
    await assets.insert(work.conn, asset)
    return asset.id


def avatar_subject(avatar: avatars.Avatar) -> Subject:
    return Subject(
        id=avatar.id,
        organisation_id=avatar.organisation_id,
        is_avatar=True,
        traceparent=avatar.traceparent,
    )
