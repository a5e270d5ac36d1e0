"""One bucket of an S3 server: its client, the names in it, and its errors as ours."""

import asyncio
import functools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypedDict

import aioboto3
import aiobotocore.session
import aiohttp
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
)
from botocore.loaders import Loader, create_loader

from storage.store import (
    AssetNotFoundError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    valid_key,
)

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

MIN_PART_BYTES = 5 << 20  # servers refuse smaller parts, but for the last
OWN_MARK = "put-id"  # metadata: which put wrote an object
PUBLIC_NAMES = {  # of codes that name the operator's mistake
    "NoSuchBucket": "there is no such bucket",
    "InvalidAccessKeyId": "its server does not know the access key",
    "SignatureDoesNotMatch": "the secret access key is wrong",
    "RequestTimeTooSkewed": "our clock and its server's differ",
    "ExpiredToken": "the credentials have expired",
    "AccessDenied": "the access key may not do this",
    "403": "the access key may not do this",  # of a HEAD, which has no body to say more
    "PermanentRedirect": "the bucket is in another region",
    "301": "the bucket is in another region",
    "BadDigest": "bytes were changed on their way",
}
_FULL = {
    "QuotaExceeded",
    "InsufficientStorage",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
}
_CONDITIONS = {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT}
NETWORK_ERRORS = (BotoCoreError, aiohttp.ClientError, OSError)  # a TimeoutError is an OSError


class ConditionFailedError(StoreUnavailableError):
    """What a request was conditional on does not hold."""


class PastTheEndError(StoreError):
    """The range begins behind the last byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """Which bucket, how to reach it, how to write to it. What is unset is the server's own choice.

    Keys that are unset are looked for as Amazon's tools do: environment, files, instance.
    """

    bucket: str
    endpoint: str | None = None
    public_endpoint: str | None = None  # how callers reach it, where that differs
    region: str = "us-east-1"
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    prefix: str = ""  # of every object's name; ends in a slash
    path_style: bool = False
    encryption: str = ""  # AES256 or aws:kms
    kms_key_id: str | None = None
    storage_class: str = ""
    part_bytes: int = 8 << 20
    parts_at_once: int = 3  # of one put; it holds one more in memory
    parts_in_flight: int = 32  # of all puts
    connections: int = 100
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 20.0
    call_timeout_s: float = 120.0  # of one call with all its attempts
    attempts: int = 4


class Target(TypedDict):
    """Which object a request is about."""

    Bucket: str
    Key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """An open client and what every request of it needs."""

    options: S3Options
    client: "S3Client" = field(repr=False)
    signer: "S3Client" = field(repr=False)  # knows the public endpoint

    @property
    def name(self) -> str:
        return self.options.bucket

    def target(self, name: str) -> Target:
        return {"Bucket": self.name, "Key": name}

    def object_name(self, key: str) -> str:
        return self.options.prefix + valid_key(key)

    def own_name(self, folder: str, name: str) -> str:
        """An object of the store itself. No key begins with a dot."""
        return f"{self.options.prefix}.{folder}/{name}"

    def written_with(self) -> dict[str, Any]:
        """What every new object is written with."""
        chosen = {
            "ServerSideEncryption": self.options.encryption,
            "SSEKMSKeyId": self.options.kms_key_id,
            "StorageClass": self.options.storage_class,
        }
        return {name: value for name, value in chosen.items() if value}

    async def form(
        self, signer: "S3Client", name: str, *, max_bytes: int, valid_s: int
    ) -> Mapping[str, Any]:
        """A `url`, and the `fields` with which it takes an object as we would write it."""
        fields = self._form_fields()
        async with self.asking():
            return await signer.generate_presigned_post(
                self.name,
                name,
                Fields=dict(fields),
                Conditions=[
                    ["content-length-range", 0, max_bytes],
                    *({field: value} for field, value in fields.items()),
                ],
                ExpiresIn=valid_s,
            )

    def _form_fields(self) -> dict[str, str]:
        """What every new object is written with, as a form has it."""
        names = {
            "ServerSideEncryption": "x-amz-server-side-encryption",
            "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
            "StorageClass": "x-amz-storage-class",
        }
        return {names[name]: value for name, value in self.written_with().items()}

    @asynccontextmanager
    async def asking(self, key: str = "") -> AsyncIterator[None]:
        """One call: what it raises is one of ours, and it ends in time.

        botocore's timeouts do not cover a server that stops reading what we send.
        """
        try:
            async with asyncio.timeout(self.options.call_timeout_s):
                yield
        except ClientError as exc:
            raise answered(exc, key) from exc
        except NETWORK_ERRORS as exc:
            raise unanswered(exc) from exc

    async def head(self, name: str, key: str = "") -> Mapping[str, Any]:
        """What the server knows of an object; raise AssetNotFoundError."""
        try:
            async with self.asking(key):
                return await self.client.head_object(**self.target(name))
        except AssetNotFoundError:
            await self._must_be_there()
            raise

    async def _must_be_there(self) -> None:
        """The answer to a HEAD cannot say that it is the bucket that is missing."""
        try:
            async with self.asking():
                await self.client.head_bucket(Bucket=self.name)
        except AssetNotFoundError as exc:
            raise StoreUnavailableError(PUBLIC_NAMES["NoSuchBucket"]) from exc

    async def erase(self, name: str, *, versioned: bool) -> bool:
        """Delete an object, also where the bucket would only hide it; tell whether it would."""
        versioned = await self.delete(name) or versioned
        if versioned:
            async for version in self.versions(name):
                if version["Key"] == name:
                    await self.delete(name, version["VersionId"])
        return versioned

    async def delete(self, name: str, version: str | None = None) -> bool:
        """Tell whether only a mark was set."""
        which = {} if version is None else {"VersionId": version}
        async with self.asking():
            answer = await self.client.delete_object(
                **self.target(name),
                **which,  # type: ignore[arg-type]  # optional
            )
        return version is None and bool(answer.get("DeleteMarker"))

    async def versions(self, prefix: str) -> AsyncIterator[Mapping[str, Any]]:
        """Every version of every object under *prefix*, also marks that one was deleted."""
        after: dict[str, str] = {}
        while True:
            async with self.asking():
                page = await self.client.list_object_versions(
                    Bucket=self.name,
                    Prefix=prefix,
                    **after,  # type: ignore[arg-type]  # optional
                )
            for found in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                yield found
            if not page.get("IsTruncated"):
                return
            after = {
                "KeyMarker": page["NextKeyMarker"],
                "VersionIdMarker": page["NextVersionIdMarker"],
            }

    async def objects(self, prefix: str) -> AsyncIterator[Mapping[str, Any]]:
        """Every object whose name begins with *prefix*, as the server lists it."""
        token: dict[str, str] = {}
        while True:
            async with self.asking():
                page = await self.client.list_objects_v2(
                    Bucket=self.name,
                    Prefix=prefix,
                    **token,  # type: ignore[arg-type]  # optional
                )
            for found in page.get("Contents", ()):
                yield found
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    async def unfinished(self, prefix: str) -> AsyncIterator[Mapping[str, Any]]:
        """Every multipart upload under *prefix* that nobody has completed."""
        after: dict[str, str] = {}
        while True:
            async with self.asking():
                page = await self.client.list_multipart_uploads(
                    Bucket=self.name,
                    Prefix=prefix,
                    **after,  # type: ignore[arg-type]  # optional
                )
            for found in page.get("Uploads", ()):
                yield found
            if not page.get("IsTruncated"):
                return
            after = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }

    async def abort(self, name: str, upload_id: str) -> None:
        """Erase the parts of an upload. One that is gone is fine."""
        try:
            async with self.asking():
                await self.client.abort_multipart_upload(**self.target(name), UploadId=upload_id)
        except AssetNotFoundError:
            pass


async def connect(options: S3Options, endpoint: str | None) -> "S3Client":
    """A client that has sent nothing yet.

    Made in a thread, on a loop of its own: botocore reads files and parses megabytes of JSON.
    What it needs of a loop, it takes from that of its first request.
    """
    context = await asyncio.to_thread(_client, options, endpoint)
    client: S3Client = await asyncio.to_thread(asyncio.run, context.__aenter__())
    return client


def _client(options: S3Options, endpoint: str | None) -> Any:  # noqa: ANN401 - it has no types
    session = aiobotocore.session.get_session()
    session.register_component("data_loader", _models())
    return aioboto3.Session(botocore_session=session).client(
        "s3",
        region_name=options.region,
        endpoint_url=endpoint,
        aws_access_key_id=options.access_key_id,
        aws_secret_access_key=options.secret_access_key,
        config=_config(options),
    )


@functools.cache
def _models() -> Loader:
    """What botocore knows of Amazon's services, parsed once: it keeps what it has loaded."""
    return create_loader()


