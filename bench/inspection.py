"""What an inspection costs beside the decoding that nobody can avoid, in CPU seconds.

    python bench/inspection.py [FILE…]        default: samples/

For each file, in one run: plain decoding of everything in it by ffmpeg to nowhere, and a whole
inspection with warm models (decoding, analysis child and our own process together). The start of
the analysis child is shown apart. CPU seconds and ratios, because wall time on a shared machine
says little.
"""

import asyncio
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from service.commands.check import likely_kind
from service.settings import Settings
from service.wiring import open_tools
from validators.facts import Kind
from validators.inspect import Tools, inspect
from validators.media.signature import read_signature
from validators.policy import STANDARD

SAMPLES = Path(__file__).parents[1] / "samples"
MEDIA = {".jpg", ".png", ".flac", ".wav", ".mp3", ".mp4", ".mov", ".webm"}
ROUNDS = 5


def spent() -> float:
    """CPU seconds of this process, of children that ended and of those that still run."""
    ended = sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    running = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return ended + sum(times.user + times.system for times in running)


def decode(path: Path) -> None:
    ffmpeg = shutil.which("ffmpeg") or "ffmpeg"
    command = [ffmpeg, "-v", "error", "-nostdin", "-i", str(path), "-f", "null", "-"]
    subprocess.run(command, check=True)


def median_cpu_s(once: Callable[[], object]) -> float:
    costs = []
    for _ in range(ROUNDS):
        before = spent()
        once()
        costs.append(spent() - before)
    return statistics.median(costs)


async def inspection_cpu_s(path: Path, kind: Kind, tools: Tools) -> float:
    costs = []
    for _ in range(ROUNDS):
        before = spent()
        await inspect(path, kind, STANDARD, tools)
        costs.append(spent() - before)
    return statistics.median(costs)


async def main(paths: list[Path]) -> None:
    table = Table("file", "plain decoding, CPU s", "inspection, CPU s", "difference", "ratio")
    async with open_tools(Settings(inspect_concurrency=1)) as tools:
        before = spent()
        await inspect(paths[0], likely_kind(read_signature(paths[0])), STANDARD, tools)
        start_s = spent() - before
        for path in paths:
            plain = median_cpu_s(partial(decode, path))
            kind = likely_kind(read_signature(path))
            ours = await inspection_cpu_s(path, kind, tools)
            cells = (f"{plain:.2f}", f"{ours:.2f}", f"{ours - plain:+.2f}", f"{ours / plain:.1f}")
            table.add_row(path.name, *cells)
        children = psutil.Process().children(recursive=True)
        memory = max(child.memory_info().rss for child in children) / 2**20
    console = Console()
    console.print(table)
    console.print(
        f"Medians of {ROUNDS}. First inspection, with the start of the analysis child: "
        f"{start_s:.1f} CPU s. The child then holds {memory:.0f} MiB."
    )


if __name__ == "__main__":
    named = [Path(word).absolute() for word in sys.argv[1:]]
    asyncio.run(main(named or sorted(p for p in SAMPLES.iterdir() if p.suffix in MEDIA)))
