"""The embedded server with its real binaries: what it keeps, and what it outlives."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from service.db.binaries import Account, BinariesUnusableError, installed, runnable
from service.db.embedded import (
    DataDirInUseError,
    DataDirOwnerError,
    DataDirVersionError,
    EmbeddedPostgres,
    ServerStartError,
    ServerUserError,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
SOCKET_PATH_MAX_BYTES = 107
# What asyncpg raises for a connection that was cut depends on what it was doing.
CUT = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
ROOT = Path(__file__).parents[2]

# Prints the server's pid and DSN, then waits to be killed or told to end.
OWNER = """
import asyncio, sys
from pathlib import Path
from service.db.embedded import EmbeddedPostgres

async def main():
    async with EmbeddedPostgres(Path(sys.argv[1])) as pg:
        dsn = await pg.ensure_database("greenroom")
        print("READY", pg.pid, dsn, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def python_for(user: str | None) -> str:
    """Find a Python of our version that *user* can run: ours may live in root's home."""
    if user is None:
        return sys.executable
    account = pwd.getpwnam(user)
    for python in (sys.executable, shutil.which(f"python3.{sys.version_info[1]}", path="/usr/bin")):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            command = [python or "", "-c", f"import os; os.stat({asyncpg.__file__!r})"]
            subprocess.run(command, check=True, user=account.pw_uid, group=account.pw_gid)
            return command[0]
    pytest.skip(f"{user} can reach no Python, or not our packages")


@contextlib.contextmanager
def owned_by_another_process(
    data_dir: Path, user: str | None = None
) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """Run a supervisor in a process of its own; yield it, the server's pid and the DSN."""
    account = pwd.getpwnam(user) if user else None
    with subprocess.Popen(
        [python_for(user), "-c", OWNER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))},
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
    ) as owner:
        try:
            assert owner.stdout
            words: list[str] = []
            for line in owner.stdout:
                words = line.split()
                if words[:1] == ["READY"]:
                    break
            assert words, "the owner ended without a server"
            yield owner, int(words[1]), words[2]
        finally:
            owner.kill()


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every user can walk to, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    except BaseException:
        connection.terminate()  # closing in order would want an answer from a killed server
        raise
    await connection.close()


async def until(condition: Callable[[], bool], timeout_s: float) -> float:
    """Wait for *condition*; return how long it took, in seconds."""
    began = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  another process's state has no Event
            await asyncio.sleep(0.01)
    return time.monotonic() - began


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def modes_above(path: Path) -> list[int]:
    return [step.stat().st_mode for step in path.parents]


async def test_rows_outlive_a_restart_and_the_server_takes_no_tcp(tmp_path: Path) -> None:
    before = modes_above(tmp_path / "pg")
    async with EmbeddedPostgres(tmp_path / "pg", durable=False) as pg:
        pid = pg.pid
        async with connected(await pg.ensure_database("green room")) as connection:
            await connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
            assert await connection.fetchval("SHOW listen_addresses") == ""
            assert await connection.fetchval("SHOW max_connections") == "200"
            assert await connection.fetchval("SELECT current_user") == "postgres"
    assert pid is not None
    assert is_gone(pid)
    async with (
        EmbeddedPostgres(tmp_path / "pg", durable=False) as pg,
        connected(await pg.ensure_database("green room")) as connection,
    ):
        assert await connection.fetchval("SELECT n FROM kept") == 7
    assert modes_above(tmp_path / "pg") == before
    assert (tmp_path / "pg" / "cluster").stat().st_mode & 0o777 == 0o700


def test_a_fixture_without_an_event_loop_can_hold_a_server(tmp_path: Path) -> None:
    async def answer(dsn: str) -> object:
        async with connected(dsn) as connection:
            return await connection.fetchval("SHOW fsync")

    with EmbeddedPostgres(tmp_path / "pg", durable=False) as pg:
        assert asyncio.run(answer(pg.dsn())) == "off"


