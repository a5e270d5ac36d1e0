"""What each type of event carries. Public API: fields are added, never renamed or removed.

Links are paths on this service. Verdicts are given as decision, codes and a link, never whole.
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID

from pydantic import TypeAdapter

from service.domain import EventType
from service.ids import avatar_spelling
from validators.facts import Kind
from validators.verdict import Decision, Media


@dataclass(frozen=True, slots=True, kw_only=True)
class AvatarRef:
    """One id, both spellings."""

    id: str
    uuid: str


def avatar_ref(avatar_id: UUID) -> AvatarRef:
    return AvatarRef(id=avatar_spelling(avatar_id), uuid=str(avatar_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class AvatarCreated:
    avatar: AvatarRef
    organisation: str
    name: str
    runtime_type: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetStored:
    asset: str
    kind: Kind
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetFailed:
    asset: str
    kind: Kind
    code: str
    message: str
    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictSummary:
    verdict: Decision
    policy: str
    codes: tuple[str, ...]
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetReady:
    asset: str
    media: Media
    verdict: VerdictSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetRejected:
    asset: str
    kind: Kind
    verdict: VerdictSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class FittingSource:
    asset: str
    sha256: str
    media: Media
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AvatarReadyForFitting:
    avatar: AvatarRef
    organisation: str
    name: str
    runtime_type: str
    sources: dict[str, FittingSource]
    portrait: FittingSource
    voice_reference: FittingSource | None = None  # of an avatar without sound
    preview: FittingSource | None = None  # of an avatar without a video


@dataclass(frozen=True, slots=True, kw_only=True)
class AvatarReady:
    avatar: AvatarRef


@dataclass(frozen=True, slots=True, kw_only=True)
class AvatarFailed:
    avatar: AvatarRef
    cause: str
    codes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class AvatarDeleted:
    avatar: AvatarRef


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetDeleted:
    asset: str
    kind: Kind


EventData: TypeAlias = (
    AvatarCreated
    | AssetStored
    | AssetFailed
    | AssetReady
    | AssetRejected
    | AvatarReadyForFitting
    | AvatarReady
    | AvatarFailed
    | AvatarDeleted
    | AssetDeleted
)

DATA_OF: dict[EventType, type[EventData]] = {
    EventType.AVATAR_CREATED: AvatarCreated,
    EventType.ASSET_STORED: AssetStored,
    EventType.ASSET_FAILED: AssetFailed,
    EventType.ASSET_READY: AssetReady,
    EventType.ASSET_REJECTED: AssetRejected,
    EventType.AVATAR_READY_FOR_FITTING: AvatarReadyForFitting,
    EventType.AVATAR_READY: AvatarReady,
    EventType.AVATAR_FAILED: AvatarFailed,
    EventType.AVATAR_DELETED: AvatarDeleted,
    EventType.ASSET_DELETED: AssetDeleted,
}


_ADAPTERS: dict[type[EventData], TypeAdapter[EventData]] = {
    of: TypeAdapter(of) for of in DATA_OF.values()
}


def encode(data: EventData) -> str:
    return _ADAPTERS[type(data)].dump_json(data, exclude_none=True).decode()


def schema(type_: EventType) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the `data` of one type of event."""
    document = _ADAPTERS[DATA_OF[type_]].json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}
