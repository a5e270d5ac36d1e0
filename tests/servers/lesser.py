"""An S3 server that knows less than the one behind it: no conditional writes, or no form posts.

async with lesser(server, deaf_to=frozenset({"put"})) as endpoint:
    replace(options, endpoint=endpoint)
"""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import aiohttp
from aiohttp import hdrs, web
from yarl import URL

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-encoding", "content-length"}
FORM = "multipart/form-data"


@asynccontextmanager
async def lesser(
    endpoint: str, *, deaf_to: frozenset[str] = frozenset(), forms: HTTPStatus | None = None
) -> AsyncIterator[str]:
    """Where it listens. *deaf_to*: which of `put` and `complete` ignore If-None-Match there.

    *forms*: what it answers to form posts, if not what the server behind it does.
    """
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def pass_on(request: web.Request) -> web.StreamResponse:
            if forms and request.content_type == FORM:
                await request.read()
                return web.Response(status=forms)
            url = URL(endpoint + request.raw_path, encoded=True)
            headers = {k: v for k, v in request.headers.items() if k.lower() != "expect"}
            if _operation(request) in deaf_to:
                headers.pop("If-None-Match", None)
            async with session.request(
                request.method, url, headers=headers, data=io.BytesIO(await request.read())
            ) as answer:
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
                body = await answer.read()
                response = web.Response(status=answer.status, headers=kept, body=body)
                if request.method == hdrs.METH_HEAD:
                    response.headers[hdrs.CONTENT_LENGTH] = answer.headers[hdrs.CONTENT_LENGTH]
                return response

        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{rest:.*}", pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()


def _operation(request: web.Request) -> str:
    if request.method == hdrs.METH_PUT:
        return "put"
    return "complete" if "uploadId" in request.query else "other"
