"""Confine this process, then become a media tool. Started by `media.sandbox`, never imported.

Run as `python -I -S confine.py name=value ... -- tool argument ...`: a program of its own, since
code between fork and exec may deadlock a process that has threads. It imports nothing of ours,
so that it starts in some 15 ms. Each step can only take rights away, and the order of `confine`
is the order in which they must go. Exit status 127 and a line that begins with `confine:` say
that the tool did not start, whatever the reason.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
NOT_STARTED = 127

Settings = dict[str, int]


def confine(settings: Settings) -> None:
    """Give up what the tool does not need. Raises OSError where the kernel refuses."""
    die_with(settings["parent"])
    limit_resources(settings)
    forbid_new_privileges()
    restore_signals()


def die_with(parent: int) -> None:
    """Have the kernel kill us when the worker dies, even of kill -9."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel knew that we care
        os.kill(os.getpid(), signal.SIGKILL)


def limit_resources(settings: Settings) -> None:
    """Hard limits lie one above soft ones: SIGXCPU says why a tool died, SIGKILL does not.

    There is none on processes: it would count all of the user's, not those of the tool.
    """
    limits = {
        resource.RLIMIT_AS: settings["address_space_bytes"],
        resource.RLIMIT_CPU: settings["cpu_s"],
        resource.RLIMIT_FSIZE: settings["file_bytes"],
        resource.RLIMIT_NOFILE: settings["open_files"],
        resource.RLIMIT_CORE: 0,
    }
    for which, limit in limits.items():
        _, hard = resource.getrlimit(which)
        most = sys.maxsize if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(which, (min(limit, most), min(limit + 1, most)))


def forbid_new_privileges() -> None:
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def restore_signals() -> None:
    """Python ignores SIGPIPE, and what is ignored stays so across exec.

    It ignores SIGXFSZ too, which is as we want it: writing a file then fails, and kills nobody.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def main(argv: list[str]) -> None:
    border = argv.index("--")
    words = (word.split("=", 1) for word in argv[:border])
    tool = argv[border + 1 :]
    try:
        confine({name: int(value) for name, value in words})
        os.execvp(tool[0], tool)  # noqa: S606 - becoming the tool without a shell is the point
    except Exception as exc:  # noqa: BLE001 - unconfined or not at all, so any failure means this
        why = exc.strerror if isinstance(exc, OSError) else f"{type(exc).__name__}: {exc}"
        sys.stderr.write(f"confine: {tool[0]}: {why}\n")
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main(sys.argv[1:])
