"""CPU seconds, user and system, by who spent them. Wall time on a shared machine says little."""

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """CPU seconds of our process, of tools that ended, and of children that still run."""

    ours: float
    tools: float
    child: float

    @classmethod
    def until_now(cls) -> Self:
        running = [each.cpu_times() for each in psutil.Process().children(recursive=True)]
        return cls(
            ours=_used(resource.RUSAGE_SELF),
            tools=_used(resource.RUSAGE_CHILDREN),
            child=sum(times.user + times.system for times in running),
        )

    def __sub__(self, before: "Spent") -> "Spent":
        return Spent(
            ours=self.ours - before.ours,
            tools=self.tools - before.tools,
            child=self.child - before.child,
        )

    @property
    def total(self) -> float:
        return self.ours + self.tools + self.child


def _used(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def forget_peak(pid: int) -> None:
    """Let the peak of *pid*'s resident set start anew: proc(5), clear_refs."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int) -> float:
    """The largest resident set of *pid* since `forget_peak`, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"no peak of {pid}")
