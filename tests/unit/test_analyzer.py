import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from validators.analysis.client import DEFAULT_ARGV, Analyzer
from validators.analysis.wire import Analysis, AnalysisRequest
from validators.errors import AnalysisCrashedError, AnalysisTimeoutError, InspectionError
from validators.facts import Kind

FAKE_CHILD = (sys.executable, "-m", "tests.fakes.analysis_child")
SAMPLES = AnalysisRequest(kind=Kind.AUDIO, frames=None, samples=True)
FATES = {
    "crash": AnalysisCrashedError,
    "fail": AnalysisCrashedError,
    "grow": AnalysisCrashedError,
    "garbage": AnalysisCrashedError,
    "huge_frame": AnalysisCrashedError,
    "half_an_answer": AnalysisCrashedError,
    "hang": AnalysisTimeoutError,
}


def pipe_with(words: str) -> int:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as pipe:
        pipe.write(words.encode())
    return read_end


async def ask(analyzer: Analyzer, fate: str) -> Analysis:
    return await analyzer.analyze(SAMPLES, [pipe_with(fate)])


async def pid_of(analyzer: Analyzer) -> int:
    return int((await ask(analyzer, "answer")).engines["pid"])


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def open_fds() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
async def analyzer() -> AsyncIterator[Analyzer]:
    async with Analyzer(timeout_s=3, memory_bytes=256 << 20, argv=FAKE_CHILD) as analyzer:
        yield analyzer


async def test_one_warm_child_serves_many_requests(analyzer: Analyzer) -> None:
    assert await pid_of(analyzer) == await pid_of(analyzer)
    assert analyzer.restarts == 0


@pytest.mark.parametrize(("fate", "error"), FATES.items())
async def test_a_lost_child_costs_its_own_request_and_leaves_nothing_behind(
    analyzer: Analyzer, fate: str, error: type[InspectionError]
) -> None:
    before = await pid_of(analyzer)
    fds = open_fds()
    with pytest.raises(error):
        await ask(analyzer, fate)
    assert not psutil.pid_exists(before)  # neither running nor a zombie
    after = await pid_of(analyzer)
    assert after != before
    assert analyzer.restarts == 1
    assert open_fds() == fds


@pytest.mark.parametrize("fate", FATES)
async def test_a_lost_child_leaves_its_neighbours_alone(fate: str) -> None:
    async with Analyzer(timeout_s=3, memory_bytes=256 << 20, argv=FAKE_CHILD, children=3) as three:
        await three.warm_up()
        lost, *answers = await asyncio.gather(
            ask(three, fate), *(pid_of(three) for _ in range(8)), return_exceptions=True
        )
        assert isinstance(lost, FATES[fate])
        assert all(isinstance(answer, int) for answer in answers)
        assert three.restarts == 1


async def test_the_error_tells_what_the_child_said_last(analyzer: Analyzer) -> None:
    with pytest.raises(AnalysisCrashedError, match="exit status 1; RuntimeError: a model failed"):
        await ask(analyzer, "fail")


async def test_the_memory_limit_is_the_kernels(analyzer: Analyzer) -> None:
    with pytest.raises(AnalysisCrashedError, match="MemoryError"):
        await ask(analyzer, "grow")


async def test_what_models_print_does_not_reach_the_channel(analyzer: Analyzer) -> None:
    analysis = await ask(analyzer, "noise")
    assert int(analysis.engines["pid"]) == await pid_of(analyzer)


async def test_a_child_that_died_between_requests_costs_none(analyzer: Analyzer) -> None:
    before = int((await ask(analyzer, "last_answer")).engines["pid"])
    while psutil.pid_exists(before):  # noqa: ASYNC110 - nothing to wait on but its end
        await asyncio.sleep(0.01)
    assert await pid_of(analyzer) != before
    assert analyzer.restarts == 1


async def test_a_child_whose_end_is_not_known_yet_costs_no_request_either(
    analyzer: Analyzer,
) -> None:
    before = await pid_of(analyzer)
    psutil.Process(before).kill()
    while not ended(before):
        time.sleep(0.001)  # noqa: ASYNC251 - the loop must not hear of it
    assert await pid_of(analyzer) != before
    assert analyzer.restarts == 1


