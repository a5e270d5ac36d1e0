"""Try what a media tool must not do, and say how the kernel answered. Started by `self_check`.

Run as `python -I -S trial.py BYTES`; BYTES is more memory than it may have. Prints one line of
JSON: errno by attempt, 0 for success. What succeeds is undone.
"""

import _thread
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

OWN = "/proc/self/environ"  # every process may read its own, wherever it runs
WRITTEN = f"/tmp/greenroom-trial-{os.getpid()}"  # noqa: S108 - it must not come into being


def fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def write_file() -> None:
    os.close(os.open(WRITTEN, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    os.unlink(WRITTEN)  # noqa: PTH108 - pathlib takes long to import


def open_socket(family: int, kind: int) -> None:
    socket.socket(family, kind).close()


def start_thread() -> None:
    try:
        _thread.start_new_thread(int, ())
    except RuntimeError as exc:  # which says no errno
        raise BlockingIOError(11, "no thread") from exc


def attempt(act: Callable[[], object]) -> int:
    try:
        act()
    except OSError as exc:
        return exc.errno or -1
    return 0


def main(argv: list[str]) -> None:
    tried = {
        "memory": attempt(lambda: mmap.mmap(-1, int(argv[0])).close()),
        "thread": attempt(start_thread),
        "read_file": attempt(lambda: os.close(os.open(OWN, os.O_RDONLY))),
        "list_folder": attempt(lambda: os.listdir("/")),  # noqa: PTH208 - likewise
        "write_file": attempt(write_file),
        "tcp": attempt(lambda: open_socket(socket.AF_INET, socket.SOCK_STREAM)),
        "udp": attempt(lambda: open_socket(socket.AF_INET, socket.SOCK_DGRAM)),
        "unix": attempt(lambda: open_socket(socket.AF_UNIX, socket.SOCK_STREAM)),
        "fork": attempt(fork),
    }
    network = ""
    with suppress(OSError):
        network = os.readlink("/proc/self/ns/net")  # noqa: PTH115 - likewise
    sys.stdout.write(json.dumps({**tried, "network": network}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
