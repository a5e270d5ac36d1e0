"""The filter, run by a small machine of our own: the kernel's is in tests/integration."""

import errno
import re
import struct
from pathlib import Path

import pytest

from validators.media.seccomp import (
    ALLOW,
    AND,
    ASKED,
    AT_LEAST,
    EQUAL,
    ERRNO,
    KILL,
    LOAD,
    MACHINES,
    RETURN,
    filter_for,
    listed,
)

X86_64, AARCH64 = MACHINES["x86_64"], MACHINES["aarch64"]
EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
RENAMED = {"newfstatat": "fstatat"}  # as the generic header calls it


def judge(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the filter for *machine* answers to one call."""
    program = filter_for(machine)
    assert program is not None
    known = MACHINES[machine].audit if audit is None else audit
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, known, 0, *padded)
    return run([struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)], data)


def run(program: list[tuple[int, ...]], data: bytes) -> int:
    at = value = 0
    while True:
        code, true, false, operand = program[at]
        at += 1
        if code == RETURN:
            return operand
        if code == LOAD:
            value = struct.unpack_from("=I", data, operand)[0]
        elif code == AND:
            value &= operand
        else:
            holds = {EQUAL: value == operand, AT_LEAST: value >= operand}[code]
            at += true if holds else false


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_what_is_listed_passes(machine: str) -> None:
    for number in listed(MACHINES[machine]).values():
        assert judge(machine, number, 7, 7, 7) == ALLOW


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_no_number_stands_for_two_calls(machine: str) -> None:
    column = MACHINES[machine].column
    asked = [call[column] for call in ASKED.values() if call[column] is not None]
    numbers = [*listed(MACHINES[machine]).values(), *asked]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"wants {header}, of linux-libc-dev")
    defined = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    numbers = {name: int(number) for name, number in defined}
    column = MACHINES[machine].column
    asked = {name: call[column] for name, call in ASKED.items() if call[column] is not None}
    for name, number in {**listed(MACHINES[machine]), **asked}.items():
        there = name if name in numbers else RENAMED.get(name, name)
        assert numbers[there] == number, name


def test_every_number_is_known_on_both_machines_or_is_an_old_one_of_x86_64() -> None:
    old = set(listed(X86_64)) - set(listed(AARCH64))
    assert set(listed(AARCH64)) <= set(listed(X86_64))
    assert old == {
        *("stat", "lstat", "access", "readlink", "dup2", "pipe", "poll", "select", "time"),
        *("arch_prctl", "epoll_create", "epoll_wait"),
    }


@pytest.mark.parametrize(
    ("name", "x86_64", "aarch64"),
    [
        ("socket", 41, 198),
        ("socketpair", 53, 199),
        ("connect", 42, 203),
        ("bind", 49, 200),
        ("sendto", 44, 206),
        ("kill", 62, 129),
        ("tgkill", 234, 131),
        ("ptrace", 101, 117),
        ("mount", 165, 40),
        ("unshare", 272, 97),
        ("bpf", 321, 280),
        ("keyctl", 250, 219),
        ("process_vm_readv", 310, 270),
        ("process_vm_writev", 311, 271),
        ("memfd_create", 319, 279),
        ("execveat", 322, 281),
        ("setrlimit", 160, 164),
        ("unlinkat", 263, 35),
        ("userfaultfd", 323, 282),
        ("perf_event_open", 298, 241),
    ],
)
def test_what_is_not_listed_does_not(name: str, x86_64: int, aarch64: int) -> None:
    assert judge("x86_64", x86_64) == EPERM, name
    assert judge("aarch64", aarch64) == EPERM, name


@pytest.mark.parametrize("machine", sorted(MACHINES))
@pytest.mark.parametrize("number", [424, 425, 434, 435, 437, 438, 1000])
def test_newer_calls_are_not_there_so_that_libraries_fall_back(machine: str, number: int) -> None:
    assert judge(machine, number) == ENOSYS


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_another_architecture_kills(machine: str) -> None:
    assert judge(machine, 0, audit=0x4000_0003) == KILL  # i386


def test_x32_kills() -> None:
    assert judge("x86_64", 0x4000_0000) == KILL


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("clone", (0x003D_0F00,), ALLOW),  # what glibc starts a thread with
        ("clone", (0x007D_0F00,), ALLOW),  # musl
        ("clone", (0x0120_0011,), EPERM),  # fork
        ("clone", (0x4111,), EPERM),  # vfork
        ("clone", (0x103D_0F00,), EPERM),  # a thread in a user namespace
        ("clone", (0x403D_0F00,), EPERM),
        ("openat", (0, 0, 0o2000000), ALLOW),
        ("openat", (0, 0, 0o2000000 | 1), EPERM),
        ("openat", (0, 0, 2), EPERM),
        ("openat", (0, 0, 0o100), EPERM),
        ("openat", (0, 0, 0o1000), EPERM),
        ("openat", (0, 0, 0o20000000), EPERM),
        ("prlimit64", (0, 7), ALLOW),
        ("prlimit64", (1, 7), EPERM),
        ("prctl", (15,), ALLOW),
        ("prctl", (1,), EPERM),
        ("prctl", (22,), EPERM),
        ("fcntl", (0, 4), ALLOW),
        ("fcntl", (0, 8), EPERM),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), EPERM),
    ],
)
def test_some_calls_pass_with_some_arguments(
    name: str, arguments: tuple[int, ...], answer: int
) -> None:
    for machine, known in MACHINES.items():
        number = ASKED[name][:2][known.column]
        assert number is not None
        assert judge(machine, number, *arguments) == answer


def test_a_machine_without_a_table_has_no_filter() -> None:
    assert filter_for("riscv64") is None
