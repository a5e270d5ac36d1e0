"""Cases that others wrote, where GREENROOM_CORPUS stands beside them, as cases of ours.

Their worlds are described in prose, so those that we know are built here by id; of the rest, what
can be read from the prose is, and what cannot is skipped loudly.
"""

import json
import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.cases.table import ALLOWED, Case, case

_FORBIDDEN, _INVALID = "source_url_forbidden", "source_url_invalid"
# Their codes in our words; a code that is not here is ours already.
_CODES = {
    "source_address_forbidden": _FORBIDDEN,
    "source_scheme_forbidden": _FORBIDDEN,
    "source_port_forbidden": _FORBIDDEN,
    "source_url_credentials_forbidden": _FORBIDDEN,
    "source_redirect_forbidden": _FORBIDDEN,
    "source_dns_timeout": "source_timeout",
    "source_dns_failed": "source_unreachable",
    "source_not_media": "source_is_html",
    "source_encoding_forbidden": "source_http_error",
    "source_changed": "source_truncated",
    "source_tls_error": "source_unreachable",
    "media_format_unsupported": ALLOWED,  # the bytes come; the verdict is `unsupported_format`
}
_RETRYABLE = {"source_timeout", "source_unreachable", "source_truncated"}
_STAGES = {"parse": "create", "parse/connect": "create", "connect": "create", "-": ""}
_USUAL_URL = "http://example.com/a.mp4"
_SECURE_URL = "https://example.com/a.mp4"
_PUBLIC, _PRIVATE = ["93.184.216.34"], ["10.0.0.1"]
_TAG = {"ETag": '"one"', "Content-Length": "16396"}
_REST = {"Content-Range": "bytes 8000-16395/16396", "ETag": '"two"', "Content-Length": "8396"}

Row = dict[str, Any]


def _pages(page: Row | list[Row]) -> Row:
    return {"pages": {"/a.mp4": page}}


def _names(url: str, *answers: list[str], **other: list[str]) -> Row:
    host = url.split("/")[2]
    chain = {name.replace("_", "."): [records] for name, records in other.items()}
    return {"stage": "resolve", "names": {host: list(answers), **chain}}


# The worlds of their ids; several where they name several, or where a control makes it plain. An
# `outcome` is decided against their code: it says what their own text says, or what was sent.
_WORLDS: Mapping[str, tuple[Row, ...]] = {
    "ssrf-105": (_names("http://rebind2.test/", _PUBLIC, _PRIVATE) | {"fetches": 2},),
    "ssrf-107": (
        _names(
            "http://cname.test/",
            ["CNAME metadata.google.internal"],
            metadata_google_internal=["169.254.169.254"],
        ),
    ),
    "ssrf-108": (_names("http://dns64.test/", ["10.0.0.1", "64:ff9b::a00:1"]),),
    "ssrf-109": (_names("http://self.test/", _PUBLIC) | {"own": ["93.184.216.34:80"]},),
    "ssrf-110": (
        _names("http://slowdns.test/", ["HANG"]) | {"outcome": "source_timeout", "hasty": True},
    ),
    "ssrf-111": (_names("http://nx.test/", ["NXDOMAIN"]) | {"outcome": "source_unreachable"},),
    "ssrf-112": ({"stage": "create"},),
    "ssrf-113": ({"stage": "create"},),
    "ssrf-114": ({"stage": "create"},),
    "ssrf-117": (_pages({"to": "http://[::ffff:7f00:1]/", "status": 307}),),
    "ssrf-118": (_pages({"to": "http://example.com/b", "status": 301}) | {"url": _SECURE_URL},),
    "ssrf-121": (
        _pages({"to": "/../x"})
        | _names("http://name.test/", _PUBLIC, _PRIVATE)
        | {"url": "http://name.test/a.mp4", "stage": "redirect"},
    ),
    "ssrf-123": (
        _pages({"status": 302, "body": "moved"})
        | {"outcome": "source_http_error", "stage": "response"},
    ),
    "ssrf-124": (_pages({"to": "http://cdn.example:6379/"}),),
    "ssrf-128": (
        _pages(
            {
                "does": "endless",
                "headers": {"Transfer-Encoding": "chunked"},
                "body": "chunk",
            }
        ),
    ),
    "ssrf-129": (_pages({"body": "gzip", "headers": {"Content-Encoding": "gzip"}}),),
    "ssrf-130": (_pages({"does": "endless", "body": "x", "every_s": 0.1}) | {"hasty": True},),
    "ssrf-133": (_pages({"status": 206}),),
    "ssrf-134": (
        _pages(
            [
                {"does": "reset", "headers": _TAG, "last": 8000},
                {"status": 206, "headers": _REST, "first": 8000},
            ]
        ),
    ),
    "ssrf-135": (_pages({"body": "page", "headers": {"Content-Type": "text/html"}}),),
    "ssrf-137": (_pages({"body": "hls"}) | {"verdict": "unsupported_format"},),
    "ssrf-138": tuple(
        _pages({"body": body}) | {"verdict": "unsupported_format"}
        for body in ("ffconcat", "sdp", "mpd")
    ),
    "ssrf-141": tuple(
        row | {"url": _SECURE_URL, "stage": "connect"}
        for row in (
            {"certified": "expired"},
            {"certified": "self-signed"},
            {"certified_for": ["other.example"]},
        )
    ),
    "ssrf-142": (
        {"url": _SECURE_URL, "stage": "connect", "certified_for": _PUBLIC},
        {"url": _SECURE_URL, "stage": "", "outcome": ALLOWED, "certified_for": ["example.com"]},
    ),
    "ssrf-143": (
        _names("http://inside.test/", _PRIVATE) | {"url": "http://inside.test/a.mp4"},
        {"stage": "", "outcome": ALLOWED},
    ),
    "ssrf-144": (
        _pages({"status": 401, "body": "", "headers": {"WWW-Authenticate": "Basic realm=a"}})
        | {"outcome": "source_http_error"},
    ),
    "ssrf-149": ({"names": {"bucket.s3.amazonaws.com": [_PUBLIC]}},),
    "ssrf-159": ({"stage": "", "allow": "10.1.2.0/24"},),
    "ssrf-160": (
        _pages({"to": "https://cdn.example/b"})
        | {"url": _SECURE_URL, "stage": "", "reaches": ["93.184.216.34:443", "151.101.1.69:443"]},
    ),
}


