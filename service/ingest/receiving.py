"""Bytes that come with a request. They lie in the store before anything points to them.

Their blob is committed first, as that of a fetch; the request that accepts them makes it count.
What no request accepts is erased: when its request ends, or by the sweeper if that one died.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from service.ids import new_id
from service.ingest.accept import Uploaded
from service.ingest.objects import Shelf, begin_object, erase
from storage.store import StoreUnavailableError


@dataclass(slots=True, kw_only=True)
class Receipt:
    """One upload; `id` is that of the asset that it is to be."""

    shelf: Shelf
    organisation_id: str
    id: UUID = field(default_factory=new_id)
    begun: tuple[UUID, str] | None = None  # its blob and key
    uploaded: Uploaded | None = None
    in_doubt: bool = False  # the store has all bytes: a put that is cut off may still succeed

    async def keep(self, body: AsyncIterator[bytes], *, max_bytes: int) -> None:
        """Stream *body* into the store; raise StoreError, or whatever *body* raises."""
        self.begun = blob_id, key = await begin_object(self, self.shelf)
        try:
            stored = await self.shelf.store.put(key, self._read(body), max_bytes=max_bytes)
        except (StoreUnavailableError, asyncio.CancelledError):
            raise
        except Exception:
            self.in_doubt = False
            raise
        self.in_doubt = False
        self.uploaded = Uploaded(asset_id=self.id, blob_id=blob_id, stored=stored)

    async def _read(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in body:
            yield chunk
        self.in_doubt = True


@asynccontextmanager
async def receiving(shelf: Shelf, organisation_id: str) -> AsyncIterator[Receipt]:
    """An upload for as long as its request lasts; after it, only what was accepted is there."""
    upload = Receipt(shelf=shelf, organisation_id=organisation_id)
    try:
        yield upload
    finally:
        if upload.begun is not None:
            await erase(shelf, *upload.begun, ended=not upload.in_doubt)
