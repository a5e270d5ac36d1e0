"""What an inspection costs beside plain decoding and beside a peer, in CPU seconds, as Markdown.

    python -m bench [FILE…]        default: samples/, and four larger media made from them
    python -m bench hostile        what hostile origins cost the fetcher: bench/hostile.py
    python -m bench store          from a source into a bucket: bench/store.py

One run, the same files, the same machine, one processor for all: two that share a core slow each
other down, and only the measured side has two processes. Warm models: what a start costs is told
apart. The peer (bench/peer.py) runs in the environment that `make test-pyannote` makes.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench import hostile, media, store
from bench.cpu import Spent
from bench.ours import ROUNDS, Cost, cost, only_child
from service.settings import Settings
from service.wiring import open_tools
from validators.analysis.client import Analyzer

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".venv-pyannote/bin/python"
PEER_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """What the peer printed: its start, its peak, and its line for each file."""

    start_s: float = 0.0
    peak_mib: float = 0.0
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    start: Spent  # of the analysis child, with its models
    idle_mib: float
    files: list[Cost]


def main() -> None:
    if sys.argv[1:] == ["hostile"]:
        hostile.main()
        return
    if sys.argv[1:2] == ["store"]:
        store.main(sys.argv[2:])
        return
    named = [Path(word).absolute() for word in sys.argv[1:]]
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="greenroom-bench-") as folder:
        paths = named or [*media.samples(), *media.make(Path(folder))]
        ours = asyncio.run(measure_ours(paths))
        peers = measure_peers(paths)
    print(*report(ours, peers), sep="\n")
    if not peers.files:
        print(f"\nThe peer was NOT measured: no {PEER}. `make test-pyannote` makes it.")


async def measure_ours(paths: Sequence[Path]) -> Ours:
    async with open_tools(Settings(inspect_concurrency=1), used=False) as tools:
        before = Spent.until_now()
        if isinstance(tools.analyzer, Analyzer):
            await tools.analyzer.warm_up()
        start, child = Spent.until_now() - before, only_child()
        idle = psutil.Process(child).memory_info().rss / 2**20
        files = [await cost(path, tools, child) for path in paths]
    return Ours(start=start, idle_mib=idle, files=files)


def measure_peers(paths: Sequence[Path]) -> Peers:
    if not PEER.exists():
        return Peers()
    argv = [str(PEER), "-m", "bench.peer", *map(str, paths)]
    ended = subprocess.run(
        argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=PEER_S
    )
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    start, *files, peak = lines
    return Peers(
        start_s=start["start_s"],
        peak_mib=peak["peak_mib"],
        files={line["path"]: line for line in files},
    )


def report(ours: Ours, peers: Peers) -> list[str]:
    """Lines of Markdown."""
    machine = f"{psutil.cpu_count()} processors, {psutil.virtual_memory().total / 2**30:.0f} GiB"
    return [
        f"CPU seconds, medians of {ROUNDS} (the peer: one run). {machine}.",
        "",
        *costs(ours, peers),
        "",
        *recipes(ours.files),
        "",
        starts_ours(ours),
        *([starts(peers)] if peers.files else ()),
    ]


def starts_ours(ours: Ours) -> str:
    return (
        f"The analysis child starts once for {ours.start.total:.1f} CPU s and then holds"
        f" {ours.idle_mib:.0f} MiB."
    )


def starts(peers: Peers) -> str:
    return (
        f"The peer starts, with its first file, for {peers.start_s:.1f} CPU s; its peak was"
        f" {peers.peak_mib:.0f} MiB."
    )


def costs(ours: Ours, peers: Peers) -> list[str]:
    head = (
        "file",
        "plain decoding",
        "greenroom",
        "of it tools",
        "child",
        "own process",
        "over decoding",
        "peak of the child, MiB",
        "verdict",
        "peer",
        "peer's verdict",
    )
    return table(head, (cost_row(each, peers.files.get(str(each.path))) for each in ours.files))


def cost_row(each: Cost, peer: dict[str, Any] | None) -> Sequence[str]:
    spent = each.measuring
    return (
        f"`{each.path.name}`",
        f"{each.decoding_s:.2f}",
        f"{spent.total:.2f}",
        f"{spent.tools:.2f}",
        f"{spent.child:.2f}",
        f"{spent.ours:.2f}",
        f"{spent.total / each.decoding_s:.1f}×",  # noqa: RUF001 - a ratio
        f"{each.peak_mib:.0f}",
        each.verdict.verdict.value,
        f"{peer['cpu_s']:.2f}" if peer else "not run",
        peer["verdict"] if peer else "",
    )


def recipes(files: Iterable[Cost]) -> list[str]:
    rows = [
        (f"`{each.path.name}`", recipe.value, f"{spent_s:.2f}")
        for each in files
        for recipe, spent_s in each.recipes.items()
    ]
    return table(("accepted file", "derived", "CPU s"), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    main()
