"""Assets in a bucket of Amazon S3, or of any server that speaks its protocol.

Layout: `<prefix><key>` is an asset. What the store itself needs lies under names that are no
keys: `<prefix>.claims/`, `.probe/` and `.check/`. All of it is short-lived, and `clear_unfinished`
removes what a process that died has left.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from storage.bucket import Bucket, S3Options, connect
from storage.capabilities import Capabilities, Guard, learn
from storage.lent import lent_copy, sweep_copies
from storage.multipart import CLAIMS, Put, Traffic
from storage.reading import read
from storage.store import (
    AssetNotFoundError,
    AssetStat,
    ChecksumMismatchError,
    InvalidKeyError,
    StoredAsset,
    StoreUnavailableError,
    UploadForm,
    capped,
    checked_range,
    valid_key,
)
from storage.unbroken import in_any_case

__all__ = ["S3Options", "S3Store"]

COPIES = 3  # of a source that is replaced meanwhile


class S3Store:
    """An AssetStore in one bucket. Several processes, on any number of machines, may share it.

    Opening it raises StoreUnavailableError when the bucket cannot be used, and StoreUnsuitableError
    when its server lacks what we need.
    """

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        options = self._options
        async with AsyncExitStack() as opening:
            client = await connect(options, options.endpoint)
            opening.push_async_exit(client.__aexit__)
            signer = client
            if options.public_endpoint not in (None, options.endpoint):
                signer = await connect(options, options.public_endpoint)
                opening.push_async_exit(signer.__aexit__)
            self._bucket = Bucket(options=options, client=client, signer=signer)
            self._traffic = Traffic(slots=asyncio.Semaphore(options.parts_in_flight))
            self._has = await learn(self._bucket)
            await asyncio.to_thread(sweep_copies)
            self._opened = opening.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._opened.aclose()

    @property
    def capabilities(self) -> Capabilities:
        """What its server was found to honour."""
        return self._has

    async def put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expected_sha256: str | None = None,
        replace: bool = False,
    ) -> StoredAsset:
        put = Put(
            bucket=self._bucket,
            has=self._has,
            traffic=self._traffic,
            key=valid_key(key),
            replace=replace,
            expected_sha256=expected_sha256,
        )
        return await put.run(capped(body, max_bytes))

    async def copy(self, source: str, key: str, *, max_bytes: int | None = None) -> StoredAsset:
        """The bytes pass through us, and what we hash is what we write: no server's word is needed
        that the source was not replaced in between.
        """
        for left in reversed(range(COPIES)):
            try:
                async with aclosing(read(self._bucket, source)) as body:
                    return await self.put(key, body, max_bytes=max_bytes)
            except ChecksumMismatchError:
                if not left:
                    raise
        raise AssertionError

    async def open(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        checked_range(start, end)
        valid_key(key)
        if start == end:
            await self.stat(key)
            return
        async with aclosing(read(self._bucket, key, start, end)) as chunks:
            async for chunk in chunks:
                yield chunk

    @asynccontextmanager
    async def local_copy(self, key: str, *, sha256: str) -> AsyncIterator[Path]:
        valid_key(key)
        async with (
            aclosing(read(self._bucket, key)) as body,
            lent_copy(body) as (path, found),
        ):
            if found != sha256:
                raise ChecksumMismatchError(key)
            yield path

    async def signed_url(
        self,
        key: str,
        *,
        valid_for: timedelta,
        content_type: str,
        sha256: str | None = None,  # noqa: ARG002 - its server keeps no such promise
    ) -> str:
        named = self._bucket.target(self._bucket.object_name(key))
        async with self._bucket.asking():  # for new credentials, where they expire
            return await self._bucket.signer.generate_presigned_url(
                "get_object",
                Params={
                    **named,
                    "ResponseContentType": content_type,
                    "ResponseContentDisposition": "attachment",
                    "ResponseCacheControl": "private, no-store",
                },
                ExpiresIn=_whole_seconds(valid_for),
            )

    async def upload_form(self, key: str, *, max_bytes: int, valid_for: timedelta) -> UploadForm:
        made = await self._bucket.form(
            self._bucket.signer,
            self._bucket.object_name(key),
            max_bytes=max_bytes,
            valid_s=_whole_seconds(valid_for),
        )
        return UploadForm(url=made["url"], fields=made["fields"])

    async def stat(self, key: str) -> AssetStat:
        found = await self._bucket.head(self._bucket.object_name(key), key)
        return AssetStat(
            key=key, size_bytes=found["ContentLength"], modified_at=found["LastModified"]
        )

    async def delete(self, key: str) -> None:
        name = self._bucket.object_name(key)
        await self._erase(name)
        if self._has.guard is Guard.CLAIMS:  # a put that died may have left it
            await self._erase(self._bucket.own_name(CLAIMS, key))
        async for upload in self._bucket.unfinished(name):
            if upload["Key"] == name:
                await self._bucket.abort(name, upload["UploadId"])

    async def list(self, prefix: str = "") -> AsyncIterator[AssetStat]:
        begins = len(self._options.prefix)
        async for found in self._bucket.objects(self._options.prefix + prefix):
            key = found["Key"][begins:]
            if _is_key(key):
                yield AssetStat(
                    key=key, size_bytes=found["Size"], modified_at=found["LastModified"]
                )

    async def clear_unfinished(self, *, older_than: timedelta) -> int:
        """Puts of this process are spared however old their server says that they are."""
        before = datetime.now(UTC) - older_than
        cleared = 0
        async for upload in self._bucket.unfinished(self._options.prefix):
            dead = upload["Initiated"] <= before and upload["UploadId"] not in self._traffic.uploads
            if dead and self._is_own(upload["Key"]):
                await self._bucket.abort(upload["Key"], upload["UploadId"])
                cleared += 1
        for folder in (CLAIMS, "probe", "check"):
            async for found in self._left_in(self._bucket.own_name(folder, "")):
                if found["LastModified"] <= before:
                    await self._bucket.delete(found["Key"], found.get("VersionId"))
                    cleared += 1
        return cleared

    def _left_in(self, folder: str) -> AsyncIterator[Mapping[str, Any]]:
        versioned = self._has.versioned
        return self._bucket.versions(folder) if versioned else self._bucket.objects(folder)

    async def check(self) -> None:
        name = self._bucket.own_name("check", secrets.token_hex(8))
        written = name.encode()
        async with self._bucket.asking():
            await self._bucket.client.put_object(
                **self._bucket.target(name), Body=written, **self._bucket.written_with()
            )
        try:
            async with self._bucket.asking():
                answer = await self._bucket.client.get_object(**self._bucket.target(name))
                found = await answer["Body"].read()
        except AssetNotFoundError as exc:
            raise StoreUnavailableError("a written asset could not be read back") from exc
        except BaseException:
            await in_any_case(self._erase(name))
            raise
        await self._erase(name)
        if found != written:
            raise StoreUnavailableError("other bytes were read than were written")

    async def _erase(self, name: str) -> None:
        await self._bucket.erase(name, versioned=self._has.versioned)

    def _is_own(self, name: str) -> bool:
        """Whether we may have named it: a bucket without a prefix may be shared with others."""
        key = name[len(self._options.prefix) :]
        return _is_key(key) or key.startswith(".probe/")


def _is_key(name: str) -> bool:
    try:
        valid_key(name)
    except InvalidKeyError:
        return False
    return True


def _whole_seconds(valid_for: timedelta) -> int:
    return max(1, int(valid_for.total_seconds()))
