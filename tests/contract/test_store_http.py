"""What a stranger gets of each store over plain HTTP, by the URLs and forms that the store signs,
and what is left of a put whose connection was cut.

What a server does not honour stands in GAPS, and in docs/reference/stores.md with what we do
instead. Its test is expected to fail there, strictly: when the server learns it, we are told.
"""

import asyncio
import base64
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, FormData
from botocore.exceptions import ClientError
from yarl import URL

from service.db import uploads
from service.db.embedded import EmbeddedPostgres
from service.db.uploads import Upload
from service.ids import new_id
from service.times import now_utc
from storage.s3 import S3Options, S3Store
from storage.store import AssetNotFoundError, AssetStore, StoreError, UploadForm
from tests.api import running_api, settings_for
from tests.fakes.unsteady import Fault, Unsteady, once
from tests.rows import ORGANISATION
from tests.servers.s3 import S3Server, place_on, raw_client
from validators.facts import Kind

PAGE = Path(__file__).parents[2] / "docs/reference/stores.md"
BYTES = bytes(range(256)) * 4
SHORT = timedelta(seconds=1)
LONG = timedelta(minutes=5)
OVER_S = 2.1  # after which what was valid for a second is not: servers count whole ones


class Promise(StrEnum):
    """What a server must do for us, or we do it ourselves."""

    URL_SIGNATURE = "A forged or altered URL is refused"
    URL_EXPIRY = "An expired URL is refused"
    FORM_SIGNATURE = "A forged or altered form is refused"
    FORM_EXPIRY = "An expired form is refused"
    FORM_SIZE = "A file over a form's size is refused"
    FORM_KEY = "A form is good for its own key alone"
    CONDITIONAL_PUT = "Of two puts that want a free key, one is refused"
    CONDITIONAL_COMPLETION = "A completed upload that wants a free key is refused a taken one"
    CONDITIONAL_COPY = "A copy of a source that changed is refused"
    CONTENT_MD5 = "A part with a wrong Content-MD5 is refused"


GAPS: Mapping[str, frozenset[Promise]] = {
    "local": frozenset(),
    "moto": frozenset(
        {
            Promise.URL_SIGNATURE,
            Promise.URL_EXPIRY,
            Promise.FORM_SIGNATURE,
            Promise.FORM_EXPIRY,
            Promise.FORM_SIZE,
            Promise.FORM_KEY,
            Promise.CONDITIONAL_COPY,
            Promise.CONTENT_MD5,
        }
    ),
    "ceph": frozenset({Promise.CONDITIONAL_COMPLETION, Promise.CONDITIONAL_COPY}),
}
S3 = ["moto", pytest.param("ceph", marks=pytest.mark.s3)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A store, and a stranger who reaches what it signs."""

    name: str
    store: AssetStore
    session: ClientSession
    base: URL  # of paths
    new_key: Callable[[], Awaitable[str]]  # one that a form may be made for

    async def url(self, key: str, *, valid_for: timedelta = LONG, type_: str = "image/png") -> URL:
        signed = await self.store.signed_url(key, valid_for=valid_for, content_type=type_)
        return self.base.join(URL(signed, encoded=True))

    async def ask(self, url: URL, *, method: str = "GET", **headers: str) -> Answer:
        async with self.session.request(method, url, headers=headers) as response:
            return Answer(
                status=response.status, headers=response.headers, body=await response.read()
            )

    async def send(self, form: UploadForm, data: bytes, **changed: str) -> int:
        """The status that the form's own server answers."""
        filled = FormData()
        for name, value in {**form.fields, **changed}.items():
            filled.add_field(name, value)
        filled.add_field("file", data, filename="a.bin", content_type="application/octet-stream")
        url = self.base.join(URL(form.url, encoded=True))
        async with self.session.post(url, data=filled) as response:
            await response.read()
            return response.status

    async def read(self, key: str) -> bytes:
        return b"".join([chunk async for chunk in self.store.open(key)])

    async def holds(self, key: str) -> bool:
        try:
            await self.store.stat(key)
        except AssetNotFoundError:
            return False
        return True


@pytest.fixture(params=["local", *S3])
def reached(
    request: pytest.FixtureRequest,
    postgres: EmbeddedPostgres,  # noqa: ARG001 - to start before blocking calls are watched for
) -> Reached:
    found: Reached = request.getfixturevalue(f"reached_{request.param}")
    return found


@pytest.fixture
async def reached_moto(moto_server: S3Server) -> AsyncIterator[Reached]:
    async with reached_on(moto_server) as found:
        yield found


@pytest.fixture
async def reached_ceph(ceph_server: S3Server) -> AsyncIterator[Reached]:
    async with reached_on(ceph_server) as found:
        yield found


@asynccontextmanager
async def reached_on(server: S3Server) -> AsyncIterator[Reached]:
    options = await place_on(server)
    async with S3Store(options) as store, ClientSession() as session:
        yield Reached(
            name=server.name,
            store=store,
            session=session,
            base=URL(server.endpoint),
            new_key=random_key,
        )


async def random_key() -> str:
    return f"incoming/{secrets.token_hex(16)}"


@pytest.fixture
async def reached_local(dsn: str, tmp_path: Path) -> AsyncIterator[Reached]:
    """Our own API serves the local store, and takes bytes for uploads that are open."""
    settings = settings_for(dsn, tmp_path)
    async with running_api(settings) as api, ClientSession() as session:

        async def key_of_an_upload() -> str:
            upload = new_upload()
            async with api.base.pool.acquire() as conn:
                await uploads.insert(conn, upload)
            return upload.key

        yield Reached(
            name="local",
            store=api.base.store,
            session=session,
            base=api.client.make_url("/"),
            new_key=key_of_an_upload,
        )


def new_upload() -> Upload:
    upload_id = new_id()
    return Upload(
        id=upload_id,
        organisation_id=ORGANISATION,
        kind=Kind.VIDEO,
        policy="standard",
        key=uploads.incoming_key(upload_id),
        max_bytes=10_000,
        created_at=now_utc(),
        expires_at=now_utc() + LONG,
    )


def relies_on(promise: Promise, name: str, request: pytest.FixtureRequest) -> None:
    """Expect the rest of the test to fail on a server that does not keep the promise."""
    if promise in GAPS[name]:
        reason = f"{name} does not: {promise}"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason, raises=AssertionError))


