"""The feed: events in commit order after a cursor, with a wait for the next ones."""

import asyncio
import contextlib
from dataclasses import dataclass
from uuid import UUID

from aiohttp import web

from service.api import bodies
from service.api.context import Context, context, principal
from service.api.middleware import json_answer, needs
from service.api.paging import page_of, whole_number
from service.api.problem import ApiError, ErrorType, invalid_field, not_found
from service.db.keys import Scope
from service.domain import EventType
from service.events.cloudevents import cloud_event
from service.events.data import schema
from service.events.feed import BadCursorError, decode_cursor, encode_cursor
from service.events.outbox import Event, events_after
from service.ids import parse_id

MAX_WAIT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a reader asks the feed for."""

    organisation_id: str | None
    position: int
    types: tuple[str, ...]
    avatar_id: UUID | None
    limit: int
    wait_s: int


@needs(Scope.EVENTS_READ)
async def feed(request: web.Request) -> web.Response:
    """Events after a cursor. With `wait`, answers as soon as there is one, or empty at its end."""
    ctx, wanted = context(request), _wanted(request)
    found = await _read_or_wait(ctx, wanted)
    page = found[: wanted.limit]
    last = page[-1].position if page else wanted.position
    return json_answer(
        bodies.listing(
            [cloud_event(event, public_url=ctx.public_url) for event in page],
            has_more=len(found) > wanted.limit,
            next_cursor=encode_cursor(last),
        )
    )


async def _read_or_wait(ctx: Context, wanted: Wanted) -> list[Event]:
    found: list[Event] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wanted.wait_s or None):
            while True:
                woken = ctx.waker.ticket()  # taken before looking, or a commit between is missed
                found = await _read(ctx, wanted)
                if found or not wanted.wait_s or ctx.draining.is_set():
                    return found
                await woken.wait()
    return found


async def _read(ctx: Context, wanted: Wanted) -> list[Event]:
    async with ctx.pool.acquire() as conn:
        return await events_after(
            conn,
            wanted.position,
            organisation_id=wanted.organisation_id,
            types=wanted.types,
            avatar_id=wanted.avatar_id,
            limit=wanted.limit + 1,  # one more tells whether there is more
        )


def _wanted(request: web.Request) -> Wanted:
    query = request.query
    types = tuple(filter(None, query.get("type", "").split(",")))
    if unknown := set(types) - set(EventType):
        raise invalid_field("type", f"Unknown types: {', '.join(sorted(unknown))[:200]}.")
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


def _position(cursor: str) -> int:
    if not cursor:
        return 0
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
