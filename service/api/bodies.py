"""JSON to values and back: the only place that knows field names of requests and answers."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from service.api.problem import ApiError, ErrorType
from service.db.assets import Asset
from service.db.avatars import Avatar
from service.db.claims import Progress
from service.db.uploads import Upload
from service.domain import Status
from service.errors import FAILURES, may_pass
from service.ids import avatar_spelling
from service.times import rfc3339
from storage.store import UploadForm
from validators.encoding import pair_document, verdict_document
from validators.facts import Kind
from validators.verdict import Media

_MEDIA = TypeAdapter(Media)

# no control characters: names end up in logs, terminals and file names
_NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=_NO_CONTROLS),
]
UrlText = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{64}$", to_lower=True)]


class Lenient(BaseModel):
    """Family B: unknown fields are ignored, its clients are not ours to test."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Strict(BaseModel):
    """Everywhere else unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Sources(Lenient):
    """Either a video, or an image and an audio; all three are fine."""

    video_url: UrlText | None = None
    video_id: str | None = None
    video_sha256: Sha256 | None = None  # of what the URL leads to
    image_url: UrlText | None = None
    image_id: str | None = None
    image_sha256: Sha256 | None = None
    audio_url: UrlText | None = None
    audio_id: str | None = None
    audio_sha256: Sha256 | None = None

    @field_validator("video_sha256", "image_sha256", "audio_sha256")
    @classmethod
    def _goes_with_a_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        url_field = f"{(info.field_name or '').removesuffix('sha256')}url"
        if value is not None and info.data.get(url_field) is None:
            raise PydanticCustomError("sha256_without_url", f"It goes with {url_field} alone.")
        return value

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        for kind in Kind:
            if self.url_of(kind) is not None and self.id_of(kind) is not None:
                raise PydanticCustomError(
                    "source_conflict", f"Give either {kind}_url or {kind}_id, not both."
                )
        has = {kind for kind in Kind if self.url_of(kind) or self.id_of(kind)}
        if Kind.VIDEO not in has and not {Kind.IMAGE, Kind.AUDIO} <= has:
            raise PydanticCustomError(
                "sources_incomplete", "Give a video, or an image and an audio."
            )
        return self

    def url_of(self, kind: Kind) -> str | None:
        url: str | None = getattr(self, f"{kind}_url")
        return url

    def id_of(self, kind: Kind) -> str | None:
        asset_id: str | None = getattr(self, f"{kind}_id")
        return asset_id

    def sha256_of(self, kind: Kind) -> str | None:
        sha256: str | None = getattr(self, f"{kind}_sha256")
        return sha256


class FinalizeUpload(Lenient):
    """Names an upload in the field of its kind."""

    video_id: str | None = None
    image_id: str | None = None
    audio_id: str | None = None

    def id_of(self, kind: Kind) -> str | None:
        upload_id: str | None = getattr(self, f"{kind}_id")
        return upload_id


class CreateAvatarProfile(Lenient):
    name: Name
    sources: Sources


class CreateAvatar(Strict):
    """The fields of family A's form, beside the image."""

    name: Name = "Custom Avatar"
    runtime_type: str | None = None


class FittingReport(Strict):
    """What the fitter says of an avatar."""

    status: Literal["ready", "failed"]
    message: Annotated[str, Field(max_length=1000, pattern=_NO_CONTROLS)] | None = None
    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")] | None = None


Body = TypeVar("Body", bound=BaseModel)

_OWN_CODES = {"source_conflict", "sources_incomplete"}


def parse(model: type[Body], raw: bytes) -> Body:
    """A request body; raise ApiError naming the first field that is wrong."""
    try:
        return model.model_validate_json(raw)
    except ValidationError as exc:
        raise _refusal(exc.errors(include_url=False, include_input=False)[0]) from exc


def check(model: type[Body], fields: Mapping[str, str]) -> Body:
    """The fields of a form; raise ApiError naming the first that is wrong."""
    try:
        return model.model_validate(fields)
    except ValidationError as exc:
        raise _refusal(exc.errors(include_url=False, include_input=False)[0]) from exc


def _refusal(error: ErrorDetails) -> ApiError:
    param = ".".join(str(part) for part in error["loc"]) or None
    message = f"{error['msg']}.".replace("..", ".")
    match error["type"]:
        case "json_invalid":
            return ApiError(
                ErrorType.INVALID_REQUEST, "malformed_body", "The body is not valid JSON."
            )
        case "missing":
            code = "missing_field"
        case "extra_forbidden":
            code, message = "unknown_field", "This field is not known here."
        case own if own in _OWN_CODES:
            code = own
        case _:
            code = "invalid_field"
    return ApiError(ErrorType.UNPROCESSABLE, code, message, param=param)


