"""Become another program, as another user, that dies when we do.

Run by path with ``python -I -S leash.py PARENT SIGNAL UID GID PROGRAM [ARGUMENT...]``. Imports
nothing of ours: it runs before site-packages are found, and its start is part of every start.

A program of its own and not ``preexec_fn``: that runs Python between fork and exec, which can
deadlock in a process with threads, and 3.12 warns about it.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Drop to UID and GID (-1 keeps ours), ask for SIGNAL on PARENT's death and exec PROGRAM."""
    parent, signal_number, uid, gid = (int(number) for number in argv[:4])
    if uid != -1:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After setuid, because the kernel forgets the signal when credentials change. It is sent when
    # the thread that forked us ends, so the caller forks from a thread that outlives us.
    if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        sys.exit("PR_SET_PDEATHSIG was refused")
    if os.getppid() != parent:
        sys.exit("the parent died before the leash was on")
    os.umask(0o077)
    os.execv(argv[4], argv[4:])  # noqa: S606  no shell is the point; the caller chose the program


if __name__ == "__main__":
    main(sys.argv[1:])
