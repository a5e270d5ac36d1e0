"""A verdict or an error becomes the next status and its events, in one transaction.

Settling is serial per avatar: the avatars that use an asset are locked first, in id order, before
the asset is written. Two sources that finish together must not each see the other unfinished.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from service.db import assets, avatars, blobs, jobs
from service.db.assets import Asset, Derivation, NewDerived
from service.db.types import Conn
from service.domain import (
    AssetRun,
    AvatarRun,
    Cause,
    EventType,
    Settlement,
    SourceOutcome,
    Status,
    Work,
    sentence,
    settle,
)
from service.errors import FailureCode, IngestError, InternalError
from service.events import data
from service.events.outbox import Subject, UnitOfWork, unit_of_work
from service.ids import new_id
from storage.store import StoredAsset
from validators import rules
from validators.derive.recipes import Recipe
from validators.encoding import StaleFactsError, decode_facts
from validators.errors import UnmeasuredError
from validators.facts import Facts
from validators.policy import POLICIES, PolicyName
from validators.verdict import Media, PairVerdict, Verdict

# what a source does to its avatar ends here: from `deriving` on, other work moves it
_MOVED_BY_SOURCES = {Status.ACCEPTED, Status.FETCHING, Status.INSPECTING}


# Of a source under a policy, for one transaction: judging computes for some ten milliseconds, and
# a thousand avatars may wait for one upload. None: its facts cannot be judged any more.
Judged = dict[tuple[UUID, str], Verdict | None]


async def settle_accepted(
    work: UnitOfWork, avatar: avatars.Avatar, *, now: datetime
) -> avatars.Avatar:
    """Move a new avatar on as far as its sources are; some may have been here before it."""
    to = settle(await _outcomes(work.conn, avatar, {}))
    if to.status is Status.FETCHING:  # a fetch says so itself when it begins
        return avatar
    await _settle_avatar(work, avatar, {}, now=now)
    return await avatars.get(work.conn, avatar.id, organisation_id=None) or avatar


async def settle_stored(
    work: UnitOfWork, run: AssetRun, blob_id: UUID, stored: StoredAsset, *, now: datetime
) -> None:
    """The bytes are durable: say so, have them inspected, and move the avatars on."""
    keep = partial(assets.keep_stored, work.conn, run, blob_id, stored)
    using = await _written(work.conn, run, keep)
    await jobs.enqueue(work.conn, Work.INSPECT, [run.id])
    said = data.AssetStored(
        asset=str(run.id),
        kind=run.kind,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
    )
    work.announce(EventType.ASSET_STORED, asset_subject(run), said)
    await _settle_avatars(work, using, now=now)


async def settle_failed(conn: Conn, run: AssetRun, error: IngestError, *, now: datetime) -> None:
    """The bytes cannot be had, or cannot be judged: a failure, not a refusal."""
    async with unit_of_work(conn, now=now) as work:
        using = await _written(conn, run, partial(assets.keep_failed, conn, run, error, now=now))
        said = data.AssetFailed(
            asset=str(run.id),
            kind=run.kind,
            code=error.code.value,
            message=assets.public_message(error),
            who=error.who.value,
        )
        work.announce(EventType.ASSET_FAILED, asset_subject(run), said)
        await _settle_avatars(work, using, now=now)


async def settle_judged(
    conn: Conn,
    run: AssetRun,
    verdict: Verdict,
    facts: Facts,
    *,
    measured_by: str | None = None,
    now: datetime,
) -> None:
    """The medium was judged: keep the verdict and move the avatars on.

    *measured_by* names what measured the facts; None: nobody may judge others by them.
    """
    async with unit_of_work(conn, now=now) as work:
        keep = partial(
            assets.keep_verdict, conn, run, verdict, facts, measured_by=measured_by, now=now
        )
        using = await _written(conn, run, keep)
        subject, asset = asset_subject(run), str(run.id)
        summary = data.VerdictSummary(
            verdict=verdict.verdict,
            policy=verdict.policy,
            codes=tuple(code.value for code in verdict.failed),
            link=asset_link(run.id),
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


class DerivedGoneError(Exception):
    """What another avatar was derived before was to serve ours too, and was deleted with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A derived medium of this run: its bytes are in the store, nothing points to them yet."""

    blob_id: UUID
    stored: StoredAsset
    media: Media


async def settle_derived(
    conn: Conn,
    run: AvatarRun,
    pairs: PairVerdict | None,
    wanted: Sequence[Derivation],
    made: Mapping[Recipe, Made],
    *,
    now: datetime,
) -> None:
    """The sources go together and all that is *wanted* is there: the fitter may begin.

    What is not *made* was derived before. Raises ClaimLostError if the run was overtaken, and
    DerivedGoneError: then a new run makes it again.
    """
    async with unit_of_work(conn, now=now) as work:
        digests = (one.stored.sha256 for one in made.values())
        await blobs.lock(conn, run.organisation_id, digests)
        avatar = await avatars.end_run(conn, run, pairs)
        await assets.lock(conn, {derivation.derived_from for derivation in wanted})
        for derivation in wanted:
            asset_id = await _kept(conn, run, derivation, made.get(derivation.recipe), now=now)
            await avatars.add_derived(conn, avatar.id, derivation.recipe, asset_id)
        to = Settlement(status=Status.FITTING)
        if await avatars.move(conn, avatar, to, message=None, now=now):
            said = await _ready_for_fitting(conn, avatar)
            work.announce(EventType.AVATAR_READY_FOR_FITTING, avatar_subject(avatar), said)


async def _kept(
    conn: Conn, run: AvatarRun, derivation: Derivation, made: Made | None, *, now: datetime
) -> UUID:
    """The asset of *derivation*: one that is there already, or else what this run has made.

    What the run made for nothing stays a blob that is never finished: abandoned, as the next knows.
    """
    existing = await assets.find_derived(conn, derivation)
    if existing is not None:
        return existing
    if made is None:
        raise DerivedGoneError(derivation.recipe.value)
    asset = NewDerived(
        id=new_id(),
        organisation_id=run.organisation_id,
        policy=run.policy,
        derivation=derivation,
        blob_id=await blobs.finish(conn, run.organisation_id, made.blob_id, made.stored),
        media=made.media,
        traceparent=run.traceparent,
        created_at=now,
    )
    await assets.insert_derived(conn, asset)
    return asset.id


async def settle_underived(
    conn: Conn, run: AvatarRun, to: Settlement, pairs: PairVerdict | None, *, now: datetime
) -> None:
    """The avatar fails: its sources do not go together, or we could not derive from them."""
    async with unit_of_work(conn, now=now) as work:
        avatar = await avatars.end_run(conn, run, pairs)
        await _fail(work, avatar, to, sentence(to.cause or Cause.INTERNAL, to.codes), now=now)


class _UsedMeanwhileError(Exception):
    """An avatar was accepted from the asset after those that use it were locked."""


async def _written(
    conn: Conn, run: AssetRun, keep: Callable[[], Awaitable[None]]
) -> list[avatars.Avatar]:
    """Write an asset's row while the avatars that use it are locked, and give those.

    Whoever accepts an avatar from an asset holds its row: so what came in between is seen after
    the write. Then all is undone and done again, since avatars are locked before assets.
    """
    while True:
        with contextlib.suppress(_UsedMeanwhileError):
            async with conn.transaction():
                using = await avatars.lock_those_using(conn, run.id)
                await keep()
                if await avatars.ids_using(conn, run.id) - {avatar.id for avatar in using}:
                    raise _UsedMeanwhileError
                return using


async def _settle_avatars(work: UnitOfWork, using: list[avatars.Avatar], *, now: datetime) -> None:
    judged: Judged = {}
    for avatar in using:
        if avatar.status in _MOVED_BY_SOURCES:
            await _settle_avatar(work, avatar, judged, now=now)


async def _settle_avatar(
    work: UnitOfWork, avatar: avatars.Avatar, judged: Judged, *, now: datetime
) -> None:
    to = settle(await _outcomes(work.conn, avatar, judged))
    if to.cause is not None:
        await _fail(work, avatar, to, sentence(to.cause, to.codes), now=now)
    elif await avatars.move(work.conn, avatar, to, message=None, now=now) and (
        to.status is Status.DERIVING
    ):
        await jobs.enqueue(work.conn, Work.DERIVE, [avatar.id])


async def _outcomes(conn: Conn, avatar: avatars.Avatar, judged: Judged) -> list[SourceOutcome]:
    """Where the sources of a locked avatar stand, each under the avatar's policy.

    What passed under another is judged again by its facts, where that can be done. What was
    refused stays so: its bytes are erased after their time.
    """
    for asset_id, facts in (await avatars.accepted_otherwise(conn, avatar.id)).items():
        of = asset_id, avatar.policy
        if of not in judged:
            judged[of] = _judged_again(facts, avatar.policy)
        if (verdict := judged[of]) is not None:
            await avatars.keep_own_verdict(conn, avatar.id, asset_id, verdict)
    return await avatars.outcomes(conn, avatar.id)


def _judged_again(facts: str, policy: str) -> Verdict | None:
    try:
        return rules.judge(decode_facts(facts), POLICIES[PolicyName(policy)])
    except (StaleFactsError, UnmeasuredError):
        return None


async def _ready_for_fitting(conn: Conn, avatar: avatars.Avatar) -> data.AvatarReadyForFitting:
    sources = await assets.of_avatar(conn, avatar.id)
    derived = await assets.derived_of(conn, avatar.id)
    return data.AvatarReadyForFitting(
        avatar=data.avatar_ref(avatar.id),
        organisation=avatar.organisation_id,
        name=avatar.name,
        runtime_type=avatar.runtime_type,
        sources={role: _for_fitting(asset) for role, asset in sources.items()},
        **{recipe.value: _for_fitting(asset) for recipe, asset in derived.items()},
    )


def _for_fitting(asset: Asset) -> data.FittingSource:
    if asset.media is None:  # every source has been judged, or the avatar were not here
        raise LookupError(f"nothing is known of {asset.id}")
    return data.FittingSource(
        asset=str(asset.id),
        sha256=asset.media.sha256,
        media=asset.media,
        content=f"{asset_link(asset.id)}/content",
    )


async def _fail(
    work: UnitOfWork, avatar: avatars.Avatar, to: Settlement, message: str, *, now: datetime
) -> None:
    cause = to.cause or Cause.INTERNAL
    if await avatars.move(work.conn, avatar, to, message=message, now=now):
        said = data.AvatarFailed(
            avatar=data.avatar_ref(avatar.id), cause=cause.value, codes=to.codes
        )
        work.announce(EventType.AVATAR_FAILED, avatar_subject(avatar), said)


def avatar_subject(avatar: avatars.Avatar) -> Subject:
    return Subject(
        id=avatar.id,
        organisation_id=avatar.organisation_id,
        is_avatar=True,
        traceparent=avatar.traceparent,
    )


def asset_subject(run: AssetRun) -> Subject:
    return Subject(
        id=run.id,
        organisation_id=run.organisation_id,
        is_avatar=False,
        traceparent=run.traceparent,
    )


def asset_link(asset_id: UUID) -> str:
    return f"/v1/assets/{asset_id}"


def internal_failure() -> IngestError:
    """What an asset gets that has cost too many children or workers."""
    return InternalError(FailureCode.INTERNAL, "the source could not be judged")