def avatar(avatar: Avatar) -> dict[str, Any]:
    """Family A's view of an avatar: these fields and no others, its clients refuse more."""
    status = _PROFILE_STATUS[avatar.status]
    document = {
        "id": avatar_spelling(avatar.id),
        "object": "avatar",
        "name": avatar.name,
        "runtime_type": avatar.runtime_type,
        "status": "processing" if status == "pending" else status,
        "is_demo": False,
        "created_at": rfc3339(avatar.created_at),
    }
    return document if avatar.message is None else {**document, "failure_reason": avatar.message}


_PROFILE_STATUS = {
    Status.ACCEPTED: "pending",
    Status.FETCHING: "pending",
    Status.INSPECTING: "processing",
    Status.DERIVING: "processing",
    Status.FITTING: "processing",
    Status.READY: "ready",
    Status.FAILED: "failed",
}


def avatar_profile(avatar: Avatar, *, preview_url: str | None) -> dict[str, Any]:
    """Family B's view of an avatar."""
    return {
        "id": str(avatar.id),
        "video_preview_url": preview_url,
        "name": avatar.name,
        "status": _PROFILE_STATUS[avatar.status],
        "status_message": avatar.message,
    }


def avatar_verdict(avatar: Avatar, sources: Mapping[str, Asset]) -> dict[str, Any]:
    """Everything known about an avatar's sources so far."""
    return {
        "state": avatar.status.value,
        "cause": avatar.cause.value if avatar.cause else None,
        "progress": _progress_of(avatar, sources.values()),
        "sources": [_source(role, asset) for role, asset in sources.items()],
        "checks": _pair_checks(avatar),
    }


def _pair_checks(avatar: Avatar) -> list[dict[str, Any]]:
    if avatar.pairs is None:
        return []
    checks: list[dict[str, Any]] = pair_document(avatar.pairs)["checks"]
    return checks


def _progress_of(avatar: Avatar, assets: Iterable[Asset]) -> dict[str, Any] | None:
    """The least advanced source speaks for the avatar, until they are all through."""
    all_ = (*(asset.progress for asset in assets), avatar.progress)
    running = [progress for progress in all_ if progress is not None]
    return _progress(running[0]) if running else None


def _progress(progress: Progress) -> dict[str, Any]:
    return {
        "stage": progress.stage,
        "done": _rounded(progress.done),
        "total": _rounded(progress.total),
        "unit": progress.unit,
    }


def _rounded(value: float | None) -> float | None:
    """To the millisecond; a decoder's times carry noise beyond that."""
    return None if value is None else round(value, 3)


def _source(role: str, asset: Asset) -> dict[str, Any]:
    return {"role": role, "asset_id": str(asset.id), "state": asset.state.value, **_outcome(asset)}


def _outcome(asset: Asset) -> dict[str, Any]:
    if asset.verdict is not None:
        return {"verdict": verdict_document(asset.verdict)}
    if asset.error_code is None:
        return {}
    meaning = FAILURES[asset.error_code]
    error = {
        "code": asset.error_code.value,
        "message": asset.error_message,
        "retryable": may_pass(asset.error_code, asset.http_status),
        "who": meaning.who.value,
    }
    return {"error": error if asset.http_status is None else {**error, "status": asset.http_status}}


def upload_form(upload: Upload, form: UploadForm, *, url: str) -> dict[str, Any]:
    """Where and how to send a file: every field of the form first, then `file`."""
    return {
        **finalised(upload.kind, upload.id),
        "upload_url": url,
        "upload_fields": dict(form.fields),
        "max_file_size_bytes": upload.max_bytes,
    }


def finalised(kind: Kind, upload_id: UUID) -> dict[str, Any]:
    return {f"{kind}_id": str(upload_id)}


def asset_document(asset: Asset) -> dict[str, Any]:
    """One durable asset."""
    return {
        "id": str(asset.id),
        "object": "asset",
        "kind": asset.kind.value,
        "state": asset.state.value,
        "size_bytes": asset.size_bytes,
        "sha256": asset.sha256,
        "source": asset.source_shown,
        "created_at": rfc3339(asset.created_at),
        "progress": _progress(asset.progress) if asset.progress else None,
        **_derivation(asset),
        **_outcome(asset),
    }


def _derivation(asset: Asset) -> dict[str, Any]:
    """How a derived asset was made; others have their media in their verdict."""
    if asset.derivation is None or asset.media is None:
        return {}
    return {
        "derived_from": str(asset.derivation.derived_from),
        "recipe": asset.derivation.recipe.value,
        "recipe_version": asset.derivation.version,
        "media": _MEDIA.dump_python(asset.media, mode="json", exclude_none=True),
    }


def listing(
    data: list[dict[str, Any]], *, has_more: bool, next_cursor: str | None
) -> dict[str, Any]:
    return {"object": "list", "data": data, "has_more": has_more, "next_cursor": next_cursor}
