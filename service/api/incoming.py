"""A request's body as it comes in: counted while it is read, and on the clock.

A lying or absent Content-Length changes nothing, and who sends a byte now and then is cut off by
the same pace that holds for sources.
"""

from collections.abc import AsyncGenerator
from http import HTTPStatus

from aiohttp import web
from aiohttp.http_exceptions import PayloadEncodingError

from service.api.context import context
from service.api.problem import ApiError, ErrorType
from service.errors import SourceError
from service.fetch.limits import FetchLimits, Pace
from service.settings import Settings

# How a body ends that is not whole: cut short, chunks that are none, or the caller went away.
_CUT_SHORT = (web.RequestPayloadError, PayloadEncodingError, OSError)


def body_limits(settings: Settings) -> FetchLimits:
    """A caller's pace: its own times, and the rate that sources must keep."""
    return FetchLimits(idle_s=settings.body_idle_timeout_s, total_s=settings.body_total_timeout_s)


async def body_chunks(request: web.Request, *, max_bytes: int) -> AsyncGenerator[bytes]:
    """The body as it comes; ApiError 408, 413 and 415, and 400 `malformed_body` if it is cut."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise unsupported_encoding("Send the body as it is, without Content-Encoding.")
    size_bytes = 0
    if (request.content_length or 0) > max_bytes:  # an honest one saves both sides the transfer
        raise too_large(f"The body is over {max_bytes} bytes.")
    pace = Pace(body_limits(context(request).settings))
    pace.begin_body()
    while chunk := await _next(request, pace):
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise too_large(f"The body is over {max_bytes} bytes.")
        yield chunk
    # of a caller who has gone away, aiohttp gives what came as if that were all
    if request.transport is None or size_bytes < (request.content_length or 0):
        raise malformed("The body ended before it was whole.")


async def _next(request: web.Request, pace: Pace) -> bytes:
    """Whatever has come, or nothing at the end."""
    try:
        async with pace.waiting(pace.idle()):
            chunk = await request.content.readany()
        if chunk:
            pace.count(len(chunk))
    except SourceError as exc:
        raise ApiError(
            ErrorType.INVALID_REQUEST,
            "request_timeout",
            "The body came too slowly.",
            status=HTTPStatus.REQUEST_TIMEOUT,
            headers={"Connection": "close"},
        ) from exc
    except _CUT_SHORT as exc:
        raise malformed("The body ended before it was whole.") from exc
    return chunk


def malformed(message: str) -> ApiError:
    return ApiError(ErrorType.INVALID_REQUEST, "malformed_body", message)


def too_large(message: str, param: str | None = None) -> ApiError:
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return ApiError(
        ErrorType.INVALID_REQUEST, "body_too_large", message, param=param, status=status
    )


def unsupported_encoding(message: str, param: str | None = None) -> ApiError:
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return ApiError(
        ErrorType.INVALID_REQUEST,
        "unsupported_content_encoding",
        message,
        param=param,
        status=status,
    )


def unsupported_type(message: str, param: str | None = None) -> ApiError:
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return ApiError(
        ErrorType.INVALID_REQUEST, "unsupported_media_type", message, param=param, status=status
    )
