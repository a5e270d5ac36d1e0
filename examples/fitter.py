"""A fitter in miniature: follow the feed, take the sources, make an avatar, report back.

FITTER_KEY=sk_live_... python examples/fitter.py http://127.0.0.1:8080 work/
"""  # noqa: INP001 - a script, run by its path

import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout


async def follow(client: ClientSession, work: Path) -> None:
    """Handle events for ever: after the kept cursor, and none whose id is kept as handled."""
    state = await asyncio.to_thread(load, work / "state.json")
    while True:
        query = {"type": "avatar.ready_for_fitting", "wait": "30", "after": state["cursor"]}
        async with client.get("/v1/events", params=query, raise_for_status=True) as response:
            page = await response.json()
        for event in page["data"]:
            if event["id"] not in state["handled"]:
                await handle(client, event["data"], work)
                state["handled"].append(event["id"])
                await asyncio.to_thread(save, work / "state.json", state)
        state = {"cursor": page["next_cursor"], "handled": []}  # the feed never goes back
        await asyncio.to_thread(save, work / "state.json", state)


async def handle(client: ClientSession, data: dict[str, Any], work: Path) -> None:
    avatar, report = data["avatar"]["id"], {"status": "ready"}
    for role, source in data["sources"].items():
        if await download(client, source["content"], work / f"{avatar}-{role}") != source["sha256"]:
            report = {"status": "failed", "code": "source_corrupt", "message": f"{role} is damaged"}
    # here a real fitter works for a while, with the file of every role at hand
    async with client.post(f"/v1/avatars/{avatar}/fitting", json=report) as response:
        if response.status not in {404, 409}:  # the avatar is gone, or no longer waits for us
            response.raise_for_status()


async def download(client: ClientSession, content: str, to: Path) -> str:
    """Stream an asset to a file; returns its SHA-256. The link answers 307 to a signed URL."""
    digest = hashlib.sha256()
    async with client.get(content, raise_for_status=True) as response:
        with await asyncio.to_thread(to.open, "wb") as file:
            async for chunk in response.content.iter_chunked(1 << 16):
                digest.update(chunk)
                await asyncio.to_thread(file.write, chunk)
    return digest.hexdigest()


def load(path: Path) -> Any:  # noqa: ANN401 - JSON
    path.parent.mkdir(parents=True, exist_ok=True)
    return json.loads(path.read_text()) if path.exists() else {"cursor": "", "handled": []}


def save(path: Path, state: dict[str, Any]) -> None:
    path.with_suffix(".new").write_text(json.dumps(state))
    path.with_suffix(".new").replace(path)  # whole or not at all


async def main(url: str, work: str) -> None:
    headers = {"Authorization": f"Bearer {os.environ['FITTER_KEY']}"}
    patience = ClientTimeout(total=None, sock_connect=10, sock_read=60)
    async with ClientSession(url, headers=headers, timeout=patience) as client:
        while True:
            try:
                await follow(client, Path(work))
            except (ClientError, TimeoutError) as exc:
                sys.stderr.write(f"fitter: trying again: {exc!r}\n")
                await asyncio.sleep(2)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
