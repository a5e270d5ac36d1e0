"""A verdict or an error becomes the next status and its events, in one transaction.

Settling is serial per avatar: the avatars that use an asset are locked first, in id order, before
the asset is written. Two sources that finish together must not each see the other unfinished.
"""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from service.db import assets, avatars, jobs
from service.db.types import Conn
from service.domain import (
    Cause,
    EventType,
    Run,
    Settlement,
    Status,
    Work,
    sentence,
    settle,
)
from service.errors import FailureCode, IngestError, InternalError
from service.events import data
from service.events.outbox import Subject, UnitOfWork, unit_of_work
from service.ingest.accept import avatar_subject
from storage.store import StoredAsset
from validators.facts import Facts
from validators.verdict import Verdict


async def settle_stored(
    work: UnitOfWork, run: Run, blob_id: UUID, stored: StoredAsset, *, now: datetime
) -> None:
    """The bytes are durable: say so, have them inspected, and move the avatars on."""
    using = await avatars.lock_those_using(work.conn, run.asset_id)
    await assets.keep_stored(work.conn, run, blob_id)
    await jobs.enqueue(work.conn, Work.INSPECT, [run.asset_id])
    said = data.AssetStored(
        asset=str(run.asset_id),
        kind=run.kind,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
    )
    work.announce(EventType.ASSET_STORED, asset_subject(run), said)
    await _settle_avatars(work, using, now=now)


async def settle_failed(conn: Conn, run: Run, error: IngestError, *, now: datetime) -> None:
    """The bytes cannot be had, or cannot be judged: a failure, not a refusal."""
    async with unit_of_work(conn, now=now) as work:
        using = await avatars.lock_those_using(conn, run.asset_id)
        await assets.keep_failed(conn, run, error)
        said = data.AssetFailed(
            asset=str(run.asset_id),
            kind=run.kind,
            code=error.code.value,
            message=assets.public_message(error),
            who=error.who.value,
        )
        work.announce(EventType.ASSET_FAILED, asset_subject(run), said)
        await _settle_avatars(work, using, now=now)


async def settle_judged(
    conn: Conn, run: Run, verdict: Verdict, facts: Facts, *, now: datetime
) -> None:
    """The medium was judged: keep the verdict and move the avatars on."""
    async with unit_of_work(conn, now=now) as work:
        using = await avatars.lock_those_using(conn, run.asset_id)
        await assets.keep_verdict(conn, run, verdict, facts, now=now)
        subject, asset = asset_subject(run), str(run.asset_id)
        summary = data.VerdictSummary(
            verdict=verdict.verdict,
            policy=verdict.policy,
            codes=tuple(code.value for code in verdict.failed),
            link=asset_link(run.asset_id),
        )
        if verdict.accepted:
            ready = data.AssetReady(asset=asset, media=verdict.media, verdict=summary)
            work.announce(EventType.ASSET_READY, subject, ready)
        else:
            refused = data.AssetRejected(asset=asset, kind=run.kind, verdict=summary)
            work.announce(EventType.ASSET_REJECTED, subject, refused)
        await _settle_avatars(work, using, now=now)


async def settle_fitted(
    work: UnitOfWork, avatar: avatars.Avatar, failure: tuple[str, str] | None, *, now: datetime
) -> None:
    """What the fitter reported, or that it never did. *failure* is a code and a sentence."""
    if failure is None:
        await avatars.move(
            work.conn, avatar, Settlement(status=Status.READY), message=None, now=now
        )
        ready = data.AvatarReady(avatar=data.avatar_ref(avatar.id))
        work.announce(EventType.AVATAR_READY, avatar_subject(avatar), ready)
        return
    code, message = failure
    to = Settlement(status=Status.FAILED, cause=Cause.FITTING, codes=(code,))
    await _fail(work, avatar, to, message, now=now)


async def _settle_avatars(work: UnitOfWork, using: list[avatars.Avatar], *, now: datetime) -> None:
    for avatar in using:
        if not avatar.status.final and avatar.status is not Status.FITTING:
            await _settle_avatar(work, avatar, now=now)


async def _settle_avatar(work: UnitOfWork, avatar: avatars.Avatar, *, now: datetime) -> None:
    to = settle(await avatars.outcomes(work.conn, avatar.id))
    if to.cause is not None:
        await _fail(work, avatar, to, sentence(to.cause, to.codes), now=now)
    elif await avatars.move(work.conn, avatar, to, message=None, now=now) and (
        to.status is Status.FITTING
    ):
        sources = await assets.of_avatar(work.conn, avatar.id)
        said = data.AvatarReadyForFitting(
            avatar=data.avatar_ref(avatar.id),
            organisation=avatar.organisation_id,
            name=avatar.name,
            runtime_type=avatar.runtime_type,
            sources=_for_fitting(sources),
        )
        work.announce(EventType.AVATAR_READY_FOR_FITTING, avatar_subject(avatar), said)


def _for_fitting(sources: Mapping[str, assets.Asset]) -> dict[str, data.FittingSource]:
    return {
        role: data.FittingSource(
            asset=str(asset.id),
            sha256=asset.verdict.media.sha256,
            media=asset.verdict.media,
            content=f"{asset_link(asset.id)}/content",
        )
        for role, asset in sources.items()
        if asset.verdict is not None  # every one has one: the avatar is only here if all are ready
    }


async def _fail(
    work: UnitOfWork, avatar: avatars.Avatar, to: Settlement, message: str, *, now: datetime
) -> None:
    cause = to.cause or Cause.INTERNAL
    if await avatars.move(work.conn, avatar, to, message=message, now=now):
        said = data.AvatarFailed(
            avatar=data.avatar_ref(avatar.id), cause=cause.value, codes=to.codes
        )
        work.announce(EventType.AVATAR_FAILED, avatar_subject(avatar), said)


def asset_subject(run: Run) -> Subject:
    return Subject(
        id=run.asset_id,
        organisation_id=run.organisation_id,
        is_avatar=False,
        traceparent=run.traceparent,
    )


def asset_link(asset_id: UUID) -> str:
    return f"/v1/assets/{asset_id}"


def internal_failure() -> IngestError:
    """What an asset gets that has cost too many children or workers."""
    return InternalError(FailureCode.INTERNAL, "the source could not be judged")
