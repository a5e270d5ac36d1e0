"""Objects that nothing points to any more are erased, and tried again until the store confirms."""

from datetime import timedelta
from uuid import UUID

import structlog

from service.db import blobs
from service.ingest.objects import Shelf
from service.logs import story_of
from storage.store import StoreUnavailableError

log = structlog.get_logger()

STORE_PAUSE = timedelta(seconds=10)


async def purge(blob_id: UUID, shelf: Shelf) -> timedelta | None:
    """Erase the object of a blob that no asset points to; how long to wait before trying again.

    None means that nothing is left to do. An object that may come back is erased now and, by the
    sweeper, once more when it cannot: only then is its row forgotten.
    """
    async with shelf.pool.acquire() as conn, conn.transaction():
        condemned = await blobs.condemn(conn, blob_id)
    if condemned is None:
        return None
    try:
        await shelf.store.delete(condemned.key)
    except StoreUnavailableError as exc:
        log.warning("object_not_erased", key=condemned.key, error=story_of(exc))
        return STORE_PAUSE
    if not condemned.may_come_back:
        async with shelf.pool.acquire() as conn:
            await blobs.forget(conn, blob_id)
    log.info("object_erased", key=condemned.key, for_good=not condemned.may_come_back)
    return None
