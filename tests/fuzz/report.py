"""What a soak found: a table to read, JSON to keep, and the mutants that must be looked into."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.fuzz.mutate import Mutant
from tests.fuzz.sampling import Usage

SLOW_S = 30.0  # from create to final, with the wait for a turn
LONGEST_TOOL_S = 62.0  # the deadline of a tool, and how late a look may be
LEAKED = 40  # descriptors that connections to Postgres may have added
DIED_OF_A_SIGNAL = "_expect_own_end"  # where the story of such a crash ends: ffmpeg's own fault
SHOWN = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One mutant and what became of it."""

    mutant: Mutant
    asset_id: str
    avatar_id: str
    codes: tuple[str, ...]  # empty: no outcome
    avatar_cause: str | None
    took_s: float

    @property
    def outcome(self) -> str:
        return ", ".join(self.codes) or "none"

    def document(self) -> dict[str, Any]:
        return {
            "seed": self.mutant.seed,
            "number": self.mutant.number,
            "parent": self.mutant.parent,
            "container": self.mutant.container,
            "operations": self.mutant.operations,
            "outcome": self.codes,
            "avatar_cause": self.avatar_cause,
            "took_s": round(self.took_s, 2),
        }


@dataclass(slots=True, kw_only=True)
class Report:
    seed: int
    files: int
    judged: list[Judged]
    took_s: float
    lost: str = ""  # why not every file was followed
    cpu_s: float = 0.0
    crashed: bool = False
    ended_well: bool = False
    still_works: bool = False
    restarts: float = 0.0  # of analysis children
    descriptors: tuple[int, int] = (0, 0)  # of the service: after its first avatar, at the end
    usage: dict[str, Usage] = field(default_factory=dict)
    stories: dict[str, list[str]] = field(default_factory=dict)  # of failed runs, by their row
    events: Counter[str] = field(default_factory=Counter)  # that the service warned of

    def read_log(self, log: Path) -> None:
        """Why runs failed: verdicts never say. Lines that are no record of ours are crashes."""
        for line in log.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                self.events["not a record"] += 1
                continue
            if record.get("level") in {"warning", "error", "critical"}:
                self.events[record["event"]] += 1
            if record.get("event") == "run_failed":
                row = record.get("asset_id") or record.get("avatar_id")
                self.stories.setdefault(row, []).append(record["error"])

    def stories_of(self, judged: Judged) -> list[str]:
        return self.stories.get(judged.asset_id, []) + self.stories.get(judged.avatar_id, [])

    def failed(self) -> list[Judged]:
        """Mutants that cost us a run at least: a tool or a child died, or an error was ours."""
        return [each for each in self.judged if self.stories_of(each)]

    def our_fault(self) -> list[Judged]:
        return [
            each
            for each in self.failed()
            if any(DIED_OF_A_SIGNAL not in story for story in self.stories_of(each))
        ]

    def without_outcome(self) -> list[Judged]:
        return [each for each in self.judged if not each.codes or each.avatar_cause == "late"]

    def slow(self) -> list[Judged]:
        return [each for each in self.judged if each.took_s > SLOW_S]

    def breaches(self) -> list[str]:
        """What must not happen, and did."""
        late = {name: used.longest_s for name, used in self.usage.items() if name in TOOLS}
        before, after = self.descriptors
        found = {
            f"the service crashed {self.lost}": self.crashed,
            f"the run broke off: {self.lost}": bool(self.lost),
            "the service did not end well": not self.ended_well,
            "clean media were not accepted afterwards": not self.still_works,
            f"{self.files - len(self.judged)} files were not followed": self.files
            != len(self.judged),
            f"{len(self.without_outcome())} files without an outcome": bool(self.without_outcome()),
            f"{len(self.our_fault())} files failed by our own fault": bool(self.our_fault()),
            f"a tool ran for {max(late.values(), default=0):.0f} s": any(
                longest > LONGEST_TOOL_S for longest in late.values()
            ),
            f"descriptors went from {before} to {after}": after > before + LEAKED,
        }
        return [breach for breach, there in found.items() if there]

    def to_look_into(self) -> list[Judged]:
        chosen = (*self.without_outcome(), *self.failed(), *self.slow())
        return list({each.mutant.number: each for each in chosen}.values())

    def counts(self) -> dict[str, Counter[str]]:
        return {
            "outcome": Counter(each.outcome for each in self.judged),
            "code": Counter(code for each in self.judged for code in each.codes),
        }

    def by_container(self) -> dict[str, Counter[str]]:
        return _grouped((each.mutant.container, each) for each in self.judged)

    def by_mutation(self) -> dict[str, Counter[str]]:
        """A mutant counts once for every operation that was done to it."""
        return _grouped((name, each) for each in self.judged for name in _names(each.mutant))


