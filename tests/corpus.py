"""A folder of labelled media: the files, and `manifest.csv` with what they are.

`GREENROOM_CORPUS` names it. Its tests skip loudly without one, so that the suite stands alone.
"""

import csv
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    path: Path
    media: str
    expect: str
    reasons: frozenset[str]


def labelled(media: str, *, expect: str, reasons: Collection[str] = ()) -> list[Labelled]:
    """Files of one kind and label; with *reasons*, those that name one of them."""
    named = os.environ.get("GREENROOM_CORPUS")
    if not named:
        pytest.skip("GREENROOM_CORPUS names no folder: labelled real media were NOT checked")
    folder = Path(named)
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        found = [
            Labelled(
                path=folder / row["file"],
                media=row["media"],
                expect=row["expect"],
                reasons=frozenset(filter(None, row["reasons"].split(";"))),
            )
            for row in csv.DictReader(file)
        ]
    wanted = frozenset(reasons)
    return [
        item
        for item in found
        if (item.media, item.expect) == (media, expect) and (not wanted or wanted & item.reasons)
    ]
