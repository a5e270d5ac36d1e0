"""A Postgres of our own, for one machine: started, watched, restarted and stopped by us.

    DATA_DIR/            ours, 0700 when we make it
      lock               flock: one supervisor at a time; holds its pid
      postgres.log       what the server says
      cluster/           the server's data and its socket, 0700, owned by the server's user

EmbeddedPostgresError    an operator must act; the message says how
 |- DataDirInUseError    another supervisor has the directory
 |- DataDirOwnerError    it belongs to a user whose files we cannot serve
 |- DataDirVersionError  it was written by another major version of Postgres
 |- ServerUserError      there is no such user to run the server as
 `- ServerStartError     no runnable programs, or the server refused to start; see its log

Postgres refuses to run as root, so root's server runs as an unprivileged user, which may be unable
to walk to DATA_DIR (a home is 0700). It need not: it starts inside its cluster directory and knows
it only as /proc/self/cwd, so no directory above is ever opened up. See docs/adr/0003.
"""

import asyncio
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

import asyncpg
import structlog

from service.db import leash
from service.db.binaries import Account, BinariesUnusableError, Programs, installed, runnable

log = structlog.get_logger(__name__)

SUPERUSER = "postgres"
_HERE = "/proc/self/cwd"
_SOCKET = ".s.PGSQL.5432"
_SOCKET_PATH_MAX_BYTES = 107  # sockaddr_un.sun_path holds 108 with its NUL
_SPARE_PLACES = (Path("/var/tmp"),)  # noqa: S108  binaries._copied checks who owns what it finds
_START_TIMEOUT_S = 60.0
_STOP_STEPS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
_POLL_S = 0.01
_BACKOFF_FIRST_S = 0.1
_BACKOFF_MOST_S = 5.0
_LOG_KEEP_BYTES = 5_000_000
# The previous server may still be on its way out: its death took ours, or the other way round.
_PASSING_REFUSALS = ("is still in use", 'lock file "postmaster.pid" already exists')
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_INITDB = (
    *("-D", _HERE, "-U", SUPERUSER, "-E", "UTF8", "--auth=peer", "--no-instructions"),
    # Postgres's own collation: sorted the same whatever the host's libc, upgrades included.
    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
)
_SERVER = (
    *("-D", _HERE, "-h", "", "-k", ".", "-c", "unix_socket_permissions=0700"),
    *("-c", "max_connections=200", "-c", "cluster_name=greenroom"),
)
_NOT_DURABLE = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")


class EmbeddedPostgresError(Exception):
    """The embedded server cannot serve, and an operator must act."""


