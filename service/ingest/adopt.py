"""From a file that a caller sent by a form to an asset: it is copied before anybody looks at it.

A form may be used again. What lies under the key that it names is never judged; the copy is, and
nobody else can write there.
"""

from datetime import datetime

import structlog

from service.db import assets, avatars, jobs, uploads
from service.db.types import Conn
from service.db.uploads import Incoming, Upload
from service.domain import AssetRun, Origin, Work
from service.errors import FailureCode, IngestError, SourceError, UnavailableError
from service.ingest import pipeline
from service.ingest.objects import (
    begin_object,
    clear_abandoned,
    erased_on_error,
    store_errors,
)
from service.ingest.ports import Ports
from service.ingest.progress import reporting
from service.logs import story_of
from storage.store import (
    AssetNotFoundError,
    AssetStore,
    ChecksumMismatchError,
    StoredAsset,
    StoreUnavailableError,
    TooLargeError,
)

log = structlog.get_logger()


async def finalise(conn: Conn, upload: Upload, *, traceparent: str | None, now: datetime) -> bool:
    """Make an asset of an upload and have it copied; False when it is not open any more."""
    async with conn.transaction():
        if not await uploads.finalise(conn, upload.id):
            return False
        await assets.insert_adopted(conn, upload, traceparent=traceparent, now=now)
        await jobs.enqueue(conn, Work.FETCH, [upload.id])
    return True


async def adopt(run: AssetRun, ports: Ports) -> None:
    """Copy the file of *run*'s upload to a key of its own, and settle it.

    Raises IngestError when it cannot be had, and ClaimLostError when the run was overtaken.
    """
    async with ports.pool.acquire() as conn:
        incoming = await uploads.incoming_of(conn, run)
        await avatars.begin_fetching(conn, run.id)
    await clear_abandoned(run, ports)
    blob_id, key = await begin_object(run, ports)
    async with (
        erased_on_error(ports, blob_id, key),
        reporting(run, ports.pool, "copying", "bytes"),
    ):
        stored = await _copied(ports.store, incoming, key)
    await pipeline.keep(run, ports, blob_id, stored)
    await _erase(ports.store, incoming.key)


async def give_up(run: AssetRun, ports: Ports, error: IngestError) -> None:
    """Fail the asset of a run, and erase what was sent for it."""
    await pipeline.give_up(run, ports, error)
    if run.origin is Origin.UPLOAD:
        await _erase(ports.store, uploads.incoming_key(run.id))


async def _copied(store: AssetStore, incoming: Incoming, key: str) -> StoredAsset:
    with store_errors():
        try:
            stored = await store.copy(incoming.key, key, max_bytes=incoming.max_bytes)
        except AssetNotFoundError as exc:
            raise SourceError(FailureCode.SOURCE_EMPTY, "the uploaded file is gone") from exc
        except TooLargeError as exc:
            detail = f"over {incoming.max_bytes} bytes"
            raise SourceError(FailureCode.SOURCE_TOO_LARGE, detail) from exc
        except ChecksumMismatchError as exc:  # sent again and again, but the form expires
            detail = "the uploaded file kept changing"
            raise UnavailableError(FailureCode.INTERNAL, detail) from exc
    if not stored.size_bytes:
        raise SourceError(FailureCode.SOURCE_EMPTY)
    return stored


async def _erase(store: AssetStore, key: str) -> None:
    """Nobody needs the file any more. While the store is away it stays, for the sweeper."""
    try:
        await store.delete(key)
    except StoreUnavailableError as exc:
        log.warning("incoming_left_behind", key=key, error=story_of(exc))
