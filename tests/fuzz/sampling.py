"""What the processes of a running service use, by kind: looked at five times a second."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

EVERY_S = 0.2
SHARES_EVERY = 5  # looks; telling shared pages from own ones costs the kernel a walk
MIB = 1 << 20


@dataclass(slots=True, kw_only=True)
class Usage:
    """The most that one kind of process was seen to use. Memory in MiB."""

    seen: int = 0  # processes
    together: int = 0  # at once
    rss: float = 0.0  # of one process
    high_water: float = 0.0  # VmHWM, which misses no moment of a process that was looked at
    pss: float = 0.0  # of all of the kind together, shared pages split
    descriptors: int = 0  # of one process
    longest_s: float = 0.0  # between the first and the last look at one process


@dataclass(slots=True, kw_only=True)
class Sampler:
    """Watches the tree of processes below *root*."""

    root: int
    usage: dict[str, Usage] = field(default_factory=dict)
    first_seen: dict[tuple[int, str], float] = field(default_factory=dict)
    looks: int = 0

    def look(self, now_s: float) -> None:
        """Blocks for some milliseconds."""
        self.looks += 1
        groups: dict[str, list[psutil.Process]] = {}
        with contextlib.suppress(psutil.NoSuchProcess):
            service = psutil.Process(self.root)
            for process in (service, *service.children(recursive=True)):
                if (kind := kind_of(process, service=self.root)) is not None:
                    groups.setdefault(kind, []).append(process)
        for kind, processes in groups.items():
            self._note(kind, processes, now_s)

    def _note(self, kind: str, processes: list[psutil.Process], now_s: float) -> None:
        usage = self.usage.setdefault(kind, Usage())
        usage.together = max(usage.together, len(processes))
        for process in processes:
            began = self.first_seen.setdefault((process.pid, kind), now_s)
            usage.longest_s = max(usage.longest_s, now_s - began)
            with contextlib.suppress(psutil.Error, OSError):
                usage.rss = max(usage.rss, process.memory_info().rss / MIB)
                usage.high_water = max(usage.high_water, high_water(process.pid))
                usage.descriptors = max(usage.descriptors, process.num_fds())
        usage.seen = sum(name == kind for _, name in self.first_seen)
        if self.looks % SHARES_EVERY == 0:
            usage.pss = max(usage.pss, sum(map(share, processes)))


def kind_of(process: psutil.Process, *, service: int) -> str | None:
    """What *process* is for; None for one that is ending, or has not become its tool yet."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return None
    line = " ".join(words)
    if process.pid == service:
        return "service"
    if not words or "confine.py" in line or "service" in words:  # about to become a tool
        return None
    programs = {
        "validators.analysis": "analysis child",
        "validators.media.still": "picture decoder",
        "validators.derive.redraw": "picture decoder",
    }
    named = [name for module, name in programs.items() if module in words]
    if named:
        return named[0]
    tool = Path(words[0]).name
    return "postgres" if line.startswith("postgres") or tool == "postgres" else tool


def high_water(pid: int) -> float:
    """MiB. Raises OSError where there is no such process any more."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def share(process: psutil.Process) -> float:
    """MiB that would be free without *process*, pages that others use too in parts."""
    try:
        return float(process.memory_full_info().pss) / MIB
    except psutil.Error:
        return 0.0


def cpu_s(root: int) -> float:
    """Of all processes below *root*, with those that have ended and were waited for."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        service = psutil.Process(root)
        for process in (service, *service.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += sum(process.cpu_times()[:4])
    return total


@asynccontextmanager
async def sampling(root: int) -> AsyncIterator[Sampler]:
    sampler = Sampler(root=root)
    loop = asyncio.get_running_loop()

    async def keep_looking() -> None:
        while True:
            await asyncio.to_thread(sampler.look, loop.time())
            await asyncio.sleep(EVERY_S)

    looking = asyncio.create_task(keep_looking())
    try:
        yield sampler
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
