"""Model weights: what there is, what is missing, and how it gets here."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from validators.analysis.weights import Weight, catalogue, fetch, missing


def fetch_missing(models_dir: Path | None, console: Console) -> int:
    """Fetch every file that is not there; returns how many came."""
    wanted = missing(models_dir)
    for number, weight in enumerate(wanted, 1):
        with console.status(f"{number}/{len(wanted)} {weight.name} from {weight.package}"):
            path = fetch(weight, models_dir)
        console.print(f"fetched {weight.name}: {path}", soft_wrap=True)
    if not wanted:
        console.print("every model is here")
    return len(wanted)


def table(models_dir: Path | None) -> Table:
    lacking = {weight.name for weight in missing(models_dir)}
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
    lacking = {weight.name for weight in missing(models_dir)}
    return "\n".join(
        json.dumps(document(weight, here=weight.name not in lacking)) for weight in catalogue()
    )
