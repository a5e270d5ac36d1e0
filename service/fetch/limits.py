"""How long a source may take, and how many may be fetched at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.errors import FailureCode, HostBusyError, SourceError

WAITING_PER_SLOT = 2  # who may wait for one host; the next to come is turned away
PLENTY = 3 / 4  # of a process' slots; who comes when more are taken finds it crowded


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """Seconds, bytes per second, and counts."""

    connect_s: float = 10.0  # for the name, and again for the connection with its TLS
    idle_s: float = 20.0
    total_s: float = 300.0
    min_bytes_per_s: float = 16 * 1024
    rate_window_s: float = 10.0  # each such stretch must carry its share
    crowded_s: float = 2.0  # how long a stretch may carry too little while it is crowded
    max_redirects: int = 5
    max_resumes: int = 3  # of one body that breaks off
    resume_pause_s: float = 0.25  # before the first; doubled each time
    per_process: int = 200
    per_host: int = 8


class Pace:
    """One fetch's clock. It runs only while we wait for the source: a slow disk of ours is not
    the source's fault, nor is a place in line.
    """

    def __init__(self, limits: FetchLimits) -> None:
        self._limits = limits
        self.spent_s = 0.0
        self._window_began_s = 0.0
        self._window_bytes = 0
        self._wait: tuple[asyncio.Timeout, float] | None = None  # in progress, and since when
        self._is_cut = False

    def answer(self) -> "asyncio.Timeout":
        """Time for one request, up to the end of its headers."""
        return self._timeout(2 * self._limits.connect_s + self._limits.idle_s)

    def idle(self) -> "asyncio.Timeout":
        """Time for the next bytes."""
        return self._timeout(self._limits.idle_s)

    def _timeout(self, at_most_s: float) -> "asyncio.Timeout":
        return asyncio.timeout(max(0.0, min(at_most_s, self._limits.total_s - self.spent_s)))

    @asynccontextmanager
    async def waiting(self, timeout: asyncio.Timeout) -> AsyncIterator[None]:  # noqa: ASYNC109 - a value with its own clock
        """Charge what happens inside to the source; raise SourceError when it is too late."""
        began_s = asyncio.get_running_loop().time()
        try:
            async with timeout:
                self._wait = timeout, began_s
                yield
        except TimeoutError as exc:
            detail = "it did not answer in time"
            raise _too_slow("it was slow while others waited" if self._is_cut else detail) from exc
        finally:
            self._wait = None
            self.spent_s += asyncio.get_running_loop().time() - began_s

    async def rest(self, pause_s: float) -> None:
        """Wait before the source is asked again: that is its time as well."""
        async with self.waiting(self.idle()):
            await asyncio.sleep(pause_s)

    def begin_body(self) -> None:
        """The rate counts from here: connecting carries no bytes."""
        self._window_began_s = self.spent_s

    def count(self, size_bytes: int) -> None:
        """Note bytes that came; raise SourceError when a whole window carried too few."""
        self._window_bytes += size_bytes
        window_s = self.spent_s - self._window_began_s
        if window_s < self._limits.rate_window_s:
            return
        if self._carried_too_little(window_s):
            raise _too_slow("it sent too little in too long")
        self._window_began_s, self._window_bytes = self.spent_s, 0

    def _carried_too_little(self, window_s: float) -> bool:
        return self._window_bytes < self._limits.min_bytes_per_s * window_s

    def late_s(self) -> float:
        """How long the source has let us wait for too little; 0 where that is not long yet."""
        if self._wait is None or self._wait[0].expired():
            return 0.0
        waited_s = self.spent_s + asyncio.get_running_loop().time() - self._wait[1]
        window_s = waited_s - self._window_began_s
        is_late = window_s >= self._limits.crowded_s and self._carried_too_little(window_s)
        return window_s if is_late else 0.0

    def cut(self) -> None:
        """Wait no longer; only for one who is late."""
        if self._wait is not None:
            self._is_cut = True
            self._wait[0].reschedule(asyncio.get_running_loop().time())


@dataclass(slots=True)
class _Line:
    """Who waits for, or uses, one host's slots."""

    semaphore: asyncio.Semaphore
    members: int = 0


class Slots:
    """At most so many requests at once, per process and per host, and short lines for them.

    Nobody may hold up everybody: while more than three in four of the process' slots are spoken
    for, the sources that were slow for longest are cut off. So strangers whose servers drip, or
    never answer, do not take the last slots. Who waits in line counts as well: a worker has as
    many turns as we have slots, and whoever waits holds a turn.
    """

    def __init__(self, limits: FetchLimits) -> None:
        self._per_host = limits.per_host
        self._most_members = limits.per_host * (1 + WAITING_PER_SLOT)
        self._plenty = int(limits.per_process * PLENTY)
        self._relief_s = limits.crowded_s / 4
        self._process = asyncio.Semaphore(limits.per_process)
        self._lines: dict[str, _Line] = {}
        self._members = 0
        self._at_work: set[Pace] = set()
        self._relief: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def one(self, host: str, pace: Pace) -> AsyncIterator[None]:
        """Hold a slot. The host's comes first: whoever holds the process's waits for nothing.

        Raises HostBusyError at once where the host's line is long.
        """
        line = self._lines.setdefault(host, _Line(asyncio.Semaphore(self._per_host)))
        if line.members >= self._most_members:
            raise HostBusyError
        line.members += 1
        self._members += 1
        self._relieve_soon()
        try:
            async with line.semaphore, self._process:
                self._at_work.add(pace)
                yield
        finally:
            self._at_work.discard(pace)
            self._members -= 1
            line.members -= 1
            if not line.members:
                del self._lines[host]

    def _relieve_soon(self) -> None:
        if self._relief is None and self._members > self._plenty:
            loop = asyncio.get_running_loop()
            self._relief = loop.call_later(self._relief_s, self._relieve)

    def _relieve(self) -> None:
        """Cut off as many late sources as there are members too many, the latest first."""
        self._relief = None
        late = sorted(self._at_work, key=Pace.late_s, reverse=True)
        for pace in late[: max(0, self._members - self._plenty)]:
            if pace.late_s():
                pace.cut()
        self._relieve_soon()


def _too_slow(detail: str) -> SourceError:
    return SourceError(FailureCode.SOURCE_TIMEOUT, detail)
