"""Judge local files with no database and no server."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from service.settings import Settings
from service.wiring import inspect_concurrency, open_tools
from validators.encoding import verdict_document
from validators.errors import InspectionError
from validators.facts import Kind, Range
from validators.inspect import Tools, inspect
from validators.media.signature import ALLOWED, read_signature
from validators.policy import POLICIES, Policy, PolicyName
from validators.verdict import Finding, Outcome, Verdict

ACCEPTED, REJECTED, UNJUDGED = 0, 1, 3

_GUESSES = (Kind.VIDEO, Kind.IMAGE, Kind.AUDIO)  # a container of both is mostly used for video

_COLOURS = {Outcome.FAIL: "red", Outcome.UNCERTAIN: "yellow", Outcome.WARN: "yellow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to judge, and how to say it. Without a kind, each file's own bytes say what it is."""

    paths: tuple[Path, ...]
    kind: Kind | None
    policy: PolicyName
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One file's outcome: a verdict, or why there is none."""

    path: Path
    verdict: Verdict | None
    error: tuple[str, str] | None = None  # code and sentence

    def document(self) -> dict[str, Any]:
        if self.verdict is not None:
            return {**verdict_document(self.verdict), "path": str(self.path)}
        code, message = self.error or ("internal", "")
        return {"path": str(self.path), "error": {"code": code, "message": message}}


async def check(settings: Settings, wanted: Wanted) -> int:
    """Judge every file, in the order given; the exit status says the worst that happened."""
    statuses = [ACCEPTED]
    async with open_tools(settings) as tools:
        with _progress(wanted) as progress:
            bar = progress.add_task("judging", total=len(wanted.paths))
            async for judged in _in_order(wanted, tools, inspect_concurrency(settings)):
                _say(judged, wanted, progress, bar)
                statuses.append(_status(judged))
    return max(statuses)


async def _in_order(wanted: Wanted, tools: Tools, width: int) -> AsyncIterator[Judged]:
    """Verdicts in the order of the paths, a few files at a time."""
    turns = asyncio.Semaphore(width)
    policy = POLICIES[wanted.policy]

    async def one(path: Path) -> Judged:
        async with turns:
            return await judge_file(path, wanted.kind, policy, tools)

    tasks = [asyncio.create_task(one(path)) for path in wanted.paths]
    try:
        for task in tasks:
            yield await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def judge_file(path: Path, kind: Kind | None, policy: Policy, tools: Tools) -> Judged:
    try:
        known = kind or likely_kind(await asyncio.to_thread(read_signature, path))
        here = await asyncio.to_thread(path.absolute)  # tools run in a folder of their own
        inspection = await inspect(here, known, policy, tools)
    except OSError as exc:
        return Judged(path=path, verdict=None, error=("not_readable", exc.strerror or str(exc)))
    except InspectionError as exc:
        return Judged(path=path, verdict=None, error=("internal", str(exc)))
    return Judged(path=path, verdict=inspection.verdict)


def likely_kind(signature: str | None) -> Kind:
    """The kind that a format is mostly used for; a video where nothing is known."""
    return next((kind for kind in _GUESSES if signature in ALLOWED[kind]), Kind.VIDEO)


def _status(judged: Judged) -> int:
    if judged.verdict is None:
        return UNJUDGED
    return ACCEPTED if judged.verdict.accepted else REJECTED


def _progress(wanted: Wanted) -> Progress:
    """A line that moves on a terminal's error stream, nothing elsewhere."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.completed}/{task.total} {task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty() or len(wanted.paths) < 2,  # noqa: PLR2004 - one file needs no bar
    )


def _say(judged: Judged, wanted: Wanted, progress: Progress, bar: TaskID) -> None:
    if wanted.as_json:
        sys.stdout.write(json.dumps(judged.document(), ensure_ascii=False) + "\n")
        sys.stdout.flush()
    else:
        show(judged, Console())
    progress.advance(bar)


def show(judged: Judged, console: Console) -> None:
    """One file for people: the decision, every check that found something, the rest in a line."""
    if judged.verdict is None:
        _code, message = judged.error or ("", "")
        console.print(f"[red]could not be judged[/]  {escape(str(judged.path))}: {escape(message)}")
        return
    colour = "green" if judged.verdict.accepted else "red"
    console.print(f"[bold {colour}]{judged.verdict.verdict}[/]  {escape(str(judged.path))}")
    show_findings(judged.verdict.checks, console)


def show_findings(findings: Sequence[Finding], console: Console) -> None:
    """What failed first, then what is doubtful; what passed or was skipped only by name."""
    for outcome in (Outcome.FAIL, Outcome.UNCERTAIN, Outcome.WARN):
        for finding in findings:
            if finding.outcome is outcome:
                _show_finding(finding, console)
    for outcome in (Outcome.PASS, Outcome.SKIPPED):
        names = [finding.code.value for finding in findings if finding.outcome is outcome]
        if names:
            line = f"{outcome}: {', '.join(names)}"
            console.print(Padding(f"[dim]{line}[/]", (0, 0, 0, 2)), highlight=False)


def _show_finding(finding: Finding, console: Console) -> None:
    colour, unit = _COLOURS[finding.outcome], f" {finding.unit}" if finding.unit else ""
    facts = [f"[{colour}]{finding.outcome}[/] [bold]{finding.code}[/]"]
    if finding.value is not None:
        facts.append(f"measured {finding.value:.4g}{unit}")
    if finding.limit is not None:
        facts.append(f"limit {finding.limit:.4g}{unit}")
    if finding.ranges:
        facts.append(f"at {_where(finding.ranges)}")
    said = " ".join(filter(None, (finding.message, finding.hint)))
    console.print(Padding("  ".join(facts), (0, 0, 0, 2)), highlight=False)
    console.print(Padding(said, (0, 0, 0, 7)), highlight=False)


_SHOWN_RANGES = 4


def _where(ranges: Sequence[Range]) -> str:
    shown = ", ".join(f"{start:.1f}-{end:.1f} s" for start, end in ranges[:_SHOWN_RANGES])
    more = len(ranges) - _SHOWN_RANGES
    return f"{shown} and {more} more" if more > 0 else shown
