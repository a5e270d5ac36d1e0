"""Thousands of broken media through the real service, over HTTP, on this machine.

`python -m tests.fuzz.soak --files 2000 --seed 1 --out report.json` starts `greenroom dev` on a
data directory of its own and an origin that serves mutants, creates avatars from them, waits until
each is final, and reports. It ends with status 1 where the service crashed, a file had no
outcome or a late one, descriptors leaked, or a tool or a child of ours failed by our own fault.
Mutants to look into are kept beside the report.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from aiohttp import ClientSession, web

from tests.e2e.processes import GREENROOM, ROOT, SAMPLES
from tests.fuzz.mutate import Mutant, mutant
from tests.fuzz.parents import Parent, make_parents
from tests.fuzz.report import Judged, Report, write
from tests.fuzz.sampling import cpu_s, sampling
from validators.facts import Kind

WINDOW = 8  # avatars at once: enough to keep every processor busy
DEADLINE_S = 300.0  # from create to final: three runs of a probe and a decode of 60 s, and a queue
POLL_S = 0.1
START_S = 180.0  # with its models, on a busy machine
SETTLE_S = 3.0  # until what an inspection held open is closed
FINAL = {"fitting", "ready", "failed"}
CLEAN = {Kind.VIDEO: "one_person.mp4", Kind.IMAGE: "portrait.jpg", Kind.AUDIO: "voice.flac"}


@dataclass(slots=True, kw_only=True)
class Origin:
    """Serves mutants by their numbers and samples by their names, each made when asked for."""

    seed: int
    parents: Sequence[Parent]
    url: str = ""

    def make(self, number: int) -> Mutant:
        return mutant(self.seed, number, self.parents)

    async def answer(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name.isdigit():
            body = (await asyncio.to_thread(self.make, int(name))).data
        else:
            body = await asyncio.to_thread((SAMPLES / name).read_bytes)
        return web.Response(body=body, content_type="application/octet-stream")


@asynccontextmanager
async def serving(origin: Origin) -> AsyncIterator[Origin]:
    app = web.Application()
    app.router.add_get("/{name}", origin.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    origin.url = "http://{}:{}".format(*runner.addresses[0][:2])
    try:
        yield origin
    finally:
        await runner.cleanup()


@dataclass(slots=True, kw_only=True)
class Service:
    process: Process
    client: ClientSession
    log: Path
    ended_well: bool = False

    @property
    def crashed(self) -> bool:
        return self.process.returncode is not None

    async def create(self, urls: dict[Kind, str]) -> str:
        sources = {f"{kind}_url": url for kind, url in urls.items()}
        body = {"name": "Mutant", "sources": sources}
        async with self.client.post("/avatar-profiles/create", json=body) as response:
            answer = await response.json()
            if response.status != web.HTTPOk.status_code:
                raise RuntimeError(f"an avatar was refused: {answer}")
            return str(answer["id"])

    async def verdict(self, avatar: str) -> dict[str, Any]:
        async with self.client.get(f"/v1/avatars/{avatar}/verdict") as response:
            found: dict[str, Any] = await response.json()
            return found

    async def metric(self, name: str) -> float:
        async with self.client.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@asynccontextmanager
async def greenroom(folder: Path, origin: Origin) -> AsyncIterator[Service]:
    """`greenroom dev`, ready; its log is a file."""
    ready, log = folder / "ready", folder / "log"
    words = ("dev", "--port", "0", "--data", str(folder / "data"), "--ready-file", str(ready))
    named = {name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")}
    port = origin.url.rpartition(":")[2]
    environ = named | {"GREENROOM_FETCH_ALLOW": f"127.0.0.1/32:{port}"}
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *GREENROOM, *words, cwd=ROOT, env=environ, stdout=asyncio.subprocess.DEVNULL, stderr=out
        )
    try:
        async with asyncio.timeout(START_S):
            while not await asyncio.to_thread(ready.exists):
                if process.returncode is not None:
                    raise RuntimeError(await asyncio.to_thread(log.read_text))
                await asyncio.sleep(POLL_S)
        started = json.loads(await asyncio.to_thread(ready.read_text))
        headers = {"Authorization": f"Bearer {started['key']}"}
        async with ClientSession(started["url"], headers=headers) as client:
            service = Service(process=process, client=client, log=log)
            yield service
        service.ended_well = await _stop(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _stop(process: Process) -> bool:
    """Whether it drains and leaves no process behind."""
    if process.returncode is not None:
        return False
    tree = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        status = await process.wait()
    _, left = await asyncio.to_thread(psutil.wait_procs, tree, timeout=10)
    return status == 0 and not left


@dataclass(slots=True, kw_only=True)
class Soak:
    """One run in progress."""

    service: Service
    origin: Origin
    window: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(WINDOW))
    judged: list[Judged] = field(default_factory=list)

    async def run(self, files: int) -> None:
        """Raises an ExceptionGroup where the service does not answer any more."""
        async with asyncio.TaskGroup() as group:
            for sources in pairs(self.origin.parents, files):
                await self.window.acquire()
                task = group.create_task(self._follow(sources))
                task.add_done_callback(lambda _: self.window.release())

    async def _follow(self, sources: dict[Kind, int]) -> None:
        """From create to final, or until it is late."""
        began = time.monotonic()
        urls = {kind: f"{self.origin.url}/{CLEAN[kind]}" for kind in (Kind.IMAGE, Kind.AUDIO)}
        urls = {} if Kind.VIDEO in sources else urls
        urls |= {kind: f"{self.origin.url}/{number}" for kind, number in sources.items()}
        avatar = await self.service.create(urls)
        found = await self._end_of(avatar)
        took_s = time.monotonic() - began
        told = {source["role"]: source for source in found["sources"]}
        for kind, number in sources.items():
            made = await asyncio.to_thread(self.origin.make, number)
            source = told[kind.value]
            avatar_cause = found["cause"] if found["state"] in FINAL else "late"
            self.judged.append(
                Judged(
                    mutant=replace(made, data=b""),  # thousands would fill our memory
                    asset_id=source["asset_id"],
                    avatar_id=avatar,
                    codes=codes_of(source),
                    avatar_cause=avatar_cause,
                    took_s=took_s,
                )
            )

    async def _end_of(self, avatar: str) -> dict[str, Any]:
        """Its last state, which is not final where it is late."""
        found = await self.service.verdict(avatar)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                while found["state"] not in FINAL:
                    await asyncio.sleep(POLL_S)
                    found = await self.service.verdict(avatar)
        return found

    async def is_clean_media_accepted(self) -> bool:
        """The service still works: good sources are taken, whatever came before them."""
        urls = {kind: f"{self.origin.url}/{name}" for kind, name in CLEAN.items()}
        del urls[Kind.VIDEO]
        found = await self._end_of(await self.service.create(urls))
        return bool(found["state"] == "fitting")


def codes_of(source: dict[str, Any]) -> tuple[str, ...]:
    """The failed checks, `accepted`, the code of an error, or nothing: no outcome."""
    if "error" in source:
        return (f"error: {source['error']['code']}",)
    if "verdict" not in source:
        return ()
    failed = (c["code"] for c in source["verdict"]["checks"] if c["outcome"] == "fail")
    return tuple(failed) or ("accepted",)


def pairs(parents: Sequence[Parent], files: int) -> Iterator[dict[Kind, int]]:
    """The numbers of the mutants of each avatar: a video alone, an image and a sound together."""
    waiting: dict[Kind, list[int]] = {Kind.IMAGE: [], Kind.AUDIO: []}
    for number in range(files):
        kind = parents[number % len(parents)].kind
        if kind is Kind.VIDEO:
            yield {kind: number}
            continue
        waiting[kind].append(number)
        if all(waiting.values()):
            yield {each: numbers.pop(0) for each, numbers in waiting.items()}
    for kind, numbers in waiting.items():
        yield from ({kind: number} for number in numbers)


async def soak(files: int, mutants: Origin, folder: Path) -> Report:
    async with (
        serving(mutants) as origin,
        greenroom(folder, origin) as service,
        sampling(service.process.pid) as sampler,
    ):
        running = Soak(service=service, origin=origin)
        healthy = psutil.Process(service.process.pid)
        await running.is_clean_media_accepted()
        cpu_before, open_before = cpu_s(healthy.pid), healthy.num_fds()
        began, showing = time.monotonic(), asyncio.create_task(show_progress(running, files))
        lost = ""
        try:
            await running.run(files)
        except* Exception as group:  # noqa: BLE001 - whatever it is, the report must say so
            lost = repr(group.exceptions[0])
        showing.cancel()
        took_s = time.monotonic() - began
        report = Report(
            seed=origin.seed, files=files, judged=running.judged, took_s=took_s, lost=lost
        )
        report.usage = sampler.usage
        report.crashed = service.crashed
        if not service.crashed:
            report.cpu_s = cpu_s(healthy.pid) - cpu_before
            report.still_works = await running.is_clean_media_accepted()
            await asyncio.sleep(SETTLE_S)
            report.descriptors = open_before, healthy.num_fds()
            report.restarts = await service.metric("greenroom_analysis_child_restarts")
    report.ended_well = service.ended_well
    report.read_log(service.log)
    return report


async def show_progress(running: Soak, files: int) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(10)
        done, took_s = len(running.judged), time.monotonic() - began
        sys.stderr.write(f"{took_s:6.0f} s  {done} of {files} files\n")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.soak", description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz-report.json"))
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="greenroom-soak-") as folder:
        origin = Origin(seed=chosen.seed, parents=make_parents(Path(folder)))
        report = asyncio.run(soak(chosen.files, origin, Path(folder)))
    write(report, chosen.out, origin.make)
    return 1 if report.breaches() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
