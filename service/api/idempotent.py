"""Answers that are given once: the same Idempotency-Key gets the first answer again, byte for byte.

The record commits with the work that it answers for. Kept are successes and refusals of what was
asked (4xx of the domain); not 401, 413, 429 and our own failures, which may end differently.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID

from aiohttp import web

from service.api.context import REQUEST_ID, context
from service.api.middleware import error_response
from service.api.problem import ApiError, ErrorType
from service.db import idempotency
from service.db.idempotency import Answer
from service.events.outbox import UnitOfWork, in_unit_of_work

MAX_KEY = 255
HEADER = "Idempotency-Key"
_NOT_KEPT = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.TOO_MANY_REQUESTS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an action answers, and the avatar that it made."""

    response: web.Response
    avatar_id: UUID | None = None


Action = Callable[[UnitOfWork], Awaitable[Done]]


Parts = Sequence[tuple[str, bytes]]  # of a body: names, and SHA-256 of values


async def once(
    request: web.Request, organisation_id: str, parts: Parts, action: Action
) -> web.Response:
    """Do *action* in a transaction, or answer as the first request with this key was answered."""
    key, ctx = key_of(request), context(request)
    now, kept_for = ctx.clock(), timedelta(seconds=ctx.settings.keep_answers_s)

    async def answered(work: UnitOfWork) -> web.Response:
        if key is None:
            return (await action(work)).response
        turn = _Turn(
            organisation_id=organisation_id,
            key=key,
            fingerprint=_print(request, parts),
            kept_for=kept_for,
        )
        first = await _first_answer(work, turn, now)
        if first is not None:
            return _replay(first)
        done = await _done_or_refused(request, work, action)
        await _keep(request, work, turn, done, now)
        return done.response

    return await in_unit_of_work(ctx.pool, answered, now=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    organisation_id: str
    key: str
    fingerprint: bytes
    kept_for: timedelta


async def _first_answer(work: UnitOfWork, turn: _Turn, now: datetime) -> Answer | None:
    if not await idempotency.take_turn(work.conn, turn.organisation_id, turn.key):
        message = f"A request with this {HEADER} is still running."
        raise ApiError(ErrorType.CONFLICT, "idempotency_in_progress", message)
    first = await idempotency.find(
        work.conn, turn.organisation_id, turn.key, kept_for=turn.kept_for, now=now
    )
    if first is not None and first.fingerprint != turn.fingerprint:
        message = f"This {HEADER} was used for another request."
        raise ApiError(ErrorType.UNPROCESSABLE, "idempotency_key_reused", message)
    return first


async def _done_or_refused(request: web.Request, work: UnitOfWork, action: Action) -> Done:
    """A refusal is an answer too; what the action wrote before it is undone."""
    try:
        async with work.conn.transaction():
            return await action(work)
    except ApiError as error:
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR or error.status in _NOT_KEPT:
            raise
        work.announced.clear()
        return Done(response=error_response(error, request[REQUEST_ID]))


async def _keep(
    request: web.Request, work: UnitOfWork, turn: _Turn, done: Done, now: datetime
) -> None:
    body = done.response.body
    answer = Answer(
        fingerprint=turn.fingerprint,
        status=done.response.status,
        body=body if isinstance(body, bytes) else b"",
        request_id=request[REQUEST_ID],
    )
    await idempotency.keep(
        work.conn,
        turn.organisation_id,
        turn.key,
        answer,
        avatar_id=done.avatar_id,
        kept_for=turn.kept_for,
        now=now,
    )


def _replay(first: Answer) -> web.Response:
    return web.Response(
        status=first.status,
        body=first.body,
        content_type="application/json",
        charset="utf-8",
        headers={"Idempotent-Replayed": "true", "X-Request-Id": first.request_id},
    )


def _print(request: web.Request, parts: Parts) -> bytes:
    """Method, path, and the parts by name with the hash of each value; their order is nothing."""
    digest = hashlib.sha256(f"{request.method} {request.path}".encode())
    for name, value_sha256 in sorted(parts):
        digest.update(hashlib.sha256(name.encode(errors="surrogatepass")).digest())
        digest.update(value_sha256)
    return digest.digest()


def json_parts(raw: bytes) -> Parts:
    """The members of a JSON object; anything else is one part of its own."""
    try:
        body = json.loads(raw)
        members = body if isinstance(body, dict) else {"": body}
        return [(name, _digest(value)) for name, value in members.items()]
    except (ValueError, RecursionError):  # no JSON, or deeper than anybody means
        return [("", _digest(hashlib.sha256(raw).hexdigest()))]


def _digest(value: Any) -> bytes:  # noqa: ANN401 - whatever JSON can say
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()


def key_of(request: web.Request) -> str | None:
    """The key, bare or as the quoted string of the structured-field draft."""
    given = request.headers.get(HEADER)
    if given is None:
        return None
    key = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
    if not 1 <= len(key) <= MAX_KEY or not (key.isascii() and key.isprintable()):
        raise ApiError(
            ErrorType.INVALID_REQUEST,
            "invalid_idempotency_key",
            f"An {HEADER} has 1 to {MAX_KEY} printable ASCII characters.",
            param=HEADER,
        )
    return key
