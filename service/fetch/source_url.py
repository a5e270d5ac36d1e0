"""What a source URL may look like. Pure: judged before any name is resolved or socket opened.

Parsers disagree about hosts, and attackers live in between. So whatever two of them could read
differently is refused here, and the URL that is sent is put together again from what was judged.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from yarl import URL

from service.errors import FailureCode, SourceError
from service.fetch.address import MAX_PORT, AddressGuard, Refused, Why

MAX_URL_CHARACTERS = 4096
_MAX_HOST_CHARACTERS = 253
_DEFAULT_PORTS = {"http": 80, "https": 443}

_UNPRINTABLE = re.compile(
    r"[\x00-\x20\x7f-\xa0\\\s\u200b-\u200f\u2028-\u202e\u2060\ufeff\ud800-\udfff]"
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)  # a last label that inet_aton would read
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_INTERNAL_SUFFIXES = ("localhost", "local", "internal")  # RFC 6761, RFC 6762, ICANN 2024
# What may stand in a URL as it is. Signed URLs must arrive byte for byte, so `%` is left alone.
_SENT_AS_IS = "!#$%&'()*+,/:;=?@[]~\"<>^`{|}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceUrl:
    """A URL that passed. Neither `repr` nor `without_query` shows what could be a secret."""

    scheme: str
    host: str  # ASCII, lower case, no brackets
    port: int
    path: str
    query: str = field(repr=False)

    def __str__(self) -> str:
        return self.without_query

    @property
    def without_query(self) -> str:
        """For logs and events."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    @property
    def wire(self) -> URL:
        """What is requested, encoded already: nothing may normalise it again."""
        query = f"?{self.query}" if self.query else ""
        return URL(self.without_query + query, encoded=True)

    def follow(self, location: str, guard: AddressGuard) -> "SourceUrl":
        """The URL a redirect leads to, judged like the first and never weaker than it."""
        try:
            joined = urljoin(str(self.wire), location)
        except ValueError as exc:
            raise _invalid("the redirect cannot be read") from exc
        target = parse_source_url(joined, guard)
        if self.scheme == "https" and target.scheme == "http":
            raise _forbidden("a redirect from https to http")
        return target


def parse_source_url(text: str, guard: AddressGuard) -> SourceUrl:
    """Judge *text*; raise SourceError with `source_url_invalid` or `source_url_forbidden`."""
    parts = _split(text)
    host_text, port_text = _host_and_port(parts.netloc)
    port = _port(port_text, parts.scheme, guard)
    return SourceUrl(
        scheme=parts.scheme,
        host=_host(host_text, port, guard),
        port=port,
        path=quote(parts.path or "/", safe=_SENT_AS_IS),
        query=quote(parts.query, safe=_SENT_AS_IS),
    )


def _split(text: str) -> SplitResult:
    if not text or len(text) > MAX_URL_CHARACTERS:
        raise _invalid(f"not between 1 and {MAX_URL_CHARACTERS} characters")
    if _UNPRINTABLE.search(text):
        raise _invalid("white space, a control character or a backslash")
    try:
        parts = urlsplit(text)
    except ValueError as exc:
        raise _invalid("it cannot be read") from exc
    if not parts.scheme:
        raise _invalid("it has no scheme")
    if parts.scheme not in _DEFAULT_PORTS:
        raise _forbidden("a scheme other than http and https")
    return parts


def _host_and_port(netloc: str) -> tuple[str, str]:
    if "@" in netloc:
        raise _forbidden("credentials in the URL")
    if netloc.startswith("["):
        host, bracket, rest = netloc.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _invalid("the host cannot be read")
        return host + bracket, rest.removeprefix(":")
    host, _, port = netloc.partition(":")
    return host, port


def _port(text: str, scheme: str, guard: AddressGuard) -> int:
    if not text:
        return _DEFAULT_PORTS[scheme]
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= MAX_PORT:
        raise _invalid("the port is not a number from 1 to 65535")
    if int(text) not in guard.ports:
        raise _forbidden(f"port {int(text)}")
    return int(text)


def _host(text: str, port: int, guard: AddressGuard) -> str:
    if text.startswith("["):
        return _literal(text[1:-1], port, guard)
    if not text or "%" in text:
        raise _invalid("the host is missing or encoded")
    host = _ascii(text)
    labels = host.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):  # as browsers decide it: WHATWG URL, "ends in a number"
        return _literal(host, port, guard)
    if len(host) > _MAX_HOST_CHARACTERS or not all(map(_LABEL.fullmatch, labels)):
        raise _invalid("the host is not a name")
    # Such names only ever lead inside; an operator who allows nothing there hears it at once.
    if not guard.blocks and (len(labels) == 1 or labels[-1] in _INTERNAL_SUFFIXES):
        raise _forbidden("a host that is internal by its name")
    return host


def _literal(host: str, port: int, guard: AddressGuard) -> str:
    verdict = guard.judge(host, port)
    if isinstance(verdict, Refused):
        detail = f"port {port}" if verdict.why is Why.PORT else "an address that is not public"
        raise _forbidden(detail)
    return host


def _ascii(text: str) -> str:
    """The name as DNS knows it: lower case, IDNA 2008 with UTS 46 where it is not ASCII."""
    try:
        host = URL.build(scheme="http", host=text).raw_host
    except ValueError as exc:
        raise _invalid("the host is not a name") from exc
    return (host or "").lower()


def _invalid(detail: str) -> SourceError:
    return SourceError(FailureCode.SOURCE_URL_INVALID, detail)


def _forbidden(detail: str) -> SourceError:
    return SourceError(FailureCode.SOURCE_URL_FORBIDDEN, detail)
