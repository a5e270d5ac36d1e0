"""Objects of a run in the store: known to the database before their first byte."""

import contextlib
from collections.abc import Iterator
from typing import Protocol
from uuid import UUID

import structlog

from service.db import blobs
from service.db.blobs import Writer
from service.db.types import Pool
from service.domain import Run
from service.errors import FailureCode, InternalError, UnavailableError
from service.ids import new_id
from storage.store import AssetStore, StoreError, StoreUnavailableError

log = structlog.get_logger()


class Shelf(Protocol):
    """Where objects lie, and the rows by which they are found."""

    @property
    def pool(self) -> Pool: ...

    @property
    def store(self) -> AssetStore: ...


async def begin_object(writer: Writer, shelf: Shelf) -> tuple[UUID, str]:
    """A new blob and its key, committed: from here on the object can be found."""
    blob_id = new_id()
    async with shelf.pool.acquire() as conn:
        await blobs.begin(conn, writer, blob_id=blob_id, key=blob_id.hex)
    return blob_id, blob_id.hex


async def clear_abandoned(run: Run, shelf: Shelf) -> None:
    """Delete objects that earlier runs of this row began, or that a twin made needless."""
    async with shelf.pool.acquire() as conn:
        left = await blobs.abandoned(conn, run.id)
    for blob_id, key in left:
        await erase(shelf, blob_id, key)


async def erase(shelf: Shelf, blob_id: UUID, key: str) -> None:
    """Delete an object and forget it; while the store is away its row stays, to be found again."""
    try:
        await shelf.store.delete(key)
    except StoreUnavailableError as exc:
        log.warning("object_left_behind", key=key, error=repr(exc))
        return
    async with shelf.pool.acquire() as conn:
        await blobs.forget(conn, blob_id)


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """What a store raises while a run uses it, as errors of ours."""
    try:
        yield
    except StoreUnavailableError as exc:
        raise UnavailableError(FailureCode.INTERNAL, "our store did not answer") from exc
    except StoreError as exc:  # gone, or no longer the bytes that we took in
        raise InternalError(FailureCode.INTERNAL, "the stored bytes cannot be read") from exc
