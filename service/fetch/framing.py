"""A connection to a stranger that ends when it carries little else than the framing of HTTP.

Interim answers without end, chunks of one byte, extensions of chunks: none of them is body, so no
cap on bodies counts them, and a byte of them costs a thousand times what a byte of a body does.
While it is parsed nobody else is served: 40 such origins held the event loop for over 20 seconds.
"""

import asyncio

from aiohttp import TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

_PARSED_AT_ONCE = 1 << 14  # bytes; a socket gives up to 256 KiB
_HEAD_BYTES = 1 << 14  # of an answer and all that comes before it; real ones have 8 KiB at most
_BODY_PER_FRAMING = 8  # met by chunks of 64 bytes; real ones have thousands


class MeteredHandler(ResponseHandler):
    """One connection, for one request."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._wire_bytes = 0

    def data_received(self, data: bytes) -> None:
        if len(data) <= _PARSED_AT_ONCE:  # none of it: aiohttp has room for more
            self._take(data)
            return
        for start in range(0, len(data), _PARSED_AT_ONCE):
            if self.transport is None or self.exception() is not None:  # the last piece ended it
                return
            self._take(data[start : start + _PARSED_AT_ONCE])

    def _take(self, data: bytes) -> None:
        self._wire_bytes += len(data)
        super().data_received(data)
        body_bytes = 0 if self._payload is None else self._payload.total_bytes
        framing_bytes = self._wire_bytes - body_bytes
        too_many = framing_bytes > _HEAD_BYTES + body_bytes / _BODY_PER_FRAMING
        if too_many and self.transport is not None:
            self.transport.close()
            self.set_exception(HttpProcessingError(message="more framing than body"))


def meter(connector: TCPConnector) -> TCPConnector:
    """Have *connector* open such connections; aiohttp has no public way to name their class."""
    loop = asyncio.get_running_loop()
    connector._factory = lambda: MeteredHandler(loop)  # type: ignore[assignment] # noqa: SLF001
    return connector
