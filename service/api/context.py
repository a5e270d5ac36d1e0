"""What handlers reach for, handed in by the composition root."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from aiohttp import web

from service.db.keys import Principal
from service.db.types import Pool
from service.events.feed import FeedWaker
from service.fetch.address import AddressGuard
from service.sealing import Sealer
from service.settings import Settings
from storage.store import AssetStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    settings: Settings
    pool: Pool
    store: AssetStore
    sealer: Sealer
    waker: FeedWaker
    guard: AddressGuard
    public_url: str
    clock: Callable[[], datetime]
    draining: asyncio.Event


CONTEXT = web.AppKey("context", Context)
PRINCIPAL = web.RequestKey("principal", Principal)
REQUEST_ID = web.RequestKey("request_id", str)
TRACEPARENT = web.RequestKey("traceparent", str)


def context(request: web.Request) -> Context:
    return request.app[CONTEXT]


def principal(request: web.Request) -> Principal:
    return request[PRINCIPAL]
