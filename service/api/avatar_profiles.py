"""Family B: avatars from source URLs."""

import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from uuid import UUID

from aiohttp import web

from service.api import bodies
from service.api.context import REQUEST_ID, TRACEPARENT, Context, context, principal
from service.api.middleware import json_answer, needs, read_json
from service.api.paging import page_of
from service.api.problem import ApiError, ErrorType, invalid_field, not_found
from service.db import avatars, idempotency, keys
from service.db.idempotency import Answer
from service.db.keys import Principal, Scope
from service.errors import SourceError
from service.events.outbox import UnitOfWork, unit_of_work
from service.fetch.source_url import SourceUrl, parse_source_url
from service.ids import parse_id
from service.ingest.accept import Request, accept
from validators.facts import Kind
from validators.policy import PolicyName

MAX_IDEMPOTENCY_KEY = 255
ORGANISATION_HEADER = "Greenroom-Organisation"


@needs(Scope.AVATARS_WRITE)
async def create(request: web.Request) -> web.Response:
    """Accept an avatar: recorded with its work and its first event before the answer is sent."""
    ctx, raw = context(request), await read_json(request)
    body = bodies.parse(bodies.CreateAvatarProfile, raw)
    owner = await _owner(request, principal(request))
    wanted = Request(
        organisation_id=owner.organisation_id,
        name=body.name,
        runtime_type=ctx.settings.default_runtime_type,
        policy=_policy(request, owner.policy),
        sources=_sources(body.sources, ctx),
        traceparent=request[TRACEPARENT],
    )
    key = _idempotency_key(request)
    fingerprint = hashlib.sha256(b"POST\0/avatar-profiles/create\0" + raw).digest()
    now = ctx.clock()
    async with ctx.pool.acquire() as conn, unit_of_work(conn, now=now) as work:
        if key is not None and (
            first := await _first_answer(work, wanted.organisation_id, key, fingerprint)
        ):
            return _replay(first)
        avatar = await accept(work, wanted, ctx.sealer, now=now)
        response = json_answer(bodies.avatar_profile(avatar))
        if key is not None:
            answer = Answer(
                fingerprint=fingerprint,
                status=response.status,
                body=bytes(response.body or b""),  # type: ignore[arg-type]  # a Payload only for streams
                request_id=request[REQUEST_ID],
            )
            await idempotency.keep(
                conn, wanted.organisation_id, key, answer, avatar_id=avatar.id, now=now
            )
    return response


async def _first_answer(
    work: UnitOfWork, organisation_id: str, key: str, fingerprint: bytes
) -> Answer | None:
    if not await idempotency.take_turn(work.conn, organisation_id, key):
        message = "A request with this Idempotency-Key is still running."
        raise ApiError(ErrorType.CONFLICT, "idempotency_in_progress", message)
    now = await work.conn.fetchval("SELECT now()")
    first = await idempotency.find(work.conn, organisation_id, key, now=now)
    if first is not None and first.fingerprint != fingerprint:
        message = "This Idempotency-Key was used for another request."
        raise ApiError(ErrorType.UNPROCESSABLE, "idempotency_key_reused", message)
    return first


def _replay(first: Answer) -> web.Response:
    return web.Response(
        status=first.status,
        body=first.body,
        content_type="application/json",
        charset="utf-8",
        headers={"Idempotent-Replayed": "true", "X-Request-Id": first.request_id},
    )


def _idempotency_key(request: web.Request) -> str | None:
    """The key, bare or as the quoted string of the structured-field draft."""
    given = request.headers.get("Idempotency-Key")
    if given is None:
        return None
    key = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY or not key.isprintable():
        raise ApiError(
            ErrorType.INVALID_REQUEST,
            "invalid_idempotency_key",
            f"An Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY} printable characters.",
            param="Idempotency-Key",
        )
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owner:
    organisation_id: str
    policy: str


async def _owner(request: web.Request, who: Principal) -> _Owner:
    """Whose the avatar will be: the key's organisation, or the one that a platform key names."""
    if not who.is_platform:
        return _Owner(organisation_id=who.organisation_id, policy=who.policy)
    named = request.headers.get(ORGANISATION_HEADER)
    if not named:
        message = f"A platform key names the organisation in the header {ORGANISATION_HEADER}."
        raise ApiError(ErrorType.UNPROCESSABLE, "missing_field", message, param=ORGANISATION_HEADER)
    async with context(request).pool.acquire() as conn:
        policy = await keys.default_policy_of(conn, named)
    if policy is None:
        raise invalid_field(ORGANISATION_HEADER, "There is no such organisation.")
    return _Owner(organisation_id=named, policy=policy)


def _policy(request: web.Request, default: str) -> str:
    named = request.headers.get("Greenroom-Policy", default)
    if named not in set(PolicyName):
        raise invalid_field("Greenroom-Policy", "The policy is standard or strict.")
    return named


def _sources(sources: bodies.Sources, ctx: Context) -> dict[Kind, SourceUrl]:
    return {kind: _source_url(kind, url, ctx) for kind in Kind if (url := _url_of(sources, kind))}


def _url_of(sources: bodies.Sources, kind: Kind) -> str | None:
    if (asset_id := sources.id_of(kind)) is not None:
        # uploads make such ids; until a caller has made one, every id is unknown
        message = f"There is no uploaded asset {asset_id[:64]!r}."
        raise ApiError(
            ErrorType.UNPROCESSABLE, "asset_not_found", message, param=f"sources.{kind}_id"
        )
    return sources.url_of(kind)


def _source_url(kind: Kind, url: str, ctx: Context) -> SourceUrl:
    try:
        return parse_source_url(url, ctx.guard)
    except SourceError as error:
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
    return json_answer({"avatar_profiles": [bodies.avatar_profile(avatar) for avatar in found]})


@needs(Scope.AVATARS_READ)
async def get(request: web.Request) -> web.Response:
    return json_answer(bodies.avatar_profile(await avatar_of(request)))


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
            status=HTTPStatus.BAD_REQUEST,
        )
    return parsed
