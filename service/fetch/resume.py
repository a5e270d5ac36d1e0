"""When a broken transfer may go on, and with what. Pure: RFC 9110, 8.8, 13.1.5 and 14.

Two objects must never be spliced into one. So we go on only with a strong validator, and only
with an answer that proves, by its own headers, to be the rest of what we have.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus

Headers = Mapping[str, str]

# Stored bytes are plain where S3 clients left `aws-chunked` on them.
_PLAIN_ENCODINGS = {"", "identity", "aws-chunked"}
_STRONG_TAG = re.compile(r'"[\x21\x23-\x7e]{1,256}"', re.ASCII)
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII | re.IGNORECASE)
# RFC 9110 8.8.2.2 wants one second, and doubts clocks; RFC 7232 wanted a minute.
_SETTLED = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator:
    """What tells one state of a source from every other, and the header that carries it."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which bytes of how many; *last* is inclusive."""

    first: int
    last: int
    total: int

    @property
    def is_whole(self) -> bool:
        return self.first == 0 and self.last + 1 == self.total


def strong_validator(headers: Headers) -> Validator | None:
    """What a resume can rely on; None where the origin gave nothing, or takes no ranges."""
    if headers.get("Accept-Ranges", "").strip().lower() == "none":
        return None
    if (tag := headers.get("ETag")) is not None:
        return Validator(name="ETag", value=tag) if _STRONG_TAG.fullmatch(tag) else None
    modified, sent = (_date(headers.get(name)) for name in ("Last-Modified", "Date"))
    if modified is None or sent is None or sent - modified < _SETTLED:
        return None
    return Validator(name="Last-Modified", value=headers["Last-Modified"])


def asking_for_the_rest(validator: Validator, at_bytes: int) -> dict[str, str]:
    return {"Range": f"bytes={at_bytes}-", "If-Range": validator.value}


def why_not_the_rest(
    status: int, headers: Headers, validator: Validator, at_bytes: int, size_bytes: int | None
) -> str | None:
    """Why this answer may not be put after the first *at_bytes*; None where it may.

    *size_bytes* is of the whole, where it is known.
    """
    if status == HTTPStatus.OK:
        return "it broke off, and then it had changed or could not be resumed"
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return "it broke off, and then it had become shorter"
    if status != HTTPStatus.PARTIAL_CONTENT:
        return f"it broke off, and the rest was refused with HTTP status {status}"
    part = part_of(headers)
    if part is None or not is_plain(headers):
        return "it broke off, and the rest came in a form that was not asked for"
    if (part.first, part.last + 1) != (at_bytes, part.total):
        return "it broke off, and other bytes came than the rest"
    if size_bytes not in (None, part.total) or headers.get(validator.name) != validator.value:
        return "it broke off, and then it had changed"
    return None


def part_of(headers: Headers) -> Part | None:
    """What a 206 holds, where it is one part and says which."""
    match = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match is None:
        return None
    first, last, total = map(int, match.groups())
    return Part(first=first, last=last, total=total)


def is_plain(headers: Headers) -> bool:
    """Whether the bytes are those of the source, as we asked for them."""
    return headers.get("Content-Encoding", "").strip().lower() in _PLAIN_ENCODINGS


def _date(text: str | None) -> datetime | None:
    """An HTTP date in GMT. One that names no zone is none: it cannot be compared."""
    try:
        date = parsedate_to_datetime(text or "")
    except (ValueError, TypeError):
        return None
    return date if date.tzinfo is not None else None
