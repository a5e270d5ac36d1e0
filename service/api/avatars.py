"""Family A: avatars from an uploaded portrait; and what an avatar's sources turned out to be."""

from collections.abc import AsyncIterator
from http import HTTPStatus

from aiohttp import web

from service.api import bodies
from service.api.avatar_profiles import avatar_of
from service.api.context import TRACEPARENT, context
from service.api.forms import Expected, Form, read_form
from service.api.idempotent import Done, key_of, once
from service.api.middleware import json_answer, needs
from service.api.owner import Owner, owner_of, policy_of
from service.api.problem import ApiError, ErrorType
from service.db import assets
from service.db.keys import Scope
from service.events.outbox import UnitOfWork
from service.ingest.accept import Request, Uploaded, accept
from service.ingest.receiving import Receipt, receiving
from validators.facts import Kind
from validators.media.signature import identify

PORTRAIT_FORMATS = {"png", "jpeg"}
_SIGNATURE_BYTES = 8  # the longer one's, of a PNG


@needs(Scope.AVATARS_WRITE)
async def create(request: web.Request) -> web.Response:
    """Take in a portrait, and accept an avatar that is fitted from it alone."""
    ctx, owner = context(request), await owner_of(request)
    policy = policy_of(request, owner)
    has_key = key_of(request) is not None
    async with receiving(ctx, owner.organisation_id) as upload:
        form = await read_form(request, _expected(request, upload), to_the_end=has_key)

        async def action(work: UnitOfWork) -> Done:
            wanted = _wanted(request, owner, policy, form, upload.uploaded)
            avatar = await accept(work, wanted, ctx.sealer, now=ctx.clock())
            response = json_answer(bodies.avatar(avatar), status=HTTPStatus.CREATED)
            return Done(response=response, avatar_id=avatar.id)

        return await once(request, owner.organisation_id, form.digests, action)


def _expected(request: web.Request, upload: Receipt) -> Expected:
    max_bytes = context(request).settings.max_portrait_bytes

    async def keep_portrait(body: AsyncIterator[bytes]) -> None:
        head = await _head(body)
        if identify(head) not in PORTRAIT_FORMATS:
            message = "The image is neither a PNG nor a JPEG, by its first bytes."
            raise ApiError(
                ErrorType.UNPROCESSABLE, "image_unsupported", message, param=Kind.IMAGE.value
            )
        await upload.keep(_rejoined(head, body), max_bytes=max_bytes)

    return Expected(
        files={Kind.IMAGE.value: keep_portrait},
        fields=bodies.CreateAvatar.model_fields,
        max_file_bytes=max_bytes,
    )


async def _head(body: AsyncIterator[bytes]) -> bytes:
    """Enough to know a format by its first bytes, or all there is."""
    head = b""
    while len(head) < _SIGNATURE_BYTES and (chunk := await anext(body, b"")):
        head += chunk
    return head


async def _rejoined(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in rest:
        yield chunk


def _wanted(
    request: web.Request, owner: Owner, policy: str, form: Form, uploaded: Uploaded | None
) -> Request:
    """What the form asks for; ApiError names what is wrong with it."""
    if form.fault is not None:
        raise form.fault
    if uploaded is None:  # a form without fault has its image
        raise LookupError("no image was kept")
    fields = bodies.check(bodies.CreateAvatar, form.fields)
    settings = context(request).settings
    named = fields.runtime_type
    runtime_type = settings.default_runtime_type if named is None else named
    if runtime_type not in settings.runtime_types:
        message = f"The runtime types are {', '.join(settings.runtime_types)}."
        raise ApiError(
            ErrorType.UNPROCESSABLE, "runtime_type_unsupported", message, param="runtime_type"
        )
    return Request(
        organisation_id=owner.organisation_id,
        name=fields.name,
        runtime_type=runtime_type,
        policy=policy,
        sources={Kind.IMAGE: uploaded},
        traceparent=request[TRACEPARENT],
    )


@needs(Scope.AVATARS_READ)
async def get(request: web.Request) -> web.Response:
    return json_answer(bodies.avatar(await avatar_of(request)))


@needs(Scope.AVATARS_READ)
async def verdict(request: web.Request) -> web.Response:
    """State, cause, progress, and for every source its verdict or the error that stopped it."""
    avatar = await avatar_of(request)
    async with context(request).pool.acquire() as conn:
        sources = await assets.of_avatar(conn, avatar.id)
    return json_answer(bodies.avatar_verdict(avatar, sources))
