"""Everything that can stop an ingestion short of a verdict. A refusal is a Verdict, a value.

IngestError             no verdict could be reached; `who` must act
 |- SourceError         the caller or the source's owner: the URL, or what it led to
 |- UnavailableError    nobody: a part of ours is away, and we try again later
 |   `- HostBusyError   nobody: other fetches wait for the same host; it counts as no attempt
 `- InternalError       we: it is reported, and its cause never leaves the log

Codes are public API: added, never renamed. `detail` is fit for the public, so it holds no query
string, no address of ours and no text of an exception; the cause is chained with `from`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType


class FailureCode(StrEnum):
    """What stopped it, in public."""

    SOURCE_URL_INVALID = "source_url_invalid"
    SOURCE_URL_FORBIDDEN = "source_url_forbidden"
    SOURCE_URL_EXPIRED = "source_url_expired"
    SOURCE_UNREACHABLE = "source_unreachable"
    SOURCE_HTTP_ERROR = "source_http_error"
    SOURCE_TIMEOUT = "source_timeout"
    SOURCE_TOO_LARGE = "source_too_large"
    SOURCE_EMPTY = "source_empty"
    SOURCE_TRUNCATED = "source_truncated"
    SOURCE_IS_HTML = "source_is_html"
    SOURCE_CHECKSUM_MISMATCH = "source_checksum_mismatch"
    ASSET_NOT_FOUND = "asset_not_found"
    INTERNAL = "internal"


class Who(StrEnum):
    """Who must act."""

    CALLER = "caller"
    SOURCE_OWNER = "source_owner"
    US = "us"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a code means: who must act, whether trying again can help, and the public sentence."""

    who: Who
    retryable: bool
    sentence: str


def _failure(who: Who, sentence: str, *, retryable: bool = False) -> Failure:
    return Failure(who=who, retryable=retryable, sentence=sentence)


FAILURES: Mapping[FailureCode, Failure] = MappingProxyType(
    {
        FailureCode.SOURCE_URL_INVALID: _failure(
            Who.CALLER, "The source URL is not a valid http or https URL."
        ),
        FailureCode.SOURCE_URL_FORBIDDEN: _failure(
            Who.CALLER, "The source URL leads to an address, port or scheme that is not allowed."
        ),
        FailureCode.SOURCE_URL_EXPIRED: _failure(
            Who.CALLER, "The source URL has expired. Send a fresh one."
        ),
        FailureCode.SOURCE_UNREACHABLE: _failure(
            Who.SOURCE_OWNER, "The source's server could not be reached.", retryable=True
        ),
        FailureCode.SOURCE_HTTP_ERROR: _failure(  # retryable by status
            Who.SOURCE_OWNER, "The source's server did not answer with the file."
        ),
        FailureCode.SOURCE_TIMEOUT: _failure(
            Who.SOURCE_OWNER, "The source's server was too slow.", retryable=True
        ),
        FailureCode.SOURCE_TOO_LARGE: _failure(
            Who.CALLER, "The source is larger than the limit for its kind."
        ),
        FailureCode.SOURCE_EMPTY: _failure(Who.SOURCE_OWNER, "The source holds no bytes."),
        FailureCode.SOURCE_TRUNCATED: _failure(
            Who.SOURCE_OWNER, "The source ended before all of its bytes came.", retryable=True
        ),
        FailureCode.SOURCE_IS_HTML: _failure(
            Who.CALLER, "The source URL leads to a web page, not to a media file."
        ),
        FailureCode.SOURCE_CHECKSUM_MISMATCH: _failure(
            Who.CALLER, "The source's bytes do not have the checksum that was given."
        ),
        FailureCode.ASSET_NOT_FOUND: _failure(Who.CALLER, "There is no asset with this id."),
        FailureCode.INTERNAL: _failure(Who.US, "Something went wrong on our side."),
    }
)

# Answers that a later try may not get again: RFC 9110 15.5.9, RFC 8470, RFC 6585, and any 5xx.
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class IngestError(Exception):
    """No verdict could be reached. `status` is the source's HTTP status, where there was one."""

    def __init__(self, code: FailureCode, detail: str = "", *, status: int | None = None) -> None:
        super().__init__(f"{code}: {detail}" if detail else str(code))
        self.code = code
        self.detail = detail
        self.status = status

    @property
    def who(self) -> Who:
        return FAILURES[self.code].who

    @property
    def message(self) -> str:
        """The code's public sentence."""
        return FAILURES[self.code].sentence

    @property
    def retryable(self) -> bool:
        """Whether the same source may do better later."""
        return may_pass(self.code, self.status)


class SourceError(IngestError):
    """The URL, or what it led to, cannot be used."""


class UnavailableError(IngestError):
    """A part of ours is away. Whatever the code says, a later try may do."""

    @property
    def retryable(self) -> bool:
        return True


class HostBusyError(UnavailableError):
    """Too many of our fetches wait for this host already; this one did not begin to wait.

    It says nothing of the source, so it is no attempt: try again in a few seconds. A fetch that
    waited would hold a worker's turn, and one slow host would hold them all.
    """

    def __init__(self) -> None:
        super().__init__(FailureCode.SOURCE_TIMEOUT, "too many fetches wait for its server")


class InternalError(IngestError):
    """Our fault, and trying again does not help."""


def may_pass(code: FailureCode, status: int | None) -> bool:
    """Whether this failure, with the source's HTTP *status* if there was one, may pass."""
    if code is FailureCode.SOURCE_HTTP_ERROR:
        return status is not None and _passing(status)
    return FAILURES[code].retryable


def _passing(status: int) -> bool:
    return status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR
