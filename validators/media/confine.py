"""Confine this process, then become a media tool. Started by `media.sandbox`, never imported.

Run as `python -I -S confine.py name=value ... -- tool argument ...`: a program of its own, since
code between fork and exec may deadlock a process that has threads. It imports nothing of ours,
so that it starts in some 15 ms. Each step can only take rights away, and the order of `confine`
is the order in which they must go. Exit status 127 and a line that begins with `confine:` say
that the tool did not start, whatever the reason.

Names: `parent`, the limits, `read` (a file that must be readable), `library` (a file or folder
that may be), for each layer `try` or `must`, `filter` (of system calls, in hexadecimal), and
`explain` to hear which layers could not be had.
"""

import ctypes
import errno
import os
import resource
import signal
import stat
import struct
import sys
from collections.abc import Callable, Iterator

PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
NOT_STARTED = 127

CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET_IPC_UTS = 0x4C00_0000
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x2008_0522
THREADS = 512  # far more than a tool starts, libraries with a thread for each core included

# numbers that are the same on every architecture
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
FILE_RIGHTS = (1 << 13) - 1
LATER_FILE_RIGHTS = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # move, truncate, device ioctl, by ABI
TCP_RIGHTS, SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals
TCP_ABI, SCOPES_ABI = 4, 6

# Where the dynamic loader finds libraries, and what a C library asks about the machine.
SYSTEM = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"),
    *("/nix/store", "/gnu/store"),
    *("/etc/ld.so.cache", "/etc/ld.so.preload", "/sys/devices/system/cpu"),
)
HEAD_BYTES = 8192  # of a program, in which its interpreter is named
INTERPRETERS = 4  # the kernel follows no more
PT_INTERP = 3

Settings = dict[str, list[str]]

libc = ctypes.CDLL(None, use_errno=True)


def confine(settings: Settings, tool: str) -> None:
    """Give up what *tool* does not need. Raises OSError where the kernel refuses what must be."""
    limit_resources(settings)
    _layer(settings, "namespaces", leave_namespaces)
    drop_capabilities()
    die_with(int(settings["parent"][0]))
    restore_signals()
    forbid_new_privileges()
    _layer(settings, "landlock", lambda: restrict_files(settings, tool))
    _layer(settings, "seccomp", lambda: filter_system_calls(settings))
    expect_readable(settings)


def _layer(settings: Settings, name: str, give_up: Callable[[], None]) -> None:
    wanted = settings.get(name)
    if wanted is None:
        return
    try:
        give_up()
    except OSError as exc:
        if wanted == ["must"]:
            raise OSError(exc.errno, f"{name}: {exc.strerror}") from exc
        if "explain" in settings:
            sys.stderr.write(f"confine: without {name}: {exc.strerror}\n")


def limit_resources(settings: Settings) -> None:
    """Hard limits lie one above soft ones: SIGXCPU says why a tool died, SIGKILL does not."""
    limits = {
        resource.RLIMIT_AS: int(settings["address_space_bytes"][0]),
        resource.RLIMIT_CPU: int(settings["cpu_s"][0]),
        resource.RLIMIT_FSIZE: int(settings["file_bytes"][0]),
        resource.RLIMIT_NOFILE: int(settings["open_files"][0]),
        resource.RLIMIT_CORE: 0,
    }
    for which, limit in limits.items():
        _, hard = resource.getrlimit(which)
        most = sys.maxsize if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(which, (min(limit, most), min(limit + 1, most)))


def leave_namespaces() -> None:
    """An empty network, and nobody's shared memory. Root keeps its user namespace: in another it
    could not read the files of others. Everybody else needs one, in which threads are counted
    apart from the user's other processes, so that their number can be limited.
    """
    if libc.unshare(CLONE_NEWNET_IPC_UTS) == 0:
        return
    _checked(libc.unshare(CLONE_NEWUSER | CLONE_NEWNET_IPC_UTS))
    resource.setrlimit(resource.RLIMIT_NPROC, (THREADS, THREADS))


def drop_capabilities() -> None:
    """None but root has any. Reading stays: a store may belong to somebody else."""
    held = (ctypes.c_uint32 * 6)()
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    _checked(libc.capget(header, held))
    kept = held[0] & 1 << CAP_DAC_READ_SEARCH
    _checked(libc.capset(header, struct.pack("6I", kept, kept, 0, 0, 0, 0)))


