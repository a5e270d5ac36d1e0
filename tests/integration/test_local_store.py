"""What only a directory can get wrong: crashes, full disks, leftovers, modes and shared roots."""

import asyncio
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from io import FileIO
from pathlib import Path

import pytest

from storage import disk
from storage.disk import on_disk, ours
from storage.local import LocalStore, _Partial
from storage.store import (
    AssetNotFoundError,
    ChecksumMismatchError,
    KeyTakenError,
    StoreFullError,
    StoreUnavailableError,
)

ROOT = Path(__file__).parents[2]
BLOCK = b"x" * (1 << 20)


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def partials(root: Path) -> list[Path]:
    return list((root / ".partial").iterdir())


WRITER = """
import asyncio, sys
from pathlib import Path
from storage.local import LocalStore

async def body():
    yield b"x" * (1 << 21)
    print("writing", flush=True)
    await asyncio.sleep(3600)

async def main():
    async with LocalStore(Path(sys.argv[1])) as store:
        await store.put("k", body())

asyncio.run(main())
"""


async def test_a_writer_that_is_killed_leaves_nothing_after_the_next_start(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        writer.send_signal(signal.SIGKILL)
    assert len(partials(tmp_path)) == 1  # what the sweep is for
    async with LocalStore(tmp_path) as store:
        assert partials(tmp_path) == []
        with pytest.raises(AssetNotFoundError):
            await store.stat("k")
        assert [asset async for asset in store.list()] == []
        await store.put("k", body(b"again"))


async def test_a_start_spares_what_another_process_is_writing(tmp_path: Path) -> None:
    async def watched() -> AsyncIterator[bytes]:
        yield BLOCK
        async with LocalStore(tmp_path):
            pass
        yield BLOCK

    async with LocalStore(tmp_path) as store:
        asset = await store.put("k", watched())
        async with store.local_copy("k", sha256=asset.sha256) as path:
            assert path.read_bytes() == BLOCK * 2
    assert partials(tmp_path) == []


async def test_a_sweep_between_making_and_locking_a_file_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = disk.lock
    swept: list[Path] = []

    def sweep_first(file: FileIO) -> bool:
        if not swept:
            swept.extend(partials(tmp_path))
            swept[0].unlink()
        return lock(file)

    async with LocalStore(tmp_path) as store:
        monkeypatch.setattr(disk, "lock", sweep_first)
        await store.put("k", body(b"abc"))
        assert (tmp_path / "k").read_bytes() == b"abc"
        assert len(swept) == 1


async def test_nobody_else_may_read_the_assets(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "store"
    old = os.umask(0)
    try:
        async with LocalStore(root) as store:
            await store.put("incoming/k", body(b"abc"))
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (root, *root.iterdir())}
    assert modes == {"store": 0o700, ".partial": 0o700, "incoming+k": 0o600}


async def test_a_link_is_all_that_is_left_of_a_finished_write(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        await store.put("k", body(b"abc"))
    assert partials(tmp_path) == []
    assert (tmp_path / "k").stat().st_nlink == 1


async def test_bytes_and_name_are_synced_before_put_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        synced.append("named" if (tmp_path / "k").exists() else "nameless")
        fsync(descriptor)

    async with LocalStore(tmp_path) as store:
        monkeypatch.setattr(os, "fsync", watched)
        await store.put("k", body(b"abc"))
    assert synced == ["file", "nameless", "directory", "named"]


async def test_a_name_that_cannot_be_made_durable_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path) -> None:
        raise OSError(errno.EIO, "I/O error")

    async with LocalStore(tmp_path) as store:
        monkeypatch.setattr("storage.local._sync_directory", broken)
        with pytest.raises(StoreUnavailableError):
            await store.put("k", body(b"abc"))
        assert [asset async for asset in store.list()] == []
    assert partials(tmp_path) == []


async def test_changed_bytes_are_not_lent(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        asset = await store.put("k", body(b"abc"))
        (tmp_path / "k").write_bytes(b"abd")
        with pytest.raises(ChecksumMismatchError):
            async with store.local_copy("k", sha256=asset.sha256):
                pass


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreFullError),
        (errno.EDQUOT, StoreFullError),
        (errno.EFBIG, StoreFullError),
        (errno.EIO, StoreUnavailableError),
        (errno.EROFS, StoreUnavailableError),
    ],
)
def test_a_full_disk_is_told_from_a_broken_one(number: int, kind: type[Exception]) -> None:
    assert type(ours(OSError(number, os.strerror(number)))) is kind


FILLER = """
import asyncio, sys
from pathlib import Path
from storage.local import LocalStore
from storage.store import StoreFullError

async def body():
    yield b"x" * (4 << 20)  # one write, which comes up short without an error

async def main():
    root = Path(sys.argv[1])
    async with LocalStore(root) as store:
        try:
            await store.put("k", body(), max_bytes=100 << 20)
        except StoreFullError as exc:
            left = [path.name for path in root.rglob("*")]
            print(type(exc).__name__, left, flush=True)

asyncio.run(main())
"""


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to mount a small disk")
    script = 'mount -t tmpfs -o size=3m none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-Urm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, FILLER]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("may not mount a small disk here")
    assert done.stdout == "StoreFullError ['.partial']\n", done.stderr


