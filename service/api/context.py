"""What handlers reach for, handed in by the composition root."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiohttp import web

from service.db.keys import Principal
from service.db.types import Pool
from service.events.feed import FeedWaker
from service.fetch.address import AddressGuard
from service.links import SignedLinks
from service.sealing import Sealer
from service.settings import Settings
from storage.store import AssetStore
from validators.media.layers import Layers


@dataclass(slots=True, kw_only=True)
class Decoders:
    """What confines the decoders of this process; None while it runs none."""

    layers: Layers | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    settings: Settings
    pool: Pool
    store: AssetStore
    sealer: Sealer
    links: SignedLinks
    waker: FeedWaker
    guard: AddressGuard
    public_url: str
    clock: Callable[[], datetime]
    draining: asyncio.Event
    decoders: Decoders

    async def signed_url(self, key: str, content_type: str, sha256: str) -> str:
        """A URL of an asset's bytes that needs no API key, and expires."""
        valid_for = timedelta(seconds=self.settings.signed_url_expiry_s)
        return self.public(
            await self.store.signed_url(
                key, valid_for=valid_for, content_type=content_type, sha256=sha256
            )
        )

    def public(self, url: str) -> str:
        """The whole of a URL that may be a path of our own."""
        return self.public_url + url if url.startswith("/") else url


CONTEXT = web.AppKey("context", Context)
PRINCIPAL = web.RequestKey("principal", Principal)
REQUEST_ID = web.RequestKey("request_id", str)
TRACEPARENT = web.RequestKey("traceparent", str)


def context(request: web.Request) -> Context:
    return request.app[CONTEXT]


def principal(request: web.Request) -> Principal:
    return request[PRINCIPAL]
