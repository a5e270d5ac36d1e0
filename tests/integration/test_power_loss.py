"""The power goes: what was announced is there afterwards, whole.

Two ways to see it. A recorder keeps account of what was synced, name by name and byte by byte, and
tells after every call what a power failure would leave. And strace watches a real worker's system
calls, from the first byte of a source to the commit that announces it.
"""

import asyncio
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from service.domain import Work
from service.times import now_utc
from storage.local import LocalStore
from storage.store import KeyTakenError
from tests.fakes.origin import answer
from tests.integration.test_pipeline import BODY, site

ROOT = Path(__file__).parents[2]
BLOCK = b"x" * (1 << 20)
OTHER = b"y" * 3


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@dataclass(slots=True)
class Disk:
    """What a power failure would leave below *base*: names and bytes that were synced.

    Two things are taken for granted: that a rename or a link is made whole or not at all, and that
    what was not synced is gone. A filesystem may keep more.
    """

    base: Path
    names: dict[Path, int] = field(default_factory=dict)  # inodes, as programs see them
    kept: dict[Path, int] = field(default_factory=dict)
    synced_bytes: dict[int, int] = field(default_factory=dict)  # by inode
    calls: list[str] = field(default_factory=list)
    look: Callable[[], None] = lambda: None  # called after each call, as if the power went then

    def left(self) -> dict[Path, int]:
        """Names that survive, with how many of their bytes do."""
        return {
            path: self.synced_bytes.get(inode, 0)
            for path, inode in self.kept.items()
            if all(parent in self.kept for parent in self._parents(path))
        }

    def size(self, path: Path) -> int | None:
        return self.left().get(path)

    def _parents(self, path: Path) -> list[Path]:
        return [parent for parent in path.parents if self.base in parent.parents]

    def synced(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if not stat.S_ISDIR(found.st_mode):
            self.synced_bytes[found.st_ino] = found.st_size
            return
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        for known in (self.kept, self.names):
            for name in [name for name in known if name.parent == path]:
                self.kept.pop(name, None)
        self.kept |= {name: inode for name, inode in self.names.items() if name.parent == path}

    def named(self, path: Path) -> None:
        self.names[path] = path.stat().st_ino

    def renamed(self, source: Path, target: Path) -> None:
        self.names.pop(source, 0)
        self.named(target)

    def unnamed(self, path: Path) -> None:
        self.names.pop(path, None)


@contextmanager
def recording(base: Path) -> Iterator[Disk]:
    """Every call by which a store changes what is on the disk is counted in, after it was made."""
    disk = Disk(base.resolve())

    def watched(name: str, note: Callable[..., None]) -> None:
        real = getattr(os, name)

        def call(*args: object, **kwargs: object) -> object:
            result = real(*args, **kwargs)
            disk.calls.append(name)
            note(*args)
            disk.look()
            return result

        patch.setattr(os, name, call)

    with pytest.MonkeyPatch.context() as patch:
        watched("fsync", disk.synced)
        watched("mkdir", lambda path, *_: disk.named(Path(path)))
        watched("link", lambda _, target: disk.named(Path(target)))
        for rename in ("rename", "replace"):
            watched(rename, lambda source, target: disk.renamed(Path(source), Path(target)))
        for remove in ("unlink", "remove"):
            watched(remove, lambda path: disk.unnamed(Path(path)))
        yield disk


async def test_what_was_put_outlasts_a_power_failure_and_never_as_a_part(tmp_path: Path) -> None:
    path = tmp_path / "k"
    with recording(tmp_path) as disk:
        sizes: set[int | None] = set()
        async with LocalStore(tmp_path) as store:
            disk.look = lambda: sizes.add(disk.size(path))
            await store.put("k", body(BLOCK, BLOCK, OTHER))
            assert disk.size(path) == 2 * len(BLOCK) + len(OTHER)
        assert sizes == {None, 2 * len(BLOCK) + len(OTHER)}
        assert "link" in disk.calls


async def test_folders_that_a_store_makes_are_durable_before_what_lies_in_them(
    tmp_path: Path,
) -> None:
    root = tmp_path / "data" / "greenroom" / "assets"
    with recording(tmp_path) as disk:
        async with LocalStore(root) as store:
            assert {root, root / ".partial", root.parent, root.parent.parent} <= set(disk.left())
            await store.put("k", body(OTHER))
        assert disk.size(root / "k") == len(OTHER)


async def test_a_folder_whose_maker_died_is_made_durable_by_the_next(tmp_path: Path) -> None:
    root = tmp_path / "assets"
    with recording(tmp_path) as disk:
        os.mkdir(root)  # noqa: PTH102 - what is recorded
        os.mkdir(root / ".partial")  # noqa: PTH102 - what is recorded
        assert disk.left() == {}
        async with LocalStore(root) as store:
            await store.put("k", body(OTHER))
        assert disk.size(root / "k") == len(OTHER)
        assert root / ".partial" in disk.left()


async def test_what_is_replaced_is_the_old_or_the_new_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "k"
    with recording(tmp_path) as disk:
        async with LocalStore(tmp_path) as store:
            await store.put("k", body(BLOCK))
            sizes: set[int | None] = set()
            disk.look = lambda: sizes.add(disk.size(path))
            await store.put("k", body(OTHER), replace=True)
            assert disk.size(path) == len(OTHER)
        assert sizes == {len(BLOCK), len(OTHER)}


async def test_what_was_deleted_does_not_come_back_with_the_power(tmp_path: Path) -> None:
    with recording(tmp_path) as disk:
        async with LocalStore(tmp_path) as store:
            await store.put("k", body(BLOCK))
            await store.delete("k")
            assert disk.size(tmp_path / "k") is None
            # who deleted it may have died before the name's end was durable
            await store.put("k", body(BLOCK))
            os.unlink(tmp_path / "k")  # noqa: PTH108 - what is recorded
            assert disk.size(tmp_path / "k") == len(BLOCK)
            await store.delete("k")
            assert disk.size(tmp_path / "k") is None


async def test_a_put_that_found_its_key_taken_leaves_what_was_there(tmp_path: Path) -> None:
    with recording(tmp_path) as disk:
        async with LocalStore(tmp_path) as store:

            async def overtaken() -> AsyncIterator[bytes]:
                await store.put("k", body(BLOCK))
                yield OTHER

            with pytest.raises(KeyTakenError):
                await store.put("k", overtaken())
        assert disk.size(tmp_path / "k") == len(BLOCK)


# A worker's fetch, under strace

CHILD = """
import asyncio, sys
from pathlib import Path
from tests.integration.test_power_loss import fetch_one
asyncio.run(fetch_one(sys.argv[1], Path(sys.argv[2])))
"""
CALLS = "fsync,fdatasync,link,linkat,rename,renameat,renameat2,write,writev,sendto,sendmsg"


async def fetch_one(dsn: str, folder: Path) -> None:
    """One fetch by a real worker, from a source's first byte to the commit that announces it."""
    async with asyncpg.create_pool(dsn, min_size=1, max_size=4) as pool, site(pool, folder) as here:
        here.origin.serves("/a", answer(BODY))
        avatar = await here.create("/a")
        asset = await here.asset(avatar)
        await here.worker(Work.FETCH).handle(Work.FETCH, asset["id"])
        assert (await here.asset(avatar))["state"] == "stored", now_utc()


@dataclass(frozen=True, slots=True)
class SystemCall:
    """One line of strace, or two: a call that another thread's was written into."""

    text: str
    began: int  # places in the whole trace
    ended: int


def parse_trace(lines: list[str]) -> list[SystemCall]:
    calls, open_calls = [], dict[str, tuple[int, str]]()
    for at, line in enumerate(lines):
        thread, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            open_calls[thread] = at, text
        elif text.startswith("<... "):
            began, head = open_calls.pop(thread, (at, ""))
            calls.append(SystemCall(head + text, began, at))
        else:
            calls.append(SystemCall(text, at, at))
    return calls


def only(calls: list[SystemCall], pattern: str) -> SystemCall:
    found = [call for call in calls if re.search(pattern, call.text)]
    assert len(found) == 1, (pattern, found)
    return found[0]


async def traced_fetch(dsn: str, folder: Path) -> list[SystemCall]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: the order of system calls is not seen")
    trace, traced = folder / "trace", f"trace={CALLS}"
    words = ["strace", "-f", "-y", "-s", "400", "-e", traced, "-e", "signal=none", "-o", str(trace)]
    child = [sys.executable, "-c", CHILD, dsn, str(folder)]
    done = await asyncio.to_thread(
        subprocess.run, [*words, *child], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here: the order of system calls is not seen")
    assert done.returncode == 0, done.stderr
    return parse_trace((await asyncio.to_thread(trace.read_text)).splitlines())


async def test_a_worker_syncs_bytes_then_name_then_folder_and_only_then_commits(
    dsn: str, tmp_path: Path
) -> None:
    calls = await traced_fetch(dsn, tmp_path)
    root = re.escape(str(tmp_path / "assets"))
    begun = only(calls, r"INSERT INTO blob ")
    bytes_synced = only(calls, rf"fsync\(\d+<{root}/\.partial/\w+>")
    link = only(calls, rf"link(at)?\(.*{root}/\.partial/\w+.*{root}/\w+\"")
    folder_synced = [c for c in calls if re.search(rf"fsync\(\d+<{root}>", c.text)][-1]
    settled = only(calls, r"UPDATE asset SET state = 'stored'")
    commit = next(c for c in calls if "COMMIT" in c.text and c.began > settled.began)
    assert begun.ended < bytes_synced.began
    assert bytes_synced.ended < link.began
    assert link.ended < folder_synced.began
    assert folder_synced.ended < settled.began < commit.began
    # nothing that a reader could see was committed between the name and its folder
    assert not [c for c in calls if "COMMIT" in c.text and link.began < c.began < settled.began]