TOOLS = {"ffprobe", "ffmpeg", "picture decoder"}


SORTS = ("accepted", "rejected", "error", "none")


def _grouped(named: Iterable[tuple[str, Judged]]) -> dict[str, Counter[str]]:
    groups: dict[str, Counter[str]] = {}
    for name, judged in named:
        groups.setdefault(name, Counter())[_sort(judged)] += 1
    return groups


def _sort(judged: Judged) -> str:
    if not judged.codes:
        return "none"
    first = judged.codes[0].partition(":")[0]
    return first if first in SORTS else "rejected"


def _names(made: Mutant) -> Iterable[str]:
    return {operation.split()[0] for operation in made.operations}


def write(report: Report, out: Path, remake: Callable[[int], Mutant]) -> None:
    """JSON to *out*, mutants to look into beside it, tables to the terminal."""
    kept = out.with_suffix(".mutants")
    out.parent.mkdir(parents=True, exist_ok=True)
    for each in report.to_look_into():
        kept.mkdir(parents=True, exist_ok=True)
        path = kept / f"{each.mutant.seed}-{each.mutant.number}"
        path.write_bytes(remake(each.mutant.number).data)
    out.write_text(json.dumps(_document(report), indent=1) + "\n")
    console = Console()
    for table in _tables(report):
        console.print(table)
    for each in report.to_look_into():
        console.print(f"python -m tests.fuzz.mutate {each.mutant.seed} {each.mutant.number} FILE")
        console.print(f"  {each.outcome}, {each.took_s:.1f} s, {report.stories_of(each)}")
    for breach in report.breaches():
        console.print(f"BREACH: {breach}", style="bold red")


def _document(report: Report) -> dict[str, Any]:
    return {
        "seed": report.seed,
        "files": report.files,
        "breaches": report.breaches(),
        "took_s": round(report.took_s, 1),
        "cpu_s": round(report.cpu_s, 1),
        "cpu_s_per_file": round(report.cpu_s / max(1, len(report.judged)), 3),
        "slowest_s": round(max((each.took_s for each in report.judged), default=0), 2),
        "analysis_restarts": report.restarts,
        "descriptors": report.descriptors,
        "usage": {name: asdict(used) for name, used in sorted(report.usage.items())},
        "events": report.events,
        "counts": {name: dict(found.most_common()) for name, found in report.counts().items()},
        "by_container": report.by_container(),
        "by_mutation": report.by_mutation(),
        "to_look_into": [
            each.document() | {"stories": report.stories_of(each)} for each in report.to_look_into()
        ],
    }


def _tables(report: Report) -> Iterator[Table]:
    facts = Table("figure", "value", title=f"{len(report.judged)} files of seed {report.seed}")
    document = _document(report)
    for name in ("took_s", "cpu_s", "cpu_s_per_file", "slowest_s", "analysis_restarts"):
        facts.add_row(name, str(document[name]))
    facts.add_row("descriptors", f"{report.descriptors[0]} to {report.descriptors[1]}")
    for event, count in report.events.most_common():
        facts.add_row(f"logged {event}", str(count))
    yield facts
    columns = ("processes", "seen", "at once", "RSS", "VmHWM", "PSS of all", "fds", "longest s")
    memory = Table(*columns, title="Most that was seen, in MiB")
    for name, used in sorted(report.usage.items()):
        sizes = (f"{size:.0f}" for size in (used.rss, used.high_water, used.pss))
        row = (str(used.seen), str(used.together), *sizes, str(used.descriptors))
        memory.add_row(name, *row, f"{used.longest_s:.1f}")
    yield memory
    for name, found in report.counts().items():
        table = Table(name, "files")
        for value, count in found.most_common(SHOWN):
            table.add_row(value, str(count))
        yield table
    for name, rows in (("container", report.by_container()), ("mutation", report.by_mutation())):
        table = Table(name, *SORTS)
        for value, sorts in sorted(rows.items()):
            table.add_row(value, *(str(sorts[sort]) for sort in SORTS))
        yield table
