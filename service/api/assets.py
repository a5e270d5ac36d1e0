"""Durable assets, and their bytes by signed URLs that expire."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from http import HTTPStatus

import structlog
from aiohttp import hdrs, web

from service.api import bodies
from service.api.context import context, principal
from service.api.middleware import json_answer, needs
from service.api.part import Part, asked_part
from service.api.problem import ApiError, ErrorType, not_found
from service.db import assets
from service.db.assets import Asset
from service.db.keys import Scope
from service.ids import parse_id
from service.links import Link
from service.logs import story_of
from service.sealing import SealBrokenError
from storage.store import AssetNotFoundError, AssetStore, ChecksumMismatchError, verified
from validators.derive.recipes import CONTENT_TYPES

log = structlog.get_logger()

OCTETS = "application/octet-stream"
LOST_RETRY_S = 300  # what was derived is soon made again; for a source, somebody has to act


@needs(Scope.ASSETS_READ)
async def get(request: web.Request) -> web.Response:
    return json_answer(bodies.asset_document(await _asset_of(request)))


@needs(Scope.ASSETS_READ)
async def content(request: web.Request) -> web.Response:
    """307 to a fresh signed URL of the bytes."""
    asset, ctx = await _asset_of(request), context(request)
    if asset.bytes_erased_at is not None:
        message = "The asset did not qualify, and its bytes were erased after their time."
        gone = HTTPStatus.GONE
        raise ApiError(ErrorType.NOT_FOUND, "asset_bytes_erased", message, status=gone)
    if asset.bytes_lost:
        raise _lost()
    if asset.key is None or asset.sha256 is None:
        message = "The asset has no bytes: it is not stored, or could not be had."
        raise ApiError(ErrorType.CONFLICT, "asset_not_stored", message)
    # what we derived we know; what a stranger sent is never named, however it was judged
    type_ = CONTENT_TYPES[asset.derivation.recipe] if asset.derivation else OCTETS
    location = await ctx.signed_url(asset.key, type_, asset.sha256)
    return web.Response(
        status=HTTPStatus.TEMPORARY_REDIRECT,
        headers={"Location": location, "Cache-Control": "no-store"},
    )


async def signed_bytes(request: web.Request) -> web.StreamResponse:
    """The bytes that a signed URL names; no key is asked for, the signature is the permission."""
    ctx = context(request)
    try:
        link = ctx.links.open(request.match_info["token"])
    except SealBrokenError as exc:
        message = "The signature is wrong, or has expired."
        raise ApiError(ErrorType.PERMISSION, "signature_invalid", message) from exc
    try:
        size_bytes = (await ctx.store.stat(link.key)).size_bytes
    except AssetNotFoundError as exc:
        raise not_found("asset") from exc
    part = asked_part(request, size_bytes)
    response = web.StreamResponse(
        status=HTTPStatus.PARTIAL_CONTENT if part.partial else HTTPStatus.OK,
        headers={**_untrusted(link), **part.headers},
    )
    if request.method == hdrs.METH_HEAD:
        await response.prepare(request)
        return response
    # closed with its reader: a traceback would keep it, and its descriptor, for the collector
    async with aclosing(_promised(ctx.store, link, part)) as chunks:
        return await _send(request, response, chunks)


async def _promised(store: AssetStore, link: Link, part: Part) -> AsyncGenerator[bytes]:
    """The bytes of *part*; when that is the whole, ChecksumMismatchError before others end."""
    chunks = store.open(link.key, start=part.start, end=part.end)
    if link.sha256 is not None and not part.partial:  # no digest of a part was ever made
        chunks = verified(chunks, link.sha256)
    async for chunk in chunks:
        yield chunk


async def _send(
    request: web.Request, response: web.StreamResponse, chunks: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Stream the bytes. Once they have begun, a fault of the store can only cut the connection."""
    try:
        async for chunk in chunks:
            if not response.prepared:
                await response.prepare(request)
            await response.write(chunk)
    except AssetNotFoundError as exc:
        raise not_found("asset") from exc
    except ChecksumMismatchError as exc:
        if response.prepared:
            raise
        raise _damaged(exc) from exc
    if not response.prepared:  # of no bytes
        await response.prepare(request)
    await response.write_eof()
    return response


def _damaged(exc: ChecksumMismatchError) -> ApiError:
    log.error("asset_damaged", error=story_of(exc))
    return _lost()


def _lost() -> ApiError:
    message = "The store has lost the asset's bytes. They may be restored or made again."
    return ApiError(
        ErrorType.SERVICE_UNAVAILABLE,
        "asset_bytes_lost",
        message,
        headers={"Retry-After": str(LOST_RETRY_S)},
    )


def _untrusted(link: Link) -> dict[str, str]:
    """Headers under which no browser runs or guesses at a stranger's bytes."""
    return {
        "Content-Type": link.content_type,
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
        "Cache-Control": "private, no-store",
    }


async def _asset_of(request: web.Request) -> Asset:
    asset_id = parse_id(request.match_info["id"])
    asset = None
    if asset_id is not None:
        async with context(request).pool.acquire() as conn:
            asset = await assets.get(conn, asset_id, organisation_id=principal(request).sees)
    if asset is None:
        raise not_found("asset")
    return asset
