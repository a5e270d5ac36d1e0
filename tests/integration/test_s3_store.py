"""What is special to a bucket: what its server lacks, what is left in it, how it is written."""

import asyncio
import json
import resource
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from service.settings import Settings, SettingsError
from storage import unbroken
from storage.bucket import MIN_PART_BYTES
from storage.capabilities import Guard
from storage.lent import create, sweep_copies
from storage.s3 import S3Options, S3Store
from storage.store import (
    AssetNotFoundError,
    ChecksumMismatchError,
    KeyTakenError,
    StoreFullError,
    StoreUnavailableError,
    StoreUnsuitableError,
)
from tests.api import running_api, settings_for
from tests.contract.test_store import HUGE, body, keys, read
from tests.fakes.unsteady import Call, Fault, Unsteady, once
from tests.integration.test_api import stored_asset
from tests.servers.lesser import lesser
from tests.servers.s3 import S3Server, make_bucket, raw_client

NOW = timedelta(0)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, which others use as well at other times."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def bucket_on(server: S3Server, **changed: object) -> S3Options:
    return await make_bucket(server, prefix="p/", part_bytes=MIN_PART_BYTES, **changed)


async def everything_in(options: S3Options) -> list[str]:
    """Names of all objects and unfinished uploads, also those outside our prefix."""
    async with raw_client(options) as client:
        found = await client.list_objects_v2(Bucket=options.bucket)
        uploads = await client.list_multipart_uploads(Bucket=options.bucket)
    return [each["Key"] for each in (*found.get("Contents", ()), *uploads.get("Uploads", ()))]


