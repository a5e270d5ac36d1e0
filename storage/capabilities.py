"""What an S3 server honours, found out by doing: what they say of themselves is not to be had."""

import asyncio
import io
import os
import secrets
import ssl
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

import aiohttp
import structlog

from storage.bucket import NETWORK_ERRORS, Bucket, ConditionFailedError, unanswered
from storage.store import StoreError, StoreUnavailableError, StoreUnsuitableError

_log = structlog.get_logger(__name__)
_BYTE = b"1"
_VALID_S = 300


class Guard(StrEnum):
    """What sees to it that one writer of a key wins."""

    CONDITIONS = "conditions"  # the server, whichever way an object comes into being
    CLAIMS = "claims"  # a small object that only one of them can make
    NONE = "none"  # nothing: keys are random, and who has written reads back whether it was he


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    guard: Guard
    tags: bool
    versioned: bool  # deleting hides bytes only, unless each version is deleted
    form_limits: bool  # a form over its size is refused


async def learn(bucket: Bucket) -> Capabilities:
    """Try it all on an object of our own, which is gone afterwards.

    Any number of processes may do so at once. Raises StoreUnavailableError, and
    StoreUnsuitableError for a server that takes no form posts.
    """
    name = bucket.own_name("probe", secrets.token_hex(8))
    versioned = False
    try:
        async with bucket.asking():
            put = await bucket.client.put_object(
                **bucket.target(name), Body=_BYTE, **bucket.written_with()
            )
        versioned = bool(put.get("VersionId"))
        guard = await _guard(bucket, name)
        tags = await _works(_tag(bucket, name))
        form_limits = await _form_limits(bucket, name)
    finally:
        with suppress(StoreError):  # `clear_unfinished` finds it
            versioned = await bucket.erase(name, versioned=versioned)
    found = Capabilities(guard=guard, tags=tags, versioned=versioned, form_limits=form_limits)
    _tell(found)
    return found


async def _guard(bucket: Bucket, name: str) -> Guard:
    if not await _refuses(_put_again(bucket, name)):
        return Guard.NONE
    return Guard.CONDITIONS if await _refuses(_complete_again(bucket, name)) else Guard.CLAIMS


async def _refuses(write: Awaitable[None]) -> bool:
    """Whether a write to a key that is taken fails for that reason."""
    try:
        await write
    except ConditionFailedError:
        return True
    except StoreUnavailableError as exc:
        if "NotImplemented" in str(exc):  # a server that knows conditions, but not this one
            return False
        raise
    return False


async def _works(write: Awaitable[None]) -> bool:
    try:
        await write
    except StoreError:
        return False
    return True


async def _put_again(bucket: Bucket, name: str) -> None:
    async with bucket.asking():
        await bucket.client.put_object(
            **bucket.target(name), Body=_BYTE, IfNoneMatch="*", **bucket.written_with()
        )


async def _complete_again(bucket: Bucket, name: str) -> None:
    of = bucket.target(name)
    async with bucket.asking():
        begun = await bucket.client.create_multipart_upload(**of, **bucket.written_with())
    upload_id = begun["UploadId"]
    try:
        async with bucket.asking():
            part = await bucket.client.upload_part(
                **of, UploadId=upload_id, PartNumber=1, Body=io.BytesIO(_BYTE)
            )
        async with bucket.asking():
            await bucket.client.complete_multipart_upload(
                **of,
                UploadId=upload_id,
                IfNoneMatch="*",
                MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
            )
    except StoreError:
        await bucket.abort(name, upload_id)
        raise


async def _tag(bucket: Bucket, name: str) -> None:
    async with bucket.asking():
        await bucket.client.put_object_tagging(
            **bucket.target(name), Tagging={"TagSet": [{"Key": "sha256", "Value": "0"}]}
        )


async def _form_limits(bucket: Bucket, name: str) -> bool:
    """Whether forms are held to their size; raise StoreUnsuitableError where there are none."""
    status = await _post(bucket, name, _BYTE)
    if status in (HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED):
        raise StoreUnavailableError("its server refuses our form posts: may the key write?")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED:
        raise StoreUnavailableError("its server fails at form posts")
    if status >= HTTPStatus.BAD_REQUEST:
        raise StoreUnsuitableError("its server does not take form posts")
    return await _post(bucket, name, _BYTE * 2) >= HTTPStatus.BAD_REQUEST


async def _post(bucket: Bucket, name: str, data: bytes) -> int:
    """Send a form for one byte, as a caller would; the status of the answer."""
    made = await bucket.form(bucket.client, name, max_bytes=len(_BYTE), valid_s=_VALID_S)
    form = aiohttp.FormData(made["fields"])
    form.add_field("file", data, filename="probe")
    trusted = await asyncio.to_thread(_trusted) if made["url"].startswith("https") else True
    timeout = aiohttp.ClientTimeout(total=bucket.options.read_timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(made["url"], data=form, ssl=trusted) as response,
        ):
            return response.status
    except NETWORK_ERRORS as exc:
        raise unanswered(exc) from exc


def _trusted() -> ssl.SSLContext:
    """Whom botocore trusts: also an authority of one's own."""
    return ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))


def _tell(found: Capabilities) -> None:
    if found.guard is Guard.NONE:
        _log.warning("store_has_no_conditional_writes")
    if not found.tags:
        _log.warning("store_has_no_tags")
    if found.versioned:
        _log.info("store_keeps_versions")
    if not found.form_limits:
        _log.warning("store_takes_forms_of_any_size")
