"""Family B: files that callers send by a form before they make avatars of them.

`get_upload_url` gives out a form, the caller posts the file to it, and `finalize_upload` makes an
asset of what was sent. A store with a server of its own takes the file itself; for a local one we
answer the form here.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from http import HTTPStatus
from typing import assert_never
from uuid import UUID

from aiohttp import web

from service.api import bodies
from service.api.context import TRACEPARENT, Context, context, principal
from service.api.forms import lone_file
from service.api.middleware import json_answer, needs, read_json
from service.api.owner import Owner, owner_of, policy_of
from service.api.problem import ApiError, ErrorType, missing_field, not_found
from service.db import assets, uploads
from service.db.keys import Scope
from service.db.uploads import Upload
from service.ids import new_id, parse_id
from service.ingest.adopt import finalise
from service.links import Form
from service.sealing import SealBrokenError
from service.settings import Settings
from storage.store import AssetNotFoundError
from validators.facts import Kind

FILE = "file"  # the form's field, as S3 has it


@needs(Scope.AVATARS_WRITE)
async def get_upload_url(request: web.Request) -> web.Response:
    """A form for one file of this kind, good for as long as the setting says."""
    ctx, owner = context(request), await owner_of(request)
    valid_for = timedelta(seconds=ctx.settings.upload_expiry_s)
    upload = _new_upload(request, owner, valid_for)
    form = await ctx.store.upload_form(upload.key, max_bytes=upload.max_bytes, valid_for=valid_for)
    async with ctx.pool.acquire() as conn:
        await uploads.insert(conn, upload)
    return json_answer(bodies.upload_form(upload, form, url=ctx.public(form.url)))


def _new_upload(request: web.Request, owner: Owner, valid_for: timedelta) -> Upload:
    ctx, kind, upload_id = context(request), _kind_of(request), new_id()
    now = ctx.clock()
    return Upload(
        id=upload_id,
        organisation_id=owner.organisation_id,
        kind=kind,
        policy=policy_of(request, owner),
        key=uploads.incoming_key(upload_id),
        max_bytes=_max_bytes(ctx.settings, kind),
        created_at=now,
        expires_at=now + valid_for,
    )


def _kind_of(request: web.Request) -> Kind:
    """The kind that the path names; there is nothing at the paths of others."""
    try:
        return Kind(request.match_info["kind"])
    except ValueError as exc:
        raise web.HTTPNotFound from exc


def _max_bytes(settings: Settings, kind: Kind) -> int:
    match kind:
        case Kind.VIDEO:
            return settings.max_video_bytes
        case Kind.IMAGE:
            return settings.max_image_bytes
        case Kind.AUDIO:
            return settings.max_audio_bytes
        case _:
            assert_never(kind)


@needs(Scope.AVATARS_WRITE)
async def finalize_upload(request: web.Request) -> web.Response:
    """Make an asset of what was sent. Said again, it is the same answer, and nothing happens."""
    ctx, kind, sees = context(request), _kind_of(request), principal(request).sees
    upload_id, now = _named(kind, await read_json(request)), ctx.clock()
    answer = json_answer(bodies.finalised(kind, upload_id))
    async with ctx.pool.acquire() as conn:
        if await assets.was_uploaded(conn, upload_id, kind, organisation_id=sees):
            return answer
        upload = await uploads.find_open(conn, upload_id, kind, organisation_id=sees, now=now)
    if upload is None:
        raise not_found("upload")
    await _expect_file(ctx, upload)
    trace = request[TRACEPARENT]
    async with ctx.pool.acquire() as conn:
        if await finalise(conn, upload, traceparent=trace, now=now):
            return answer
        # another request did, or has deleted it
        if not await assets.was_uploaded(conn, upload_id, kind, organisation_id=sees):
            raise not_found("upload")
    return answer


def _named(kind: Kind, raw: bytes) -> UUID:
    text = bodies.parse(bodies.FinalizeUpload, raw).id_of(kind)
    if text is None:
        raise missing_field(f"{kind}_id")
    upload_id = parse_id(text)
    if upload_id is None:
        raise not_found("upload")
    return upload_id


async def _expect_file(ctx: Context, upload: Upload) -> None:
    """Raise ApiError unless a file of the right size was sent, as far as the store can tell."""
    try:
        stat = await ctx.store.stat(upload.key)
    except AssetNotFoundError as exc:
        message = "Nothing was sent to this upload yet."
        raise ApiError(ErrorType.INVALID_REQUEST, "upload_missing", message) from exc
    if stat.size_bytes > upload.max_bytes:
        raise ApiError(
            ErrorType.INVALID_REQUEST,
            "upload_too_large",
            f"The file is over {upload.max_bytes} bytes.",
            status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        )


async def receive(request: web.Request) -> web.Response:
    """Take in the file of a form, as S3 would; the signature is the permission.

    The upload is held open from the file's last byte until it has its name. So what finalising
    finds stays as it is, and nothing comes back to an upload that was deleted.
    """
    ctx, form = context(request), _form_of(request)
    async with ctx.pool.acquire() as conn:
        if not await uploads.takes_bytes(conn, form.key):  # spares the transfer
            raise _closed()
    async with AsyncExitStack() as held, aclosing(_file(request, form, held)) as file:
        await ctx.store.put(form.key, file, replace=True)
    return web.Response(status=HTTPStatus.NO_CONTENT)


def _form_of(request: web.Request) -> Form:
    try:
        return context(request).links.open_form(request.match_info["token"])
    except SealBrokenError as exc:
        message = "The form's signature is wrong, or has expired."
        raise ApiError(ErrorType.PERMISSION, "signature_invalid", message) from exc


async def _file(request: web.Request, form: Form, held: AsyncExitStack) -> AsyncGenerator[bytes]:
    """The file, once its form is whole; at its end the upload is open until *held* is closed."""
    async with aclosing(lone_file(request, FILE, max_bytes=form.max_bytes)) as chunks:
        async for chunk in chunks:
            yield chunk
    conn = await held.enter_async_context(context(request).pool.acquire())
    await held.enter_async_context(conn.transaction())
    if not await uploads.hold_open(conn, form.key):
        raise _closed()


def _closed() -> ApiError:
    message = "This upload was finalised or deleted. Ask for a new one."
    return ApiError(ErrorType.NOT_FOUND, "upload_closed", message, status=HTTPStatus.GONE)
