"""The life of avatars and assets without a database: values, and pure functions that move them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never
from uuid import UUID

from service.errors import FAILURES, FailureCode, Who
from validators.facts import Kind


class Status(StrEnum):
    """An avatar's inner status; each API family shows its own view of it."""

    ACCEPTED = "accepted"
    FETCHING = "fetching"
    INSPECTING = "inspecting"
    DERIVING = "deriving"
    FITTING = "fitting"
    READY = "ready"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in {Status.READY, Status.FAILED}


class Cause(StrEnum):
    """Why an avatar failed: who has to act follows from it."""

    REJECTED = "rejected"
    SOURCE = "source"
    FITTING = "fitting"
    INTERNAL = "internal"


class AssetState(StrEnum):
    PENDING = "pending"  # its bytes are still to come
    STORED = "stored"  # durable, not judged yet
    READY = "ready"
    REJECTED = "rejected"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in {AssetState.READY, AssetState.REJECTED, AssetState.FAILED}


class Origin(StrEnum):
    FETCH = "fetch"
    UPLOAD = "upload"
    DERIVE = "derive"


class Work(StrEnum):
    """A kind of job. Values are PgQueuer entrypoints."""

    FETCH = "fetch"
    INSPECT = "inspect"
    DERIVE = "derive"
    PURGE = "purge"  # of a blob: erase an object that nothing points to
    REBUILD = "rebuild"  # of a derived asset: make bytes again that were lost


class EventType(StrEnum):
    AVATAR_CREATED = "avatar.created"
    ASSET_STORED = "asset.stored"
    ASSET_FAILED = "asset.failed"
    ASSET_READY = "asset.ready"
    ASSET_REJECTED = "asset.rejected"
    AVATAR_READY_FOR_FITTING = "avatar.ready_for_fitting"
    AVATAR_READY = "avatar.ready"
    AVATAR_FAILED = "avatar.failed"
    AVATAR_DELETED = "avatar.deleted"
    ASSET_DELETED = "asset.deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of work on one row. Its claim number stands in every write it makes."""

    id: UUID  # of the row
    organisation_id: str
    claim: int
    attempts: int
    failures: int
    losses: int
    waits: int = 0
    traceparent: str | None
    deadline: datetime | None = None  # trying again after it is useless: a signed URL's expiry


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetRun(Run):
    """A fetch or an inspection of one asset."""

    kind: Kind
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class AvatarRun(Run):
    """A derivation from the sources of one avatar."""

    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOutcome:
    """Where one source of an avatar stands, as far as settling needs to know."""

    state: AssetState
    codes: tuple[str, ...] = ()  # failed checks, or the failure's code
    internal: bool = False  # failed, and the fault is ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """An avatar's next status, and why when it failed."""

    status: Status
    cause: Cause | None = None
    codes: tuple[str, ...] = field(default=())


def settle(sources: Sequence[SourceOutcome]) -> Settlement:
    """The status that follows from where every source stands.

    An avatar fails only when all of its sources are final, so that its caller learns everything
    that is wrong at once. A refused medium outranks a source that could not be had, and both
    outrank a fault of ours: refusals stay true however often we try again.
    """
    states = {source.state for source in sources}
    if AssetState.PENDING in states:
        return Settlement(status=Status.FETCHING)
    if AssetState.STORED in states:
        return Settlement(status=Status.INSPECTING)
    if states == {AssetState.READY}:
        return Settlement(status=Status.DERIVING)
    codes = tuple(dict.fromkeys(code for source in sources for code in source.codes))
    return Settlement(status=Status.FAILED, cause=_cause(sources), codes=codes)


def _cause(sources: Sequence[SourceOutcome]) -> Cause:
    if any(source.state is AssetState.REJECTED for source in sources):
        return Cause.REJECTED
    if any(source.state is AssetState.FAILED and not source.internal for source in sources):
        return Cause.SOURCE
    return Cause.INTERNAL


MAX_FAILURES = 3  # ffmpeg or a model died under a live worker
MAX_LOSSES = 20  # the worker itself died
MAX_ATTEMPTS = 6  # a source answered with an error that may pass
MAX_WAITS = 20  # a part of ours was away: with their pauses, about a quarter of an hour
LONGEST_PAUSE_S = 60


def worn_out(run: Run) -> bool:
    """True when the row has cost enough workers or children to be given up as our fault."""
    return run.failures >= MAX_FAILURES or run.losses >= MAX_LOSSES


def next_attempt_at(
    attempts: int,
    now: datetime,
    *,
    jitter: float,
    deadline: datetime | None,
    most: int = MAX_ATTEMPTS,
) -> datetime | None:
    """When to try again after the *attempts*-th error of its sort, or None: never.

    Waits 1, 2, 4 ... 60 s, each stretched by up to half; *jitter* is 0..1. A retry that would
    start after *deadline* (the expiry of a signed URL) is not worth making.
    """
    if attempts >= most:
        return None
    pause_s = min(2 ** (attempts - 1), LONGEST_PAUSE_S)
    at = now + timedelta(seconds=pause_s * (1 + jitter / 2))
    return None if deadline is not None and at >= deadline else at


def sentence(cause: Cause, codes: Sequence[str]) -> str:
    """Why an avatar failed, for people; callers switch on cause and codes."""
    listed = ", ".join(dict.fromkeys(codes))
    match cause:
        case Cause.REJECTED:
            return f"The sources do not qualify: {listed}."
        case Cause.SOURCE:
            return f"A source could not be fetched: {listed}."
        case Cause.FITTING:
            return f"Fitting failed: {listed}."
        case Cause.INTERNAL:
            return "Something went wrong on our side. The avatar can be created again."
        case _:
            assert_never(cause)


def is_ours(code: FailureCode) -> bool:
    """Whether it is us who must act."""
    return FAILURES[code].who is Who.US
