"""A fetcher with a way out of its own, as the composition root makes one."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp.abc import AbstractResolver

from service.fetch.address import AddressGuard
from service.fetch.connector import SocketMaker
from service.fetch.egress import Egress
from service.fetch.fetcher import Fetcher
from service.fetch.limits import FetchLimits


@asynccontextmanager
async def fetching(
    *,
    guard: AddressGuard,
    limits: FetchLimits | None = None,
    resolver: AbstractResolver | None = None,
    tls: ssl.SSLContext | None = None,
    new_socket: SocketMaker = socket.socket,
) -> AsyncIterator[Fetcher]:
    limits = limits or FetchLimits()
    egress = Egress(
        guard=guard,
        connect_s=limits.connect_s,
        resolver=resolver,
        tls=tls,
        new_socket=new_socket,
    )
    async with egress:
        yield Fetcher(egress, limits)
