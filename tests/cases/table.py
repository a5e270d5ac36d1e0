"""The cases of `sources.toml`: a URL, what the world does to whoever follows it, how that ends."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.fakes.name_server import Answers

ALLOWED = "allowed"  # the outcome of a control: its bytes are fetched
_FILE = Path(__file__).with_name("sources.toml")


class Stage(StrEnum):
    """Where a source is refused, or fails. NONE is a control's."""

    CREATE = "create"
    BEGIN = "begin"  # by the clock, before anything is asked
    RESOLVE = "resolve"
    CONNECT = "connect"
    REDIRECT = "redirect"
    RESPONSE = "response"
    NONE = ""


class Does(StrEnum):
    """What an origin does at a path."""

    ANSWER = "answer"
    ENDLESS = "endless"
    STALL = "stall"
    RESET = "reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`body` is a name in tests.fakes.world.BODIES, or text; a status of 0 sends it bare."""

    does: Does = Does.ANSWER
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = "media"
    length: int | None = None  # the Content-Length told, where that is a lie
    every_s: float = 0.0
    first: int = 0  # the part of the body that is sent, `last` exclusive
    last: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is not said is as usual: a public address, a medium at every path, a good certificate.

    `names` and `hosts` are what DNS and addresses do; `pages` what origins do, by path, one for
    each time it is asked and then the last again. `allow` is the operator's setting, `own` where
    the service itself answers. `reaches` are the sockets that may be opened, as
    `93.184.216.34:80`; by default those of the URL's own host.
    """

    id: str
    category: str
    url: str
    outcome: str
    why: str
    stage: Stage = Stage.NONE
    retryable: bool = False
    verdict: str = ""  # of the bytes, where they are fetched and still no medium
    names: Mapping[str, Answers] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    pages: Mapping[str, tuple[Page, ...]] = field(default_factory=dict)
    reaches: tuple[str, ...] | None = None
    allow: str = ""
    own: tuple[str, ...] = ()
    certified: str = "good"
    certified_for: tuple[str, ...] = ()
    fetches: int = 1  # the last one is judged; those before it are controls
    hasty: bool = False  # waits for nothing for long: something in it never comes

    def __str__(self) -> str:
        return f"{self.category}/{self.id}"


def cases() -> list[Case]:
    """All of them, in the order of the file."""
    with _FILE.open("rb") as file:
        return [
            case(row | {"category": category})
            for category, rows in tomllib.load(file).items()
            for row in rows
        ]


def case(row: Mapping[str, Any]) -> Case:
    """One case from the fields of its row; TypeError for a field that there is not."""
    pages = {
        path: tuple(map(_page, turns if isinstance(turns, list) else [turns]))
        for path, turns in row.get("pages", {}).items()
    }
    given = {name: tuple(row[name]) for name in ("reaches", "certified_for", "own") if name in row}
    return Case(**{**row, **given, "pages": pages, "stage": Stage(row.get("stage", ""))})


def _page(fields: Mapping[str, Any]) -> Page:
    """`to` is short for a redirect."""
    given = {name: value for name, value in fields.items() if name != "to"}
    if "to" in fields:
        given = {"status": 302, "body": "moved", **given}
        given["headers"] = {"Location": fields["to"], **fields.get("headers", {})}
    return Page(**{**given, "does": Does(given.get("does", "answer"))})
