"""ffmpeg hangs, the analysis child crashes, hangs and grows: one job is affected, nothing else."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from service.commands.serving import EVERYTHING
from service.fetch.address import parse_allowed_blocks
from service.ingest.jobs import Worker
from service.wiring import open_worker
from tests.api import Api, running_api, settings_for
from tests.e2e.processes import Origin, once_hanging_ffmpeg, origin
from validators.analysis.client import Analyzer
from validators.inspect import Tools
from validators.media.sandbox import Limits, Sandbox

LIVEZ_S = 0.1
# hanging is told from working on a machine that is busy: an inspection here takes about 2 s alone
LATE_S = 30
pytestmark = pytest.mark.timeout(10 * LATE_S)

PAIR = {"image": "portrait.jpg", "audio": "voice.flac"}


@dataclass(slots=True, kw_only=True)
class Running:
    """The whole service in this process, with an analysis child that can be told its fate."""

    api: Api
    source: Origin
    fate: Path
    hold: Path

    async def create(self) -> str:
        urls = {f"{kind}_url": f"{self.source.url}/{name}" for kind, name in PAIR.items()}
        response = await self.api.post(
            "/avatar-profiles/create", json={"name": "E", "sources": urls}
        )
        created: str = (await response.json())["id"]
        return created

    async def end_of(self, avatar: str) -> tuple[str, str | None]:
        """The avatar's last status and cause."""
        async with asyncio.timeout(6 * LATE_S):
            while True:
                verdict = await (await self.api.get(f"/v1/avatars/{avatar}/verdict")).json()
                if verdict["state"] in {"fitting", "failed"}:
                    return verdict["state"], verdict["cause"]
                await asyncio.sleep(0.1)

    async def failures(self) -> list[int]:
        rows = await self.api.base.pool.fetch("SELECT failures FROM asset WHERE failures > 0")
        return [row["failures"] for row in rows]


@asynccontextmanager
async def unruly_tools(fate: Path, ffmpeg: Path) -> AsyncIterator[Tools]:
    argv = (sys.executable, "-m", "tests.fakes.unruly_child", str(fate))
    async with Analyzer(timeout_s=LATE_S, argv=argv) as analyzer:
        # its ffmpeg is a script that starts another program: no layer would let it
        sandbox = Sandbox(limits=Limits(wall_s=LATE_S), layers=frozenset())
        yield Tools(sandbox=sandbox, analyzer=analyzer, ffmpeg=str(ffmpeg))


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[None]:
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.drain()
        await running


@pytest.fixture
async def running(dsn: str, tmp_path: Path) -> AsyncIterator[Running]:
    fate = tmp_path / "fate"
    ffmpeg, hold = once_hanging_ffmpeg(tmp_path)
    async with origin() as source, contextlib.AsyncExitStack() as stack:
        settings = replace(
            settings_for(dsn, tmp_path / "data"),
            fetch_allow=parse_allowed_blocks(f"127.0.0.1/32:{source.port}"),
            inspect_concurrency=1,
        )
        api = await stack.enter_async_context(running_api(settings))
        worker = await stack.enter_async_context(open_worker(api.base, EVERYTHING))
        tools = await stack.enter_async_context(unruly_tools(fate, ffmpeg))
        worker.ports = replace(worker.ports, tools=tools)
        await stack.enter_async_context(working(worker))
        yield Running(api=api, source=source, fate=fate, hold=hold)


@asynccontextmanager
async def answering_livez(api: Api) -> AsyncIterator[list[float]]:
    """Ask for /livez twenty times a second; the seconds that each answer took."""
    took: list[float] = []

    async def ask() -> None:
        while True:
            began = time.perf_counter()
            response = await api.client.get("/livez")
            took.append(time.perf_counter() - began)
            assert response.status == 200
            await asyncio.sleep(0.05)

    asking = asyncio.create_task(ask())
    try:
        yield took
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


def assert_lively(took: list[float]) -> None:
    """Blocking the loop for a whole inspection would fail this by far; a busy machine may not."""
    late = [seconds for seconds in took if seconds > LIVEZ_S]
    assert len(took) > 20
    assert len(late) <= len(took) // 100, (
        f"{len(late)} of {len(took)} late, worst {max(took):.3f} s"
    )


@pytest.mark.parametrize("fate", ["crash", "hang", "grow"])
async def test_a_lost_analysis_child_costs_one_job_one_more_run(
    running: Running, fate: str
) -> None:
    running.fate.write_text(f"{fate} once")
    async with answering_livez(running.api) as took:
        avatars = [await running.create(), await running.create()]
        ends = [await running.end_of(avatar) for avatar in avatars]
    assert ends == [("fitting", None)] * 2
    assert await running.failures() == [1]
    assert_lively(took)


async def test_an_ffmpeg_that_hangs_costs_one_job_one_more_run(running: Running) -> None:
    running.hold.touch()
    async with answering_livez(running.api) as took:
        assert await running.end_of(await running.create()) == ("fitting", None)
    assert not running.hold.exists()
    assert await running.failures() == [1]
    assert_lively(took)


async def test_the_third_crash_fails_the_avatar_as_our_fault_and_the_service_goes_on(
    running: Running,
) -> None:
    running.fate.write_text("crash always")
    avatar = await running.create()
    assert await running.end_of(avatar) == ("failed", "internal")
    profile = await (await running.api.get(f"/avatar-profiles/{avatar}")).json()
    assert "on our side" in profile["status_message"]
    running.fate.unlink()
    assert await running.end_of(await running.create()) == ("fitting", None)
