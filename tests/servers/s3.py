"""An S3 server that tests may use, and buckets of their own on it."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import aioboto3
from botocore.config import Config

from storage.s3 import S3Options

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """Where it answers, and who may ask."""

    name: str
    endpoint: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str = "us-east-1"

    def options(self, bucket: str) -> S3Options:
        return S3Options(
            bucket=bucket,
            endpoint=self.endpoint,
            region=self.region,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            path_style=True,
        )


@asynccontextmanager
async def raw_client(options: S3Options) -> "AsyncIterator[S3Client]":
    """A client without anything of ours, to look at a bucket, or to break what is in it."""
    async with aioboto3.Session().client(
        "s3",
        endpoint_url=options.endpoint,
        region_name=options.region,
        aws_access_key_id=options.access_key_id,
        aws_secret_access_key=options.secret_access_key,
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    ) as client:
        yield client


async def make_bucket(server: S3Server, **changed: object) -> S3Options:
    """A new bucket, with *changed* options."""
    options = server.options(f"bucket-{secrets.token_hex(8)}")
    async with raw_client(options) as client:
        await client.create_bucket(Bucket=options.bucket)
    return replace(options, **changed)  # type: ignore[arg-type]  # names and types are the test's


_buckets: dict[str, S3Options] = {}


async def place_on(server: S3Server, **changed: object) -> S3Options:
    """A part of the server's one bucket that is the test's own: buckets are dear to make."""
    if server.endpoint not in _buckets:
        _buckets[server.endpoint] = await make_bucket(server)
    mine = {"prefix": f"{secrets.token_hex(8)}/", **changed}
    return replace(_buckets[server.endpoint], **mine)  # type: ignore[arg-type]  # as above
