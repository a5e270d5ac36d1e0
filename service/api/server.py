"""aiohttp's server, answering with our envelope even where no handler is reached.

What the HTTP parser refuses never gets to a middleware: aiohttp answers it itself, in text/plain.
Its protocol class has the hook, but no public way to name another class, so it is named here.
"""

from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from service.api.middleware import error_response
from service.api.problem import TYPE_OF, ApiError, ErrorType
from service.ids import new_request_id

log = structlog.get_logger()

# Between requests, and for the head of one: over the 60 s of the usual load balancers. aiohttp
# waits an hour, and whoever opens connections and says nothing takes all that we may have.
IDLE_S = 75.0


class EnvelopeHandler(RequestHandler):
    """One connection."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that could not be parsed, or that failed outside every middleware."""
        request_id = new_request_id()
        log.info("request_refused", request_id=request_id, status=status, error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")  # as the base class does
        del message  # the parser's words repeat the caller's bytes
        response = error_response(_refusal(status), request_id)
        response.force_close()
        return response


def _refusal(status: int) -> ApiError:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ApiError(ErrorType.INTERNAL, "internal", "Something went wrong on our side.")
    type_ = TYPE_OF.get(status, ErrorType.INVALID_REQUEST)
    message = "The request is not valid HTTP, or its headers are too long."
    return ApiError(type_, "malformed_request", message, status=status)


class EnvelopeServer(web.Server):
    """Makes our handler for every connection."""

    def __call__(self) -> RequestHandler:
        return EnvelopeHandler(self, loop=self._loop, **self._kwargs)


class EnvelopeRunner(web.AppRunner):
    """Runs an application behind `EnvelopeServer`; its callers have IDLE_S for each head."""

    __slots__ = ()

    def __init__(self, app: web.Application, **options: Any) -> None:  # noqa: ANN401 - aiohttp's own options
        super().__init__(app, keepalive_timeout=IDLE_S, **options)

    async def _make_server(self) -> web.Server:
        server: web.Server = await super()._make_server()
        server.__class__ = EnvelopeServer
        return server