def die_with(parent: int) -> None:
    """Have the kernel kill us when the worker dies, even of kill -9.

    It forgets this when credentials change, so it comes after them.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel knew that we care
        os.kill(os.getpid(), signal.SIGKILL)


def restore_signals() -> None:
    """Python ignores SIGPIPE, and what is ignored stays so across exec.

    It ignores SIGXFSZ too, which is as we want it: writing a file then fails, and kills nobody.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def forbid_new_privileges() -> None:
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def restrict_files(settings: Settings, tool: str) -> None:
    """Landlock, at the best version that the kernel has. What is opened already stays open."""
    abi = _checked(libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, 1))
    files = FILE_RIGHTS | sum(right for since, right in LATER_FILE_RIGHTS.items() if abi >= since)
    tcp = TCP_RIGHTS if abi >= TCP_ABI else 0
    scopes = SCOPES if abi >= SCOPES_ABI else 0
    handled = struct.pack("QQQ", files, tcp, scopes)
    rules = _checked(libc.syscall(LANDLOCK_CREATE_RULESET, handled, len(handled), 0))
    for path in settings.get("read", []):
        allow(rules, path, READ_FILE)
    for path in (*SYSTEM, *_beside(tool), *settings.get("library", [])):
        allow(rules, path, READ_FILE | READ_DIR)
    allow(rules, "/dev/null", READ_FILE | WRITE_FILE)
    for path in programs(tool):
        allow(rules, path, READ_FILE | EXECUTE)
    _checked(libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0))
    os.close(rules)


def allow(rules: int, path: str, rights: int) -> None:
    """Let *path* be used, and all below it; what is not there needs no rule."""
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISDIR(os.fstat(opened).st_mode):
        rights &= ~READ_DIR
    rule = struct.pack("=Qi", rights, opened)
    _checked(libc.syscall(LANDLOCK_ADD_RULE, rules, 1, rule, 0))
    os.close(opened)


def programs(tool: str) -> Iterator[str]:
    """The tool and what the kernel starts to run it: a script's interpreter, a dynamic loader."""
    path: str | None = tool
    for _ in range(INTERPRETERS):
        if path is None:
            return
        yield path
        try:
            with open(path, "rb") as program:  # noqa: PTH123 - pathlib takes long to import
                path = interpreter(program.read(HEAD_BYTES))
        except OSError:
            return


def interpreter(head: bytes) -> str | None:
    """What a program that begins with *head* is started by, or None."""
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].split()
        return os.fsdecode(words[0]) if words else None
    if not head.startswith(b"\x7fELF\x02"):
        return None
    table, size, entries = *struct.unpack_from("Q", head, 32), *struct.unpack_from("HH", head, 54)
    for at in range(table, min(table + size * entries, len(head) - size), size):
        if struct.unpack_from("I", head, at)[0] == PT_INTERP:
            start, length = struct.unpack_from("Q16xQ", head, at + 8)
            return os.fsdecode(head[start : start + length].rstrip(b"\0"))
    return None


def _beside(tool: str) -> list[str]:
    """The libraries of a tool that was unpacked somewhere: `lib` beside its `bin`."""
    folder = os.path.dirname(os.path.realpath(tool))  # noqa: PTH120 - pathlib takes long to import
    return [f"{folder}/../lib"] if folder.endswith("/bin") else []


def filter_system_calls(settings: Settings) -> None:
    if "filter" not in settings:
        raise OSError(errno.ENOSYS, f"no table of the system calls of {os.uname().machine}")
    program = bytes.fromhex(settings["filter"][0])
    held = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described)


def expect_readable(settings: Settings) -> None:
    """What the tool could not read it would call broken, and the verdict would be for ever."""
    for path in settings.get("read", []):
        os.close(os.open(path, os.O_RDONLY))


def _prctl(option: int, value: int, more: bytes | None = None) -> None:
    _checked(libc.prctl(option, ctypes.c_ulong(value), more, 0, 0))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def find(tool: str) -> str:
    """Where *tool* is. Raises FileNotFoundError."""
    if "/" in tool:
        return tool
    for folder in os.get_exec_path():
        path = f"{folder}/{tool}"
        if os.access(path, os.X_OK) and not os.path.isdir(path):  # noqa: PTH112 - as above
            return path
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def main(argv: list[str]) -> None:
    border = argv.index("--")
    settings: Settings = {}
    for word in argv[:border]:
        name, _, value = word.partition("=")
        settings.setdefault(name, []).append(value)
    tool = argv[border + 1 :]
    try:
        found = find(tool[0])
        confine(settings, found)
        os.execv(found, tool)  # noqa: S606 - becoming the tool without a shell is the point
    except Exception as exc:  # noqa: BLE001 - unconfined or not at all, so any failure means this
        why = exc.strerror if isinstance(exc, OSError) else f"{type(exc).__name__}: {exc}"
        sys.stderr.write(f"confine: {tool[0]}: {why}\n")
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main(sys.argv[1:])