async def test_every_acknowledged_row_outlives_a_killed_server(tmp_path: Path) -> None:
    acknowledged: list[int] = []

    async def insert_until_cut(dsn: str) -> None:
        async with connected(dsn) as connection:
            for number in range(1_000_000):
                await connection.execute("INSERT INTO kept VALUES ($1)", number)
                acknowledged.append(number)

    async with EmbeddedPostgres(tmp_path / "pg") as pg:
        dsn = await pg.ensure_database("greenroom")
        async with connected(dsn) as connection:
            await connection.execute("CREATE TABLE kept (n int)")
        inserting = asyncio.create_task(insert_until_cut(dsn))
        await until(lambda: len(acknowledged) >= 100, timeout_s=20)
        assert pg.pid is not None
        os.kill(pg.pid, signal.SIGKILL)
        with pytest.raises(CUT):
            await inserting
        await until(lambda: pg.restarts == 1, timeout_s=20)
        async with connected(dsn) as connection:
            rows = await connection.fetch("SELECT n FROM kept")
    assert {row["n"] for row in rows} >= set(acknowledged)


async def test_the_server_comes_back_each_time_it_is_killed(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path / "pg", durable=False) as pg:
        for restart in range(1, 4):
            assert pg.pid is not None
            os.kill(pg.pid, signal.SIGKILL)
            await until(lambda restart=restart: pg.restarts == restart, timeout_s=20)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        async with connected(pg.dsn()) as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_the_server_dies_with_its_killed_owner_and_starts_again(tmp_path: Path) -> None:
    with owned_by_another_process(tmp_path / "pg") as (owner, server_pid, dsn):
        async with connected(dsn) as connection:
            await connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
            owner.kill()
            await until(lambda: is_gone(server_pid), timeout_s=2)
    async with (
        EmbeddedPostgres(tmp_path / "pg") as pg,
        connected(pg.dsn("greenroom")) as connection,
    ):
        assert await connection.fetchval("SELECT n FROM kept") == 7


async def test_a_start_waits_for_the_server_of_a_killed_owner(tmp_path: Path) -> None:
    with owned_by_another_process(tmp_path / "pg") as (owner, server_pid, _):
        os.kill(server_pid, signal.SIGSTOP)  # it cannot leave yet
        owner.kill()
        owner.wait()
        starting = asyncio.create_task(EmbeddedPostgres(tmp_path / "pg").__aenter__())
        await asyncio.sleep(0.7)
        assert not starting.done()
        os.kill(server_pid, signal.SIGCONT)
        pg = await starting
    await pg.__aexit__(None, None, None)


async def test_a_second_supervisor_is_refused_at_once_and_told_by_whom(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path / "pg", durable=False) as pg:
        began = time.monotonic()
        with pytest.raises(DataDirInUseError) as refusal:
            await EmbeddedPostgres(tmp_path / "pg").__aenter__()
        assert refusal.value.pid == os.getpid()
        assert time.monotonic() - began < 1
        async with connected(pg.dsn()) as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_a_path_too_long_for_a_socket_still_serves(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 20) / ("longer, " * 8) / "pg"
    assert len(str(deep)) > SOCKET_PATH_MAX_BYTES
    async with EmbeddedPostgres(deep, durable=False) as pg:
        async with connected(await pg.ensure_database("greenroom")) as connection:
            assert await connection.fetchval("SELECT 1") == 1
        child = "import asyncio, asyncpg, sys; asyncio.run(asyncpg.connect(sys.argv[1]))"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore", "-c", child, pg.dsn("greenroom")
        )
        assert await process.wait() == 0


async def test_another_version_of_the_data_is_named(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path / "pg", durable=False):
        pass
    (tmp_path / "pg" / "cluster" / "PG_VERSION").write_text("17\n")
    with pytest.raises(DataDirVersionError, match="Postgres 17, this is 18"):
        await EmbeddedPostgres(tmp_path / "pg").__aenter__()


async def test_a_stale_pid_of_another_program_does_not_stop_the_start(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path / "pg", durable=False):
        pass
    cluster = tmp_path / "pg" / "cluster"
    server_uid = cluster.stat().st_uid if os.geteuid() == 0 else None
    stranger = await asyncio.create_subprocess_exec("sleep", "60", user=server_uid, cwd="/")
    try:
        (cluster / "postmaster.pid").write_text(f"{stranger.pid}\n/proc/self/cwd\n0\n5432\n.\n\n")
        async with EmbeddedPostgres(tmp_path / "pg", durable=False) as pg:
            assert pg.pid is not None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_half_made_cluster_is_made_anew(tmp_path: Path) -> None:
    half = tmp_path / "pg" / "cluster.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    async with EmbeddedPostgres(tmp_path / "pg", durable=False) as pg:
        assert pg.pid is not None
    assert not half.exists()


