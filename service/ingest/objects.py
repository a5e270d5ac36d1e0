"""Objects of a run in the store: known to the database before their first byte."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Protocol
from uuid import UUID

import structlog

from service.db import blobs
from service.db.blobs import Writer
from service.db.claims import ClaimLostError
from service.db.types import DATABASE_AWAY, Pool
from service.domain import Run
from service.errors import FailureCode, InternalError, UnavailableError
from service.ids import new_id
from service.logs import story_of
from service.settings import LONGEST_TRANSFER_S
from storage.store import (
    AssetStore,
    ChecksumMismatchError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)

log = structlog.get_logger()

PUT_WITHIN_S = 1.5 * LONGEST_TRANSFER_S  # the rest of WRITTEN_WITHIN is for the commit


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


@contextlib.asynccontextmanager
async def erased_on_error(shelf: Shelf, blob_id: UUID, key: str) -> AsyncIterator[None]:
    """Around a put: when that fails, nothing of it stays.

    A put that was cut off, or whose store went silent, may still succeed over there: its object
    is erased once more when it cannot, by the next run of its row or by the sweeper. So none may
    go on for longer than the sweeper believes: raises UnavailableError then.
    """
    try:
        async with _in_time():
            yield
    except ClaimLostError:  # then there is no next run, and its put was stopped
        await erase(shelf, blob_id, key, ended=False)
        raise
    except (StoreUnavailableError, UnavailableError, asyncio.CancelledError):
        raise
    except Exception:
        await erase(shelf, blob_id, key)
        raise


@contextlib.asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    limit = asyncio.timeout(PUT_WITHIN_S)
    try:
        async with limit:
            yield
    except TimeoutError as exc:
        if limit.expired():
            raise UnavailableError(FailureCode.INTERNAL, "our store was too slow") from exc
        raise


async def clear_abandoned(run: Run, shelf: Shelf) -> None:
    """Delete objects that earlier runs of this row began, or that a twin made needless."""
    async with shelf.pool.acquire() as conn:
        left = await blobs.abandoned(conn, run)
    for blob in left:
        await _delete(shelf, blob.id, blob.key, ended=not blob.may_come_back)


async def erase(shelf: Shelf, blob_id: UUID, key: str, *, ended: bool = True) -> None:
    """Erase an object, unless the database says that it counts: a commit may be in doubt to us.

    Also one that the database forgot. *ended*: its put is over, so that nothing brings it back.
    What cannot be done now is done by the sweeper.
    """
    try:
        async with shelf.pool.acquire() as conn:
            given_up = await blobs.give_up(conn, blob_id)
        if given_up:
            await _delete(shelf, blob_id, key, ended=ended)
    except DATABASE_AWAY as exc:
        log.warning("object_left_behind", key=key, error=story_of(exc))


async def _delete(shelf: Shelf, blob_id: UUID, key: str, *, ended: bool) -> None:
    """Delete the object of a discarded blob; a store that is away is asked again by a job."""
    try:
        await shelf.store.delete(key)
    except StoreUnavailableError as exc:
        log.warning("object_left_behind", key=key, error=story_of(exc))
        async with shelf.pool.acquire() as conn:
            await blobs.release(conn, [blob_id])
        return
    async with shelf.pool.acquire() as conn:
        await blobs.forget(conn, blob_id, ended=ended)


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """What a store raises while a run uses it, as errors of ours.

    ChecksumMismatchError stays what it is, and counts as a failure: bytes that were read wrong may
    be read right the next time, but they are never judged.
    """
    try:
        yield
    except StoreUnavailableError as exc:
        raise away(exc) from exc
    except ChecksumMismatchError:
        raise
    except StoreError as exc:
        raise InternalError(FailureCode.INTERNAL, "the stored bytes cannot be read") from exc


def away(error: StoreUnavailableError) -> UnavailableError:
    """Our store cannot do it now: nothing is said of the source."""
    is_full = isinstance(error, StoreFullError)
    detail = "our store is full" if is_full else "our store did not answer"
    return UnavailableError(FailureCode.INTERNAL, detail)
