"""Measure a labelled folder and publish how often verdicts are wrong.

    python -m tools.accuracy [FOLDER] [--series] [--verify-rejudging]

FOLDER (default: GREENROOM_CORPUS) holds manifest.csv and the files that it names. Facts are kept
under --cache: a run that is stopped goes on where it was, and another run only judges. Give
--fresh when measurements changed and no version did.
"""

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.settings import Settings
from service.wiring import open_tools
from tools.accuracy.facts_store import FactsStore, store_path
from tools.accuracy.labels import Label, ManifestError, read_labels
from tools.accuracy.measuring import Measured, Wanted, labelled, measure_all
from tools.accuracy.page import Run, page
from tools.accuracy.rejudging import differences
from tools.accuracy.series import Materials, PointRow, points, row
from tools.accuracy.tallies import judge_all
from validators.analysis.client import Analyzer
from validators.inspect import Tools
from validators.media.sandbox import tool_name
from validators.policy import STANDARD, STRICT

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/accuracy.md"
CACHE = ROOT / ".greenroom/accuracy"
USAGE, DIFFERENT = 2, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asks for."""

    folder: Path
    cache: Path
    page: Path
    children: int
    series: bool
    fresh: bool
    verify: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What measures, and what is kept of it."""

    tools: Tools
    store: FactsStore
    engines: dict[str, str]
    ffmpeg: str
    width: int


def main() -> int:
    order = _order()
    try:
        labels = read_labels(order.folder)
    except (OSError, ManifestError) as exc:
        print(f"accuracy: {exc}", file=sys.stderr)
        return USAGE
    return asyncio.run(_publish(order, labels))


def _order() -> Order:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    corpus = os.environ.get("GREENROOM_CORPUS")
    optional = "?" if corpus else None
    parser.add_argument("folder", type=Path, nargs=optional, default=corpus and Path(corpus))
    parser.add_argument("--cache", type=Path, default=CACHE, help="where facts are kept")
    parser.add_argument("--page", type=Path, default=PAGE, help="what is written")
    parser.add_argument("--children", type=int, default=2, help="files at a time")
    parser.add_argument("--series", action="store_true", help="make faults of known sizes too")
    parser.add_argument("--fresh", action="store_true", help="forget the facts that are kept")
    parser.add_argument(
        "--verify-rejudging",
        dest="verify",
        action="store_true",
        help="measure again under strict, and compare the verdicts with those of the kept facts",
    )
    return Order(**vars(parser.parse_args()))


async def _publish(order: Order, labels: Sequence[Label]) -> int:
    async with open_tools(Settings(inspect_concurrency=order.children)) as tools:
        bench = await _bench(order, tools)
        wanted = [labelled(label) for label in labels]
        with _progress("measuring", len(wanted)) as step:
            measured = await measure_all(
                wanted, bench.store, tools, width=bench.width, on_done=step
            )
        if order.verify:
            return await _verify(labels, wanted, measured, bench)
        rows = await _series(labels, measured, bench) if order.series else []
    run = _run(labels, measured, bench, rows)
    order.page.write_text(page(run), "utf-8")
    print(f"wrote {order.page}")
    return 0


async def _verify(
    labels: Sequence[Label],
    wanted: Sequence[Wanted],
    measured: Sequence[Measured],
    bench: Bench,
) -> int:
    with _progress("again, under strict", len(wanted)) as step:
        found = await differences(
            labels, wanted, measured, STRICT, bench.tools, width=bench.width, on_done=step
        )
    for difference in found:
        print(difference)
    verdicts = {each.name for each in found if each.of_verdict}
    facts = {each.name for each in found} - verdicts
    print(f"{len(labels)} files: {len(verdicts)} other verdicts, {len(facts)} other facts alone")
    return DIFFERENT if verdicts else 0


async def _bench(order: Order, tools: Tools) -> Bench:
    analyzer = tools.analyzer
    engines = await analyzer.warm_up() if isinstance(analyzer, Analyzer) else {}
    ffmpeg = await asyncio.to_thread(_ffmpeg_version)
    path = store_path(order.cache, engines, ffmpeg)
    if order.fresh:
        path.unlink(missing_ok=True)
    return Bench(
        tools=tools,
        store=FactsStore(path),
        engines=engines,
        ffmpeg=ffmpeg,
        width=order.children,
    )


def _ffmpeg_version() -> str:
    argv = [tool_name("ffmpeg"), "-version"]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return said.split()[2]


async def _series(
    labels: Sequence[Label], measured: Sequence[Measured], bench: Bench
) -> list[PointRow]:
    every = list(points(Materials.among(labels, measured)))
    wanted = [recipe.wanted() for point in every for recipe in point.recipes]
    with _progress("series", len(wanted)) as step:
        made = await measure_all(wanted, bench.store, bench.tools, width=bench.width, on_done=step)
    left = iter(made)
    return [row(point, [next(left) for _ in point.recipes]) for point in every]


def _run(
    labels: Sequence[Label],
    measured: Sequence[Measured],
    bench: Bench,
    rows: Sequence[PointRow],
) -> Run:
    return Run(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        ffmpeg=bench.ffmpeg,
        engines=bench.engines,
        labels=labels,
        standard=judge_all(labels, measured, STANDARD),
        strict=judge_all(labels, measured, STRICT),
        points=rows,
    )


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda: progress.advance(bar)


if __name__ == "__main__":
    sys.exit(main())