async def versions_in(options: S3Options) -> list[str]:
    """Names of all versions of objects, and of marks that one was deleted."""
    async with raw_client(options) as client:
        listed = await client.list_object_versions(Bucket=options.bucket)
    kept = [*listed.get("Versions", ()), *listed.get("DeleteMarkers", ())]
    return [version["Key"] for version in kept]


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """A write over that fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def port_of(server: S3Server) -> int:
    port = URL(server.endpoint).port
    assert port
    return port


async def test_many_may_look_at_once_what_a_server_can_and_leave_nothing(
    moto_server: S3Server,
) -> None:
    options = await bucket_on(moto_server)

    async def look() -> Guard:
        async with S3Store(options) as store:
            assert store.capabilities.tags
            return store.capabilities.guard

    assert await asyncio.gather(*(look() for _ in range(4))) == [Guard.CONDITIONS] * 4
    assert await everything_in(options) == []


@pytest.mark.parametrize("size_bytes", [3, MIN_PART_BYTES + 1], ids=["one-part", "parts"])
async def test_without_conditional_completion_a_claim_decides_who_wins(
    moto_server: S3Server, size_bytes: int
) -> None:
    options = await bucket_on(moto_server)
    everyone_has_begun = asyncio.Barrier(4)

    async def slow(number: int) -> AsyncIterator[bytes]:
        yield b"%d" % number * size_bytes
        await everyone_has_begun.wait()
        # beside those of many parts one of a single part: all must heed the claim
        yield b"."

    async with (
        lesser(moto_server.endpoint, deaf_to=frozenset({"complete"})) as endpoint,
        S3Store(replace(options, endpoint=endpoint)) as store,
    ):
        assert store.capabilities.guard is Guard.CLAIMS
        puts = [store.put("k", slow(number)) for number in range(4)]
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        winners = [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, Exception)]
        assert len(winners) == 1, outcomes
        assert sum(isinstance(outcome, KeyTakenError) for outcome in outcomes) == 3
        assert await read(store, "k") == b"%d" % winners[0] * size_bytes + b"."
    assert await everything_in(options) == ["p/k"]


async def test_a_claim_of_somebody_else_keeps_the_key(moto_server: S3Server) -> None:
    options = await bucket_on(moto_server)
    async with (
        lesser(moto_server.endpoint, deaf_to=frozenset({"complete"})) as endpoint,
        S3Store(replace(options, endpoint=endpoint)) as store,
        raw_client(options) as client,
    ):
        await client.put_object(Bucket=options.bucket, Key="p/.claims/k", Body=b"")
        with pytest.raises(KeyTakenError):
            await store.put("k", body(b"abc"))
        assert await everything_in(options) == ["p/.claims/k"]
        assert await store.clear_unfinished(older_than=timedelta(hours=1)) == 0
        assert await store.clear_unfinished(older_than=NOW) == 1
        await store.put("k", body(b"abc"))
    assert await everything_in(options) == ["p/k"]


async def test_a_put_that_ends_while_it_claims_its_key_leaves_no_claim(
    moto_server: S3Server,
) -> None:
    options = await bucket_on(moto_server)

    def strike(call: Call) -> Fault | None:
        is_claim = call.operation == "put" and ".claims/" in call.path
        return Fault.HANG_AFTER if is_claim else None

    async with (
        lesser(moto_server.endpoint, deaf_to=frozenset({"complete"})) as endpoint,
        Unsteady(URL(endpoint).port or 0) as proxy,
        S3Store(replace(options, endpoint=proxy.url)) as store,
    ):
        assert store.capabilities.guard is Guard.CLAIMS
        proxy.strike = strike
        put = asyncio.create_task(store.put("k", body(b"abc")))
        await asyncio.sleep(0.5)
        assert await everything_in(options) == ["p/.claims/k"]
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
    assert await everything_in(options) == []


async def test_deleting_a_key_erases_the_claim_that_a_dead_put_left(moto_server: S3Server) -> None:
    options = await bucket_on(moto_server)
    async with (
        lesser(moto_server.endpoint, deaf_to=frozenset({"complete"})) as endpoint,
        S3Store(replace(options, endpoint=endpoint)) as store,
        raw_client(options) as client,
    ):
        for name in ("k", "k2"):
            await client.put_object(Bucket=options.bucket, Key=f"p/.claims/{name}", Body=b"")
        await store.delete("k")
        assert await everything_in(options) == ["p/.claims/k2"]
        await store.put("k", body(b"abc"))


async def test_without_conditional_writes_a_taken_key_is_still_refused(
    moto_server: S3Server,
) -> None:
    options = await bucket_on(moto_server)
    async with (
        lesser(moto_server.endpoint, deaf_to=frozenset({"put", "complete"})) as endpoint,
        S3Store(replace(options, endpoint=endpoint)) as store,
    ):
        assert store.capabilities.guard is Guard.NONE
        for first, second in ((b"abc", HUGE), (HUGE, b"abc")):
            await store.put("k", body(first))
            with pytest.raises(KeyTakenError):
                await store.put("k", body(second))
            assert await read(store, "k") == first
            await store.delete("k")
    assert await everything_in(options) == []


@pytest.mark.parametrize(
    "status", [HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.BAD_REQUEST]
)
async def test_a_server_without_form_posts_is_refused(
    moto_server: S3Server, status: HTTPStatus
) -> None:
    options = await bucket_on(moto_server)
    async with lesser(moto_server.endpoint, forms=status) as endpoint:
        with pytest.raises(StoreUnsuitableError, match="does not take form posts"):
            await S3Store(replace(options, endpoint=endpoint)).__aenter__()
    assert await everything_in(options) == []


@pytest.mark.parametrize(("data", "operation"), [(b"abc", "put"), (HUGE, "complete")])
@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.ERROR_AFTER])
async def test_a_write_whose_answer_was_lost_is_known_for_ours(
    moto_server: S3Server, data: bytes, operation: str, fault: Fault
) -> None:
    options = await bucket_on(moto_server)
    async with (
        Unsteady(port_of(moto_server)) as proxy,
        S3Store(replace(options, endpoint=proxy.url)) as store,
    ):
        proxy.strike = once(fault, operation)
        asset = await store.put("k", body(data))
        assert proxy.struck[fault] == 1
        assert asset.sha256 == sha256(data).hexdigest()
        assert await read(store, "k") == data
        with pytest.raises(KeyTakenError):
            await store.put("k", body(data))
    assert await everything_in(options) == ["p/k"]


async def test_a_read_that_is_cut_goes_on_where_it_was(moto_server: S3Server) -> None:
    options = await bucket_on(moto_server)
    async with (
        Unsteady(port_of(moto_server)) as proxy,
        S3Store(replace(options, endpoint=proxy.url)) as store,
    ):
        await store.put("k", body(HUGE))
        for fault in (Fault.CUT_IN_ANSWER, Fault.TRUNCATED):
            proxy.strike = once(fault, "get", times=3)
            assert await read(store, "k") == HUGE
            assert proxy.struck[fault] == 3
        proxy.strike = once(Fault.TRUNCATED, "get", times=99)
        with pytest.raises(StoreUnavailableError):
            await read(store, "k")


async def test_a_read_that_goes_on_finds_out_that_the_object_was_replaced(
    moto_server: S3Server,
) -> None:
    options = await bucket_on(moto_server)
    async with (
        Unsteady(port_of(moto_server)) as proxy,
        S3Store(replace(options, endpoint=proxy.url)) as store,
    ):
        await store.put("incoming/k", body(HUGE))
        proxy.strike = once(Fault.TRUNCATED, "get")
        chunks = store.open("incoming/k")
        await anext(chunks)
        await store.put("incoming/k", body(HUGE[::-1]), replace=True)
        with pytest.raises(ChecksumMismatchError):
            async for _ in chunks:
                pass


async def test_what_dead_processes_left_is_cleared_and_what_is_not_ours_is_spared(
    moto_server: S3Server,
) -> None:
    options = await bucket_on(moto_server)
    async with S3Store(options) as store, raw_client(options) as client:
        for name in ("p/dead", "p/incoming/dead", "p/.probe/dead", "others/k", "p/a/b/c"):
            begun = await client.create_multipart_upload(Bucket=options.bucket, Key=name)
            await client.upload_part(
                Bucket=options.bucket,
                Key=name,
                UploadId=begun["UploadId"],
                PartNumber=1,
                Body=b"abc",
            )
        for name in ("p/.claims/k", "p/.probe/k", "p/.check/k", "p/k", ".claims/k"):
            await client.put_object(Bucket=options.bucket, Key=name, Body=b"abc")
        assert await store.clear_unfinished(older_than=NOW) == 6
        assert await keys(store) == ["k"]
    assert sorted(await everything_in(options)) == [".claims/k", "others/k", "p/a/b/c", "p/k"]


async def test_deleting_a_key_aborts_the_uploads_of_that_key_alone(moto_server: S3Server) -> None:
    options = await bucket_on(moto_server)
    async with S3Store(options) as store, raw_client(options) as client:
        for name in ("p/k", "p/k2"):
            await client.create_multipart_upload(Bucket=options.bucket, Key=name)
        await store.delete("k")
    assert await everything_in(options) == ["p/k2"]


async def test_a_bucket_that_keeps_versions_keeps_none_of_what_was_deleted(
    moto_server: S3Server,
) -> None:
    options = await bucket_on(moto_server)
    async with raw_client(options) as client:
        await client.put_bucket_versioning(
            Bucket=options.bucket, VersioningConfiguration={"Status": "Enabled"}
        )
        async with S3Store(options) as store:
            assert store.capabilities.versioned
            await store.put("k", body(b"abc"))
            await store.put("k", body(b"def"), replace=True)
            await store.put("k2", body(b"abc"))
            await store.delete("k")
            with pytest.raises(AssetNotFoundError):
                await store.stat("k")
            assert await read(store, "k2") == b"abc"
    assert await versions_in(options) == ["p/k2"]


async def test_what_a_store_writes_for_itself_leaves_no_versions(moto_server: S3Server) -> None:
    options = await bucket_on(moto_server)
    async with raw_client(options) as client:
        await client.put_bucket_versioning(
            Bucket=options.bucket, VersioningConfiguration={"Status": "Enabled"}
        )
        async with (
            lesser(moto_server.endpoint, deaf_to=frozenset({"complete"})) as endpoint,
            S3Store(replace(options, endpoint=endpoint)) as store,
        ):
            assert store.capabilities.guard is Guard.CLAIMS
            await store.check()
            await store.put("k", body(b"abc"))
            assert await versions_in(options) == ["p/k"]
            # of a process that died between the deletion and that of its versions
            await client.put_object(Bucket=options.bucket, Key="p/.check/a", Body=b"abc")
            await client.delete_object(Bucket=options.bucket, Key="p/.check/a")
            assert await store.clear_unfinished(older_than=NOW) == 2
    assert await versions_in(options) == ["p/k"]


@pytest.mark.s3
async def test_a_bucket_that_kept_versions_once_keeps_none_of_what_was_deleted(
    ceph_server: S3Server,
) -> None:
    options = await bucket_on(ceph_server)
    async with raw_client(options) as client:
        for status in ("Enabled", "Suspended"):
            await client.put_bucket_versioning(
                Bucket=options.bucket,
                VersioningConfiguration={"Status": status},
            )
            await client.put_object(Bucket=options.bucket, Key="p/k", Body=status.encode())
    async with S3Store(options) as store:
        assert store.capabilities.versioned
        await store.delete("k")
    assert await versions_in(options) == []


async def test_a_check_that_cannot_read_leaves_nothing(moto_server: S3Server) -> None:
    options = await bucket_on(moto_server, attempts=1)
    async with (
        Unsteady(port_of(moto_server)) as proxy,
        S3Store(replace(options, endpoint=proxy.url)) as store,
    ):
        proxy.strike = once(Fault.ERROR_500, "get", times=9)
        with pytest.raises(StoreUnavailableError):
            await store.check()
    assert await everything_in(options) == []


async def test_a_copy_that_finds_no_room_lets_the_connection_go(
    moto_server: S3Server, temporary: Path
) -> None:
    options = await bucket_on(moto_server)
    async with (
        Unsteady(port_of(moto_server)) as proxy,
        S3Store(replace(options, endpoint=proxy.url)) as store,
    ):
        asset = await store.put("k", body(HUGE * 2))
        with files_of_at_most(1 << 20), pytest.raises(StoreFullError) as failed:
            async with store.local_copy("k", sha256=asset.sha256):
                pass
        await asyncio.sleep(0.5)
        assert proxy.open_connections == 0
        assert failed.value.__traceback__  # whose frames hold on to what they have opened
    assert list(temporary.iterdir()) == []


async def test_credentials_that_cannot_be_renewed_are_no_failure_of_ours(
    moto_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked for again before each use, as they expire within minutes."""
    until = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    told = {"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "s", "SessionToken": "t"}
    (tmp_path / "told").write_text(json.dumps({**told, "Expiration": until}))
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = cat {tmp_path}/told\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    options = await bucket_on(moto_server)
    by_role = replace(options, access_key_id=None, secret_access_key=None)
    minute = timedelta(minutes=1)
    async with S3Store(by_role) as store:
        assert "s3.amazonaws" not in await store.signed_url(
            "k", valid_for=minute, content_type="image/png"
        )
        (tmp_path / "told").unlink()
        with pytest.raises(StoreUnavailableError, match="no credentials"):
            await store.signed_url("k", valid_for=minute, content_type="image/png")
        with pytest.raises(StoreUnavailableError):
            await store.upload_form("incoming/k", max_bytes=1, valid_for=minute)
        with pytest.raises(StoreUnavailableError):
            await store.stat("k")


@pytest.mark.parametrize("data", [b"abc", HUGE], ids=["one-part", "parts"])
async def test_every_object_is_encrypted_and_named_by_its_sha256(
    moto_server: S3Server, data: bytes
) -> None:
    options = await bucket_on(moto_server, encryption="AES256", storage_class="STANDARD_IA")
    async with S3Store(options) as store, raw_client(options) as client:
        await store.put("k", body(data))
        await store.copy("k", "c")
        for name in ("p/k", "p/c"):
            found = await client.head_object(Bucket=options.bucket, Key=name)
            assert found["ServerSideEncryption"] == "AES256"
            assert found["StorageClass"] == "STANDARD_IA"
            tags = await client.get_object_tagging(Bucket=options.bucket, Key=name)
            named = found["Metadata"] | {tag["Key"]: tag["Value"] for tag in tags["TagSet"]}
            assert named["sha256"] == sha256(data).hexdigest()


async def test_a_form_asks_for_encryption_size_and_key(moto_server: S3Server) -> None:
    options = await bucket_on(
        moto_server, encryption="aws:kms", kms_key_id="the-key", public_endpoint="http://s3.test"
    )
    async with S3Store(options) as store:
        form = await store.upload_form("incoming/k", max_bytes=7, valid_for=timedelta(minutes=1))
    assert form.url == f"http://s3.test/{options.bucket}"
    assert form.fields["key"] == "p/incoming/k"
    assert form.fields["x-amz-server-side-encryption"] == "aws:kms"
    assert form.fields["x-amz-server-side-encryption-aws-kms-key-id"] == "the-key"
    assert "policy" in form.fields
    assert form.fields["policy"] not in repr(form)


async def test_a_signed_url_leads_to_the_public_endpoint_and_downloads(
    moto_server: S3Server,
) -> None:
    options = await bucket_on(moto_server)
    public = moto_server.endpoint.replace("127.0.0.1", "localhost")
    async with S3Store(replace(options, public_endpoint=public)) as store:
        await store.put("k", body(b"abc"))
        url = await store.signed_url("k", valid_for=timedelta(minutes=1), content_type="audio/wav")
        assert url.startswith(public)
        async with (
            aiohttp.ClientSession() as session,
            session.get(URL(url, encoded=True)) as answer,
        ):
            assert await answer.read() == b"abc"
            assert answer.headers["Content-Disposition"] == "attachment"
            assert answer.headers["Content-Type"] == "audio/wav"


@pytest.mark.parametrize(
    ("name", "said"),
    [("nowhere", "there is no such bucket"), ("My Bucket", "no bucket can have that name")],
)
async def test_a_bucket_that_is_missing_is_named_at_the_start(
    moto_server: S3Server, name: str, said: str
) -> None:
    with pytest.raises(StoreUnavailableError, match=said):
        await S3Store(moto_server.options(name)).__aenter__()


async def test_a_server_that_is_away_is_told_from_a_key_that_is_empty(
    moto_server: S3Server,
) -> None:
    options = await bucket_on(moto_server)
    async with S3Store(options) as store, raw_client(options) as client:
        await client.delete_bucket(Bucket=options.bucket)
        with pytest.raises(StoreUnavailableError):
            await store.stat("k")
        with pytest.raises(StoreUnavailableError):
            await read(store, "k")
        with pytest.raises(StoreUnavailableError):
            await store.delete("k")
        with pytest.raises(StoreUnavailableError):
            await keys(store)
        with pytest.raises(StoreUnavailableError):
            await store.put("k", body(b"abc"))
        with pytest.raises(StoreUnavailableError):
            await store.check()


async def test_a_server_that_does_not_answer_is_unavailable(moto_server: S3Server) -> None:
    async with Unsteady(port_of(moto_server)) as proxy:
        nobody = proxy.url
    options = replace(await bucket_on(moto_server), endpoint=nobody, attempts=1)
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        await S3Store(options).__aenter__()


async def test_a_server_that_hangs_in_a_write_is_left_in_time(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unbroken, "CLEANUP_S", 0.5)
    options = await bucket_on(moto_server, call_timeout_s=1.0)
    async with (
        Unsteady(port_of(moto_server)) as proxy,
        S3Store(replace(options, endpoint=proxy.url)) as store,
    ):
        for operation, data in (("put", b"abc"), ("part", HUGE), ("complete", HUGE)):
            proxy.strike = once(Fault.HANG, operation, times=9)
            with pytest.raises(StoreUnavailableError):
                await store.put("k", body(data))
    assert await everything_in(options) == []


async def test_a_full_server_is_told_from_one_that_is_away(moto_server: S3Server) -> None:
    options = await bucket_on(moto_server, attempts=1)
    async with (
        Unsteady(port_of(moto_server)) as proxy,
        S3Store(replace(options, endpoint=proxy.url)) as store,
    ):
        for operation, data in (("put", b"abc"), ("part", HUGE)):
            proxy.strike = once(Fault.FULL, operation, times=9)
            with pytest.raises(StoreFullError):
                await store.put("k", body(data))
    assert await everything_in(options) == []


async def test_a_copy_for_use_is_gone_afterwards_and_other_bytes_are_not_lent(
    moto_server: S3Server, temporary: Path
) -> None:
    options = await bucket_on(moto_server)
    async with S3Store(options) as store, raw_client(options) as client:
        asset = await store.put("k", body(b"abc"))
        async with store.local_copy("k", sha256=asset.sha256) as path:
            await asyncio.to_thread(sweep_copies)  # of another process that starts
            assert path.read_bytes() == b"abc"
        assert not path.exists()
        await client.put_object(Bucket=options.bucket, Key="p/k", Body=b"abd")
        with pytest.raises(ChecksumMismatchError):
            async with store.local_copy("k", sha256=asset.sha256):
                pass
    assert list(temporary.iterdir()) == []


async def test_a_copy_that_a_dead_process_left_is_swept_at_the_next_start(
    moto_server: S3Server, temporary: Path
) -> None:
    path, file = create()
    options = await bucket_on(moto_server)
    async with S3Store(options):
        assert path.parent == temporary
        assert path.exists()
    file.close()  # as the kernel does for a process that dies
    async with S3Store(options):
        assert not path.exists()


async def test_a_disk_without_room_for_a_copy_is_full(
    moto_server: S3Server, temporary: Path
) -> None:
    options = await bucket_on(moto_server)
    async with S3Store(options) as store:
        asset = await store.put("k", body(HUGE))
        with files_of_at_most(MIN_PART_BYTES), pytest.raises(StoreFullError):
            async with store.local_copy("k", sha256=asset.sha256):
                pass
    assert list(temporary.iterdir()) == []


async def test_secrets_are_in_no_repr(moto_server: S3Server) -> None:
    options = replace(moto_server.options("b"), secret_access_key="hush", access_key_id="who")  # noqa: S106
    assert "hush" not in repr(options)
    assert "who" not in repr(options)


@pytest.mark.s3
async def test_wrong_keys_are_named_at_the_start(ceph_server: S3Server) -> None:
    options = await bucket_on(ceph_server)
    for changed, said in (
        (replace(options, secret_access_key="wrong"), "the secret access key is wrong"),  # noqa: S106
        (replace(options, access_key_id="unknown"), "does not know the access key"),
    ):
        with pytest.raises(StoreUnavailableError, match=said):
            await S3Store(changed).__aenter__()


@pytest.mark.s3
async def test_ceph_is_guarded_by_claims_and_holds_forms_to_their_size(
    ceph_server: S3Server,
) -> None:
    async with S3Store(await bucket_on(ceph_server)) as store:
        assert store.capabilities.guard is Guard.CLAIMS
        assert store.capabilities.form_limits
        assert store.capabilities.tags


def on_bucket(settings: Settings, options: S3Options) -> Settings:
    return replace(
        settings,
        s3_bucket=options.bucket,
        s3_endpoint=options.endpoint,
        s3_access_key_id=options.access_key_id,
        s3_secret_access_key=options.secret_access_key,
        s3_path_style=options.path_style,
        s3_prefix=options.prefix,
    )


async def test_the_service_runs_on_a_bucket_and_hands_out_its_urls(
    moto_server: S3Server, dsn: str, tmp_path: Path
) -> None:
    settings = on_bucket(settings_for(dsn, tmp_path), await bucket_on(moto_server))
    async with running_api(settings) as api, aiohttp.ClientSession() as session:
        asset_id, _ = await stored_asset(api, b"abc")
        located = await api.get(f"/v1/assets/{asset_id}/content")
        assert located.status == 307
        assert located.headers["Location"].startswith(f"{moto_server.endpoint}/")
        async with session.get(URL(located.headers["Location"], encoded=True)) as answer:
            assert await answer.read() == b"abc"
            assert answer.headers["Content-Type"] == "application/octet-stream"
        assert (await api.get("/v1/bytes/none")).status == 403
        ready = await (await api.get("/readyz")).json(content_type=None)
        assert ready["checks"]["store"]["status"] == "pass"
    assert not (tmp_path / "assets").exists()


async def test_a_bucket_that_cannot_be_used_is_a_mistake_in_the_settings(
    moto_server: S3Server, dsn: str, tmp_path: Path
) -> None:
    settings = on_bucket(settings_for(dsn, tmp_path), moto_server.options("nowhere"))
    with pytest.raises(SettingsError, match="GREENROOM_S3_BUCKET: there is no such bucket"):
        async with running_api(settings):
            pass
