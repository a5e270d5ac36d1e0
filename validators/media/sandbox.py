"""Media tools at arm's length: confined, in their own process group, with a deadline.

A tool's exit status is a result for the caller to judge, because a broken medium makes a tool
fail. An error is what no medium may cause: death by a signal, a tool that does not start, a
deadline that passes.
"""

import asyncio
import os
import shutil
import signal
import site
import sys
import sysconfig
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from validators.errors import ToolCrashedError, ToolSpentError, ToolTimeoutError, one_failure
from validators.media.layers import Layer
from validators.media.seccomp import filter_for
from validators.media.spending import within

CONFINE = Path(__file__).with_name("confine.py")
NOT_STARTED = 127  # by confine, and by the dynamic loader when a library is missing
CHUNK_BYTES = 1 << 16
STDERR_BYTES = 1 << 13  # of its end: the last words say why
MAX_ALLOC_BYTES = 256 << 20  # of one block: four times the largest frame that passes the checks
ENOUGH_BYTES = 1536 << 20  # 4K in 4:4:4 with 10 bits, the hungriest that passes, takes 835 MB
OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
NEVER = "2"  # memory may be refused for the sake of other processes
SECOND_NET_S = 5  # how far the kernel's limit of processor time lies behind ours
LINGER_S = 2.0  # after a kill, for the pipes to end
NOWHERE = "/"  # tools are given absolute names alone, so no directory of theirs need be made
NO_MEMORY = ("Cannot allocate memory", "MemoryError")  # as ffmpeg and our own programs say it
UNABLE = (
    "Unrecognized option",
    "Option not found",
    "no decoder found for",
    "No such filter",
)  # what ffmpeg says of itself, never of a medium


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may use. Files are for reading: everything leaves through pipes."""

    wall_s: float = 60
    cpu_s: int = 240  # over all threads: four of them to the deadline; 4K HEVC takes 74
    address_space_bytes: int = 2 << 30
    file_bytes: int = 0
    open_files: int = 64
    stdout_bytes: int = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A run that ended by itself, or was stopped because it wrote more than it may."""

    status: int  # the exit status; minus SIGPIPE where a reader of its pipes went away
    stdout: bytes
    stderr: str
    overflowed: bool = False
    refused_memory: bool = False  # it asked for more than it may have
    starved: bool = False  # and that may be the fault of this machine

    @property
    def succeeded(self) -> bool:
        return self.status == 0 and not self.overflowed


def complaints(completed: Completed, path: Path) -> str:
    """What ffmpeg said, without the name of the medium: a file may be called anything.

    Raises ToolCrashedError where it complains of itself, or fails and says nothing. A medium
    that makes it want more memory than any recording needs is broken, like any other.
    """
    name = os.fsencode(path).decode(errors="replace")
    said = completed.stderr.replace(name, "").strip()
    last = said.rpartition("\n")[2]
    if completed.starved or any(complaint in said for complaint in UNABLE):
        raise ToolCrashedError(f"the media tool cannot do what was asked: {last}")
    if completed.status > 0 and not said:
        raise ToolCrashedError(f"the media tool ended with {completed.status} and said nothing")
    return said


def tool_name(name: str) -> str:
    """How *name* is started: the path in FFMPEG or FFPROBE where that is set, else from PATH."""
    return os.environ.get(name.upper()) or name


def find_tool(name: str) -> Path:
    """Where *name* is. Raises ToolCrashedError where it is not; for checks before work begins."""
    wanted = tool_name(name)
    found = shutil.which(wanted)
    if found is None:
        raise ToolCrashedError(f"{wanted} not found: install ffmpeg or set {name.upper()}")
    return Path(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """Runs tools under the same limits. Holds nothing between runs and may be shared.

    A tool does not start unless each of *layers* holds; None: what this kernel has of them. The
    limits are always set.
    """

    limits: Limits = field(default_factory=Limits)
    layers: frozenset[Layer] | None = None

    async def run(
        self,
        argv: Sequence[str],
        *,
        reads: Sequence[Path] = (),
        pass_fds: Sequence[int] = (),
        on_stdout: Callable[[bytes], None] | None = None,
        explained: bool = False,
        cpu_s: float | None = None,
    ) -> Completed:
        """Run *argv* to its end; the tool inherits *pass_fds* under their own numbers.

        It may compute for *cpu_s*, and never for longer than the limits say: ToolSpentError.

        Of all files it may open *reads* alone, which are absolute, and its own libraries. With
        *explained* its complaints begin with the layers that this kernel does not have.

        Takes *pass_fds* over: they are closed here as soon as the tool has them, or on any error.
        *on_stdout* sees every chunk as it arrives. Raises ToolTimeoutError and
        ToolCrashedError; on these, on cancellation and on overflow the whole group is killed.
        """
        with _held(pass_fds) as handed:
            if not all(path.is_absolute() for path in reads):
                raise ValueError(f"{argv[0]} starts in {NOWHERE}, so it needs absolute paths")
            settings = [*self._settings(argv[0], reads), *["explain=1"] * explained]
            process = await self._start(argv, settings, pass_fds)
            handed.close()
            budget_s = min(self.limits.cpu_s, cpu_s or self.limits.cpu_s)
            return await self._finish(process, argv[0], on_stdout, budget_s)

    async def _start(
        self, argv: Sequence[str], settings: Sequence[str], pass_fds: Sequence[int]
    ) -> Process:
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(CONFINE)),
                *(f"parent={os.getpid()}", *settings, "--", *argv),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                pass_fds=tuple(pass_fds),
                start_new_session=True,
                cwd=NOWHERE,
                env=closed_environment(),
            )
        except OSError as exc:
            raise ToolCrashedError(f"{argv[0]} could not be started") from exc

    def _settings(self, tool: str, reads: Sequence[Path]) -> list[str]:
        names = ("address_space_bytes", "file_bytes", "open_files")
        limits = [f"{name}={getattr(self.limits, name)}" for name in names]
        limits.append(f"cpu_s={self.limits.cpu_s + SECOND_NET_S}")
        libraries = own_libraries() if tool == sys.executable else ()
        opened = [f"read={path}" for path in reads] + [f"library={path}" for path in libraries]
        return [*limits, *opened, *_layer_settings(self.layers)]

    async def _finish(
        self,
        process: Process,
        tool: str,
        on_stdout: Callable[[bytes], None] | None,
        cpu_s: float,
    ) -> Completed:
        stdout = _Gathered(limit=self.limits.stdout_bytes, on_chunk=on_stdout)
        stderr = _Gathered(limit=STDERR_BYTES, tail=True)
        try:
            async with asyncio.timeout(self.limits.wall_s):
                await within(cpu_s, process.pid, _drain(process, stdout, stderr))
        except TimeoutError as exc:
            raise ToolTimeoutError(f"{tool} ran past {self.limits.wall_s:g} s") from exc
        finally:
            await _end(process)
        said = stderr.text()
        _expect_own_end(process, tool, said, overflowed=stdout.overflowed)
        refused = any(words in said for words in NO_MEMORY)
        return Completed(
            status=process.returncode or 0,
            stdout=bytes(stdout.data),
            stderr=said,
            overflowed=stdout.overflowed,
            refused_memory=refused,
            starved=refused and await self._may_starve(),
        )

    async def _may_starve(self) -> bool:
        if self.limits.address_space_bytes < ENOUGH_BYTES:
            return True
        return await asyncio.to_thread(OVERCOMMIT.read_text) == f"{NEVER}\n"


