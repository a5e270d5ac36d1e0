"""What happens around every handler: request id, trace context, errors, metrics, auth."""

import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, NoReturn

import structlog
from aiohttp import web

from service.api.context import PRINCIPAL, REQUEST_ID, TRACEPARENT, context
from service.api.incoming import body_chunks, unsupported_type
from service.api.problem import TYPE_OF, ApiError, ErrorType, envelope
from service.db import keys
from service.db.keys import Scope
from service.db.types import DATABASE_UNREACHABLE
from service.ids import new_request_id
from service.logs import story_of
from service.telemetry import HTTP_REQUESTS, HTTP_SECONDS
from storage.store import StoreFullError, StoreUnavailableError

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,128}")
# W3C Trace Context, level 1: version 00, ids that are not all zero
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SCOPE = "greenroom_scope"
FULL_RETRY_S = 60  # somebody has to make room first

_CODE_OF_STATUS = {
    HTTPStatus.NOT_FOUND: ("route_not_found", "There is nothing at this path."),
    HTTPStatus.METHOD_NOT_ALLOWED: ("method_not_allowed", "This path does not take this method."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("body_too_large", "The body is over the limit."),
    HTTPStatus.EXPECTATION_FAILED: ("expectation_failed", "The Expect header is not supported."),
}


def needs(scope: Scope) -> Callable[[Handler], Handler]:
    """Mark a handler with the scope that its callers need; without a mark it is open to all."""

    def mark(handler: Handler) -> Handler:
        setattr(handler, _SCOPE, scope)
        return handler

    return mark


def scope_of(handler: object) -> Scope | None:
    scope: Scope | None = getattr(handler, _SCOPE, None)
    return scope


@web.middleware
async def identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id and a trace."""
    given = request.headers.get("X-Request-Id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else new_request_id()
    request[REQUEST_ID] = request_id
    request[TRACEPARENT] = _trace(request.headers.get("traceparent", ""))
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        return await handler(request)


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Put the request's id on its answer, streamed ones included."""
    if REQUEST_ID in request:
        response.headers.setdefault("X-Request-Id", request[REQUEST_ID])


def _trace(given: str) -> str:
    """The caller's trace with a span of ours, or a new trace when theirs is malformed."""
    span = secrets.token_hex(8)
    if _TRACEPARENT.fullmatch(given):
        version, trace, _, flags = given.split("-")
        return f"{version}-{trace}-{span}-{flags}"
    return f"00-{secrets.token_hex(16)}-{span}-01"


@web.middleware
async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count and time every answer by route, never by path."""
    started = time.perf_counter()
    route = _route(request)
    response = await handler(request)
    HTTP_REQUESTS.labels(request.method, route, str(response.status)).inc()
    HTTP_SECONDS.labels(request.method, route).observe(time.perf_counter() - started)
    return response


def _route(request: web.Request) -> str:
    """The pattern of the path: the path itself may hold a signature."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever went wrong into the envelope; the cause goes to the log alone."""
    try:
        return await handler(request)
    except ApiError as error:
        return error_response(error, request[REQUEST_ID])
    except web.HTTPException as exc:
        if exc.status < HTTPStatus.BAD_REQUEST:
            raise
        return error_response(_from_http(exc), request[REQUEST_ID])
    except Exception as exc:  # noqa: BLE001 - the edge: nothing may escape as a bare 500
        if request.writer.output_size > 0:
            _cut(request, exc)
        return error_response(_from_fault(request, exc), request[REQUEST_ID])


def _cut(request: web.Request, exc: Exception) -> NoReturn:
    """An answer has begun, and a second one would look like its rest: end the connection."""
    if not isinstance(exc, ConnectionError):  # else it is the caller who went away
        log.error("answer_cut", route=_route(request), error=story_of(exc))
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("the answer was cut short") from exc


def _from_fault(request: web.Request, exc: Exception) -> ApiError:
    if isinstance(exc, DATABASE_UNREACHABLE):
        log.warning("database_unreachable", route=_route(request), error=story_of(exc))
        return ApiError(
            ErrorType.SERVICE_UNAVAILABLE,
            "database_unreachable",
            "The service cannot reach its database. Try again.",
            headers={"Retry-After": "2"},
        )
    if isinstance(exc, StoreFullError):
        log.error("store_full", route=_route(request), error=story_of(exc))
        return ApiError(
            ErrorType.SERVICE_UNAVAILABLE,
            "store_full",
            "The service's store is full. Try again later.",
            headers={"Retry-After": str(FULL_RETRY_S)},
        )
    if isinstance(exc, StoreUnavailableError):
        log.warning("store_unreachable", route=_route(request), error=story_of(exc))
        return ApiError(
            ErrorType.SERVICE_UNAVAILABLE,
            "store_unreachable",
            "The service cannot reach its store. Try again.",
            headers={"Retry-After": "2"},
        )
    log.error("request_failed", route=_route(request), error=story_of(exc))
    return ApiError(ErrorType.INTERNAL, "internal", "Something went wrong on our side.")


def _from_http(exc: web.HTTPException) -> ApiError:
    code, message = _CODE_OF_STATUS.get(
        HTTPStatus(exc.status), (HTTPStatus(exc.status).name.lower(), HTTPStatus(exc.status).phrase)
    )
    headers = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else None
    type_ = TYPE_OF.get(exc.status, ErrorType.INVALID_REQUEST)
    return ApiError(type_, code, message, status=exc.status, headers=headers)


def error_response(error: ApiError, request_id: str) -> web.Response:
    body = envelope(error, request_id)
    headers = {**error.headers, "X-Request-Id": request_id}
    return web.json_response(body, status=error.status, headers=headers)


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check the key and the scope that the handler is marked with."""
    scope = scope_of(request.match_info.handler)
    if scope is None:
        return await handler(request)
    key = _bearer(request.headers.get("Authorization", ""))
    async with context(request).pool.acquire() as conn:
        who = await keys.principal_of(conn, key)
    if who is None:
        raise _unauthenticated("The API key is unknown or revoked.")
    if scope.value not in who.scopes:
        message = f"This key lacks the scope {scope}."
        raise ApiError(ErrorType.PERMISSION, "insufficient_scope", message)
    request[PRINCIPAL] = who
    with structlog.contextvars.bound_contextvars(organisation=who.organisation_id):
        return await handler(request)


def _bearer(header: str) -> str:
    scheme, _, key = header.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise _unauthenticated("Send an API key as 'Authorization: Bearer <key>'.")
    return key.strip()


def _unauthenticated(message: str) -> ApiError:
    return ApiError(
        ErrorType.AUTHENTICATION, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"}
    )


async def read_json(request: web.Request) -> bytes:
    """A JSON body within the limit; its type is checked, its content is not."""
    if request.content_type != "application/json":
        raise unsupported_type("Send the body as application/json.")
    async with aclosing(
        body_chunks(request, max_bytes=context(request).settings.max_json_bytes)
    ) as chunks:
        return b"".join([chunk async for chunk in chunks])


def json_answer(body: dict[str, Any], *, status: int = HTTPStatus.OK) -> web.Response:
    return web.json_response(body, status=status, dumps=_dumps)


def _dumps(body: object) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


MIDDLEWARES = (identify, measure, answer_errors, authenticate)
