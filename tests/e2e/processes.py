"""The `greenroom` command as operators run it: real processes, killed for real."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from aiohttp import ClientSession, web

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
GREENROOM = (sys.executable, "-m", "service")
START_S = 60.0


@dataclass(slots=True)
class Origin:
    """Serves samples/; a name in `held` sends half of its bytes and then nothing until let go."""

    url: str = ""
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    half_way: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        body = await asyncio.to_thread((SAMPLES / name).read_bytes)
        if name not in self.held or self.held[name].is_set():
            return web.Response(body=body)
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        self.half_way.set()
        with contextlib.suppress(ConnectionError):
            await self.held[name].wait()
            await response.write(body[len(body) // 2 :])
        return response


@asynccontextmanager
async def origin() -> AsyncIterator[Origin]:
    serving = Origin()
    app = web.Application()
    app.router.add_get("/{name}", serving.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    serving.url = "http://{}:{}".format(*runner.addresses[0][:2])
    try:
        yield serving
    finally:
        await runner.cleanup()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running process, and a client with its key."""

    process: Process
    client: ClientSession

    async def create(self, origin_url: str, **names: str) -> str:
        urls = {f"{kind}_url": f"{origin_url}/{name}" for kind, name in names.items()}
        async with self.client.post(
            "/avatar-profiles/create", json={"name": "Eileen", "sources": urls}
        ) as response:
            assert response.status == 200, await response.text()
            created: str = (await response.json())["id"]
            return created

    async def get(self, path: str) -> dict[str, Any]:
        async with self.client.get(path) as response:
            body: dict[str, Any] = await response.json()
            return body

    async def verdict_when(self, avatar: str, *states: str, within_s: float = 60) -> dict[str, Any]:
        """Poll the avatar's verdict until it is in one of *states*."""
        verdict: dict[str, Any] = {}
        try:
            async with asyncio.timeout(within_s):
                while verdict.get("state") not in states:
                    verdict = await self.get(f"/v1/avatars/{avatar}/verdict")
                    await asyncio.sleep(0.05)
        except TimeoutError as exc:
            raise AssertionError(f"still {verdict}") from exc
        return verdict

    async def inspecting(self, avatar: str) -> None:
        """Wait until an inspection is under way."""
        async with asyncio.timeout(60):
            while True:
                verdict = await self.get(f"/v1/avatars/{avatar}/verdict")
                if (verdict["progress"] or {}).get("stage") in INSPECTION_STAGES:
                    return
                await asyncio.sleep(0.02)

    async def events(self, type_: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.get(f"/v1/events?type={type_}"))["data"]
        return found


INSPECTION_STAGES = {"inspecting", "identify", "probe", "decode"}


@asynccontextmanager
async def command(*words: str, environ: Mapping[str, str]) -> AsyncIterator[Process]:
    """Run `greenroom *words*`; it must end well when told to, and leave nothing of its tree."""
    process = await asyncio.create_subprocess_exec(
        *GREENROOM, *words, cwd=ROOT, env=_environ(environ), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    if process.returncode is not None:
        assert process.returncode == -signal.SIGKILL, f"ended by itself: {process.returncode}"
        return  # by `kill`, which has looked at its tree
    tree = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(40):
            status = await process.wait()
    except TimeoutError:
        process.kill()
        raise
    assert status == 0
    _, left = await asyncio.to_thread(psutil.wait_procs, tree, timeout=10)
    assert not left, f"left behind: {left}"


def _environ(added: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")}
    return kept | {"GREENROOM_LOG_LEVEL": "warning"} | dict(added)


@asynccontextmanager
async def dev(data: Path, environ: Mapping[str, str]) -> AsyncIterator[Service]:
    """`greenroom dev` on *data*, ready."""
    ready_file = data.with_suffix(".ready")
    await asyncio.to_thread(ready_file.unlink, missing_ok=True)
    words = ("dev", "--port", "0", "--data", str(data), "--ready-file", str(ready_file))
    async with command(*words, environ=environ) as process:
        async with asyncio.timeout(START_S):
            while not await asyncio.to_thread(ready_file.exists):
                assert process.returncode is None, "greenroom dev ended before it was ready"
                await asyncio.sleep(0.02)
        started = json.loads(await asyncio.to_thread(ready_file.read_text))
        headers = {"Authorization": f"Bearer {started['key']}"}
        async with ClientSession(started["url"], headers=headers) as client:
            yield Service(process=process, client=client)


async def kill(process: Process) -> None:
    """SIGKILL, and proof that nothing of its tree outlives it."""
    tree = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    await process.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, tree, timeout=10)
    living = [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    assert not living, f"outlived their parent: {living}"


def holding_ffmpeg(folder: Path) -> tuple[Path, Path]:
    """A stand-in for ffmpeg that hangs while a file exists, and is the real one otherwise.

    Touch the file once the service runs: at its start it tries its tools out.
    """
    return _stand_in(folder, 'if [ -e "$hold" ]; then exec sleep 600; fi')


def once_hanging_ffmpeg(folder: Path) -> tuple[Path, Path]:
    """A stand-in for ffmpeg: the first to find a file takes it away and hangs."""
    return _stand_in(folder, 'if rm "$hold" 2>/dev/null; then exec sleep 600; fi')


def _stand_in(folder: Path, condition: str) -> tuple[Path, Path]:
    real, hold, script = shutil.which("ffmpeg"), folder / "hold", folder / "ffmpeg-holding"
    script.write_text(f'#!/bin/sh\nhold="{hold}"\n{condition}\nexec {real} "$@"\n')
    script.chmod(0o755)
    return script, hold
