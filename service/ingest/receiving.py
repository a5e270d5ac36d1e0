"""Bytes that come with a request. They lie in the store before anything points to them.

Their blob is committed first, as that of a fetch; the request that accepts them makes it count.
What no request accepts is erased: when its request ends, or by the sweeper if that one died.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import structlog

from service.db import blobs
from service.db.types import DATABASE_AWAY
from service.ids import new_id
from service.ingest.accept import Uploaded
from service.ingest.objects import Shelf, begin_object, erase
from service.logs import story_of

log = structlog.get_logger()

ORPHANED_AFTER = timedelta(hours=1)  # no request and no run of ours takes as long


@dataclass(slots=True, kw_only=True)
class Upload:
    """One upload; `id` is that of the asset that it is to be."""

    shelf: Shelf
    organisation_id: str
    id: UUID = field(default_factory=new_id)
    begun: tuple[UUID, str] | None = None  # its blob and key
    uploaded: Uploaded | None = None

    async def keep(self, body: AsyncIterator[bytes], *, max_bytes: int) -> None:
        """Stream *body* into the store; raise StoreError, or whatever *body* raises."""
        self.begun = blob_id, key = await begin_object(self, self.shelf)
        stored = await self.shelf.store.put(key, body, max_bytes=max_bytes)
        self.uploaded = Uploaded(asset_id=self.id, blob_id=blob_id, stored=stored)


@asynccontextmanager
async def receiving(shelf: Shelf, organisation_id: str) -> AsyncIterator[Upload]:
    """An upload for as long as its request lasts; after it, only what was accepted is there."""
    upload = Upload(shelf=shelf, organisation_id=organisation_id)
    try:
        yield upload
    finally:
        if upload.begun is not None:
            await _discard_or_leave(shelf, *upload.begun)


async def _discard_or_leave(shelf: Shelf, blob_id: UUID, key: str) -> None:
    try:
        await discard(shelf, blob_id, key)
    except DATABASE_AWAY as exc:  # the sweeper will find it; the answer is given already
        log.warning("upload_left_behind", blob_id=str(blob_id), error=story_of(exc))


async def discard(shelf: Shelf, blob_id: UUID, key: str) -> None:
    """Erase an object, unless the database says that it counts: a commit may be in doubt to us.

    Also one that the database forgot: a sweeper may have, while it was still being written.
    """
    async with shelf.pool.acquire() as conn:
        given_up = await blobs.give_up(conn, blob_id)
    if given_up:
        await erase(shelf, blob_id, key)


async def sweep_orphans(shelf: Shelf) -> None:
    """Erase what requests and runs left behind that nobody will come back for."""
    async with shelf.pool.acquire() as conn:
        left = await blobs.orphans(conn, older_than=ORPHANED_AFTER)
    for blob_id, key in left:
        await discard(shelf, blob_id, key)
    if left:
        log.warning("objects_were_orphaned", objects=len(left))
