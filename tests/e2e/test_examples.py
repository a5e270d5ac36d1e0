"""The examples do what they say, against a real service."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, SAMPLES, dev, origin

PAIR = {"image": "portrait.jpg", "audio": "voice.flac"}


@asynccontextmanager
async def fitter(url: str, key: str, work: Path) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "examples/fitter.py", url, str(work)),
        cwd=ROOT,
        env={**os.environ, "FITTER_KEY": key},
    )
    try:
        yield process
        assert process.returncode is None, "the fitter ended by itself"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def cursor_kept(work: Path) -> str:
    """The cursor that the fitter wrote down once it was through with a page of events."""
    async with asyncio.timeout(60):
        while True:
            if (work / "state.json").exists():
                state = json.loads((work / "state.json").read_text())
                if state["cursor"]:
                    return str(state["cursor"])
            await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
async def test_the_fitter_makes_an_avatar_ready_and_a_second_reading_changes_nothing(
    tmp_path: Path,
) -> None:
    work = tmp_path / "work"
    async with origin() as source:
        environ = {"GREENROOM_FETCH_ALLOW": f"127.0.0.1/32:{source.port}"}
        async with dev(tmp_path / "data", environ) as service:
            started = json.loads((tmp_path / "data.ready").read_text())
            avatar = await service.create(source.url, **PAIR)
            async with fitter(started["url"], started["key"], work):
                await service.verdict_when(avatar, "ready", "failed", within_s=120)
                cursor = await cursor_kept(work)
            (work / "state.json").unlink()  # killed, and its memory lost: it reads all again
            async with fitter(started["url"], started["key"], work):
                assert await cursor_kept(work) == cursor
            assert (await service.get(f"/avatar-profiles/{avatar}"))["status"] == "ready"
            assert len(await service.events("avatar.ready")) == 1
    for role, name in PAIR.items():
        (copy,) = work.glob(f"*-{role}")
        assert copy.read_bytes() == (SAMPLES / name).read_bytes()
