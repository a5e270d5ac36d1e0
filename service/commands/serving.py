"""Run the API and workers of one process until a signal asks them to drain."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import structlog
from aiohttp import web

from service.api.context import CONTEXT
from service.api.server import EnvelopeRunner
from service.domain import Work
from service.settings import Settings
from service.tasks import end
from service.wiring import (
    API_CONNECTIONS,
    WORKER_CONNECTIONS,
    Base,
    open_api,
    open_base,
    open_worker,
)

log = structlog.get_logger()

SHUTDOWN_TIMEOUT_S = 5.0  # for answers under way once the listener is closed
EVERYTHING = frozenset(Work)

OnReady = Callable[[str | None], None]


def kinds_of(text: str) -> frozenset[Work]:
    """`fetch,inspect,derive` as kinds of work; ValueError names what is none."""
    kinds = frozenset(Work(word.strip()) for word in text.split(",") if word.strip())
    if not kinds:
        raise ValueError("names no kind of work")
    return kinds


def drain_on_signals() -> asyncio.Event:
    """An event that SIGTERM or Ctrl-C sets. The same signal once more kills, as it would have."""
    draining = asyncio.Event()
    loop = asyncio.get_running_loop()

    def drain(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        draining.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain, number)
    return draining


async def serve(
    settings: Settings,
    draining: asyncio.Event,
    *,
    api: bool,
    kinds: frozenset[Work],
    on_ready: OnReady,
) -> None:
    """Serve until *draining* is set and the work in hand has ended or was handed back.

    *on_ready* hears the API's URL once everything runs. The API answers until the end: `/readyz`
    with 503 from the moment of draining, so that traffic goes elsewhere first.
    """
    connections = API_CONNECTIONS * api + WORKER_CONNECTIONS * bool(kinds)
    async with AsyncExitStack() as stack:
        bound = None
        if api:  # before all else: no source may be this service, so its port must be known
            bound = stack.enter_context(_bind(settings.host, settings.port))
            host, port = bound.getsockname()[:2]
            settings = replace(settings, host=host, port=port)
        base = await stack.enter_async_context(open_base(settings, connections=connections))
        url = None
        if bound is not None:
            url = await stack.enter_async_context(_listening(base, bound, draining))
        if kinds:
            await stack.enter_async_context(_working(base, kinds, draining))
        on_ready(url)
        await draining.wait()
        log.info("draining")
    log.info("stopped")


@asynccontextmanager
async def _listening(
    base: Base, bound: socket.socket, draining: asyncio.Event
) -> AsyncIterator[str]:
    """The API on its socket, which is bound first so that the application knows its URL."""
    url = base.settings.public_url or _url_of(bound)
    async with open_api(base, public_url=url, draining=draining) as app:
        runner = EnvelopeRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_TIMEOUT_S
        )
        await runner.setup()
        await web.SockSite(runner, bound).start()
        waking = asyncio.create_task(_wake_readers(app, draining))
        try:
            yield url
        finally:
            await runner.cleanup()
            await end(waking)


async def _wake_readers(app: web.Application, draining: asyncio.Event) -> None:
    """Readers that wait for events must not hold up a stop."""
    await draining.wait()
    app[CONTEXT].waker.wake()


@asynccontextmanager
async def _working(
    base: Base, kinds: frozenset[Work], draining: asyncio.Event
) -> AsyncIterator[None]:
    async with open_worker(base, kinds) as worker:
        running = asyncio.create_task(worker.run())
        # a worker that ends by itself has failed: let the process end, to be started afresh
        running.add_done_callback(lambda _task: draining.set())
        try:
            yield
        finally:
            worker.drain()
            await running


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    bound.setblocking(False)
    return bound


def _url_of(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
