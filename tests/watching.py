"""What a test watches to see that nothing was touched: a file, and a port of TCP and UDP."""

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

IN_ACCESS, IN_OPEN = 0x1, 0x20


@dataclass(frozen=True, slots=True, kw_only=True)
class FileWatch:
    """Tells by inotify whether anybody opened or read a file since the last look."""

    fd: int

    def was_touched(self) -> bool:
        with suppress(BlockingIOError):
            return bool(os.read(self.fd, 1 << 16))
        return False


@contextmanager
def watched_file(path: Path) -> Iterator[FileWatch]:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(path), IN_ACCESS | IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify", str(path))
        yield FileWatch(fd=fd)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A port on loopback that should stay silent, for TCP and UDP alike."""

    tcp: socket.socket
    udp: socket.socket

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.tcp.getsockname()[1]}"

    def was_called(self) -> bool:
        with suppress(BlockingIOError):
            self.tcp.accept()[0].close()
            return True
        with suppress(BlockingIOError):
            self.udp.recv(1)
            return True
        return False


@contextmanager
def listening() -> Iterator[Listener]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        tcp.listen(64)
        for each in (tcp, udp):
            each.setblocking(False)
        yield Listener(tcp=tcp, udp=udp)
