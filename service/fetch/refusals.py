"""Who asked for what we do not fetch, and why we do not: for the log and the metrics alone."""

import re

import structlog

from service.errors import FailureCode, SourceError
from service.fetch.address import Why
from service.telemetry import EGRESS_REFUSED

log = structlog.get_logger()

REFUSALS = frozenset({FailureCode.SOURCE_URL_FORBIDDEN, FailureCode.SOURCE_URL_INVALID})
_MAX_SHOWN = 200
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}:")
_HOST = re.compile(r"[^@\\:\[\]]+(?::\d*)?|\[[0-9A-Fa-f:.]+\](?::\d*)?")


class ForbiddenError(SourceError):
    """We do not go there. What it holds beyond its detail is not for the public.

    `why` is None where the URL's form was enough; `address` is empty where none was resolved;
    `url` is the one that was refused, where redirects led to it.
    """

    def __init__(
        self, detail: str, *, why: Why | None = None, address: str = "", url: str = ""
    ) -> None:
        super().__init__(FailureCode.SOURCE_URL_FORBIDDEN, detail)
        self.why = why
        self.address = address
        self.url = url


def log_refused(error: SourceError, *, url: str, **asked: str) -> None:
    """Log and count that *url* was refused to whoever *asked*."""
    why, address = None, ""
    if isinstance(error, ForbiddenError):
        why, address, url = error.why, error.address, error.url or url
    EGRESS_REFUSED.labels(str(why or error.code)).inc()
    log.warning(
        "source_refused",
        code=error.code.value,
        why=str(why or error.detail),
        address=address,
        url=without_secrets(url),
        **asked,
    )


def without_secrets(text: str) -> str:
    """What a log may show of *text*, which may be no URL at all: neither query nor credentials."""
    scheme, _, rest = re.split(r"[?#]", text, maxsplit=1)[0].partition("//")
    authority, slash, path = rest.partition("/")
    host = authority.rpartition("@")[2]
    if not _HOST.fullmatch(host):
        named = _SCHEME.match(scheme)
        return named[0] if named else ""
    before_at = path.partition("@")[0]  # what follows may be a host, and this a password
    return _printable(f"{scheme}//{host}{slash}{before_at}")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[:_MAX_SHOWN]
