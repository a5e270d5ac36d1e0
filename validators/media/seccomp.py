"""The system calls that a media tool may make, as a program for the kernel's filter. Pure.

What is listed passes; some calls pass with certain arguments only. Of the rest, what Linux 5.1
and later brought answers ENOSYS, so that a C library falls back on what it did before; all else
answers EPERM. Answers are chosen over death: a library that tries something at its start goes
on without it. The table was read off ffmpeg, ffprobe and Pillow's child with strace, and holds
besides what other C libraries call for memory, files, time and threads.

There is no socket of any family in it, no signal to anybody, no second process, and no file
that is opened for writing.
"""

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass

LISTED = """
read 0 63, write 1 64, mmap 9 222, munmap 11 215, futex 202 98, mprotect 10 226, close 3 57
newfstatat 262 79, lseek 8 62, brk 12 214, mremap 25 216, madvise 28 233
mlock 149 228, munlock 150 229
pread64 17 67, pwrite64 18 68, readv 19 65, writev 20 66, preadv 295 69, preadv2 327 286
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, sigaltstack 131 132
restart_syscall 219 128, set_robust_list 273 99, rseq 334 293, set_tid_address 218 96
membarrier 324 283, exit 60 93, exit_group 231 94, execve 59 221, sched_yield 24 124
sched_getaffinity 204 123, sched_getparam 143 121, sched_getscheduler 145 120
sched_get_priority_max 146 125, sched_get_priority_min 147 126, getcpu 309 168
clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101
gettimeofday 96 169, times 100 153, getrusage 98 165, sysinfo 99 179, uname 63 160
getpid 39 172, gettid 186 178, getppid 110 173, getuid 102 174, geteuid 107 175
getgid 104 176, getegid 108 177, getrandom 318 278, getrlimit 97 163, umask 95 166
fstat 5 80, statx 332 291, faccessat 269 48, faccessat2 439 439, readlinkat 267 78
getcwd 79 17, getdents64 217 61, statfs 137 43, fstatfs 138 44, fadvise64 221 223
dup 32 23, dup3 292 24, pipe2 293 59, close_range 436 436, ppoll 271 73, pselect6 270 72
epoll_create1 291 20, epoll_ctl 233 21, epoll_pwait 281 22
stat 4 -, lstat 6 -, access 21 -, readlink 89 -, dup2 33 -, pipe 22 -
poll 7 -, select 23 -, time 201 -, arch_prctl 158 -, epoll_create 213 -, epoll_wait 232 -
"""

WRITING = 0x0040_0243  # O_ACCMODE, O_CREAT, O_TRUNC and O_TMPFILE, the same on every machine
THREAD = 0x0001_0000  # CLONE_THREAD
NAMESPACES = 0x7E02_0000  # CLONE_NEW*, all that clone knows

# Which argument is looked at, which of its bits, and the values with which the call passes. The
# kernel takes all of these as 32 bits. fcntl: F_SETOWN would let a signal be sent to others.
ASKED: dict[str, tuple[int, int | None, int, int, tuple[int, ...]]] = {
    "openat": (257, 56, 2, WRITING, (0,)),
    "open": (2, None, 1, WRITING, (0,)),
    "clone": (56, 220, 0, THREAD | NAMESPACES, (THREAD,)),
    "prlimit64": (302, 261, 0, ~0, (0,)),  # of ourselves alone
    "prctl": (157, 167, 0, ~0, (15, 16, 23, 51)),  # PR_SET_NAME, GET_NAME, CAPBSET_READ, SVE_GET_VL
    "fcntl": (72, 25, 1, ~0, (0, 1, 2, 3, 4, 1030, 1032)),  # DUPFD, [GS]ETF[DL], GETPIPE_SZ
    "ioctl": (16, 29, 1, ~0, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),  # is it a terminal
}

FIRST_OF_5_1 = 424  # from pidfd_send_signal on, numbers are the same everywhere
X32 = 0x4000_0000

ALLOW, KILL, ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
WORD = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """An architecture as the kernel's audit names it, and its column in the tables."""

    audit: int
    column: int


MACHINES = {
    "x86_64": Machine(audit=0xC000_003E, column=0),
    "aarch64": Machine(audit=0xC000_00B7, column=1),
}

Instruction = tuple[int, int, int, int]  # code, steps to jump where true, where false, operand


def filter_for(machine: str) -> bytes | None:
    """The program for *machine*, as `os.uname().machine` names it; None: no table of its calls."""
    known = MACHINES.get(machine)
    if known is None:
        return None
    return b"".join(struct.pack("=HBBI", *each) for each in _instructions(known))


def listed(machine: Machine) -> dict[str, int]:
    """The calls that pass with any arguments, by name."""
    entries = (entry.split() for line in LISTED.split("\n") if line for entry in line.split(", "))
    numbers = {name: known[machine.column] for name, *known in entries}
    return {name: int(number) for name, number in numbers.items() if number != "-"}


def _instructions(machine: Machine) -> Iterator[Instruction]:
    yield LOAD, 0, 0, ARCHITECTURE_AT
    yield EQUAL, 1, 0, machine.audit
    yield RETURN, 0, 0, KILL
    yield LOAD, 0, 0, NUMBER_AT
    if machine is MACHINES["x86_64"]:
        yield AT_LEAST, 0, 1, X32
        yield RETURN, 0, 0, KILL
    for number in listed(machine).values():
        yield EQUAL, 0, 1, number
        yield RETURN, 0, 0, ALLOW
    for x86_64, aarch64, argument, mask, values in ASKED.values():
        asked = list(_asked(argument, mask & WORD, values))
        if (known := (x86_64, aarch64)[machine.column]) is not None:
            yield EQUAL, 0, len(asked), known
            yield from asked
    yield AT_LEAST, 0, 1, FIRST_OF_5_1
    yield RETURN, 0, 0, ERRNO | errno.ENOSYS
    yield RETURN, 0, 0, ERRNO | errno.EPERM


def _asked(argument: int, mask: int, values: tuple[int, ...]) -> Iterator[Instruction]:
    yield LOAD, 0, 0, ARGUMENTS_AT + 8 * argument
    yield AND, 0, 0, mask
    for value in values:
        yield EQUAL, 0, 1, value
        yield RETURN, 0, 0, ALLOW
    yield RETURN, 0, 0, ERRNO | errno.EPERM
