"""The bytes of one and the same object, whatever becomes of the connection."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from storage.bucket import (
    NETWORK_ERRORS,
    Bucket,
    ConditionFailedError,
    PastTheEndError,
    unanswered,
)
from storage.store import ChecksumMismatchError, StoreUnavailableError

READ_BYTES = 1 << 17
RESUMES = 4  # of one read that was cut


async def read(
    bucket: Bucket, key: str, start: int = 0, end: int | None = None
) -> AsyncGenerator[bytes]:
    """Stream bytes *start* to *end*, which must not be the same; nothing past the end.

    Raises ChecksumMismatchError when the object was replaced between two attempts.
    """
    reading = _Reading(bucket=bucket, key=key, start=start, end=end)
    for resumes_left in reversed(range(RESUMES + 1)):
        try:
            async with aclosing(reading.attempt()) as chunks:
                async for chunk in chunks:
                    yield chunk
        except NETWORK_ERRORS as exc:
            if not resumes_left:
                raise unanswered(exc) from exc
        else:
            return


@dataclass(slots=True, kw_only=True)
class _Reading:
    bucket: Bucket
    key: str
    start: int  # moves on with every byte read
    end: int | None
    etag: str | None = None

    async def attempt(self) -> AsyncGenerator[bytes]:
        if self.start == self.end:  # cut behind the last byte
            return
        try:
            answer = await self._get()
        except PastTheEndError:
            return
        except ConditionFailedError as exc:
            raise ChecksumMismatchError(self.key) from exc
        self.etag = answer.get("ETag")
        if self.end is None:
            self.end = self.start + answer["ContentLength"]
        async with answer["Body"] as response:
            while chunk := await response.content.read(READ_BYTES):
                self.start += len(chunk)
                yield chunk

    async def _get(self) -> Mapping[str, Any]:
        wanted = {} if self.etag is None else {"IfMatch": self.etag}
        if self.start or self.end is not None:
            last = "" if self.end is None else self.end - 1
            wanted["Range"] = f"bytes={self.start}-{last}"
        async with self.bucket.asking(self.key):
            answer = await self.bucket.client.get_object(
                **self.bucket.target(self.bucket.object_name(self.key)),
                **wanted,  # type: ignore[arg-type]  # optional ones
            )
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        if "Range" in wanted and status != HTTPStatus.PARTIAL_CONTENT:
            answer["Body"].close()
            raise StoreUnavailableError("its server does not honour ranges")
        return answer
