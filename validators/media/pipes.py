"""Pipes from a media tool to the analysis child. Our ends are closed whatever happens."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

CAPACITY_BYTES = 1 << 20  # holds a frame


@dataclass(slots=True)
class Pipe:
    """Two descriptors. One that is handed over belongs to the callee, who closes it."""

    _open: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._open["read"], self._open["write"] = os.pipe()
        with suppress(OSError):  # past the user's share of pipe memory; a small one works too
            fcntl.fcntl(self._open["write"], fcntl.F_SETPIPE_SZ, CAPACITY_BYTES)

    def hand_over_reader(self) -> int:
        return self._open.pop("read")

    def hand_over_writer(self) -> int:
        return self._open.pop("write")

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


@contextmanager
def open_pipes(wanted: int) -> Iterator[list[Pipe]]:
    """*wanted* new pipes; what nobody took over is closed at the end."""
    pipes: list[Pipe] = []
    try:
        pipes += (Pipe() for _ in range(wanted))
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