async def test_a_root_that_cannot_be_written_fails_its_check(tmp_path: Path) -> None:
    root = tmp_path / "store"
    async with LocalStore(root) as store:
        await store.check()
        shutil.rmtree(root)
        with pytest.raises(StoreUnavailableError):
            await store.check()
        with pytest.raises(StoreUnavailableError):
            await store.put("k", body(b"abc"))


async def test_a_check_that_cannot_read_leaves_nothing(tmp_path: Path) -> None:
    class Unreadable(LocalStore):
        def open(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
            raise StoreUnavailableError(f"{key} {start} {end}")

    async with Unreadable(tmp_path) as store:
        with pytest.raises(StoreUnavailableError):
            await store.check()
        assert [asset async for asset in store.list()] == []


async def test_a_root_that_is_a_file_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(StoreUnavailableError):
        async with LocalStore(tmp_path / "store"):
            pass


async def test_a_taken_key_spares_the_transfer(tmp_path: Path) -> None:
    begun: list[str] = []

    async def watched() -> AsyncIterator[bytes]:
        begun.append("read")
        yield b"abc"

    async with LocalStore(tmp_path) as store:
        await store.put("k", body(b"abc"))
        with pytest.raises(KeyTakenError):
            await store.put("k", watched())
    assert begun == []


async def test_cancelling_waits_for_the_thread_that_still_writes() -> None:
    running, finished = threading.Event(), threading.Event()

    def slow() -> None:
        running.set()
        time.sleep(0.2)
        finished.set()

    task = asyncio.create_task(on_disk(slow))
    await asyncio.to_thread(running.wait)
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()  # impatience changes nothing
    with pytest.raises(asyncio.CancelledError):
        await task
    assert finished.is_set()


async def test_cancelling_while_a_file_is_made_leaves_neither_file_nor_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, running = _Partial.create, threading.Event()
    made: list[_Partial] = []

    def slow(*args: object) -> _Partial:
        running.set()
        time.sleep(0.1)
        made.append(create(*args))  # type: ignore[arg-type] # passed through
        return made[0]

    monkeypatch.setattr(_Partial, "create", slow)
    async with LocalStore(tmp_path) as store:
        task = asyncio.create_task(store.put("k", body(b"abc")))
        await asyncio.to_thread(running.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert partials(tmp_path) == []
    assert made[0].file.closed


@pytest.mark.parametrize("mount_point_left", [False, True])
async def test_a_store_whose_directory_is_gone_is_away_and_not_empty(
    tmp_path: Path, mount_point_left: bool
) -> None:
    root = tmp_path / "store"
    async with LocalStore(root) as store:
        asset = await store.put("k", body(b"abc"))
        root.rename(tmp_path / "elsewhere")
        if mount_point_left:
            root.mkdir()
        with pytest.raises(StoreUnavailableError):
            await store.stat("k")
        with pytest.raises(StoreUnavailableError):
            [chunk async for chunk in store.open("k")]
        with pytest.raises(StoreUnavailableError):
            async with store.local_copy("k", sha256=asset.sha256):
                pass
        with pytest.raises(StoreUnavailableError):
            await store.put("other", body(b"abc"))
        with pytest.raises(StoreUnavailableError):
            await store.delete("k")
        with pytest.raises(StoreUnavailableError):
            [found async for found in store.list()]
        with pytest.raises(StoreUnavailableError):
            await store.check()
    assert (tmp_path / "elsewhere" / "k").read_bytes() == b"abc"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
async def test_a_filesystem_without_hard_links_is_named_as_the_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def link(*_: object) -> None:
        raise OSError(code, os.strerror(code))  # as link(2) says it on FAT, exFAT and some FUSE

    async with LocalStore(tmp_path) as store:
        monkeypatch.setattr(os, "link", link)
        with pytest.raises(StoreUnavailableError, match="hard links"):
            await store.check()
    assert partials(tmp_path) == []


async def test_a_long_list_is_complete(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as store:
        for number in range(2500):
            (tmp_path / f"incoming+{number}").touch()
        await store.put("k", body(b""))
        found = [asset.key async for asset in store.list("incoming/")]
    assert len(found) == len(set(found)) == 2500


async def test_eight_processes_write_one_key_and_one_wins(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from storage.local import LocalStore\n"
        "from storage.store import KeyTakenError\n"
        "async def body():\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.to_thread(sys.stdin.readline)\n"
        "    yield sys.argv[2].encode() * (1 << 20)\n"
        "async def main():\n"
        "    async with LocalStore(Path(sys.argv[1])) as store:\n"
        "        try:\n"
        "            print((await store.put('k', body())).sha256, flush=True)\n"
        "        except KeyTakenError:\n"
        "            print('taken', flush=True)\n"
        "asyncio.run(main())\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(8)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    answers = []
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    for writer in writers:
        out, _ = writer.communicate(timeout=60)
        answers.append(out.decode().strip())
    (winner,) = [answer for answer in answers if answer != "taken"]
    assert sha256((tmp_path / "k").read_bytes()).hexdigest() == winner
    assert partials(tmp_path) == []


async def test_what_is_lent_can_be_opened_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Media tools start in a directory of their own, and `make dev` names a relative folder."""
    monkeypatch.chdir(tmp_path)
    async with LocalStore(Path("assets")) as store:
        asset = await store.put("k", body(b"abc"))
        async with store.local_copy("k", sha256=asset.sha256) as path:
            assert path.is_absolute()
