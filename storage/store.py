"""Where assets live. A store holds bytes under a key and knows nothing of what they are.

StoreError
 |- InvalidKeyError         we must act: no key of ours looks like this
 |- AssetNotFoundError      the key holds nothing (any more)
 |- KeyTakenError           the key holds an asset already; keys are written once
 |- TooLargeError           whoever sends the bytes must act: they are over the cap
 |- ChecksumMismatchError   the bytes are not the ones that were promised, or they changed
 |- StoreUnsuitableError    the operator must act: this store can never do what we need
 `- StoreUnavailableError   the operator must act, or a later try may do
     `- StoreFullError      there is no room left
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

# Two parts at most, so that `incoming/<key>` works and no store needs nested directories.
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}"
_KEY = re.compile(rf"{_PART}(?:/{_PART})?")


class StoreError(Exception):
    """A store could not do what it was asked."""


class InvalidKeyError(StoreError, ValueError):
    """Not a key: one or two parts of letters, digits, dot, underscore and hyphen."""


class AssetNotFoundError(StoreError, LookupError):
    """The key holds nothing."""


class KeyTakenError(StoreError):
    """The key holds an asset already. Keys are random and written once: nothing is replaced."""


class TooLargeError(StoreError):
    """The body is longer than the cap; nothing was kept."""


class ChecksumMismatchError(StoreError):
    """The bytes do not have the SHA-256 that was expected."""


class StoreUnsuitableError(StoreError):
    """What was chosen as the store lacks something that we cannot do without."""


class StoreUnavailableError(StoreError):
    """The store does not answer, or refuses: its log says why. The same call may succeed later."""


class StoreFullError(StoreUnavailableError):
    """There is no room left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAsset:
    """What `put` made durable. `sha256` is 64 lower-case hex digits."""

    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetStat:
    """What a store knows of a key without reading its bytes. `modified_at` is aware, in UTC."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadForm:
    """Where and how anybody can send one file: POST *fields*, then `file`, as form data."""

    url: str
    fields: Mapping[str, str] = field(repr=False)


class Links(Protocol):
    """Makes the signed URLs and forms of a store that has no server of its own."""

    def url(
        self, key: str, *, valid_for: timedelta, content_type: str, sha256: str | None
    ) -> str: ...

    def form(self, key: str, *, max_bytes: int, valid_for: timedelta) -> UploadForm: ...


class AssetStore(Protocol):
    """Every method raises InvalidKeyError for what is no key, and StoreUnavailableError."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    async def put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expected_sha256: str | None = None,
        replace: bool = False,
    ) -> StoredAsset:
        """Store *body* under the free *key*, durably, whole or not at all.

        Of several writers of one key exactly one wins; the others raise KeyTakenError, at the
        start or at the end. Also raises TooLargeError over *max_bytes* (a body of exactly that
        size is kept), ChecksumMismatchError, StoreFullError, and whatever *body* raises. A put
        that is cancelled in its last moment may have stored its asset, whole.

        *replace* is for what nobody has judged yet: the key need not be free, and the last wins.
        """

    async def copy(self, source: str, key: str, *, max_bytes: int | None = None) -> StoredAsset:
        """Store what *source* holds now under the free *key* as well, and tell what it was.

        Whoever may still replace *source* changes nothing of the copy. Raises as `put` does, and
        AssetNotFoundError.
        """

    def open(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Stream bytes *start* to *end* (exclusive), as in a slice but never negative.

        Raises AssetNotFoundError before the first byte. What lies past the end is empty.
        """

    def local_copy(self, key: str, *, sha256: str) -> AbstractAsyncContextManager[Path]:
        """Lend the asset as a file, for tools that need one: an absolute path, to read alone.

        Its bytes were read and have the given *sha256*, or ChecksumMismatchError is raised.
        """

    async def signed_url(
        self, key: str, *, valid_for: timedelta, content_type: str, sha256: str | None = None
    ) -> str:
        """Where anybody can download the asset for so long, as an attachment of *content_type*.

        An absolute path where whoever opened the store serves its bytes: it compares them with
        *sha256*, as far as it can. It is not asked whether the key holds anything.
        """

    async def upload_form(self, key: str, *, max_bytes: int, valid_for: timedelta) -> UploadForm:
        """Where anybody can send the bytes of *key* for so long, *max_bytes* at most.

        A form may be used again, and the last file wins: hand out no key that was judged.
        """

    async def stat(self, key: str) -> AssetStat:
        """Size and age; raise AssetNotFoundError."""

    async def delete(self, key: str) -> None:
        """Erase the asset, durably. A key that holds nothing is fine: deleting is repeated.

        A put that is under way may still bring the key back: delete again once it cannot be.
        """

    def list(self, prefix: str = "") -> AsyncIterator[AssetStat]:
        """Every asset whose key begins with *prefix*, in no order; whole assets only."""

    async def clear_unfinished(self, *, older_than: timedelta) -> int:
        """Erase what puts that died so long ago have left; tell how many. No put takes longer."""

    async def check(self) -> None:
        """Write, read back and delete a few bytes; raise StoreUnavailableError if one fails."""


def valid_key(key: str) -> str:
    """*key* itself; raise InvalidKeyError when it could leave the store or confuse one."""
    if not _KEY.fullmatch(key):
        raise InvalidKeyError(f"not a key: {key!r}")
    return key


async def capped(body: AsyncIterator[bytes], max_bytes: int | None) -> AsyncIterator[bytes]:
    """*body*, until it is longer than *max_bytes*: then TooLargeError."""
    size = 0
    async for chunk in body:
        size += len(chunk)
        if max_bytes is not None and size > max_bytes:
            raise TooLargeError(f"over {max_bytes} bytes")
        yield chunk


async def verified(body: AsyncIterator[bytes], sha256: str) -> AsyncGenerator[bytes]:
    """*body*, whose last chunk comes only if all of it has this *sha256*.

    Else ChecksumMismatchError: whoever passes the chunks on can still break off.
    """
    digest, held = hashlib.sha256(), b""
    async for chunk in body:
        await asyncio.to_thread(digest.update, chunk)
        if held:
            yield held
        held = chunk
    if digest.hexdigest() != sha256:
        raise ChecksumMismatchError("other bytes were read than were stored")
    if held:
        yield held


def checked_range(start: int, end: int | None) -> None:
    """Raise ValueError for a range that is none."""
    if start < 0 or (end is not None and end < start):
        raise ValueError(f"not a range of bytes: {start} to {end}")
