"""Store and rows are held against each other; what does not fit is reported, or repaired.

Work goes on meanwhile, and others may reconcile as well. So nothing is reported before it was
looked at once more, object first and then row, and every repair asks again under the locks of
the work.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Protocol, TypeAlias, TypeVar
from uuid import UUID

from service.db import reconcile as db
from service.db.blobs import WRITTEN_WITHIN
from service.db.reconcile import Affected, Blob, Listed
from service.db.types import Conn
from service.ingest.objects import Shelf
from service.ingest.purge import purge
from storage.store import AssetNotFoundError, AssetStat, AssetStore
from validators.derive.recipes import RECIPE_VERSIONS

LISTED_AT_ONCE = 5000
READ_AT_ONCE = 4
SUSPICIOUS = 20  # so many that do not fit, and not one that does, is no accident


class Problem(StrEnum):
    """What does not fit. Values are public."""

    OBJECT_MISSING = "object_missing"
    OTHER_SIZE = "other_size"
    OTHER_BYTES = "other_bytes"
    OBJECT_BACK = "object_back"
    NOT_USED = "not_used"
    LEFT_BEHIND = "left_behind"
    STRAY_OBJECT = "stray_object"
    STRAY_UPLOAD = "stray_upload"
    ASSET_DIFFERS = "asset_differs"
    UNFINISHED_PUTS = "unfinished_puts"


class Outcome(StrEnum):
    FOUND = "found"  # and nothing was done: only a look was wanted
    REPAIRED = "repaired"
    LEFT = "left"  # somebody has to act


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that does not fit, and what became of it."""

    problem: Problem
    outcome: Outcome = Outcome.FOUND
    key: str | None = None
    organisation: str | None = None
    size_bytes: int | None = None  # that it should have
    found_bytes: int | None = None  # that the store says
    count: int = 1
    assets: tuple[UUID, ...] = ()
    avatars: tuple[UUID, ...] = ()


class WrongStoreError(Exception):
    """Store and rows have nothing in common: they do not belong together."""


class Watch(Protocol):
    """Hears how far it is; *total* is None where nobody knows."""

    def __call__(self, stage: str, done: float, total: float | None) -> None: ...


