"""Judge local files with no database and no server."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from service.commands.pair import Compared, Medium, Pair, compare_files
from service.console.gather import gather
from service.console.readout import plain
from service.console.report import PairReport, Report, render
from service.settings import Settings
from service.wiring import inspect_concurrency, open_tools
from validators.encoding import verdict_document
from validators.errors import InspectionError
from validators.facts import Facts, Kind, Range
from validators.inspect import Inspection, Tools, inspect
from validators.media.layers import Layers
from validators.media.signature import ALLOWED, read_signature
from validators.policy import POLICIES, Policy, PolicyName
from validators.verdict import AnyFinding, Outcome, Verdict

ACCEPTED, REJECTED, UNJUDGED = 0, 1, 3

PAGES = (".html", ".htm")

_GUESSES = (Kind.VIDEO, Kind.IMAGE, Kind.AUDIO)  # a container of both is mostly used for video

_COLOURS = {Outcome.FAIL: "red", Outcome.UNCERTAIN: "yellow", Outcome.WARN: "yellow"}


class PageError(Exception):
    """The page cannot be written. The verdicts are said by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to judge, and how to say it. Without a kind, each file's own bytes say what it is."""

    paths: tuple[Path, ...]
    kind: Kind | None
    policy: PolicyName
    as_json: bool
    html: Path | None = None  # where a page that shows why is written
    pair: Pair | None = None  # what each of the paths, all videos then, is compared with

    @property
    def files(self) -> tuple[tuple[Path, Kind | None], ...]:
        """What is judged, in the order in which it is reported."""
        if self.pair is None:
            return tuple((path, self.kind) for path in self.paths)
        return (*((path, Kind.VIDEO) for path in self.paths), *self.pair.files)

    @property
    def steps(self) -> int:
        """How many media are judged and pairs compared."""
        return len(self.files) + (len(self.paths) if self.pair is not None else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One file's outcome: a verdict, or why there is none."""

    path: Path
    verdict: Verdict | None
    error: tuple[str, str] | None = None  # code and sentence
    facts: Facts | None = None

    @property
    def medium(self) -> Medium:
        return Medium(path=self.path, facts=self.facts, verdict=self.verdict)

    def document(self) -> dict[str, Any]:
        if self.verdict is not None:
            return {**verdict_document(self.verdict), "path": str(self.path)}
        code, message = self.error or ("internal", "")
        return {"path": str(self.path), "error": {"code": code, "message": message}}


async def check(settings: Settings, wanted: Wanted) -> int:
    """Judge every file, in the order given; the exit status says the worst that happened."""
    statuses, reports, media = [ACCEPTED], list[Report](), list[Judged]()
    async with open_tools(settings, on_layers=_warn_of_missing) as tools:
        with _progress() as progress:
            bar = progress.add_task("judging", total=wanted.steps)
            async for judged in _in_order(wanted, tools, inspect_concurrency(settings)):
                with _paused(progress):
                    _say(judged, wanted)
                statuses.append(_status(judged))
                media.append(judged)
                if wanted.html is not None:
                    reports.append(await _report(judged, wanted, tools))
                progress.advance(bar)
            compared = []
            async for each in _compare(media, wanted, tools):
                with _paused(progress):
                    _say_pair(each, wanted)
                compared.append(each)
                progress.advance(bar)
    statuses += [_pair_status(each) for each in compared]
    if wanted.html is not None:
        await asyncio.to_thread(write_page, wanted.html, reports, compared)
    return max(statuses)


def _warn_of_missing(layers: Layers) -> None:
    if layers.missing:
        missing = ", ".join(f"{layer} ({why})" for layer, why in layers.missing.items())
        sys.stderr.write(f"greenroom: decoders run without {missing}\n")


async def _compare(
    media: Sequence[Judged], wanted: Wanted, tools: Tools
) -> AsyncIterator[Compared]:
    """Compare every video with what stands beside it."""
    videos, beside = media[: len(wanted.paths)], media[len(wanted.paths) :]
    kinds = [kind for _path, kind in wanted.pair.files] if wanted.pair else []
    for video in videos if wanted.pair else ():
        together = zip([Kind.VIDEO, *kinds], [video, *beside], strict=True)
        yield await compare_files(
            {kind: judged.medium for kind, judged in together}, POLICIES[wanted.policy], tools
        )


def _pair_status(compared: Compared) -> int:
    """What could not be compared because it was rejected has its own status already."""
    if compared.verdict is None:
        return UNJUDGED if compared.ours else ACCEPTED
    return ACCEPTED if compared.verdict.accepted else REJECTED


async def _report(judged: Judged, wanted: Wanted, tools: Tools) -> Report:
    name = str(judged.path)
    if judged.verdict is None or judged.facts is None:
        return Report(name=name, error=judged.error)
    here = await asyncio.to_thread(judged.path.absolute)
    inspection = Inspection(facts=judged.facts, verdict=judged.verdict)
    return await gather(here, inspection, POLICIES[wanted.policy], tools, name=name)


def _pair_report(compared: Compared) -> PairReport:
    names = tuple(compared.names.values())
    return PairReport(names=names, verdict=compared.verdict, error=compared.error)


def no_page(path: Path) -> str | None:
    """Why no page can be written to *path*; a medium that is named by mistake is not lost."""
    if path.suffix.lower() not in PAGES:
        return f"{path} does not end with {' or '.join(PAGES)}"
    try:
        if not path.parent.is_dir():
            return f"there is no folder {path.parent}"
        if path.is_dir():
            return f"{path} is a folder"
    except OSError as exc:
        return f"{path}: {exc.strerror}"
    if not os.access(path.parent, os.W_OK):
        return f"nothing can be written to {path.parent}"
    return None


def write_page(path: Path, reports: Sequence[Report], compared: Sequence[Compared]) -> None:
    """All of it or nothing: a page that is there already is replaced at once."""
    half = path.with_name(f".greenroom.{os.getpid()}")
    page = render(reports, [_pair_report(each) for each in compared])
    try:
        try:
            half.write_text(page, "utf-8")
            half.replace(path)
        finally:
            half.unlink(missing_ok=True)
    except OSError as exc:
        raise PageError(f"{path}: {exc.strerror}") from exc


async def _in_order(wanted: Wanted, tools: Tools, width: int) -> AsyncIterator[Judged]:
    """Verdicts in the order of the paths, a few files at a time."""
    turns = asyncio.Semaphore(width)
    policy = POLICIES[wanted.policy]

    async def one(path: Path, kind: Kind | None) -> Judged:
        async with turns:
            return await judge_file(path, kind, policy, tools)

    tasks = [asyncio.create_task(one(path, kind)) for path, kind in wanted.files]
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
    return Judged(path=path, verdict=inspection.verdict, facts=inspection.facts)


def likely_kind(signature: str | None) -> Kind:
    """The kind that a format is mostly used for; a video where nothing is known."""
    return next((kind for kind in _GUESSES if signature in ALLOWED[kind]), Kind.VIDEO)


def _status(judged: Judged) -> int:
    if judged.verdict is None:
        return UNJUDGED
    return ACCEPTED if judged.verdict.accepted else REJECTED


def _progress() -> Progress:
    """A line that moves on a terminal's error stream, nothing elsewhere."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.completed}/{task.total} {task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # or verdicts go where the line is, not where they were sent
        redirect_stderr=False,
        disable=not sys.stderr.isatty(),
    )


@contextmanager
def _paused(progress: Progress) -> Iterator[None]:
    """The line is away, so that what is said does not run into it."""
    progress.stop()
    yield
    progress.start()


def _say(judged: Judged, wanted: Wanted) -> None:
    if wanted.as_json:
        _say_line(judged.document())
    else:
        show(judged, Console())


def _say_pair(compared: Compared, wanted: Wanted) -> None:
    if wanted.as_json:
        _say_line(compared.document())
    else:
        show_pair(compared, Console())


def _say_line(document: dict[str, Any]) -> None:
    """In ASCII: a path may hold bytes that are no text, and a terminal may take no other."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def show_pair(compared: Compared, console: Console) -> None:
    """A pair for people, as `show` says a file."""
    names = _shown(", ".join(compared.names.values()))
    if compared.verdict is None:
        _code, message = compared.error or ("", "")
        console.print(f"[yellow]not compared[/]  {names}: {_shown(message)}", soft_wrap=True)
        return
    colour = "green" if compared.verdict.accepted else "red"
    console.print(
        f"[bold {colour}]{compared.verdict.verdict}[/]  together: {names}", soft_wrap=True
    )
    show_findings(compared.verdict.checks, console)


def show(judged: Judged, console: Console) -> None:
    """One file for people: the decision, every check that found something, the rest in a line."""
    name = _shown(str(judged.path))
    if judged.verdict is None:
        _code, message = judged.error or ("", "")
        console.print(f"[red]could not be judged[/]  {name}: {_shown(message)}", soft_wrap=True)
        return
    colour = "green" if judged.verdict.accepted else "red"
    console.print(f"[bold {colour}]{judged.verdict.verdict}[/]  {name}", soft_wrap=True)
    show_findings(judged.verdict.checks, console)


def _shown(text: str) -> str:
    """A file may be called anything: nothing in its name commands the terminal."""
    return escape(plain(text))


def show_findings(findings: Sequence[AnyFinding], console: Console) -> None:
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


def _show_finding(finding: AnyFinding, console: Console) -> None:
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
