"""A stand-in for the analysis child. The samples it is given say how it behaves.

It answers with its process id, its environment and its limits in the place of engines.
"""

import os
import resource
import socket
import sys
import time
from collections.abc import Callable

from validators.analysis.wire import HEADER, MAX_FDS, Analysis, body_bytes, encode_analysis


def main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        while received := receive(channel):
            FATES.get(received, answer)(channel)


def receive(channel: socket.socket) -> str | None:
    """What the request's one pipe holds, or "nothing" of a request that carries none."""
    header, fds, _, _ = socket.recv_fds(channel, HEADER.size, MAX_FDS)
    if not header:
        return None
    channel.recv(body_bytes(header), socket.MSG_WAITALL)
    words = []
    for fd in fds:
        with os.fdopen(fd, "rb") as pipe:
            words.append(pipe.read().decode())
    return words[0] if words else "nothing"


def answer(channel: socket.socket) -> None:
    facts = {
        "pid": str(os.getpid()),
        "environment": " ".join(sorted(os.environ)),
        "core": str(resource.getrlimit(resource.RLIMIT_CORE)[0]),
    }
    channel.sendall(encode_analysis(Analysis(engines=facts)))


def crash(channel: socket.socket) -> None:
    channel.close()
    os._exit(3)


def fail(_: socket.socket) -> None:
    raise RuntimeError("a model failed")


def hang(_: socket.socket) -> None:
    time.sleep(60)


def grow(_: socket.socket) -> None:
    hoard = []
    while True:
        hoard.append(bytearray(16 << 20))


def garbage(channel: socket.socket) -> None:
    channel.sendall(HEADER.pack(5) + b"{not ")


def huge_frame(channel: socket.socket) -> None:
    channel.sendall(HEADER.pack(1 << 31))
    hang(channel)


def half_an_answer(channel: socket.socket) -> None:
    channel.sendall(HEADER.pack(100) + b"{")
    crash(channel)


def noise(channel: socket.socket) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.write("models print whatever they like\n" * 40_000)  # far more than a pipe holds
        stream.flush()
    answer(channel)


def last_answer(channel: socket.socket) -> None:
    answer(channel)
    crash(channel)


FATES: dict[str, Callable[[socket.socket], None]] = {
    fate.__name__: fate
    for fate in (crash, fail, hang, grow, garbage, huge_frame, half_an_answer, noise, last_answer)
}

if __name__ == "__main__":
    main()