def _unwatched(stage: str, done: float, total: float | None) -> None:
    """For whoever does not look on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    repair: bool = False
    verify: bool = False  # read every object
    force: bool = False  # also where nothing fits together


Misfit: TypeAlias = tuple[Problem, int | None]  # and the size that the store says


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """One look at everything, on one connection.

    Raises StoreUnavailableError, and what a database that is away raises. What was repaired until
    then is done.
    """

    shelf: Shelf
    conn: Conn
    wanted: Wanted
    clock: Callable[[], datetime]
    watch: Watch = _unwatched
    began: datetime = field(init=False)
    read_bytes: int = 0

    @property
    def store(self) -> AssetStore:
        return self.shelf.store

    async def findings(self) -> AsyncGenerator[Finding]:
        """All that does not fit, as it is found; raise WrongStoreError before any repair."""
        await self._list()
        there = await db.overlap(self.conn, before=self.began)
        apart = not there.both and max(there.rows, there.strays) >= SUSPICIOUS
        if self.wanted.repair and apart and not self.wanted.force:
            raise WrongStoreError(f"{there.rows} rows, {there.strays} objects, none in both")
        steps = []
        for derived in (False, True):
            # what is lost already comes first, or what is marked so below would be found twice
            steps += [self._lost(derived=derived), self._without_object(derived=derived)]
            if self.wanted.verify:
                steps.append(self._with_other_bytes(there.bytes, derived=derived))
        steps += [self._unused(), self._left_behind(), self._strays(), self._differing()]
        steps.append(self._unfinished_puts())
        for step in steps:
            async with aclosing(step) as found:
                async for finding in found:
                    yield finding

    async def _list(self) -> None:
        self.began = await db.begin_listing(self.conn)
        page: list[AssetStat] = []
        listed = 0
        async for stat in self.store.list():
            page.append(stat)
            if len(page) == LISTED_AT_ONCE:
                await db.add_listed(self.conn, page)
                listed += len(page)
                self.watch("listing objects", listed, None)
                page.clear()
        await db.add_listed(self.conn, page)
        await db.end_listing(self.conn)
        self.watch("comparing", listed + len(page), None)

    async def _lost(self, *, derived: bool) -> AsyncGenerator[Finding]:
        async for blob in _each(partial(db.lost, self.conn, derived=derived)):
            misfit = await self._misfit(blob, read=True)
            if misfit is None:
                if await db.is_in_state(self.conn, blob):
                    yield await self._take_back(blob)
            elif found := await self._unless_changed(blob, misfit):
                yield found

    async def _without_object(self, *, derived: bool) -> AsyncGenerator[Finding]:
        missing = partial(db.without_object, self.conn, derived=derived, before=self.began)
        async for blob in _each(missing):
            misfit = await self._misfit(blob, read=False)
            if misfit and (found := await self._unless_changed(blob, misfit)):
                yield found

    async def _with_other_bytes(
        self, total_bytes: int, *, derived: bool
    ) -> AsyncGenerator[Finding]:
        there = partial(db.with_object, self.conn, derived=derived, before=self.began)
        async for page in _pages(there):
            for start in range(0, len(page), READ_AT_ONCE):
                some = page[start : start + READ_AT_ONCE]
                reads = (self._misfit(blob, read=True) for blob in some)
                misfits = await asyncio.gather(*reads, return_exceptions=True)
                self.read_bytes += sum(blob.size_bytes or 0 for blob in some)
                self.watch("reading objects", self.read_bytes, total_bytes)
                for blob, misfit in zip(some, misfits, strict=True):
                    if isinstance(misfit, BaseException):
                        raise misfit
                    if misfit and (found := await self._unless_changed(blob, misfit)):
                        yield found

    async def _misfit(self, blob: Blob, *, read: bool) -> Misfit | None:
        """How the object differs from its row, if it does."""
        try:
            size_bytes = (await self.store.stat(blob.key)).size_bytes
            if size_bytes != blob.size_bytes:
                return Problem.OTHER_SIZE, size_bytes
            # a store may read wrongly once
            if read and not (await self._reads_right(blob) or await self._reads_right(blob)):
                return Problem.OTHER_BYTES, size_bytes
        except AssetNotFoundError:
            return Problem.OBJECT_MISSING, None
        return None

    async def _reads_right(self, blob: Blob) -> bool:
        digest = hashlib.sha256()
        async for chunk in self.store.open(blob.key):
            digest.update(chunk)
        return digest.hexdigest() == blob.sha256

    async def _unless_changed(self, blob: Blob, misfit: Misfit) -> Finding | None:
        """Report a blob whose bytes are not there; None when its row has changed since.

        One that nobody needs is none of these: it is found as unused.
        """
        affected = await db.affected(self.conn, blob.id)
        if not affected or not await db.is_in_state(self.conn, blob):
            return None
        again = [asset.id for asset in affected if can_be_rebuilt(asset)]
        if self.wanted.repair:
            await db.mark_lost(self.conn, blob, again)
        asset_ids = tuple(asset.id for asset in affected[: db.MENTIONED])
        problem, found_bytes = misfit
        return replace(
            self._found(problem, blob, mended=len(again) == len(affected)),
            found_bytes=found_bytes,
            assets=asset_ids,
            avatars=tuple(await db.avatars_of(self.conn, asset_ids)),
        )

    def _found(self, problem: Problem, blob: Blob, *, mended: bool) -> Finding:
        return Finding(
            problem=problem,
            outcome=self._outcome(mended=mended),
            key=blob.key,
            organisation=blob.organisation_id,
            size_bytes=blob.size_bytes,
        )

    def _outcome(self, *, mended: bool) -> Outcome:
        if not self.wanted.repair:
            return Outcome.FOUND
        return Outcome.REPAIRED if mended else Outcome.LEFT

    async def _take_back(self, blob: Blob) -> Finding:
        if self.wanted.repair:
            await db.mark_stored(self.conn, blob)
        return self._found(Problem.OBJECT_BACK, blob, mended=True)

    async def _unused(self) -> AsyncGenerator[Finding]:
        async for blob in _each(partial(db.unused, self.conn)):
            if await db.is_unused(self.conn, blob.id):
                yield self._found(Problem.NOT_USED, blob, mended=await self._purged(blob))

    async def _left_behind(self) -> AsyncGenerator[Finding]:
        async for blob in _each(partial(db.left_behind, self.conn)):
            if await db.is_left_behind(self.conn, blob.id):
                if self.wanted.repair:
                    await db.discard(self.conn, blob.id)
                yield self._found(Problem.LEFT_BEHIND, blob, mended=await self._purged(blob))

    async def _purged(self, blob: Blob) -> bool:
        """Erase an object as a worker would, if wanted; False where the store did not confirm."""
        return self.wanted.repair and await purge(blob.id, self.shelf) is None

    async def _strays(self) -> AsyncGenerator[Finding]:
        """What was written lately may be ahead of its row, or of our look at the rows."""
        older_than = self.clock() - WRITTEN_WITHIN
        for problem, page in (
            (Problem.STRAY_OBJECT, db.strays),
            (Problem.STRAY_UPLOAD, db.stray_incoming),
        ):
            after = ""
            while found := await page(self.conn, after, older_than=older_than):
                for listed in found:
                    if await self._is_stray(listed):
                        yield await self._erased(problem, listed)
                after = found[-1].key

    async def _is_stray(self, listed: Listed) -> bool:
        try:
            await self.store.stat(listed.key)
        except AssetNotFoundError:
            return False
        return not await db.is_known(self.conn, listed.key)

    async def _erased(self, problem: Problem, listed: Listed) -> Finding:
        if self.wanted.repair:
            await self.store.delete(listed.key)
        return Finding(
            problem=problem,
            outcome=self._outcome(mended=True),
            key=listed.key,
            found_bytes=listed.size_bytes,
        )

    async def _differing(self) -> AsyncGenerator[Finding]:
        """Only a mistake of ours makes these, so only people can tell which of the two is right."""
        async for one in _each(partial(db.differing, self.conn)):
            yield Finding(
                problem=Problem.ASSET_DIFFERS,
                outcome=self._outcome(mended=False),
                key=one.key,
                organisation=one.organisation_id,
                size_bytes=one.size_bytes,
                found_bytes=one.blob_size_bytes,
                assets=(one.id,),
                avatars=tuple(await db.avatars_of(self.conn, [one.id])),
            )

    async def _unfinished_puts(self) -> AsyncGenerator[Finding]:
        """No store tells of these without erasing them."""
        if self.wanted.repair and (
            count := await self.store.clear_unfinished(older_than=WRITTEN_WITHIN)
        ):
            yield Finding(problem=Problem.UNFINISHED_PUTS, outcome=Outcome.REPAIRED, count=count)


def can_be_rebuilt(asset: Affected) -> bool:
    """Whether its recipe is still what it was, and its origin has its bytes."""
    return (
        asset.recipe is not None
        and RECIPE_VERSIONS[asset.recipe] == asset.recipe_version
        and not asset.origin_lost
    )


class _Row(Protocol):
    @property
    def id(self) -> UUID: ...


AnyRow = TypeVar("AnyRow", bound=_Row)
Page: TypeAlias = Callable[[UUID], Awaitable[list[AnyRow]]]  # of rows after an id


async def _pages(page: Page[AnyRow]) -> AsyncGenerator[list[AnyRow]]:
    found = await page(db.NO_ID)
    while found:
        yield found
        found = await page(found[-1].id)


async def _each(page: Page[AnyRow]) -> AsyncGenerator[AnyRow]:
    async for found in _pages(page):
        for row in found:
            yield row
