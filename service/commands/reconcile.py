"""`greenroom reconcile`: what the reconciler finds, for people or for machines, as it finds it."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import IntEnum
from typing import TypeAlias

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from service.db.types import DATABASE_AWAY
from service.ids import avatar_spelling
from service.ingest.objects import Shelf
from service.ingest.reconcile import (
    Finding,
    Outcome,
    Problem,
    Reconciler,
    Wanted,
    Watch,
    WrongStoreError,
)
from service.logs import story_of
from service.settings import Settings, SettingsError
from service.times import now_utc
from service.wiring import open_base
from storage.store import StoreUnavailableError

CONNECTIONS = 4
NAMED = 3  # assets and avatars in a line for people

# what each finding means, in a few words
MEANINGS: dict[Problem, str] = {
    Problem.OBJECT_MISSING: "an asset's object is gone",
    Problem.OTHER_SIZE: "an asset's object has another size",
    Problem.OTHER_BYTES: "an asset's object has another SHA-256",
    Problem.OBJECT_BACK: "a lost object is there again, and right",
    Problem.NOT_USED: "no asset points to it",
    Problem.LEFT_BEHIND: "was never finished, or not erased",
    Problem.STRAY_OBJECT: "an object without a row",
    Problem.STRAY_UPLOAD: "a file of an upload that is over",
    Problem.ASSET_DIFFERS: "an asset and its blob say different things",
    Problem.UNFINISHED_PUTS: "parts of puts that died",
}


Counts: TypeAlias = Counter[tuple[Problem, Outcome]]


class Status(IntEnum):
    """Exit statuses. Values are public; 2 is for mistakes in the command line or the settings."""

    CLEAN = 0  # nothing found, or all repaired
    FOUND = 1
    UNFINISHED = 3


async def reconcile(settings: Settings, wanted: Wanted, *, as_json: bool) -> Status:
    """Look at everything, and print what does not fit."""
    counts: Counts = Counter()
    try:
        async with open_base(settings, connections=CONNECTIONS) as base:
            await _look(base, wanted, counts, as_json=as_json)
        if not counts and not as_json:
            typer.echo("Everything fits.")
    except SettingsError as exc:
        if not isinstance(exc.__cause__, StoreUnavailableError):
            raise
        return _unfinished(str(exc))
    except StoreUnavailableError as exc:
        return _unfinished(f"the store does not answer: {exc}")
    except WrongStoreError as exc:
        hint = "is this the right bucket or folder? --force repairs all the same"
        return _unfinished(f"store and database do not belong together ({exc}); {hint}")
    except DATABASE_AWAY as exc:
        return _unfinished(f"the database went away: {story_of(exc)}")
    finally:
        if counts and not as_json:
            Console().print(_summary(counts))
    clean = all(outcome is Outcome.REPAIRED for _, outcome in counts)
    return Status.CLEAN if clean else Status.FOUND


async def _look(shelf: Shelf, wanted: Wanted, counts: Counts, *, as_json: bool) -> None:
    async with shelf.pool.acquire() as conn:
        with _progress() as watch:
            reconciler = Reconciler(
                shelf=shelf, conn=conn, wanted=wanted, clock=now_utc, watch=watch
            )
            async for finding in reconciler.findings():
                counts[finding.problem, finding.outcome] += finding.count
                typer.echo(_document(finding) if as_json else line(finding))


def _unfinished(why: str) -> Status:
    typer.echo(f"greenroom: {why}. What was repaired until then is done.", err=True)
    return Status.UNFINISHED


def _document(finding: Finding) -> str:
    """One finding as a line of JSON; what is not known of it is left out."""
    found = {name: value for name, value in asdict(finding).items() if value not in (None, ())}
    found |= {"assets": [str(asset) for asset in finding.assets]}
    found |= {"avatars": [avatar_spelling(avatar) for avatar in finding.avatars]}
    return json.dumps(found)


def line(finding: Finding) -> str:
    """One finding for people."""
    parts = [f"{finding.outcome:9}{finding.problem:16}{finding.key or finding.count}"]
    if finding.problem in {Problem.OTHER_SIZE, Problem.ASSET_DIFFERS}:
        parts.append(f"{finding.found_bytes} bytes instead of {finding.size_bytes}")
    if finding.assets:
        parts.append(f"assets {_named([str(asset) for asset in finding.assets])}")
    if finding.avatars:
        parts.append(f"avatars {_named([avatar_spelling(one) for one in finding.avatars])}")
    return "  ".join(parts)


def _named(names: list[str]) -> str:
    more = len(names) - NAMED
    return " ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _summary(counts: Counts) -> Table:
    table = Table("problem", "", *(outcome.value for outcome in Outcome))
    for problem in Problem:
        found = [counts[problem, outcome] for outcome in Outcome]
        if any(found):
            numbers = (str(number) if number else "" for number in found)
            table.add_row(problem.value, MEANINGS[problem], *numbers)
    return table


@contextmanager
def _progress() -> Iterator[Watch]:
    """Shown on a terminal alone, and on standard error: the findings may go to a file."""
    console = Console(stderr=True)
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
    )
    with progress:
        task = progress.add_task("listing objects", total=None)

        def watch(stage: str, done: float, total: float | None) -> None:
            progress.update(task, description=stage, completed=done, total=total)

        yield watch
