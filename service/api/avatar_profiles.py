"""Family B: avatars from source URLs."""

import asyncio
from typing import Any
from uuid import UUID

from aiohttp import web

from service.api import bodies
from service.api.context import TRACEPARENT, Context, context, principal
from service.api.idempotent import Done, json_parts, once
from service.api.middleware import json_answer, needs, read_json
from service.api.owner import Owner, owner_of, policy_of
from service.api.paging import page_of
from service.api.problem import ApiError, ErrorType, not_found
from service.db import assets, avatars
from service.db.keys import Scope
from service.errors import SourceError
from service.events.outbox import UnitOfWork
from service.fetch.refusals import log_refused
from service.fetch.source_url import SourceUrl, parse_source_url
from service.ids import parse_id
from service.ingest.accept import Existing, NotUploadedError, Request, accept
from validators.derive.recipes import CONTENT_TYPES, Recipe
from validators.facts import Kind


@needs(Scope.AVATARS_WRITE)
async def create(request: web.Request) -> web.Response:
    """Accept an avatar: recorded with its work and its first event before the answer is sent."""
    ctx, raw = context(request), await read_json(request)
    owner = await owner_of(request)

    async def action(work: UnitOfWork) -> Done:
        wanted = _wanted(request, owner, raw)
        try:
            avatar = await accept(work, wanted, ctx.sealer, now=ctx.clock())
        except NotUploadedError as exc:
            raise _no_such_upload(exc.kind) from exc
        response = json_answer(bodies.avatar_profile(avatar, preview_url=None))
        return Done(response=response, avatar_id=avatar.id)

    return await once(request, owner.organisation_id, json_parts(raw), action)


def _wanted(request: web.Request, owner: Owner, raw: bytes) -> Request:
    """What the body asks for; ApiError names what is wrong with it."""
    ctx, body = context(request), bodies.parse(bodies.CreateAvatarProfile, raw)
    return Request(
        organisation_id=owner.organisation_id,
        name=body.name,
        runtime_type=ctx.settings.default_runtime_type,
        policy=policy_of(request, owner),
        sources=_sources(body.sources, owner, ctx),
        expected_sha256={
            kind: sha256 for kind in Kind if (sha256 := body.sources.sha256_of(kind)) is not None
        },
        traceparent=request[TRACEPARENT],
    )


def _sources(
    sources: bodies.Sources, owner: Owner, ctx: Context
) -> dict[Kind, SourceUrl | Existing]:
    found: dict[Kind, SourceUrl | Existing] = {}
    for kind in Kind:
        if (asset_id := sources.id_of(kind)) is not None:
            found[kind] = _existing(kind, asset_id)
        elif (url := sources.url_of(kind)) is not None:
            found[kind] = _source_url(kind, url, owner, ctx)
    return found


def _existing(kind: Kind, text: str) -> Existing:
    asset_id = parse_id(text)
    if asset_id is None:
        raise _no_such_upload(kind)
    return Existing(asset_id=asset_id)


def _no_such_upload(kind: Kind) -> ApiError:
    return ApiError(
        ErrorType.UNPROCESSABLE,
        "asset_not_found",
        f"There is no uploaded {kind} with this id, or its bytes are erased.",
        param=f"sources.{kind}_id",
    )


def _source_url(kind: Kind, url: str, owner: Owner, ctx: Context) -> SourceUrl:
    try:
        return parse_source_url(url, ctx.guard)
    except SourceError as error:
        log_refused(error, url=url, organisation=owner.organisation_id, role=kind.value)
        raise ApiError(
            ErrorType.UNPROCESSABLE,
            error.code.value,
            f"{error.message} ({error.detail})" if error.detail else error.message,
            param=f"sources.{kind}_url",
        ) from error


@needs(Scope.AVATARS_READ)
async def list_all(request: web.Request) -> web.Response:
    """All avatars of the organisation, newest first."""
    page = page_of(request)
    before = None
    if page.starting_after is not None:
        before = _known_id(page.starting_after)
    async with context(request).pool.acquire() as conn:
        found = await avatars.page(
            conn, organisation_id=principal(request).sees, before=before, limit=page.given_limit
        )
    return json_answer({"avatar_profiles": await _profiles(context(request), found)})


@needs(Scope.AVATARS_READ)
async def get(request: web.Request) -> web.Response:
    (profile,) = await _profiles(context(request), [await avatar_of(request)])
    return json_answer(profile)


async def _profiles(ctx: Context, found: list[avatars.Avatar]) -> list[dict[str, Any]]:
    async with ctx.pool.acquire() as conn:
        previews = await assets.previews_of(conn, [avatar.id for avatar in found])
    type_ = CONTENT_TYPES[Recipe.PREVIEW]
    urls = {}
    for avatar, (key, sha256) in previews.items():
        urls[avatar] = await ctx.signed_url(key, type_, sha256)
        await asyncio.sleep(0)  # S3's computes for a millisecond, and a list has thousands
    return [bodies.avatar_profile(avatar, preview_url=urls.get(avatar.id)) for avatar in found]


async def avatar_of(request: web.Request) -> avatars.Avatar:
    """The avatar that the path names, in either spelling; 404 for everything else."""
    avatar_id = parse_id(request.match_info["id"])
    avatar = None
    if avatar_id is not None:
        async with context(request).pool.acquire() as conn:
            avatar = await avatars.get(conn, avatar_id, organisation_id=principal(request).sees)
    if avatar is None:
        raise not_found("avatar")
    return avatar


def _known_id(text: str) -> UUID:
    parsed = parse_id(text)
    if parsed is None:
        raise ApiError(
            ErrorType.INVALID_REQUEST,
            "invalid_cursor",
            "starting_after is the id of an avatar.",
            param="starting_after",
        )
    return parsed
