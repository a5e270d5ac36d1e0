"""What comes to its end although whoever waits for it is cancelled."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import structlog

from storage.store import StoreError

_log = structlog.get_logger(__name__)

CLEANUP_S = 10.0  # a put that failed ends this much later at most


async def in_any_case(work: Coroutine[Any, Any, None]) -> None:
    """Finish *work*, for CLEANUP_S at most, also when we are cancelled. That it fails is logged."""
    task = asyncio.ensure_future(_bounded(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await ended(task)
        raise


async def ended(task: "asyncio.Future[Any]") -> None:
    """Wait until *task* is done, however often we are cancelled meanwhile."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])


async def _bounded(work: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(CLEANUP_S):
            await work
    except (StoreError, TimeoutError) as exc:
        _log.warning("store_not_tidied", error=repr(exc))
