"""The feed: events in commit order after a cursor, with a wait for the next ones."""

import asyncio
import contextlib
import re
from dataclasses import dataclass, replace
from http import HTTPStatus
from uuid import UUID

from aiohttp import web

from service.api import bodies
from service.api.context import Context, context, principal
from service.api.middleware import json_answer, needs
from service.api.paging import page_of, whole_number
from service.api.problem import ApiError, ErrorType, invalid_field, not_found
from service.db import events
from service.db.events import Event
from service.db.keys import Scope
from service.domain import EventType
from service.events.cloudevents import cloud_event
from service.events.data import schema
from service.events.feed import BadCursorError, decode_cursor, encode_cursor
from service.ids import parse_id

MAX_WAIT_S = 60
_TYPE = re.compile(r"[a-z_]+(\.[a-z_]+)+")  # any type: some are only sent by later releases


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a reader asks the feed for."""

    organisation_id: str | None
    position: int | None  # None: from the oldest event that is kept
    types: tuple[str, ...]
    avatar_id: UUID | None
    limit: int
    wait_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What was found, and where to go on: past everything that was looked at."""

    found: list[Event]
    position: int


@needs(Scope.EVENTS_READ)
async def feed(request: web.Request) -> web.Response:
    """Events after a cursor. With `wait`, answers as soon as there is one, or empty at its end."""
    ctx, wanted = context(request), _wanted(request)
    page = await _read_or_wait(ctx, wanted)
    shown = page.found[: wanted.limit]
    return json_answer(
        bodies.listing(
            [cloud_event(event, public_url=ctx.public_url) for event in shown],
            has_more=len(page.found) > wanted.limit,
            next_cursor=encode_cursor(shown[-1].position if shown else page.position),
        )
    )


async def _read_or_wait(ctx: Context, wanted: Wanted) -> Page:
    ends_at = asyncio.get_running_loop().time() + wanted.wait_s
    while True:
        woken = ctx.waker.ticket()  # taken before looking, or a commit between is missed
        page = await _read(ctx, wanted)
        left_s = ends_at - asyncio.get_running_loop().time()
        if page.found or left_s <= 0 or ctx.draining.is_set():
            return page
        wanted = replace(wanted, position=page.position)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await woken.wait()


async def _read(ctx: Context, wanted: Wanted) -> Page:
    async with ctx.pool.acquire() as conn:
        # whatever is up to here has committed, so where nothing matches, reading goes on from here
        end = await events.last_position(conn)
        found = await events.after(
            conn,
            wanted.position or 0,
            organisation_id=wanted.organisation_id,
            types=wanted.types,
            avatar_id=wanted.avatar_id,
            limit=wanted.limit + 1,  # one more tells whether there is more
        )
        if wanted.position is not None and await events.has_missed(conn, wanted.position):
            raise _expired()
    return Page(found=found, position=max(wanted.position or 0, end))


def _expired() -> ApiError:
    message = "Events after this cursor are gone. Read on without one, from the oldest there is."
    status = HTTPStatus.GONE
    return ApiError(ErrorType.NOT_FOUND, "cursor_expired", message, param="after", status=status)


def _wanted(request: web.Request) -> Wanted:
    query = request.query
    types = tuple(filter(None, query.get("type", "").split(",")))
    if not all(_TYPE.fullmatch(type_) for type_ in types):
        raise invalid_field("type", "type lists event types: asset.ready,avatar.failed.")
    avatar = query.get("avatar")
    avatar_id = None if avatar is None else parse_id(avatar)
    if avatar is not None and avatar_id is None:
        raise invalid_field("avatar", "avatar is an avatar's id, in either spelling.")
    return Wanted(
        organisation_id=principal(request).sees,
        position=_position(query.get("after", "")),
        types=types,
        avatar_id=avatar_id,
        limit=page_of(request).limit,
        wait_s=whole_number(query.get("wait", "0"), "wait", 0, MAX_WAIT_S),
    )


def _position(cursor: str) -> int | None:
    if not cursor:
        return None
    try:
        return decode_cursor(cursor)
    except BadCursorError as exc:
        message = "after is a cursor that this feed gave out as next_cursor."
        raise ApiError(ErrorType.INVALID_REQUEST, "invalid_cursor", message, param="after") from exc


async def event_schema(request: web.Request) -> web.Response:
    """The JSON Schema of one type's `data`; public, so that consumers can fetch it by its URL."""
    try:
        type_ = EventType(request.match_info["type"])
    except ValueError as exc:
        raise not_found("schema") from exc
    document = schema(type_)
    return web.json_response(document, content_type="application/schema+json")