def _config(options: S3Options) -> Config:
    return Config(
        signature_version="s3v4",
        connect_timeout=options.connect_timeout_s,
        read_timeout=options.read_timeout_s,
        max_pool_connections=options.connections,
        retries={"mode": "standard", "total_max_attempts": options.attempts},
        # older servers know none of the new checksums; what we send is held to its Content-MD5
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "addressing_style": "path" if options.path_style else "auto",
            "payload_signing_enabled": False,
        },
    )


def answered(exc: ClientError, key: str) -> StoreError:
    """The server's refusal as one of our errors."""
    code = exc.response.get("Error", {}).get("Code") or "nothing"
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in PUBLIC_NAMES:
        return StoreUnavailableError(PUBLIC_NAMES[code])
    if status == HTTPStatus.NOT_FOUND:
        return AssetNotFoundError(key)
    if status in _CONDITIONS:
        return ConditionFailedError(code)
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return PastTheEndError(code)
    if status == HTTPStatus.INSUFFICIENT_STORAGE or code in _FULL:
        return StoreFullError("its server has no room left")
    return StoreUnavailableError(f"its server answered {code}")


def unanswered(exc: Exception) -> StoreUnavailableError:
    if isinstance(exc, NoCredentialsError | CredentialRetrievalError):
        return StoreUnavailableError("it has no credentials")
    if isinstance(exc, ParamValidationError):  # of all that we send only that is not checked yet
        return StoreUnavailableError("no bucket can have that name")
    return StoreUnavailableError(f"its server does not answer: {type(exc).__name__}")
