"""Deleting avatars and assets. The answer comes once everything but the bytes is gone."""

import asyncio
from functools import partial
from http import HTTPStatus

import structlog
from aiohttp import web

from service.api.context import TRACEPARENT, Context, context, principal
from service.api.middleware import needs
from service.api.problem import ApiError, ErrorType, not_found
from service.db.keys import Scope
from service.events.outbox import in_unit_of_work
from service.ids import parse_id
from service.ingest.deletion import AssetInUseError, Deletion, delete_asset, delete_avatar
from service.logs import story_of
from storage.store import StoreError

log = structlog.get_logger()

STORE_PATIENCE_S = 5  # a caller waits; what is not erased by then, the sweeper erases


@needs(Scope.AVATARS_WRITE)
async def avatar(request: web.Request) -> web.Response:
    """Erase an avatar, and the assets that are its alone."""
    ctx, avatar_id = context(request), parse_id(request.match_info["id"])
    deleted = None
    if avatar_id is not None:
        act = partial(delete_avatar, avatar_id=avatar_id, wanted=_wanted(request))
        deleted = await in_unit_of_work(ctx.pool, act, now=ctx.clock())
    if deleted is None:
        raise not_found("avatar")
    log.info("avatar_deleted", avatar_id=str(avatar_id), assets=deleted.assets)
    return web.Response(status=HTTPStatus.NO_CONTENT)


@needs(Scope.AVATARS_WRITE)
async def asset(request: web.Request) -> web.Response:
    """Erase an asset that no avatar uses, or an upload that was not finalised."""
    ctx, asset_id = context(request), parse_id(request.match_info["id"])
    deleted = None
    if asset_id is not None:
        act = partial(delete_asset, asset_id=asset_id, wanted=_wanted(request))
        try:
            deleted = await in_unit_of_work(ctx.pool, act, now=ctx.clock())
        except AssetInUseError as exc:
            message = "An avatar uses the asset. It can be deleted after the avatar."
            raise ApiError(ErrorType.CONFLICT, "asset_in_use", message) from exc
    if deleted is None:
        raise not_found("asset")
    log.info("asset_deleted", asset_id=str(asset_id), assets=deleted.assets)
    if deleted.incoming is not None:
        await _erase_incoming(ctx, deleted.incoming)
    return web.Response(status=HTTPStatus.NO_CONTENT)


async def _erase_incoming(ctx: Context, key: str) -> None:
    """Erase what was sent to a form by now. The form may bring more: the sweeper looks again."""
    try:
        async with asyncio.timeout(STORE_PATIENCE_S):
            await ctx.store.delete(key)
    except (StoreError, TimeoutError) as exc:
        log.warning("incoming_object_left", key=key, error=story_of(exc))


def _wanted(request: web.Request) -> Deletion:
    return Deletion(organisation_id=principal(request).sees, traceparent=request[TRACEPARENT])
