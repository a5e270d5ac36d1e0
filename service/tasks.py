"""Background tasks end with what started them."""

import asyncio
import contextlib
from typing import Any


async def end(task: asyncio.Future[Any]) -> None:
    """Cancel *task* and wait until it has unwound; raise what it raised, if that is no cancel."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
