"""Does the DSN lead to Postgres itself, or to a pooler that shares sessions between clients?

LISTEN and session locks belong to a session. Behind a transaction pooler they are lost without
an error: feeds and workers would only ever poll, and migrations would not exclude each other.
"""

import asyncio
import contextlib
import secrets

from service.db.types import Pool

PATIENCE_S = 5.0


async def is_direct(pool: Pool) -> bool:
    """Whether one connection hears what another one says, as only a session's own can."""
    channel = f"greenroom_{secrets.token_hex(8)}"
    heard = asyncio.Event()

    def hear(*_: object) -> None:
        heard.set()

    async with pool.acquire() as listener, pool.acquire() as speaker:
        await listener.add_listener(channel, hear)
        try:
            await speaker.execute("SELECT pg_notify($1, '')", channel)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await heard.wait()
        finally:
            await listener.remove_listener(channel, hear)
    return heard.is_set()