class DataDirInUseError(EmbeddedPostgresError):
    """Another supervisor has the directory; *pid* is its process, if it could be read."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        super().__init__(f"{data_dir} is in use by process {pid or 'unknown'}")
        self.data_dir = data_dir
        self.pid = pid


class DataDirOwnerError(EmbeddedPostgresError):
    """The directory belongs to a user whose files we cannot serve."""


class DataDirVersionError(EmbeddedPostgresError):
    """The directory was written by another major version of Postgres."""


class ServerUserError(EmbeddedPostgresError):
    """There is no passwd entry for the user to run the server as."""


class ServerStartError(EmbeddedPostgresError):
    """The server refused to start; the message ends with what it said last."""


class EmbeddedPostgres:
    """One Postgres server, kept alive until we stop it, that stops when our process dies.

    Use it with ``async with`` in the service or ``with`` in a test; entering raises
    EmbeddedPostgresError. A thread of its own starts, watches and restarts the server: the kernel
    ends the server when the thread that forked it ends, and the event loop never waits for it.
    One instance is started once. *durable* false trades crash safety for speed, for tests.
    *run_as* is the server's user when we are root and the directory is new.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        binaries: Path | None = None,
        durable: bool = True,
        run_as: str = "nobody",
    ) -> None:
        self.data_dir = data_dir
        self.restarts = 0
        self.pid: int | None = None
        self._binaries = binaries
        self._durable = durable
        self._run_as = run_as
        self._spare_places = _SPARE_PLACES
        self._host: str | None = None
        self._held = ExitStack()
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._supervise, name="postgres", daemon=True)

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self.start_blocking))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread would go on and leave a server behind that nobody stops.
            await asyncio.to_thread(self.stop_blocking)
            await asyncio.wait([starting])
            starting.exception()  # looked at: it says that we stopped
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop_blocking)

    def __enter__(self) -> Self:
        self.start_blocking()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop_blocking()

    def start_blocking(self) -> None:
        """Start the server and wait until it takes connections; raise EmbeddedPostgresError."""
        self._thread.start()
        try:
            self._started.result()
        except EmbeddedPostgresError:
            self._thread.join()
            raise

    def stop_blocking(self) -> None:
        """Shut down in order; then with growing force. Connections that are open are cut."""
        self._stopping.set()
        if self._thread.ident is None:
            return
        for number, patience_s in _STOP_STEPS:
            with self._guard:
                if self._process is not None:
                    self._process.send_signal(number)
            self._thread.join(patience_s)
            if not self._thread.is_alive():
                return

    def dsn(self, database: str = SUPERUSER) -> str:
        """Return a URL for asyncpg, good until we stop, in this process and in its children."""
        if self._host is None:
            raise EmbeddedPostgresError("the server is not running")
        return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?host={quote(self._host)}"

    async def ensure_database(self, name: str) -> str:
        """Create the database *name* unless it exists; return its DSN."""
        connection = await asyncpg.connect(self.dsn())
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
                quoted = name.replace('"', '""')
                with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                    await connection.execute(f'CREATE DATABASE "{quoted}"')
        finally:
            await connection.close()
        return self.dsn(name)

    # What follows runs in the supervising thread.

    def _supervise(self) -> None:
        try:
            with self._held:
                account, programs, output = self._prepare()
                self._serve(account, programs, output)
        except EmbeddedPostgresError as error:
            self._report(error)
        except (BinariesUnusableError, OSError) as error:
            self._report(ServerStartError(str(error)))
        finally:
            self._host = self.pid = None
            if not self._started.done():
                self._report(ServerStartError("the supervisor ended before the server had started"))

    def _report(self, error: EmbeddedPostgresError) -> None:
        """Hand the first failure to who waits for the start; log any later one."""
        if self._started.done():
            log.error("postgres_supervisor_failed", error=str(error))
        else:
            self._started.set_exception(error)

    def _prepare(self) -> tuple[Account | None, Programs, IO[bytes]]:
        self.data_dir = self.data_dir.absolute()
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _lock(self.data_dir, self._held)
        account = _account(self._cluster, self._run_as)
        programs = runnable(
            self._binaries or installed(), account, (self.data_dir, *self._spare_places)
        )
        output = self._held.enter_context(_open_log(self.data_dir / "postgres.log"))
        if not self._cluster.exists():
            self._create_cluster(account, programs, output)
        written_by = (self._cluster / "PG_VERSION").read_text().strip()
        if written_by != programs.major:
            raise DataDirVersionError(
                f"{self._cluster} was written by Postgres {written_by}, this is {programs.major}"
            )
        directory = os.open(self._cluster, os.O_PATH | os.O_DIRECTORY)
        self._held.callback(os.close, directory)
        _let_only_owner_in(directory)
        self._host = _client_path(self._cluster, directory)
        return account, programs, output

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "cluster"

    def _create_cluster(
        self, account: Account | None, programs: Programs, output: IO[bytes]
    ) -> None:
        """Run initdb aside and rename, so that a kill half-way leaves nothing to trip over."""
        building = self.data_dir / "cluster.new"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(mode=0o700)
        if account is not None:
            os.chown(building, account.uid, account.gid)
        options = _INITDB if self._durable else (*_INITDB, "--no-sync")
        offset = output.tell()
        process = self._spawn(programs.bin_dir / "initdb", options, building, account, output)
        if process.wait() != 0:
            raise ServerStartError(f"initdb failed: {_said(output, offset)}")
        building.rename(self._cluster)

    def _spawn(
        self,
        program: Path,
        options: tuple[str, ...],
        directory: Path,
        account: Account | None,
        output: IO[bytes],
    ) -> subprocess.Popen[bytes]:
        """Start *program* inside *directory* as *account*, to be ended by SIGINT if we die."""
        uid, gid = (account.uid, account.gid) if account else (-1, -1)
        tied = [str(number) for number in (os.getpid(), int(signal.SIGINT), uid, gid)]
        with self._guard:
            if self._stopping.is_set():
                raise ServerStartError("stopped before it had started")
            self._process = subprocess.Popen(  # noqa: S603  our own program, without a shell
                [sys.executable, "-I", "-S", leash.__file__, *tied, str(program), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
                env=_ENVIRONMENT,
                start_new_session=True,  # Ctrl-C is for us: we drain first, then stop the server
            )
        return self._process

    def _serve(self, account: Account | None, programs: Programs, output: IO[bytes]) -> None:
        """Run the server, and run it again whenever it ends, until we are asked to stop."""
        failures = 0
        give_up_at = time.monotonic() + _START_TIMEOUT_S
        while not self._stopping.is_set():
            offset = output.seek(0, os.SEEK_END)
            was_ready = self._run_once(account, programs, output)
            if self._stopping.is_set():
                return
            if not self._started.done():
                _raise_unless_passing(_said(output, offset), late=time.monotonic() > give_up_at)
            failures = 0 if was_ready else failures + 1
            log.warning("postgres_ended", failures=failures)
            self._stopping.wait(min(_BACKOFF_FIRST_S * 2 ** min(failures, 6), _BACKOFF_MOST_S))

    def _run_once(self, account: Account | None, programs: Programs, output: IO[bytes]) -> bool:
        """Run the server until it ends; say whether it ever took connections."""
        options = _SERVER if self._durable else (*_SERVER, *_NOT_DURABLE)
        _drop_stranger_pid(self._cluster)
        try:
            process = self._spawn(
                programs.bin_dir / "postgres", options, self._cluster, account, output
            )
        except OSError as error:  # no memory or no pids: that may pass
            if not self._started.done():
                raise
            log.warning("postgres_not_spawned", error=str(error))
            return False
        was_ready = self._became_ready(process)
        process.wait()
        self.pid = None
        return was_ready

    def _became_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until the server takes connections or ends. Crash recovery may take minutes."""
        while process.poll() is None:
            if _is_ready(self._cluster, process.pid):
                self.pid = process.pid
                if self._started.done():
                    self.restarts += 1
                    log.info("postgres_restarted", pid=process.pid, restarts=self.restarts)
                else:
                    self._started.set_result(None)
                    log.info("postgres_started", pid=process.pid)
                return True
            time.sleep(_POLL_S)
        return False


def _lock(data_dir: Path, held: ExitStack) -> None:
    """Take the directory until *held* closes; raise DataDirInUseError at once if it is taken."""
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    held.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        written = os.read(descriptor, 20).strip()
        raise DataDirInUseError(data_dir, int(written) if written.isdigit() else None) from error
    os.pwrite(descriptor, f"{os.getpid():<20}".encode(), 0)  # one write: never seen half-done


def _account(cluster: Path, run_as: str) -> Account | None:
    """Choose the server's user: ourselves, or as root who owns the cluster, or else *run_as*."""
    me = os.geteuid()
    owner = cluster.stat().st_uid if cluster.exists() else None
    try:
        if me != 0:
            pwd.getpwuid(me)  # initdb and peer authentication look us up
            if owner not in (None, me):
                raise DataDirOwnerError(f"{cluster} belongs to user {owner}, and we are {me}")
            return None
        entry = pwd.getpwnam(run_as) if owner is None else pwd.getpwuid(owner)
    except KeyError as error:
        raise ServerUserError(f"no passwd entry: {error}") from error
    if entry.pw_uid == 0:
        raise DataDirOwnerError(f"{cluster} would be served as root, which Postgres refuses")
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def _open_log(path: Path) -> IO[bytes]:
    """Open the log for appending and reading, after setting an overlong one aside."""
    with suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_KEEP_BYTES:
            path.replace(path.with_suffix(".log.1"))
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)