async def body(data: bytes, piece: int = 1 << 20) -> AsyncIterator[bytes]:
    for at in range(0, len(data), piece):
        await asyncio.sleep(0)
        yield data[at : at + piece]


# What a signed URL gives


async def test_a_signed_url_gives_the_bytes_as_an_attachment_of_its_type(reached: Reached) -> None:
    await reached.store.put("k", body(BYTES))
    answer = await reached.ask(await reached.url("k"))
    assert (answer.status, answer.body) == (200, BYTES)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == "attachment"
    assert answer.headers["Content-Length"] == str(len(BYTES))


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=1000-", 1000, 1024),
        ("bytes=1000-5000", 1000, 1024),
        ("bytes=-3", 1021, 1024),
    ],
)
async def test_a_signed_url_gives_ranges(
    reached: Reached, asked: str, start: int, end: int
) -> None:
    await reached.store.put("k", body(BYTES))
    answer = await reached.ask(await reached.url("k"), Range=asked)
    assert (answer.status, answer.body) == (206, BYTES[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(BYTES)}"
    assert answer.headers["Content-Type"] == "image/png"


async def test_a_range_past_the_end_cannot_be_had(reached: Reached) -> None:
    await reached.store.put("k", body(BYTES))
    answer = await reached.ask(await reached.url("k"), Range="bytes=1024-")
    assert answer.status == 416


async def test_a_signed_url_of_nothing_finds_nothing(reached: Reached) -> None:
    assert (await reached.ask(await reached.url("k"))).status in {403, 404}


async def test_an_expired_url_gives_nothing(
    reached: Reached, request: pytest.FixtureRequest
) -> None:
    await reached.store.put("k", body(BYTES))
    url = await reached.url("k", valid_for=SHORT)
    assert (await reached.ask(url)).status == 200
    await asyncio.sleep(OVER_S)
    relies_on(Promise.URL_EXPIRY, reached.name, request)
    answer = await reached.ask(url)
    assert answer.status == 403
    assert BYTES not in answer.body


async def test_a_forged_or_altered_url_gives_nothing(
    reached: Reached, request: pytest.FixtureRequest
) -> None:
    await reached.store.put("k", body(BYTES))
    await reached.store.put("secret", body(b"of others"))
    url = await reached.url("k")
    relies_on(Promise.URL_SIGNATURE, reached.name, request)
    for altered in alterations(url):
        answer = await reached.ask(altered)
        assert answer.status == 403, altered
        assert answer.body not in {BYTES, b"of others"}


def alterations(url: URL) -> list[URL]:
    """The same URL for something that it was not signed for."""
    if "X-Amz-Signature" not in url.query:  # a token that is encrypted as a whole
        at = url.raw_path.rindex("/") + 1
        places = (at, (at + len(url.raw_path)) // 2, len(url.raw_path) - 4)
        return [url.with_path(flipped(url.raw_path, place), encoded=True) for place in places]
    signature = url.query["X-Amz-Signature"]
    return [
        url.update_query({"X-Amz-Signature": flipped(signature, 0)}),
        url.update_query({"X-Amz-Signature": ""}),
        url.update_query({"X-Amz-Expires": "604800"}),
        url.update_query({"response-content-type": "text/html"}),
        url.with_path(re.sub("k$", "secret", url.path), keep_query=True),
        url.with_query({}),
    ]


def flipped(text: str, at: int) -> str:
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
async def test_a_signed_url_is_good_for_reading_alone(
    reached: Reached, method: str, request: pytest.FixtureRequest
) -> None:
    await reached.store.put("k", body(BYTES))
    url = await reached.url("k")
    relies_on(Promise.URL_SIGNATURE, reached.name, request)
    answer = await reached.ask(url, method=method)
    assert answer.status in {403, 405}
    assert await reached.holds("k")
    assert await reached.read("k") == BYTES


# What a form takes


async def test_a_form_takes_a_file(reached: Reached) -> None:
    key = await reached.new_key()
    form = await reached.store.upload_form(key, max_bytes=2000, valid_for=LONG)
    assert await reached.send(form, BYTES) == 204
    assert await reached.read(key) == BYTES


@pytest.mark.parametrize("size", [0, 1, 999, 1000])
async def test_a_form_takes_a_file_of_any_size_up_to_its_own(reached: Reached, size: int) -> None:
    key = await reached.new_key()
    form = await reached.store.upload_form(key, max_bytes=1000, valid_for=LONG)
    assert await reached.send(form, b"x" * size) == 204
    assert (await reached.store.stat(key)).size_bytes == size


async def test_a_byte_more_than_a_forms_size_is_refused_and_nothing_is_kept(
    reached: Reached, request: pytest.FixtureRequest
) -> None:
    key = await reached.new_key()
    form = await reached.store.upload_form(key, max_bytes=1000, valid_for=LONG)
    relies_on(Promise.FORM_SIZE, reached.name, request)
    assert await reached.send(form, b"x" * 1001) in {400, 413}
    assert not await reached.holds(key)


async def test_a_file_over_the_size_leaves_the_one_before_it(
    reached: Reached, request: pytest.FixtureRequest
) -> None:
    key = await reached.new_key()
    form = await reached.store.upload_form(key, max_bytes=1000, valid_for=LONG)
    assert await reached.send(form, b"first") == 204
    relies_on(Promise.FORM_SIZE, reached.name, request)
    assert await reached.send(form, b"x" * 1001) in {400, 413}
    assert await reached.read(key) == b"first"


async def test_of_a_form_that_is_used_again_the_last_file_wins(reached: Reached) -> None:
    key = await reached.new_key()
    form = await reached.store.upload_form(key, max_bytes=1000, valid_for=LONG)
    assert await reached.send(form, b"first") == 204
    assert await reached.send(form, b"second") == 204
    assert await reached.read(key) == b"second"


async def test_an_expired_form_takes_nothing(
    reached: Reached, request: pytest.FixtureRequest
) -> None:
    key = await reached.new_key()
    form = await reached.store.upload_form(key, max_bytes=1000, valid_for=SHORT)
    await asyncio.sleep(OVER_S)
    relies_on(Promise.FORM_EXPIRY, reached.name, request)
    assert await reached.send(form, b"late") == 403
    assert not await reached.holds(key)


async def test_a_forged_or_altered_form_takes_nothing(
    reached: Reached, request: pytest.FixtureRequest
) -> None:
    key = await reached.new_key()
    form = await reached.store.upload_form(key, max_bytes=1000, valid_for=LONG)
    relies_on(Promise.FORM_SIGNATURE, reached.name, request)
    for forged in forgeries(form):
        assert await reached.send(forged, b"forged") in {400, 403}
        assert not await reached.holds(key)


def forgeries(form: UploadForm) -> list[UploadForm]:
    if "policy" not in form.fields:  # a token in the path
        return [replace(form, url=flipped(form.url, len(form.url) - 4))]
    policy, signature = form.fields["policy"], form.fields["x-amz-signature"]
    larger = base64.b64decode(policy).replace(b"1000", b"9999")
    assert larger != base64.b64decode(policy)
    changed = [
        {"x-amz-signature": flipped(signature, 0)},
        {"x-amz-signature": ""},
        {"policy": base64.b64encode(larger).decode()},
    ]
    return [replace(form, fields={**form.fields, **fields}) for fields in changed]


async def test_a_form_is_good_for_its_own_key_alone(
    reached: Reached, request: pytest.FixtureRequest
) -> None:
    key = await reached.new_key()
    form = await reached.store.upload_form(key, max_bytes=9, valid_for=LONG)
    relies_on(Promise.FORM_KEY, reached.name, request)
    await reached.send(form, b"x", key=form.fields["key"] + "-other")
    assert not await reached.holds(f"{key}-other")


@pytest.mark.filterwarnings(  # moto forgets to close what it has read of the form
    "ignore:.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning"
)
async def test_a_form_that_is_cut_off_leaves_nothing(reached: Reached) -> None:
    key = await reached.new_key()
    form = await reached.store.upload_form(key, max_bytes=1 << 20, valid_for=LONG)
    url = reached.base.join(URL(form.url, encoded=True))
    head = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in form.fields.items()
    )
    head += '--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    _, writer = await asyncio.open_connection(url.host, url.port)
    first = f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {url.raw_authority}\r\n"
    told = f"Content-Length: {len(head) + 500_000}\r\nContent-Type: multipart/form-data; boundary=b"
    writer.write(f"{first}{told}\r\n\r\n{head}".encode() + b"x" * 100_000)
    await writer.drain()
    await asyncio.sleep(0.2)
    writer.close()
    await asyncio.sleep(0.5)
    assert not await reached.holds(key)


# What a server does with conditions and checksums


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """The test's part of a bucket, without anything of ours in between."""

    name: str  # of the server
    options: S3Options
    client: Any

    def target(self, key: str) -> dict[str, str]:
        return {"Bucket": self.options.bucket, "Key": self.options.prefix + key}

    async def is_refused(self, call: Awaitable[object], *statuses: int) -> bool:
        try:
            await call
        except ClientError as exc:
            return exc.response["ResponseMetadata"]["HTTPStatusCode"] in statuses
        return False

    async def read(self, key: str) -> bytes:
        got = await self.client.get_object(**self.target(key))
        data: bytes = await got["Body"].read()
        return data


@pytest.fixture(params=S3)
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
async def bucket(server: S3Server) -> AsyncIterator[Bucket]:
    options = await place_on(server)
    async with raw_client(options) as client:
        yield Bucket(name=server.name, options=options, client=client)


async def test_a_put_that_wants_a_free_key_is_refused_a_taken_one(
    bucket: Bucket, request: pytest.FixtureRequest
) -> None:
    relies_on(Promise.CONDITIONAL_PUT, bucket.name, request)
    named = {**bucket.target("k"), "IfNoneMatch": "*"}
    await bucket.client.put_object(**named, Body=b"first")
    assert await bucket.is_refused(bucket.client.put_object(**named, Body=b"second"), 409, 412)
    assert await bucket.read("k") == b"first"


async def test_a_completion_that_wants_a_free_key_is_refused_a_taken_one(
    bucket: Bucket, request: pytest.FixtureRequest
) -> None:
    relies_on(Promise.CONDITIONAL_COMPLETION, bucket.name, request)
    named = bucket.target("k")
    await bucket.client.put_object(**named, Body=b"first")
    upload = (await bucket.client.create_multipart_upload(**named))["UploadId"]
    part = await bucket.client.upload_part(**named, UploadId=upload, PartNumber=1, Body=b"second")
    completion = bucket.client.complete_multipart_upload(
        **named,
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        IfNoneMatch="*",
    )
    assert await bucket.is_refused(completion, 409, 412)
    assert await bucket.read("k") == b"first"


async def test_a_copy_of_a_source_that_changed_is_refused(
    bucket: Bucket, request: pytest.FixtureRequest
) -> None:
    relies_on(Promise.CONDITIONAL_COPY, bucket.name, request)
    source = bucket.target("a")
    judged = await bucket.client.put_object(**source, Body=b"judged")
    await bucket.client.put_object(**source, Body=b"changed")
    copy = bucket.client.copy_object(
        **bucket.target("b"), CopySource=source, CopySourceIfMatch=judged["ETag"]
    )
    assert await bucket.is_refused(copy, 412)


async def test_a_part_with_a_wrong_md5_is_refused(
    bucket: Bucket, request: pytest.FixtureRequest
) -> None:
    relies_on(Promise.CONTENT_MD5, bucket.name, request)
    named = bucket.target("k")
    upload = (await bucket.client.create_multipart_upload(**named))["UploadId"]
    md5 = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
    part = bucket.client.upload_part(
        **named, UploadId=upload, PartNumber=1, Body=b"sent", ContentMD5=md5
    )
    assert await bucket.is_refused(part, 400)


# What is left of a put whose connection was cut

PART_BYTES = 5 << 20
SMALL, LARGE = 3000, 2 * PART_BYTES + 1000
CUTS = [
    (SMALL, "put", Fault.REFUSED),
    (SMALL, "put", Fault.CUT_BEFORE),
    (SMALL, "put", Fault.CUT_IN_REQUEST),
    (SMALL, "put", Fault.ANSWER_LOST),
    (LARGE, "create", Fault.CUT_BEFORE),
    (LARGE, "create", Fault.ANSWER_LOST),
    (LARGE, "part", Fault.CUT_BEFORE),
    (LARGE, "part", Fault.CUT_IN_REQUEST),
    (LARGE, "part", Fault.ANSWER_LOST),
    (LARGE, "complete", Fault.CUT_BEFORE),
    (LARGE, "complete", Fault.ANSWER_LOST),
]
NAMED_CUTS = pytest.mark.parametrize(
    ("size", "operation", "fault"), CUTS, ids=lambda each: str(each).replace(" ", "-")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """A store that is reached through a proxy which cuts, and the bucket behind it."""

    store: S3Store
    proxy: Unsteady
    bucket: Bucket

    async def left(self) -> list[str]:
        """Every object and every multipart upload, after what died was cleared."""
        self.proxy.strike = lambda _: None
        await self.store.clear_unfinished(older_than=timedelta(0))
        options = self.bucket.options
        within = {"Bucket": options.bucket, "Prefix": options.prefix}
        objects = await self.bucket.client.list_objects_v2(**within)
        unfinished = await self.bucket.client.list_multipart_uploads(**within)
        found = (*objects.get("Contents", ()), *unfinished.get("Uploads", ()))
        return [each["Key"].removeprefix(options.prefix) for each in found]


@pytest.fixture
async def cutting(bucket: Bucket) -> AsyncIterator[Cutting]:
    async with Unsteady(URL(bucket.options.endpoint or "").port or 0) as proxy:
        options = replace(bucket.options, endpoint=proxy.url, part_bytes=PART_BYTES, attempts=3)
        async with S3Store(options) as store:
            yield Cutting(store=store, proxy=proxy, bucket=bucket)


@NAMED_CUTS
async def test_a_cut_is_mended_by_trying_again(
    cutting: Cutting, size: int, operation: str, fault: Fault
) -> None:
    data = secrets.token_bytes(size)
    cutting.proxy.strike = once(fault, operation)
    asset = await cutting.store.put("k", body(data))
    assert cutting.proxy.struck == {fault: 1}
    assert (asset.size_bytes, asset.sha256) == (size, hashlib.sha256(data).hexdigest())
    assert await cutting.bucket.read("k") == data
    assert await cutting.left() == ["k"]


@NAMED_CUTS
async def test_a_cut_for_good_leaves_nothing_or_all_of_it(
    cutting: Cutting, size: int, operation: str, fault: Fault
) -> None:
    data = secrets.token_bytes(size)
    cutting.proxy.strike = once(fault, operation, times=1000)
    with suppress(StoreError):
        await cutting.store.put("k", body(data))
    assert cutting.proxy.struck[fault] > 1
    if left := await cutting.left():
        assert left == ["k"]
        assert await cutting.bucket.read("k") == data


@pytest.mark.parametrize("promise", Promise)
def test_the_page_of_stores_tells_who_keeps_a_promise(promise: Promise) -> None:
    (row,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {promise} |")]
    _, _, *told, _ = (cell.strip() for cell in row.split("|"))
    expected = ["no" if promise in GAPS[name] else "yes" for name in ("local", "moto", "ceph")]
    assert told[:3] == expected
