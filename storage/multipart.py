"""One object from a stream, whole or not at all, in little memory.

A body that fits into one part is one request. A longer one is a multipart upload of which a few
parts are under way at once: what is read ahead stays small, however long the body is.
"""

import asyncio
import hashlib
import io
import secrets
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from storage.bucket import OWN_MARK, Bucket, Target
from storage.capabilities import Capabilities, Guard
from storage.store import (
    AssetNotFoundError,
    ChecksumMismatchError,
    KeyTakenError,
    StoredAsset,
    StoreError,
    StoreUnavailableError,
)
from storage.unbroken import in_any_case

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef

_log = structlog.get_logger(__name__)

CLAIMS = "claims"


@dataclass(slots=True, kw_only=True)
class Traffic:
    """What the puts of one process share."""

    slots: asyncio.Semaphore  # of parts that are in flight
    uploads: set[str] = field(default_factory=set)  # the ids of those that live


@dataclass(slots=True, kw_only=True)
class Flight:
    """The parts of one upload, in order: a few under way at once, and among those of all puts."""

    room: asyncio.Semaphore
    slots: asyncio.Semaphore
    tasks: "list[asyncio.Task[CompletedPartTypeDef]]" = field(default_factory=list)
    _failure: BaseException | None = None

    async def start(self, sending: "Coroutine[Any, Any, CompletedPartTypeDef]") -> None:
        """Send one more as soon as there is room; raise what another one failed with."""
        try:
            await self.room.acquire()
            await self.slots.acquire()
        except BaseException:
            sending.close()
            raise
        task = asyncio.create_task(sending)
        task.add_done_callback(self._ended)
        self.tasks.append(task)
        if self._failure is not None:
            raise self._failure

    async def land(self) -> "list[CompletedPartTypeDef]":
        return await asyncio.gather(*self.tasks)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def _ended(self, task: "asyncio.Task[CompletedPartTypeDef]") -> None:
        self.room.release()
        self.slots.release()
        if not task.cancelled():
            self._failure = self._failure or task.exception()