def _let_only_owner_in(cluster: int) -> None:
    """Write who may connect: our OS user, as the superuser, and nobody else.

    Written anew at each start, because root and the owner may take turns. The directory belongs to
    the server's user, so root makes new files there and follows nothing that it finds.
    """
    me = pwd.getpwuid(os.geteuid()).pw_name
    files = {
        "pg_hba.conf": f"local all {SUPERUSER} peer map=owner\n",
        "pg_ident.conf": f'owner "{me}" {SUPERUSER}\n',
    }
    for name, text in files.items():
        fresh = f"{name}.new"
        with suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=cluster)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(fresh, flags, 0o644, dir_fd=cluster)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o644)  # a umask of 077 would hide it from the server's user
            file.write(text)
        os.replace(fresh, name, src_dir_fd=cluster, dst_dir_fd=cluster)


def _client_path(cluster: Path, descriptor: int) -> str:
    """Return how clients name the socket's directory: as it is, or short where it is too long.

    The server binds a relative name and never meets the limit. A comma would part two hosts.
    """
    path = str(cluster)
    if len(os.fsencode(cluster / _SOCKET)) > _SOCKET_PATH_MAX_BYTES or "," in path:
        return f"/proc/{os.getpid()}/fd/{descriptor}"
    return path


def _is_ready(cluster: Path, pid: int) -> bool:
    """Read postmaster.pid: its first line is the server's pid, its eighth its state."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return lines[:1] == [str(pid)] and [line.strip() for line in lines[7:8]] == ["ready"]


def _drop_stranger_pid(cluster: Path) -> None:
    """Remove a postmaster.pid whose number now belongs to another program, or to none.

    Postgres believes such a file for as long as that program lives; in a container, where pids are
    few, for ever. We hold the lock, so a server of this directory is one that works inside it.
    """
    path = cluster / "postmaster.pid"
    with suppress(FileNotFoundError, ValueError, IndexError):
        pid = int(path.read_text().splitlines()[0])
        try:
            at_work = Path(f"/proc/{pid}/cwd").samefile(cluster)
        except FileNotFoundError:  # gone, or a zombie that its parent never reaps
            at_work = False
        except PermissionError:  # another user's, which Postgres takes for gone
            return
        if not at_work:
            path.unlink()


def _said(output: IO[bytes], offset: int) -> str:
    """Return the end of what the server has written since *offset*."""
    output.seek(max(offset, output.seek(0, os.SEEK_END) - 4000))
    return output.read().decode(errors="replace").strip()


def _raise_unless_passing(said: str, *, late: bool) -> None:
    """Raise ServerStartError unless the first start failed for a reason that passes by itself."""
    if late or not any(reason in said for reason in _PASSING_REFUSALS):
        raise ServerStartError(said)
