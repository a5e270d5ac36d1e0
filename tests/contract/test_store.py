"""One suite for every store: a store that passes may be used, a fake included."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from storage.bucket import MIN_PART_BYTES
from storage.local import LocalStore
from storage.s3 import S3Store
from storage.store import (
    AssetNotFoundError,
    AssetStore,
    ChecksumMismatchError,
    InvalidKeyError,
    KeyTakenError,
    TooLargeError,
    UploadForm,
)
from storage.timed import TimedStore
from tests.fakes.store import MemoryStore
from tests.servers.s3 import S3Server, place_on

BIG = bytes(range(256)) * (3 << 12) + b"end"  # 3 MiB and a bit: more than one block of any store
HUGE = BIG * 4  # 12 MiB: three parts of any store that has parts


class Served:
    """What a server that lends a store its paths would make of it."""

    def url(
        self,
        key: str,
        *,
        valid_for: timedelta,
        content_type: str,
        sha256: str | None,  # noqa: ARG002 - no test of this suite reads it
    ) -> str:
        return f"/bytes/{key}?for={valid_for.total_seconds():g}&type={content_type}"

    def form(self, key: str, *, max_bytes: int, valid_for: timedelta) -> UploadForm:
        fields = {"key": key, "max": str(max_bytes), "for": str(valid_for)}
        return UploadForm(url="/uploads", fields=fields)


@pytest.fixture(
    params=["memory", "timed", "local", "moto", pytest.param("ceph", marks=pytest.mark.s3)]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AssetStore]:
    async with await made(request, tmp_path) as opened:
        yield opened


async def made(request: pytest.FixtureRequest, folder: Path) -> AssetStore:
    match request.param:
        case "memory":
            return MemoryStore(Served())
        case "timed":
            return TimedStore(MemoryStore(Served()))
        case "local":
            return LocalStore(folder / "s", links=Served())
        case name:
            server: S3Server = request.getfixturevalue(f"{name}_server")
            return S3Store(await place_on(server, part_bytes=MIN_PART_BYTES))


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


async def broken_body(size: bytes = BIG) -> AsyncIterator[bytes]:
    yield size
    raise ConnectionResetError


async def read(store: AssetStore, key: str, *, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in store.open(key, start=start, end=end)])


async def keys(store: AssetStore, prefix: str = "") -> list[str]:
    return sorted([asset.key async for asset in store.list(prefix)])


async def assert_nothing_is_stored(store: AssetStore, key: str) -> None:
    with pytest.raises(AssetNotFoundError):
        await read(store, key)
    assert await keys(store) == []
    assert await store.clear_unfinished(older_than=timedelta(0)) == 0


async def test_what_was_put_can_be_read_back(store: AssetStore) -> None:
    asset = await store.put("k", body(b"ab", b"", b"c"))
    assert (asset.key, asset.size_bytes, asset.sha256) == ("k", 3, sha256(b"abc").hexdigest())
    assert await read(store, "k") == b"abc"


async def test_an_asset_of_many_blocks_survives_the_round_trip(store: AssetStore) -> None:
    asset = await store.put("k", body(*[BIG[i : i + 65521] for i in range(0, len(BIG), 65521)]))
    assert (asset.size_bytes, asset.sha256) == (len(BIG), sha256(BIG).hexdigest())
    assert await read(store, "k") == BIG


async def test_an_asset_of_many_parts_survives_the_round_trip(store: AssetStore) -> None:
    asset = await store.put(
        "k", body(*[HUGE[i : i + 999_983] for i in range(0, len(HUGE), 999_983)])
    )
    assert (asset.size_bytes, asset.sha256) == (len(HUGE), sha256(HUGE).hexdigest())
    assert await read(store, "k") == HUGE
    assert (
        await read(store, "k", start=len(BIG) - 2, end=2 * len(BIG) + 3)
        == (HUGE[len(BIG) - 2 : 2 * len(BIG) + 3])
    )
    async with store.local_copy("k", sha256=asset.sha256) as path:
        assert path.read_bytes() == HUGE


async def test_a_body_of_exactly_one_part_is_kept(store: AssetStore) -> None:
    data = HUGE[:MIN_PART_BYTES]
    asset = await store.put("k", body(data, b""))
    assert (asset.size_bytes, asset.sha256) == (len(data), sha256(data).hexdigest())
    assert await read(store, "k") == data


async def test_an_empty_body_is_an_asset(store: AssetStore) -> None:
    assert (await store.put("k", body())).size_bytes == 0
    assert await read(store, "k") == b""


async def test_a_body_of_exactly_the_cap_is_kept(store: AssetStore) -> None:
    await store.put("k", body(b"ab", b"c"), max_bytes=3)
    assert await read(store, "k") == b"abc"


async def test_a_body_over_the_cap_leaves_nothing(store: AssetStore) -> None:
    with pytest.raises(TooLargeError):
        await store.put("k", body(BIG, b"x"), max_bytes=len(BIG))
    await assert_nothing_is_stored(store, "k")


async def test_the_cap_stops_reading_an_endless_body(store: AssetStore) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)
            yield b"x" * 1000

    with pytest.raises(TooLargeError):
        await store.put("k", endless(), max_bytes=10_000)
    await assert_nothing_is_stored(store, "k")


@pytest.mark.parametrize("sent", [BIG, HUGE], ids=["one-part", "parts"])
async def test_a_broken_upload_leaves_nothing_and_says_what_broke(
    store: AssetStore, sent: bytes
) -> None:
    with pytest.raises(ConnectionResetError):
        await store.put("k", broken_body(sent))
    await assert_nothing_is_stored(store, "k")


@pytest.mark.parametrize("sent", [BIG, HUGE], ids=["one-part", "parts"])
async def test_a_cancelled_upload_leaves_nothing_and_frees_the_key(
    store: AssetStore, sent: bytes
) -> None:
    waiting = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield sent
        waiting.set()
        await asyncio.sleep(3600)

    task = asyncio.create_task(store.put("k", stuck()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await assert_nothing_is_stored(store, "k")
    await store.put("k", body(b"second"))
    assert await read(store, "k") == b"second"


async def test_a_taken_key_is_never_written_again(store: AssetStore) -> None:
    await store.put("k", body(b"first"))
    with pytest.raises(KeyTakenError):
        await store.put("k", body(b"second"))
    with pytest.raises(KeyTakenError):
        await store.put("k", body(b"first"))
    assert await read(store, "k") == b"first"


@pytest.mark.parametrize("size_bytes", [1 << 20, MIN_PART_BYTES], ids=["one-part", "parts"])
async def test_one_of_eight_writers_of_a_key_wins(store: AssetStore, size_bytes: int) -> None:
    everyone_has_begun = asyncio.Barrier(8)

    async def slow(number: int) -> AsyncIterator[bytes]:
        yield b"%d" % number * size_bytes
        await everyone_has_begun.wait()  # nobody finds the key taken at the start
        yield b"."

    puts = [store.put("k", slow(number)) for number in range(8)]
    outcomes = await asyncio.gather(*puts, return_exceptions=True)
    winners = [number for number, asset in enumerate(outcomes) if not isinstance(asset, Exception)]
    assert len(winners) == 1
    assert sum(isinstance(outcome, KeyTakenError) for outcome in outcomes) == 7
    assert await read(store, "k") == b"%d" % winners[0] * size_bytes + b"."
    assert await keys(store) == ["k"]
    assert await store.clear_unfinished(older_than=timedelta(0)) == 0


@pytest.mark.parametrize("sizes", [(3, 3), (3, len(HUGE)), (len(HUGE), 3)])
async def test_a_replacing_put_needs_no_free_key(store: AssetStore, sizes: tuple[int, int]) -> None:
    for data in (HUGE[: sizes[0]], HUGE[-sizes[1] :]):
        asset = await store.put("incoming/k", body(data), replace=True)
        assert asset.sha256 == sha256(data).hexdigest()
        assert await read(store, "incoming/k") == data
    assert await keys(store) == ["incoming/k"]


async def test_a_replacing_put_that_breaks_changes_nothing(store: AssetStore) -> None:
    await store.put("incoming/k", body(b"first"))
    with pytest.raises(ConnectionResetError):
        await store.put("incoming/k", broken_body(HUGE), replace=True)
    with pytest.raises(TooLargeError):
        await store.put("incoming/k", body(HUGE), replace=True, max_bytes=len(HUGE) - 1)
    assert await read(store, "incoming/k") == b"first"


@pytest.mark.parametrize("data", [b"", b"abc", HUGE], ids=["empty", "one-part", "parts"])
async def test_a_copy_is_what_its_source_held(store: AssetStore, data: bytes) -> None:
    await store.put("incoming/k", body(data))
    asset = await store.copy("incoming/k", "c", max_bytes=len(data))
    assert (asset.key, asset.size_bytes) == ("c", len(data))
    assert asset.sha256 == sha256(data).hexdigest()
    await store.put("incoming/k", body(b"other"), replace=True)
    await store.delete("incoming/k")
    assert await read(store, "c") == data


async def test_a_copy_of_a_source_that_is_replaced_meanwhile_is_one_of_the_two(
    store: AssetStore,
) -> None:
    first, second = HUGE, HUGE[::-1]
    await store.put("incoming/k", body(first))
    copied, _ = await asyncio.gather(
        store.copy("incoming/k", "c"), store.put("incoming/k", body(second), replace=True)
    )
    data = await read(store, "c")
    assert data in (first, second)
    assert copied.sha256 == sha256(data).hexdigest()


async def test_a_copy_over_the_cap_leaves_nothing(store: AssetStore) -> None:
    await store.put("incoming/k", body(HUGE))
    with pytest.raises(TooLargeError):
        await store.copy("incoming/k", "c", max_bytes=len(HUGE) - 1)
    assert await keys(store) == ["incoming/k"]
    assert await store.clear_unfinished(older_than=timedelta(0)) == 0


async def test_a_copy_of_nothing_and_one_onto_something_are_refused(store: AssetStore) -> None:
    with pytest.raises(AssetNotFoundError):
        await store.copy("incoming/k", "c")
    await store.put("incoming/k", body(b"abc"))
    await store.put("c", body(b"def"))
    with pytest.raises(KeyTakenError):
        await store.copy("incoming/k", "c")
    assert await read(store, "c") == b"def"


async def test_what_is_being_written_is_no_leftover(store: AssetStore) -> None:
    async def watched() -> AsyncIterator[bytes]:
        yield HUGE
        assert await store.clear_unfinished(older_than=timedelta(0)) == 0
        yield b"end"

    asset = await store.put("k", watched())
    assert asset.sha256 == sha256(HUGE + b"end").hexdigest()
    assert await read(store, "k") == HUGE + b"end"


async def test_the_promised_checksum_is_held_to(store: AssetStore) -> None:
    with pytest.raises(ChecksumMismatchError):
        await store.put("k", body(b"abc"), expected_sha256=sha256(b"abd").hexdigest())
    await assert_nothing_is_stored(store, "k")
    await store.put("k", body(b"abc"), expected_sha256=sha256(b"abc").hexdigest())
    assert await read(store, "k") == b"abc"


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 0), (0, 1), (1, 4), (5, None), (0, None), (1 << 20, (2 << 20) + 1), (5, 5)],
)
async def test_a_range_is_read_as_a_slice(store: AssetStore, start: int, end: int | None) -> None:
    await store.put("k", body(BIG))
    assert await read(store, "k", start=start, end=end) == BIG[start:end]


async def test_a_range_past_the_end_is_empty(store: AssetStore) -> None:
    await store.put("k", body(b"abc"))
    assert await read(store, "k", start=3) == b""
    assert await read(store, "k", start=100, end=200) == b""
    assert await read(store, "k", start=1, end=200) == b"bc"


@pytest.mark.parametrize(("start", "end"), [(-1, None), (2, 1)])
async def test_a_range_that_is_none_is_refused(
    store: AssetStore, start: int, end: int | None
) -> None:
    await store.put("k", body(b"abc"))
    with pytest.raises(ValueError, match="not a range"):
        await read(store, "k", start=start, end=end)


async def test_a_local_copy_holds_the_same_bytes(store: AssetStore) -> None:
    asset = await store.put("k", body(BIG))
    async with store.local_copy("k", sha256=asset.sha256) as path:
        assert path.read_bytes() == BIG


async def test_a_local_copy_of_other_bytes_is_not_lent(store: AssetStore) -> None:
    await store.put("k", body(b"abc"))
    with pytest.raises(ChecksumMismatchError):
        async with store.local_copy("k", sha256=sha256(b"abd").hexdigest()):
            pass


async def test_there_is_no_local_copy_of_nothing(store: AssetStore) -> None:
    with pytest.raises(AssetNotFoundError):
        async with store.local_copy("k", sha256=sha256(b"").hexdigest()):
            pass


async def test_stat_tells_size_and_age(store: AssetStore) -> None:
    await store.put("incoming/k", body(b"abc"))
    found = await store.stat("incoming/k")
    assert (found.key, found.size_bytes) == ("incoming/k", 3)
    assert abs(datetime.now(UTC) - found.modified_at) < timedelta(minutes=5)


async def test_a_missing_key_is_not_found(store: AssetStore) -> None:
    with pytest.raises(AssetNotFoundError):
        await store.stat("k")
    with pytest.raises(AssetNotFoundError):
        await read(store, "k")


async def test_a_deleted_asset_is_gone_and_its_key_is_free(store: AssetStore) -> None:
    await store.put("k", body(b"abc"))
    await store.delete("k")
    await assert_nothing_is_stored(store, "k")
    await store.put("k", body(b"new"))
    assert await read(store, "k") == b"new"


async def test_deleting_nothing_is_fine(store: AssetStore) -> None:
    await store.delete("k")
    await store.delete("incoming/k")


async def test_the_list_holds_what_was_put_and_obeys_its_prefix(store: AssetStore) -> None:
    for key in ("a", "b", "incoming", "incoming/a", "incoming/b"):
        await store.put(key, body(key.encode()))
    assert await keys(store) == ["a", "b", "incoming", "incoming/a", "incoming/b"]
    assert await keys(store, "incoming/") == ["incoming/a", "incoming/b"]
    assert await keys(store, "nothing") == []
    assert [asset.size_bytes async for asset in store.list("incoming/")] == [10, 10]


async def test_what_is_being_written_is_not_listed(store: AssetStore) -> None:
    listed: list[list[str]] = []

    async def watched() -> AsyncIterator[bytes]:
        yield BIG
        listed.append(await keys(store))
        yield BIG

    await store.put("k", watched())
    assert listed == [[]]


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "..",
        "/k",
        "../k",
        "a/../k",
        "a/",
        "a//b",
        "a/b/c",
        ".partial",
        "a/.b",
        "a\\b",
        "a+b",
        "k\n",
        "k\0",
        "k k",
        "ключ",
        "a" * 121,
        "incoming/" + "b" * 121,
    ],
)
async def test_what_could_leave_the_store_is_no_key(store: AssetStore, key: str) -> None:
    with pytest.raises(InvalidKeyError):
        await store.put(key, body(b"abc"))
    with pytest.raises(InvalidKeyError):
        await read(store, key)
    with pytest.raises(InvalidKeyError):
        await store.stat(key)
    with pytest.raises(InvalidKeyError):
        await store.delete(key)
    with pytest.raises(InvalidKeyError):
        async with store.local_copy(key, sha256=""):
            pass


async def test_the_longest_key_works(store: AssetStore) -> None:
    key = "a" * 120 + "/" + "b" * 120
    await store.put(key, body(b"abc"))
    assert await keys(store) == [key]


async def test_a_working_store_passes_its_check_and_keeps_nothing_of_it(store: AssetStore) -> None:
    await store.check()
    assert await keys(store) == []


async def test_a_signed_url_tells_keys_types_and_times_apart(store: AssetStore) -> None:
    given = {
        await store.signed_url(key, valid_for=timedelta(minutes=minutes), content_type=type_)
        for key in ("k", "incoming/k")
        for minutes in (1, 15)
        for type_ in ("image/png", "audio/wav")
    }
    assert len(given) == 8
    assert all(url.startswith(("/", "http://", "https://")) for url in given)


async def test_a_form_is_for_its_key(store: AssetStore) -> None:
    form = await store.upload_form("incoming/k", max_bytes=10, valid_for=timedelta(minutes=1))
    assert form.url.startswith(("/", "http://", "https://"))
    assert form.fields["key"].endswith("incoming/k")
    assert "file" not in form.fields
    with pytest.raises(InvalidKeyError):
        await store.upload_form("../k", max_bytes=10, valid_for=timedelta(minutes=1))


async def test_a_signed_url_is_made_for_keys_alone(store: AssetStore) -> None:
    with pytest.raises(InvalidKeyError):
        await store.signed_url("../k", valid_for=timedelta(minutes=1), content_type="image/png")