@dataclass(slots=True, kw_only=True)
class Put:
    """One writer of one key."""

    bucket: Bucket
    has: Capabilities
    traffic: Traffic
    key: str
    replace: bool
    expected_sha256: str | None
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    size_bytes: int = 0
    _hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    _hashing: "asyncio.Task[None] | None" = None  # of the part that was taken last

    async def run(self, body: AsyncIterator[bytes]) -> StoredAsset:
        """Raises as AssetStore.put does."""
        async with aclosing(parts(body, self.bucket.options.part_bytes)) as cut:
            first, is_last = await anext(cut)
            if is_last:
                await self._put_whole(first)
            else:
                await self._put_parts(first, cut)
        return StoredAsset(key=self.key, size_bytes=self.size_bytes, sha256=self._sha256)

    @property
    def _sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def _target(self) -> Target:
        return self.bucket.target(self.bucket.object_name(self.key))

    @property
    def _condition(self) -> dict[str, Any]:
        guarded = self.has.guard is not Guard.NONE and not self.replace
        return {"IfNoneMatch": "*"} if guarded else {}

    def _take(self, part: io.BytesIO) -> "asyncio.Task[None]":
        """Hash *part*, after those before it, while it is sent and the next one fills."""
        self.size_bytes += part.getbuffer().nbytes
        self._hashing = asyncio.create_task(self._hash_after(self._hashing, part))
        return self._hashing

    async def _hash_after(self, before: "asyncio.Task[None] | None", part: io.BytesIO) -> None:
        if before is not None:
            await before
        await asyncio.to_thread(_update, self._hash, part)

    def _check(self) -> None:
        if self.expected_sha256 not in (None, self._sha256):
            raise ChecksumMismatchError(self.key)

    async def _put_whole(self, body: io.BytesIO) -> None:
        self.size_bytes = body.getbuffer().nbytes
        md5 = await asyncio.to_thread(_both, self._hash, body)
        self._check()
        async with self.traffic.slots, self._alone():
            write = self.bucket.client.put_object(
                **self._target,
                **self._condition,
                **self.bucket.written_with(),
                Body=body,
                ContentMD5=md5,
                Metadata={OWN_MARK: self.id, "sha256": self._sha256},
            )
            await self._appear(write, sure=self.has.guard is Guard.CONDITIONS)

    async def _put_parts(
        self, first: io.BytesIO, rest: AsyncIterator[tuple[io.BytesIO, bool]]
    ) -> None:
        async with self._upload() as upload_id:
            sent = await self._send(upload_id, first, rest)
            self._check()
            async with self._alone():
                write = self.bucket.client.complete_multipart_upload(
                    **self._target,
                    **self._condition,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": sent},
                )
                await self._appear(write, sure=False)
        if self.has.tags:
            await self._tag()

    @asynccontextmanager
    async def _upload(self) -> AsyncIterator[str]:
        """The id of a new multipart upload, which is aborted when the block fails."""
        begun = asyncio.ensure_future(self._begin())
        try:
            upload_id = await asyncio.shield(begun)  # cancelled, we still learn what to abort
            self.traffic.uploads.add(upload_id)
            yield upload_id
        except BaseException:
            await in_any_case(self._abort(begun))
            raise
        finally:
            if begun.done() and not begun.cancelled() and begun.exception() is None:
                self.traffic.uploads.discard(begun.result())

    async def _begin(self) -> str:
        async with self.bucket.asking(self.key):
            begun = await self.bucket.client.create_multipart_upload(
                **self._target, **self.bucket.written_with(), Metadata={OWN_MARK: self.id}
            )
        return begun["UploadId"]

    async def _abort(self, begun: Awaitable[str]) -> None:
        try:
            upload_id = await begun
        except StoreError:  # it never began, which was said already
            return
        await self.bucket.abort(self._target["Key"], upload_id)

    async def _send(
        self, upload_id: str, first: io.BytesIO, rest: AsyncIterator[tuple[io.BytesIO, bool]]
    ) -> "list[CompletedPartTypeDef]":
        flight = Flight(
            room=asyncio.Semaphore(self.bucket.options.parts_at_once), slots=self.traffic.slots
        )
        try:
            await flight.start(self._send_part(upload_id, 1, first, self._take(first)))
            async for part, _ in rest:
                number = len(flight.tasks) + 1
                await flight.start(self._send_part(upload_id, number, part, self._take(part)))
            return await flight.land()
        finally:
            await flight.stop()

    async def _send_part(
        self, upload_id: str, number: int, part: io.BytesIO, hashed: "asyncio.Task[None]"
    ) -> "CompletedPartTypeDef":
        """Its place in flight is taken until it is hashed as well: no more parts are held."""
        md5 = await asyncio.to_thread(_md5, part)
        try:
            async with self.bucket.asking(self.key):
                answer = await self.bucket.client.upload_part(
                    **self._target,
                    UploadId=upload_id,
                    PartNumber=number,
                    Body=part,
                    ContentMD5=md5,
                )
        except AssetNotFoundError as exc:
            raise StoreUnavailableError("its server has lost an upload") from exc
        finally:
            await hashed  # whose thread reads it: it cannot be closed before
            part.close()
        return {"PartNumber": number, "ETag": answer["ETag"]}

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Keep others from writing the free key meanwhile, where the server does not."""
        if self.replace or self.has.guard is Guard.CONDITIONS:
            yield
            return
        async with self._claimed() if self.has.guard is Guard.CLAIMS else nullcontext():
            await self._is_ours()
            yield

    @asynccontextmanager
    async def _claimed(self) -> AsyncIterator[None]:
        """Hold the object that only one writer of a key can make; raise KeyTakenError."""
        claim = self.bucket.own_name(CLAIMS, self.key)
        try:
            await self._claim(claim)
        except KeyTakenError:
            raise
        except BaseException:
            await in_any_case(self._give_up(claim))
            raise
        try:
            yield
        finally:
            await in_any_case(self._erase(claim))

    async def _give_up(self, claim: str) -> None:
        """Erase a claim that may be ours: nobody has heard."""
        with suppress(KeyTakenError):
            if await self._is_ours(claim):
                await self._erase(claim)

    async def _erase(self, claim: str) -> None:
        await self.bucket.erase(claim, versioned=self.has.versioned)

    async def _claim(self, claim: str) -> None:
        write = self.bucket.client.put_object(
            **self.bucket.target(claim),
            Body=b"",
            IfNoneMatch="*",
            Metadata={OWN_MARK: self.id},
        )
        try:
            async with self.bucket.asking():
                await write
        except StoreUnavailableError:
            if not await self._is_ours(claim):
                await self._is_ours()  # whoever had the claim may be done already
                raise

    async def _appear(self, write: Awaitable[Any], *, sure: bool) -> None:
        """Await the write that makes the object appear, and look whether it did when in doubt.

        A write whose answer was lost is tried again, and then fails since the key is taken: by us.
        """
        try:
            async with self.bucket.asking(self.key):
                await write
        except (StoreUnavailableError, AssetNotFoundError) as exc:
            if await self._is_ours():
                return
            if isinstance(exc, AssetNotFoundError):
                raise StoreUnavailableError("its server has lost an upload") from exc
            raise
        if not (sure or self.replace or await self._is_ours()):
            raise StoreUnavailableError("what was written is not there")

    async def _is_ours(self, name: str | None = None) -> bool:
        """Whether the object is there and this put wrote it; raise KeyTakenError if another did."""
        try:
            found = await self.bucket.head(name or self._target["Key"], self.key)
        except AssetNotFoundError:
            return False
        if found.get("Metadata", {}).get(OWN_MARK) != self.id:
            if self.replace:
                return False
            raise KeyTakenError(self.key)
        if name is None and found["ContentLength"] != self.size_bytes:
            raise StoreUnavailableError("what was written has another size")
        return True

    async def _tag(self) -> None:
        """Name the SHA-256, which was not known when the upload began. The database has it too."""
        try:
            async with self.bucket.asking(self.key):
                await self.bucket.client.put_object_tagging(
                    **self._target, Tagging={"TagSet": [{"Key": "sha256", "Value": self._sha256}]}
                )
        except StoreError as exc:
            _log.warning("object_not_tagged", key=self.key, error=str(exc))


async def parts(
    body: AsyncIterator[bytes], part_bytes: int
) -> AsyncGenerator[tuple[io.BytesIO, bool]]:
    """*body* in parts of *part_bytes*, and whether it was the last; one at least, maybe empty."""
    part, size = io.BytesIO(), 0
    async for chunk in body:
        left = memoryview(chunk)
        while left:
            if size == part_bytes:
                part.seek(0)  # the client sends from there
                yield part, False
                part, size = io.BytesIO(), 0
            taken = part.write(left[: part_bytes - size])
            size, left = size + taken, left[taken:]
    part.seek(0)
    yield part, True


def _update(digest: "hashlib._Hash", part: io.BytesIO) -> None:
    with part.getbuffer() as view:
        digest.update(view)


def _both(digest: "hashlib._Hash", part: io.BytesIO) -> str:
    _update(digest, part)
    return _md5(part)


def _md5(part: io.BytesIO) -> str:
    """As Content-MD5 has it: against damage on the way, not against anybody's intent."""
    with part.getbuffer() as view:
        return b64encode(hashlib.md5(view, usedforsecurity=False).digest()).decode()
