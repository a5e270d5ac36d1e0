"""How the parts of one put overlap: in order where it matters, and never many at once."""

import asyncio
import hashlib
import io
import random
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from storage.bucket import Bucket, S3Options
from storage.capabilities import Capabilities, Guard
from storage.multipart import Put, Traffic

PART_BYTES = 1000
AT_ONCE = 3
CHUNK = bytes(range(250))


@dataclass(slots=True)
class Sink:
    """The few calls of an S3 client that a put makes; it keeps the parts."""

    parts: dict[int, bytes] = field(default_factory=dict)
    first_is_sent: threading.Event = field(default_factory=threading.Event)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    aborted: bool = False
    mark: dict[str, str] = field(default_factory=dict)

    async def create_multipart_upload(self, **said: Any) -> dict[str, str]:  # noqa: ANN401 - botocore's
        self.mark = said["Metadata"]
        return {"UploadId": "u"}

    async def upload_part(self, **said: Any) -> dict[str, str]:  # noqa: ANN401 - as above
        self.first_is_sent.set()
        await self.answers.wait()
        body: io.BytesIO = said["Body"]
        self.parts[said["PartNumber"]] = body.read()
        return {"ETag": "e"}

    async def complete_multipart_upload(self, **_: Any) -> None:  # noqa: ANN401 - as above
        """All parts are there."""

    async def head_object(self, **_: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        return {"Metadata": self.mark, "ContentLength": sum(map(len, self.parts.values()))}

    async def abort_multipart_upload(self, **_: Any) -> None:  # noqa: ANN401 - as above
        self.aborted = True


class Hash:
    """SHA-256, which blocks its thread."""

    def __init__(self, until: threading.Event | None = None) -> None:
        self.in_time = True
        self._until = until
        self._real = hashlib.sha256()

    def update(self, data: memoryview) -> None:
        if self._until is None:
            time.sleep(random.uniform(0, 0.01))  # noqa: S311 - any order but the right one
        else:
            self.in_time &= self._until.wait(2)
        self._real.update(data)

    def hexdigest(self) -> str:
        return self._real.hexdigest()


def a_put(sink: Sink, digest: Hash) -> Put:
    client: Any = sink
    sha256: Any = digest
    options = S3Options(bucket="b", part_bytes=PART_BYTES, parts_at_once=AT_ONCE)
    return Put(
        bucket=Bucket(options=options, client=client, signer=client),
        has=Capabilities(guard=Guard.CONDITIONS, tags=False, versioned=False, form_limits=True),
        traffic=Traffic(slots=asyncio.Semaphore(32)),
        key="k",
        replace=False,
        expected_sha256=None,
        _hash=sha256,
    )


async def body(chunks: int, taken: list[int] | None = None) -> AsyncIterator[bytes]:
    for number in range(chunks):
        await asyncio.sleep(0)
        if taken is not None:
            taken.append(number)
        yield CHUNK


async def test_a_part_is_sent_while_it_is_hashed() -> None:
    sink = Sink()
    sink.answers.set()
    slow = Hash(until=sink.first_is_sent)
    asset = await a_put(sink, slow).run(body(50))
    assert slow.in_time
    assert asset.sha256 == hashlib.sha256(CHUNK * 50).hexdigest()


async def test_parts_are_hashed_in_their_order() -> None:
    sink = Sink()
    sink.answers.set()
    asset = await a_put(sink, Hash()).run(body(77))
    assert b"".join(sink.parts[number] for number in sorted(sink.parts)) == CHUNK * 77
    assert (asset.size_bytes, asset.sha256) == (
        len(CHUNK) * 77,
        hashlib.sha256(CHUNK * 77).hexdigest(),
    )


async def test_no_more_parts_are_held_while_the_hash_is_behind() -> None:
    sink, hashing, taken = Sink(), threading.Event(), list[int]()
    sink.answers.set()
    put = asyncio.create_task(a_put(sink, Hash(until=hashing)).run(body(100, taken)))
    await asyncio.sleep(0.2)
    # those in flight, the one that waits for room, and the chunk that ended it
    assert len(taken) <= (AT_ONCE + 1) * PART_BYTES / len(CHUNK) + 1
    hashing.set()
    assert (await put).sha256 == hashlib.sha256(CHUNK * 100).hexdigest()


@pytest.mark.parametrize("answers", [True, False], ids=["sent", "being-sent"])
async def test_a_put_that_is_cancelled_while_it_hashes_is_aborted(answers: bool) -> None:
    sink, hashing = Sink(), threading.Event()
    if answers:
        sink.answers.set()
    put = asyncio.create_task(a_put(sink, Hash(until=hashing)).run(body(100)))
    await asyncio.sleep(0.1)
    put.cancel()
    await asyncio.sleep(0)
    hashing.set()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert sink.aborted