@cache
def own_libraries() -> tuple[str, ...]:
    """What this interpreter reads when it runs one of our programs, and nothing beside it."""
    validators = Path(__file__).parents[1]
    modules = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    return (*modules, *site.getsitepackages(), f"{sys.prefix}/pyvenv.cfg", str(validators))


@cache
def _layer_settings(layers: frozenset[Layer] | None) -> tuple[str, ...]:
    wanted = frozenset(Layer) if layers is None else layers
    how = "try" if layers is None else "must"
    program = filter_for(os.uname().machine)
    settings = tuple(f"{layer}={how}" for layer in sorted(wanted - {Layer.LIMITS}))
    return settings if program is None else (*settings, f"filter={program.hex()}")


@dataclass(slots=True, kw_only=True)
class _Gathered:
    """What one pipe gave: the beginning up to a limit, or with `tail` the end."""

    limit: int
    tail: bool = False
    on_chunk: Callable[[bytes], None] | None = None
    overflowed: bool = False
    data: bytearray = field(default_factory=bytearray)

    def add(self, chunk: bytes) -> None:
        self.data += chunk
        if len(self.data) > self.limit:
            self.overflowed = True
            surplus = slice(None, -self.limit) if self.tail else slice(self.limit, None)
            del self.data[surplus]
        if self.on_chunk is not None:
            self.on_chunk(chunk)

    def text(self) -> str:
        return self.data.decode(errors="replace")


async def _drain(process: Process, stdout: _Gathered, stderr: _Gathered) -> None:
    """Read both pipes at once, or a tool that fills one would wait for ever."""
    with one_failure():
        await _gather_both(process, stdout, stderr)
    await process.wait()


async def _gather_both(process: Process, stdout: _Gathered, stderr: _Gathered) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_gather(process.stderr, stderr, process))
        group.create_task(_gather(process.stdout, stdout, process))


async def _gather(pipe: asyncio.StreamReader | None, gathered: _Gathered, process: Process) -> None:
    if pipe is None:
        raise TypeError("the process was started without its pipes")
    while chunk := await pipe.read(CHUNK_BYTES):
        gathered.add(chunk)
        if gathered.overflowed and not gathered.tail:
            _kill(process)
            return


async def _end(process: Process) -> None:
    """Nothing of the tool outlives its run, whatever ended it.

    Its children neither, where no filter keeps it from having any: they may hold its pipes.
    These are read to their ends: asyncio would keep one with unread bytes open for ever.
    """
    _kill(process)
    try:
        async with asyncio.timeout(LINGER_S):
            for pipe in (process.stdout, process.stderr):
                while pipe is not None and await pipe.read(CHUNK_BYTES):
                    pass
    except TimeoutError:  # a child has left the group
        process._transport.close()  # type: ignore[attr-defined] # noqa: SLF001 - the only way
    await process.wait()


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):  # it ended between our look and our kill
        os.killpg(process.pid, signal.SIGKILL)


def _expect_own_end(process: Process, tool: str, said: str, *, overflowed: bool) -> None:
    status = process.returncode or 0
    if status == NOT_STARTED:
        raise ToolCrashedError(said.strip() or f"{tool} could not be started")
    if overflowed or status >= 0 or status == -signal.SIGPIPE:
        return
    if status == -signal.SIGXCPU:
        raise ToolSpentError(f"{tool} used up its processor time")
    raise ToolCrashedError(f"{tool} died of {signal.Signals(-status).name}")


def closed_environment() -> dict[str, str]:
    """Nothing of ours: no credentials, no settings, no interpreter options."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C.UTF-8",
        "MALLOC_ARENA_MAX": "2",  # or every thread's arena eats address space
    }


def _held(fds: Sequence[int]) -> ExitStack:
    """Closes *fds* once, when it is closed or left."""
    held = ExitStack()
    for fd in fds:
        held.callback(os.close, fd)
    return held