async def test_cancelling_a_request_kills_its_child(analyzer: Analyzer) -> None:
    before = await pid_of(analyzer)
    fds = open_fds()
    task = asyncio.create_task(ask(analyzer, "hang"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(before)
    assert await pid_of(analyzer) != before
    assert open_fds() == fds


async def test_cancelling_a_request_that_waits_for_a_child_closes_its_pipe(
    analyzer: Analyzer,
) -> None:
    before = await pid_of(analyzer)
    fds = open_fds()
    first = asyncio.create_task(ask(analyzer, "noise"))
    waiting = asyncio.create_task(ask(analyzer, "answer"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert int((await first).engines["pid"]) == before  # the child never heard of it
    assert open_fds() == fds


async def test_our_copy_of_a_pipe_is_closed_while_the_child_reads(analyzer: Analyzer) -> None:
    child = await pid_of(analyzer)
    read_end, write_end = os.pipe()
    task = asyncio.create_task(analyzer.analyze(SAMPLES, [read_end]))
    await asyncio.sleep(0.2)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read_end)
    psutil.Process(child).kill()
    with pytest.raises(AnalysisCrashedError):
        await task
    with pytest.raises(BrokenPipeError):  # nobody else holds the read end
        os.write(write_end, b"?")
    os.close(write_end)


async def test_a_second_request_waits_for_the_only_child(analyzer: Analyzer) -> None:
    pids = await asyncio.gather(*(pid_of(analyzer) for _ in range(5)))
    assert len(set(pids)) == 1


async def test_children_work_at_the_same_time() -> None:
    async with Analyzer(timeout_s=3, argv=FAKE_CHILD, children=2) as two:
        hanging = asyncio.create_task(ask(two, "hang"))
        assert await pid_of(two)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging


async def test_descriptors_that_were_not_announced_are_closed_and_refused(
    analyzer: Analyzer,
) -> None:
    fds = open_fds()
    with pytest.raises(ValueError, match="2 descriptors"):
        await analyzer.analyze(SAMPLES, [pipe_with("answer"), pipe_with("answer")])
    assert open_fds() == fds


async def test_a_child_sees_no_secret_and_leaves_no_core(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GREENROOM_SECRET_KEYS", "s3cret")
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    async with Analyzer(argv=FAKE_CHILD, models_dir=tmp_path) as analyzer:
        seen = (await ask(analyzer, "answer")).engines
    allowed = {"HOME", "LANG", "LC_CTYPE", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "PATH"}
    allowed |= {"GREENROOM_MODELS_DIR", "XDG_CACHE_HOME"}
    assert set(seen["environment"].split()) <= allowed
    assert seen["core"] == "0"


async def test_leaving_ends_every_child() -> None:
    others = set(psutil.Process().children())  # the tests' own database server, perhaps
    async with Analyzer(timeout_s=3, argv=FAKE_CHILD, children=2) as two:
        await two.warm_up()
        children = set(psutil.Process().children()) - others
        assert len(children) == 2
    assert not any(child.is_running() for child in children)


async def test_a_program_that_cannot_start_is_a_crash_and_says_so_to_readiness(
    tmp_path: Path,
) -> None:
    async with Analyzer(argv=(str(tmp_path / "absent"),)) as analyzer:
        assert await analyzer.ready()  # nothing is known against it yet
        with pytest.raises(AnalysisCrashedError):
            await ask(analyzer, "answer")
        assert not await analyzer.ready()
        assert "absent" in str(await analyzer.trouble())


async def test_a_child_that_cannot_be_limited_is_ended_and_serves_nobody() -> None:
    before, fds = set(psutil.Process().children()), open_fds()
    async with Analyzer(argv=FAKE_CHILD, memory_bytes=1 << 64) as analyzer:
        with pytest.raises(AnalysisCrashedError, match="cannot be limited"):
            await ask(analyzer, "answer")
        assert set(psutil.Process().children()) == before
        assert open_fds() == fds
        assert "cannot be limited" in str(await analyzer.trouble())


async def test_a_child_that_dies_at_its_start_is_not_ready() -> None:
    async with Analyzer(argv=(sys.executable, "-c", "raise SystemExit('no model')")) as analyzer:
        with pytest.raises(AnalysisCrashedError, match="no model"):
            await ask(analyzer, "answer")
        assert "no model" in str(await analyzer.trouble())


async def test_a_running_child_is_ready_and_a_crash_under_load_does_not_change_that(
    analyzer: Analyzer,
) -> None:
    await pid_of(analyzer)
    assert await analyzer.ready()
    with pytest.raises(AnalysisCrashedError):
        await ask(analyzer, "crash")
    assert await analyzer.ready()


async def test_weights_that_are_missing_are_trouble(tmp_path: Path) -> None:
    async with Analyzer(argv=FAKE_CHILD, models_dir=tmp_path) as analyzer:
        assert "greenroom models" in str(await analyzer.trouble())


async def test_the_loop_stays_free_while_a_child_hangs(analyzer: Analyzer) -> None:
    await pid_of(analyzer)
    task = asyncio.create_task(ask(analyzer, "hang"))
    loop, worst = asyncio.get_running_loop(), 0.0
    for _ in range(50):
        start = loop.time()
        await asyncio.sleep(0.01)
        worst = max(worst, loop.time() - start - 0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert worst < 0.2


def test_the_default_child_ignores_what_lies_in_the_working_directory() -> None:
    assert DEFAULT_ARGV[1:] == ("-P", "-m", "validators.analysis")
