"""Objects that nothing points to any more are erased, and tried again until the store confirms."""

from datetime import timedelta
from uuid import UUID

import structlog

from service.db import blobs
from service.domain import Work
from service.ingest.objects import Shelf
from service.logs import story_of
from service.telemetry import JOBS

log = structlog.get_logger()

LONGEST_PAUSE_S = 300


async def purge(blob_id: UUID, shelf: Shelf, *, tries: int = 0) -> timedelta | None:
    """Erase the object of a blob that no asset points to; how long to wait before trying again.

    None means that nothing is left to do. An object that may come back is erased now and, by the
    sweeper, once more when it cannot: only then is its row forgotten. Whatever goes wrong, the
    job comes again: nobody else would erase what the deleted leave behind.
    """
    with structlog.contextvars.bound_contextvars(work=Work.PURGE.value, blob_id=str(blob_id)):
        try:
            outcome = await _erase(blob_id, shelf)
        except Exception as exc:  # noqa: BLE001 - the worker's loop: store, database or a bug of ours
            log.warning("object_not_erased", tries=tries + 1, error=story_of(exc))
            outcome = "later"
    JOBS.labels(Work.PURGE.value, outcome).inc()
    return pause_after(tries) if outcome == "later" else None


def pause_after(tries: int) -> timedelta:
    """1, 2, 4 … seconds, up to five minutes."""
    return timedelta(seconds=min(2 ** min(tries, 10), LONGEST_PAUSE_S))


async def _erase(blob_id: UUID, shelf: Shelf) -> str:
    async with shelf.pool.acquire() as conn, conn.transaction():
        condemned = await blobs.condemn(conn, blob_id)
    if condemned is None:
        return "kept"
    await shelf.store.delete(condemned.key)
    async with shelf.pool.acquire() as conn:
        await blobs.forget(conn, blob_id)
    log.info("object_erased", for_good=not condemned.may_come_back)
    return "erased"
