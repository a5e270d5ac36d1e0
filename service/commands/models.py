"""Model weights: what there is, what is missing, and how it gets here."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from validators.analysis.weights import Weight, catalogue, fetch, missing


def fetch_missing(
    models_dir: Path | None, console: Console, engines: Collection[str] = frozenset()
) -> int:
    """Fetch every file that is not there, those of optional *engines* too; says how many came."""
    wanted = missing(models_dir, engines)
    for number, weight in enumerate(wanted, 1):
        with console.status(f"{number}/{len(wanted)} {weight.name} from {weight.package}"):
            path = fetch(weight, models_dir)
        console.print(f"fetched {weight.name}: {path}", soft_wrap=True)
    if not wanted:
        console.print("every model is here")
    return len(wanted)


def table(models_dir: Path | None) -> Table:
    lacking = _lacking(models_dir)
    shown = Table("name", "what", "package", "licence", "here")
    for weight in catalogue():
        here = "no" if weight.name in lacking else "yes"
        package = f"{weight.package} {weight.version}"
        shown.add_row(weight.name, weight.what, package, weight.licence, here)
    return shown


def document(weight: Weight, *, here: bool) -> dict[str, Any]:
    return {
        "name": weight.name,
        "package": weight.package,
        "version": weight.version,
        "member": weight.member,
        "sha256": weight.sha256,
        "licence": weight.licence,
        "here": here,
    }


def documents(models_dir: Path | None) -> str:
    lacking = _lacking(models_dir)
    return "\n".join(
        json.dumps(document(weight, here=weight.name not in lacking)) for weight in catalogue()
    )


def _lacking(models_dir: Path | None) -> set[str]:
    """Names of the files that are not there, whichever engine wants them."""
    every = frozenset(weight.engine for weight in catalogue() if weight.engine)
    return {weight.name for weight in missing(models_dir, every)}
