"""What a source URL may look like. Pure: judged before any name is resolved or socket opened.

Parsers disagree about hosts, and attackers live in between. So whatever two of them could read
differently is refused here, and the URL that is sent is put together again from what was judged.
"""

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from yarl import URL

from service.errors import FailureCode, SourceError
from service.fetch.address import MAX_PORT, AddressGuard, Allowed, Why
from service.fetch.refusals import ForbiddenError

MAX_URL_CHARACTERS = 4096
_MAX_HOST_CHARACTERS = 253
_DEFAULT_PORTS = {"http": 80, "https": 443}

_UNPRINTABLE = re.compile(
    r"[\x00-\x20\x7f-\xa0\\\s\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)  # a last label that inet_aton would read
# Links that browsers repair into another host than the RFC's, and whose tabs urljoin would drop.
_REPAIRED = re.compile(r"(?:https?:)?//(?:[/?#]|$)|https?:(?!//)", re.IGNORECASE)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
# Top-level names that only ever lead inside: RFC 6761, RFC 6762 with its appendix G, ICANN 2024;
# and two that the DNS must not be asked about: RFC 7686, RFC 9476; and those of Kubernetes' and
# Consul's services, which nobody may register either.
_INTERNAL_TOPS = frozenset(
    {"localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan"}
    | {"onion", "alt", "svc", "consul"}
)
# Public names of a machine's own metadata, and the home networks of RFC 8375.
_INTERNAL_NAMES = (
    "home.arpa",
    "metadata.goog",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
    "metadata.packet.net",
    "api.metadata.cloud.ibm.com",
)
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
        if _UNPRINTABLE.search(location) or _REPAIRED.match(location):
            raise _invalid("the redirect cannot be read in one way")
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
    try:
        return _judged(text, guard)
    except ForbiddenError as error:
        error.url = text  # a redirect's target is not what the caller sent
        raise


def _judged(text: str, guard: AddressGuard) -> SourceUrl:
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
        raise _forbidden(f"port {int(text)}", Why.PORT)
    return int(text)


def _host(text: str, port: int, guard: AddressGuard) -> str:
    if text.startswith("["):
        return _literal(text[1:-1], port, guard)
    if not 0 < len(text) <= _MAX_HOST_CHARACTERS + len("."):  # IDNA's work grows with it
        raise _invalid("the host is missing or too long")
    if "%" in text:
        raise _refusal_of_encoded(text)
    host = _ascii(text)
    if _ends_in_number(host):
        return _literal(host, port, guard)
    labels = _labels(host)
    if len(".".join(labels)) > _MAX_HOST_CHARACTERS or not all(map(_LABEL.fullmatch, labels)):
        raise _invalid("the host is not a name")
    # A guard without exceptions says so at once; with some, the name's addresses are judged.
    if not guard.blocks and _is_internal(labels):
        raise _forbidden("a host that is internal by its name")
    if guard.is_own(host, port):
        raise _forbidden("an address of this service", Why.SELF)
    return host


def _refusal_of_encoded(text: str) -> SourceError:
    """Some clients decode a host, some ask for it as it stands: neither is asked for here."""
    decoded = unquote(text)
    if not _UNPRINTABLE.search(decoded) and _ends_in_number(_ascii(decoded)):
        return _forbidden("an address that is not written plainly")
    return _invalid("the host is encoded")


def _labels(host: str) -> list[str]:
    return host.removesuffix(".").split(".")


def _ends_in_number(host: str) -> bool:
    """Whether browsers take it for an IPv4 address: WHATWG URL, "ends in a number checker"."""
    return _NUMBER.fullmatch(_labels(host)[-1]) is not None


def _is_internal(labels: list[str]) -> bool:
    name = "." + ".".join(labels)
    return (
        len(labels) == 1
        or labels[-1] in _INTERNAL_TOPS
        or any(name.endswith(f".{internal}") for internal in _INTERNAL_NAMES)
    )


def _literal(host: str, port: int, guard: AddressGuard) -> str:
    """The address in its one spelling."""
    verdict = guard.judge(host, port)
    if isinstance(verdict, Allowed):
        return str(ip_address(host))
    match verdict.why:
        case Why.PORT:
            raise _forbidden(f"port {port}", verdict.why)
        case Why.NOT_AN_ADDRESS if ":" in host:
            raise _invalid("the host is no address")
        case Why.NOT_AN_ADDRESS:
            raise _forbidden("an address that is not written plainly")
        case _:
            raise _forbidden("an address that is not public", verdict.why)


def _ascii(text: str) -> str:
    """The name as DNS knows it: lower case, IDNA 2008 with UTS 46 where it is not ASCII."""
    try:
        host = URL.build(scheme="http", host=text).raw_host
    except ValueError as exc:
        raise _invalid("the host is not a name") from exc
    return (host or "").lower()


def _invalid(detail: str) -> SourceError:
    return SourceError(FailureCode.SOURCE_URL_INVALID, detail)


def _forbidden(detail: str, why: Why | None = None) -> SourceError:
    return ForbiddenError(detail, why=why)