async def test_a_server_that_cannot_start_says_why_at_once(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path / "pg", durable=False):
        pass
    with (tmp_path / "pg" / "cluster" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(ServerStartError, match="no_such_setting"):
        await EmbeddedPostgres(tmp_path / "pg", durable=False).__aenter__()


async def test_binaries_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match="nowhere"):
        await EmbeddedPostgres(tmp_path / "pg", binaries=tmp_path / "nowhere").__aenter__()


async def test_a_cancelled_start_leaves_nothing_running(tmp_path: Path) -> None:
    pg = EmbeddedPostgres(tmp_path / "pg", durable=False)
    starting = asyncio.create_task(pg.__aenter__())
    await until(lambda: pg._process is not None, timeout_s=20)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not pg._thread.is_alive()
    async with EmbeddedPostgres(tmp_path / "pg", durable=False) as again:
        assert again.pid is not None


@needs_root
async def test_an_unprivileged_user_needs_nothing_from_root(open_dir: Path) -> None:
    home = open_dir / "home"
    home.mkdir()
    shutil.chown(home, "nobody")
    with owned_by_another_process(home / "pg", user="nobody") as (owner, server_pid, _):
        assert psutil.Process(server_pid).username() == "nobody"
        owner.communicate(timeout=20)
        assert owner.returncode == 0
        assert is_gone(server_pid)
    async with EmbeddedPostgres(home / "pg") as pg, connected(pg.dsn("greenroom")) as connection:
        assert pg.pid is not None
        assert psutil.Process(pg.pid).username() == "nobody"
        assert await connection.fetchval("SELECT 1") == 1


@needs_root
async def test_nobody_but_the_owner_may_connect(open_dir: Path) -> None:
    intruder = (
        "import asyncio, asyncpg, os, sys\n"
        "os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))\n"
        "try: asyncio.run(asyncpg.connect(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    said = {}
    async with EmbeddedPostgres(open_dir / "pg", durable=False) as pg:
        (open_dir / "pg").chmod(0o755)  # as careless as an operator can be
        for user in ("nobody", "daemon"):  # the server's own user, and one that it never met
            account = pwd.getpwnam(user)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "ignore", "-c", intruder, pg.dsn(), str(account.pw_uid)),
                stdout=asyncio.subprocess.PIPE,
            )
            said[user] = (await process.communicate())[0].decode()
    assert "Peer authentication failed" in said["nobody"]
    assert "PermissionError" in said["daemon"]


@needs_root
async def test_binaries_in_a_closed_home_are_copied_once(tmp_path: Path, open_dir: Path) -> None:
    hidden = tmp_path / "site-packages"  # pytest's directories are 0700
    wheel = installed().parents[1]
    libraries = wheel.with_name(f"{wheel.name}.libs")
    for part in (installed().parent, libraries):
        target = hidden / part.relative_to(wheel.parent)
        shutil.copytree(part, target, symlinks=True, ignore=shutil.ignore_patterns("include"))
    bin_dir = hidden / wheel.name / "pginstall18" / "bin"
    before = modes_above(bin_dir)
    pg = EmbeddedPostgres(tmp_path / "pg", binaries=bin_dir, durable=False)
    pg._spare_places = (open_dir,)
    async with pg, connected(await pg.ensure_database("greenroom")) as connection:
        assert await connection.fetchval("SELECT 1") == 1
    copies = list(open_dir.iterdir())
    assert [copy.name.rpartition("-")[0].rpartition("-")[0] for copy in copies] == [
        "greenroom-postgres"
    ]
    made_at = copies[0].stat().st_ctime_ns
    again = EmbeddedPostgres(tmp_path / "pg", binaries=bin_dir, durable=False)
    again._spare_places = (open_dir,)
    async with again:
        assert [copy.stat().st_ctime_ns for copy in open_dir.iterdir()] == [made_at]
    assert modes_above(bin_dir) == before

    shutil.chown(copies[0], "daemon")  # a stranger took the name: do not run what is there
    with pytest.raises(BinariesUnusableError):
        await asyncio.to_thread(runnable, bin_dir, _account_of("nobody"), [open_dir])


def _account_of(user: str) -> Account:
    entry = pwd.getpwnam(user)
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


@needs_root
async def test_a_cluster_of_root_and_a_user_that_is_missing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerUserError, match="no-such-user"):
        await EmbeddedPostgres(tmp_path / "a", run_as="no-such-user").__aenter__()
    (tmp_path / "b" / "cluster").mkdir(parents=True)
    with pytest.raises(DataDirOwnerError):
        await EmbeddedPostgres(tmp_path / "b").__aenter__()
