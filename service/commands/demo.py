"""Greenroom in a minute: two avatars from a local origin, their verdicts, and the event."""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web
from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from service.commands.check import show_findings
from service.commands.dev import Started, run_dev
from service.fetch.address import parse_allowed_blocks
from service.settings import Settings
from validators.derive.recipes import Recipe
from validators.encoding import decode_verdict

SAMPLES = Path(__file__).parents[2] / "samples"
FINAL = {"fitting", "ready", "failed"}
WRONG_WITH_TWO = {"multiple_speakers", "multiple_faces"}
PATIENCE_S = 300.0
POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One avatar of the demo: what it is called and what it is made from."""

    name: str
    sources: dict[str, str]


STORIES = (
    Story(
        name="Eileen, from a portrait and a recording",
        sources={"image_url": "portrait.jpg", "audio_url": "voice.flac"},
    ),
    Story(
        name="Two people, from a video",
        sources={"video_url": "two_people.mp4"},
    ),
)


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


async def demo(settings: Settings, console: Console, *, as_json: bool) -> int:
    """Run the whole story; 0 when both avatars ended as they must."""
    if not await asyncio.to_thread(SAMPLES.is_dir):
        raise DemoError(f"the samples are not here: {SAMPLES}; run this in a checkout")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="greenroom-demo-") as folder:
        async with _origin() as origin, _service(settings, Path(folder), origin) as started:
            console.print(f"[green]✓[/] Greenroom at {started.url}: embedded Postgres, local store")
            console.print(f"[green]✓[/] an origin at {origin} that serves samples/")
            async with _client(started) as client:
                try:
                    ended = await _follow(client, origin, console)
                except TimeoutError as exc:
                    raise DemoError(f"no verdict within {PATIENCE_S:.0f} s") from exc
                event = await _event(client)
    _show(ended, event, console, as_json=as_json)
    console.print(f"\nStopped; nothing is left running. {time.monotonic() - began:.1f} s in all.")
    return 0 if _as_expected(ended, event) else 1


@asynccontextmanager
async def _origin() -> AsyncIterator[str]:
    """Somebody else's web server, as far as Greenroom can tell."""
    app = web.Application()
    app.router.add_static("/", SAMPLES)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _service(settings: Settings, folder: Path, origin: str) -> AsyncIterator[Started]:
    """The service of `greenroom dev`, which may fetch from *origin* and from nowhere else local."""
    chosen = replace(
        settings,
        host="127.0.0.1",
        port=0,
        public_url=None,
        data_dir=folder,
        database_url=None,
        fetch_allow=parse_allowed_blocks(f"127.0.0.1/32:{origin.rpartition(':')[2]}"),
        egress_proxy=None,
        default_runtime_type="mock",
    )
    draining = asyncio.Event()
    ready: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(run_dev(chosen, draining, on_ready=ready.set_result))
    try:
        either: set[asyncio.Future[Any]] = {running, ready}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await running  # raises what stopped it
        yield ready.result()
    finally:
        draining.set()
        await running


@asynccontextmanager
async def _client(started: Started) -> AsyncIterator[ClientSession]:
    headers = {"Authorization": f"Bearer {started.key}"}
    async with ClientSession(started.url, headers=headers) as client:
        yield client


async def _follow(client: ClientSession, origin: str, console: Console) -> list[dict[str, Any]]:
    """Create every avatar and follow it to its end; the verdict resources, in order."""
    with _bars(console) as progress:
        return list(
            await asyncio.gather(
                *(_live_through(client, story, origin, progress) for story in STORIES)
            )
        )


def _bars(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}  [dim]{task.fields[stage]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


async def _live_through(
    client: ClientSession, story: Story, origin: str, progress: Progress
) -> dict[str, Any]:
    urls = {field: f"{origin}/{name}" for field, name in story.sources.items()}
    body = {"name": story.name, "sources": urls}
    async with client.post("/avatar-profiles/create", json=body) as response:
        response.raise_for_status()
        avatar = (await response.json())["id"]
    bar = progress.add_task(story.name, total=1, stage="accepted")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            async with client.get(f"/v1/avatars/{avatar}/verdict") as response:
                verdict: dict[str, Any] = await response.json()
            _advance(progress, bar, verdict)
            if verdict["state"] in FINAL:
                return verdict | {"id": avatar, "name": story.name}
            await asyncio.sleep(POLL_S)


def _advance(progress: Progress, bar: TaskID, verdict: dict[str, Any]) -> None:
    detail = verdict["progress"] or {}
    done = f" {detail['done']:.0f} {detail['unit']}" if detail.get("done") else ""
    progress.update(
        bar,
        completed=verdict["state"] in FINAL,
        stage=f"{verdict['state']} {detail.get('stage', '')}{done}",
    )


async def _event(client: ClientSession) -> dict[str, Any]:
    """What consumers were told: from the feed, as they read it."""
    params = {"type": "avatar.ready_for_fitting", "wait": "5"}
    async with client.get("/v1/events", params=params) as response:
        found = (await response.json())["data"]
    if not found:
        raise DemoError("no avatar became ready for fitting")
    event: dict[str, Any] = found[0]
    return event


def _as_expected(ended: list[dict[str, Any]], event: dict[str, Any]) -> bool:
    good, bad = ended
    (source,) = bad["sources"]
    failed = {f["code"] for f in source["verdict"]["checks"] if f["outcome"] == "fail"}
    subject = event["data"]["avatar"]["uuid"]
    derived = {Recipe.PORTRAIT.value, Recipe.VOICE_REFERENCE.value} <= set(event["data"])
    fine = good["state"] == "fitting" and subject == good["id"] and derived
    return fine and failed == WRONG_WITH_TWO


def _show(
    ended: list[dict[str, Any]], event: dict[str, Any], console: Console, *, as_json: bool
) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"verdicts": ended, "event": event}) + "\n")
        return
    for verdict in ended:
        _show_avatar(verdict, console)
    _show_derived(event["data"], console)
    console.print("\n[bold]What consumers were told[/]  GET /v1/events")
    console.print_json(json.dumps(event))
    console.print(Panel(_NEXT, title="What to do next", title_align="left"))


def _show_avatar(verdict: dict[str, Any], console: Console) -> None:
    state = verdict["state"]
    word = "[green]ready for fitting[/]" if state == "fitting" else f"[red]{verdict['cause']}[/]"
    console.print(f"\n[bold]{verdict['name']}[/]: {word}")
    for source in verdict["sources"]:
        console.print(f" {source['role']}: {source['state']}")
        if "verdict" in source:
            show_findings(decode_verdict(json.dumps(source["verdict"])).checks, console)


def _show_derived(data: dict[str, Any], console: Console) -> None:
    """What was made of the accepted sources; the links answer with a signed URL."""
    console.print(f"\n[bold]Derived for {data['name']}[/]")
    for recipe in Recipe:
        if recipe.value in data:
            made = data[recipe.value]
            size_kb = made["media"]["size_bytes"] / 1000
            console.print(f" {recipe.value}: {size_kb:.0f} kB, GET {made['content']}")


_NEXT = """\
make dev                          the service on your machine; prints a key and its URL
.venv/bin/greenroom check FILE    judge a file of yours, without a server
docs/tutorial.md                  create an avatar with curl, and follow its events\
"""