def labelled_cases() -> list[Any]:
    """Parameters for pytest: each case, or the reason why it is not run."""
    named = os.environ.get("GREENROOM_CORPUS")
    file = Path(named).parent / "cases" / "ssrf_cases.json" if named else None
    if file is None or not file.is_file():
        reason = "no cases stand beside GREENROOM_CORPUS: other people's cases were NOT run"
        return [pytest.param(None, id="none", marks=pytest.mark.skip(reason))]
    return [
        parameter
        for row in json.loads(file.read_text(encoding="utf-8"))
        for parameter in _parameters(row)
    ]


def _parameters(row: Row) -> list[Any]:
    worlds = _WORLDS.get(row["id"])
    if worlds is None and "setup" in row:
        read = _read(row)
        worlds = None if read is None else (read,)
    if worlds is None and "setup" in row:
        skipped = pytest.mark.skip(f"no world is built for: {row['setup']}")
        return [pytest.param(None, id=f"{row['category']}/{row['id']}", marks=skipped)]
    cases = [_case(row, world) for world in worlds or ({},)]
    return [
        pytest.param(made, id=f"{made}{f'-{turn}' if turn else ''}")
        for turn, made in enumerate(cases)
    ]


def _case(row: Row, world: Row) -> Case:
    code = row.get("code")
    outcome = world.get("outcome") or (ALLOWED if code is None else _CODES.get(code, code))
    stage = "" if outcome == ALLOWED else _STAGES.get(row["stage"], row["stage"])
    return case(
        {
            "id": row["id"],
            "category": row["category"],
            "url": row.get("url") or _USUAL_URL,
            "outcome": outcome,
            "stage": stage,
            "retryable": outcome in _RETRYABLE,
            "why": row["why"],
            **world,
        }
    )


_LOCATION = re.compile(r"HTTP: (30[12378]).*?(?:Location: |to )(\S+)")
_ADDRESS = re.compile(r"[0-9a-fA-F:.]{3,}")


def _read(row: Row) -> Row | None:
    """The world of a prose that names a redirect's target, or a name's addresses."""
    redirect = _LOCATION.match(row["setup"])
    if redirect:
        return _pages({"status": int(redirect[1]), "to": redirect[2]})
    addresses = [text for text in _ADDRESS.findall(row["setup"]) if _is_address(text)]
    if row["setup"].startswith("DNS: ") and addresses and "url" in row:
        return _names(row["url"], addresses)
    return None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
