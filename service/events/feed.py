"""Readers of the feed wait here: one database connection listens for all of a process's readers."""

import asyncio
import base64
import binascii
from types import TracebackType
from typing import Self

import asyncpg
import structlog

from service.db.events import CHANNEL
from service.db.types import DATABASE_AWAY
from service.logs import story_of
from service.tasks import end

log = structlog.get_logger()

_CURSOR_VERSION = b"1:"
_MAX_POSITION = (1 << 63) - 1
_RECONNECT_PAUSE_S = 1.0


class BadCursorError(ValueError):
    """Not a cursor that this service gave out."""


def encode_cursor(position: int) -> str:
    """A reader's opaque place in the feed."""
    return base64.urlsafe_b64encode(_CURSOR_VERSION + str(position).encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> int:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        text = raw.removeprefix(_CURSOR_VERSION).decode("ascii")
        position = int(text)
    except (binascii.Error, ValueError) as exc:
        raise BadCursorError(cursor) from exc
    if encode_cursor(position) != cursor or not 0 <= position <= _MAX_POSITION:
        raise BadCursorError(cursor)
    return position


class FeedWaker:
    """Wakes everybody who waits when a transaction with events commits, in any process.

    A wake-up can be lost while the connection is away, so a waiter also wakes when it comes back.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        conn = await asyncpg.connect(self._dsn)
        self._task = asyncio.create_task(self._keep_listening(conn))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._task is not None:
            await end(self._task)
        self.wake()

    def wake(self) -> None:
        woken, self._woken = self._woken, asyncio.Event()
        woken.set()

    def ticket(self) -> asyncio.Event:
        """Take one before looking at the feed; it is set by whatever commits after that."""
        return self._woken

    async def _keep_listening(self, conn: "asyncpg.Connection[asyncpg.Record] | None") -> None:
        while True:
            try:
                conn = conn or await asyncpg.connect(self._dsn)
                await self._listen(conn)
            except DATABASE_AWAY as exc:
                log.warning("feed_listener_lost", error=story_of(exc))
            finally:
                if conn is not None:
                    conn.terminate()
            conn = None
            await asyncio.sleep(_RECONNECT_PAUSE_S)

    async def _listen(self, conn: "asyncpg.Connection[asyncpg.Record]") -> None:
        closed = asyncio.Event()
        conn.add_termination_listener(lambda _conn: closed.set())
        await conn.add_listener(CHANNEL, lambda *_args: self.wake())
        self.wake()
        await closed.wait()
