"""How long a source may take, and how many may be fetched at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.errors import FailureCode, HostBusyError, SourceError

WAITING_PER_SLOT = 2  # who may wait for one host; the next to come is turned away


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """Seconds, bytes per second, and counts."""

    connect_s: float = 10.0  # for the name, and again for the connection with its TLS
    idle_s: float = 20.0
    total_s: float = 300.0
    min_bytes_per_s: float = 16 * 1024
    rate_window_s: float = 10.0  # each such stretch must carry its share
    max_redirects: int = 5
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
                yield
        except TimeoutError as exc:
            raise _too_slow("it did not answer in time") from exc
        finally:
            self.spent_s += asyncio.get_running_loop().time() - began_s

    def begin_body(self) -> None:
        """The rate counts from here: connecting carries no bytes."""
        self._window_began_s = self.spent_s

    def count(self, size_bytes: int) -> None:
        """Note bytes that came; raise SourceError when a whole window carried too few."""
        self._window_bytes += size_bytes
        window_s = self.spent_s - self._window_began_s
        if window_s < self._limits.rate_window_s:
            return
        if self._window_bytes < self._limits.min_bytes_per_s * window_s:
            raise _too_slow("it sent too little in too long")
        self._window_began_s, self._window_bytes = self.spent_s, 0


@dataclass(slots=True)
class _Line:
    """Who waits for, or uses, one host's slots."""

    semaphore: asyncio.Semaphore
    members: int = 0


class Slots:
    """At most so many requests at once, per process and per host, and short lines for them."""

    def __init__(self, limits: FetchLimits) -> None:
        self._per_host = limits.per_host
        self._most_members = limits.per_host * (1 + WAITING_PER_SLOT)
        self._process = asyncio.Semaphore(limits.per_process)
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def one(self, host: str) -> AsyncIterator[None]:
        """Hold a slot. The host's comes first: whoever holds the process's waits for nothing.

        Raises HostBusyError at once where the host's line is long.
        """
        line = self._lines.setdefault(host, _Line(asyncio.Semaphore(self._per_host)))
        if line.members >= self._most_members:
            raise HostBusyError
        line.members += 1
        try:
            async with line.semaphore, self._process:
                yield
        finally:
            line.members -= 1
            if not line.members:
                del self._lines[host]


def _too_slow(detail: str) -> SourceError:
    return SourceError(FailureCode.SOURCE_TIMEOUT, detail)
