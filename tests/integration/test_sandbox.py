import asyncio
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from validators.errors import ToolCrashedError, ToolTimeoutError
from validators.media.sandbox import (
    CONFINE,
    NOT_STARTED,
    Completed,
    Limits,
    Sandbox,
    complaints,
    find_tool,
)

SANDBOX = Sandbox()
FREE = Sandbox(layers=frozenset())  # for what holds without any layer: limits, groups, pipes
PYTHON = [sys.executable, "-I", "-S", "-c"]


def limited(**changes: float) -> Sandbox:
    limits = replace(Limits(), **changes)  # type: ignore[arg-type]  # numbers all
    return replace(FREE, limits=limits)


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def running(marker: str) -> list[psutil.Process]:
    return [p for p in psutil.process_iter() if marker in " ".join(_words(p))]


def _words(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


async def comes(marker: str) -> bool:
    return await becomes(marker, there=True)


async def gone(marker: str) -> bool:
    return await becomes(marker, there=False)


async def becomes(marker: str, *, there: bool) -> bool:
    for _ in range(100):
        if bool(running(marker)) is there:
            return True
        await asyncio.sleep(0.05)
    return False


async def test_an_exit_status_is_a_result_not_an_error() -> None:
    completed = await SANDBOX.run(shell("echo out; echo err >&2; exit 3"))
    assert (completed.status, completed.stdout, completed.stderr) == (3, b"out\n", "err\n")
    assert not completed.succeeded


async def test_a_tool_sees_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    completed = await SANDBOX.run(["env"])
    names = {line.split("=")[0] for line in completed.stdout.decode().splitlines()}
    assert names <= {"PATH", "LC_ALL", "MALLOC_ARENA_MAX", "PWD"}


async def test_nothing_is_made_for_a_tool_that_could_be_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    completed = await FREE.run(["sh", "-c", f"pwd; ls -A {tmp_path} | wc -l"])
    assert completed.stdout.decode().split() == ["/", "0"]


async def test_a_tool_reads_nothing_from_our_input() -> None:
    completed = await SANDBOX.run(["cat"])
    assert completed.succeeded


async def test_a_tool_is_limited_and_can_gain_no_privileges() -> None:
    completed = await FREE.run(
        shell("ulimit -v; ulimit -n; ulimit -c; ulimit -f; grep NoNewPrivs /proc/self/status")
    )
    assert completed.stdout.decode().split() == ["2097152", "64", "0", "0", "NoNewPrivs:", "1"]


async def test_a_tool_cannot_write_a_file(tmp_path: Path) -> None:
    path = tmp_path / "written"
    dd = ["dd", "if=/dev/zero", f"of={path}", "bs=2", "count=1", "status=none"]
    completed = await FREE.run(dd)
    assert "File too large" in completed.stderr
    assert path.stat().st_size == 0


async def test_memory_past_the_limit_fails_the_tool_and_not_us() -> None:
    hog = [*PYTHON, "x = bytearray(1 << 30)"]
    completed = await limited(address_space_bytes=512 << 20).run(hog)
    assert completed.status == 1
    assert "MemoryError" in completed.stderr


async def test_a_tool_past_its_deadline_is_killed_with_its_children() -> None:
    started = time.monotonic()
    with pytest.raises(ToolTimeoutError):
        await limited(wall_s=0.5).run(shell("sleep 61.125 & sleep 61.125"))
    assert time.monotonic() - started < 5
    assert await gone("61.125")


@pytest.mark.parametrize("started", ["", "setsid "], ids=["its group", "a session of its own"])
async def test_a_child_that_keeps_the_pipes_open_does_not_hold_us_up(started: str) -> None:
    """Where no filter refuses processes. One that leaves the group lives on, and we go on too."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    script = f"{started}sleep 11.375 & exit 0"
    with pytest.raises(ToolTimeoutError):
        await asyncio.wait_for(limited(wall_s=0.5).run(shell(script)), 8)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert started or await gone("11.375")


async def test_a_child_left_behind_is_killed() -> None:
    completed = await FREE.run(shell("sleep 61.4375 > /dev/null 2>&1 & exit 0"))
    assert completed.succeeded
    assert await gone("61.4375")


async def test_a_tool_that_burns_processor_time_is_late_too() -> None:
    with pytest.raises(ToolTimeoutError, match="processor"):
        await limited(cpu_s=1).run(shell("while :; do :; done"))


async def test_cancelling_kills_the_tool_with_its_children() -> None:
    task = asyncio.create_task(FREE.run(shell("sleep 61.25 & sleep 61.25")))
    assert await comes("61.25")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone("61.25")


async def test_a_tool_that_writes_without_end_is_stopped() -> None:
    completed = await limited(stdout_bytes=1000).run(["yes"])
    assert completed.overflowed
    assert len(completed.stdout) == 1000
    assert not completed.succeeded


async def test_only_the_end_of_many_complaints_is_kept() -> None:
    completed = await FREE.run(shell("yes complaint | head -100000 >&2; echo last >&2"))
    assert completed.succeeded
    assert completed.stderr.endswith("last\n")
    assert len(completed.stderr) <= 8192


async def test_death_by_a_signal_is_a_crash() -> None:
    with pytest.raises(ToolCrashedError, match="SIGSEGV"):
        await FREE.run(shell("kill -SEGV $$"))


async def test_a_tool_that_is_not_there_is_named() -> None:
    with pytest.raises(ToolCrashedError, match="no-such-tool"):
        await SANDBOX.run(["no-such-tool"])


async def test_a_tool_that_its_libraries_fail_is_ours_to_mend() -> None:
    with pytest.raises(ToolCrashedError, match="libavcodec"):
        await SANDBOX.run(shell("echo 'ffmpeg: error loading libavcodec.so.59' >&2; exit 127"))


async def test_a_tool_that_cannot_be_confined_does_not_start() -> None:
    """Whatever goes wrong: the real `confine`, told a limit that is no number."""
    confine = ["-I", "-S", str(CONFINE), "address_space_bytes=many", "--", "true"]
    process = await asyncio.create_subprocess_exec(sys.executable, *confine, stderr=PIPE)
    _, said = await process.communicate()
    assert process.returncode == NOT_STARTED
    assert said.startswith(b"confine: true: ValueError")
    assert b"Traceback" not in said


async def test_an_error_of_a_listener_comes_out_as_itself() -> None:
    def fail(_: bytes) -> None:
        raise ToolCrashedError("that makes no sense")

    with pytest.raises(ToolCrashedError, match="makes no sense"):
        await SANDBOX.run(shell("echo x; sleep 61.75"), on_stdout=fail)
    assert await gone("61.75")


def completed(stderr: str, status: int = 1) -> Completed:
    return Completed(status=status, stdout=b"", stderr=stderr)


@pytest.mark.parametrize(
    "said",
    ["Unrecognized option 'fps_mode'.", "y: Option not found", ""],
)
def test_what_a_tool_says_of_itself_is_ours_to_mend(said: str) -> None:
    with pytest.raises(ToolCrashedError):
        complaints(completed(said), Path("/m"))


def test_a_medium_that_wants_more_memory_than_there_is_is_no_failure_of_ours() -> None:
    said = complaints(completed("file:: Cannot allocate memory"), Path("/m"))
    assert said == "file:: Cannot allocate memory"


def test_the_name_of_a_medium_is_no_complaint() -> None:
    path = Path("/tmp/Option not found: Broken pipe.mp4")  # noqa: S108 - never opened
    said = complaints(completed(f"file:{path}: Invalid data found"), path)
    assert said == "file:: Invalid data found"


async def test_a_tool_whose_reader_went_away_ends_by_sigpipe() -> None:
    read, write = os.pipe()
    os.close(read)
    completed = await FREE.run(["bash", "-c", f"exec yes >&{write}"], pass_fds=[write])
    assert completed.status == -signal.SIGPIPE


async def test_passed_descriptors_are_ours_no_more() -> None:
    read, write = os.pipe()
    wrote = [*PYTHON, f"import os; os.write({write}, b'frame\\n')"]
    await SANDBOX.run(wrote, pass_fds=[write])
    assert os.read(read, 100) == b"frame\n"
    assert os.read(read, 100) == b""  # would block if we still held the write end
    os.close(read)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(write)


async def test_a_descriptor_that_the_tool_closes_is_closed_at_once() -> None:
    read, write = os.pipe()
    script = f"exec {write}>&-; exec sleep 61.5"
    task = asyncio.create_task(FREE.run(["bash", "-c", script], pass_fds=[write]))
    assert await asyncio.wait_for(asyncio.to_thread(os.read, read, 1), timeout=10) == b""
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    os.close(read)


async def test_nothing_stays_open_of_a_tool_that_was_stopped() -> None:
    before = sorted(entry.name for entry in Path("/proc/self/fd").iterdir())
    await limited(stdout_bytes=1000).run(["yes"])
    assert sorted(entry.name for entry in Path("/proc/self/fd").iterdir()) == before


async def test_a_tool_dies_with_its_worker(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from validators.media.sandbox import Sandbox\n"
        "asyncio.run(Sandbox().run(['sleep', '61.375']))\n"
    )
    script = tmp_path / "worker.py"
    script.write_text(code)
    worker = psutil.Popen([sys.executable, script])
    assert await comes("61.375")
    worker.kill()
    worker.wait()
    assert await gone("61.375")


def test_a_missing_tool_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFPROBE", "/nowhere/ffprobe")
    with pytest.raises(ToolCrashedError, match="set FFPROBE"):
        find_tool("ffprobe")


def test_the_environment_names_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFMPEG", "/bin/sh")
    assert find_tool("ffmpeg") == Path("/bin/sh")


async def test_a_relative_path_is_refused_before_a_tool_looks_for_it_elsewhere() -> None:
    with pytest.raises(ValueError, match="absolute"):
        await SANDBOX.run(["true"], reads=[Path("asset")])
