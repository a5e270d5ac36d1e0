"""Second opinions on hosts and addresses, which share nothing with the guard's own tables.

Addresses by the IANA registries row by row, as of 2026: the IPv4 and IPv6 special-purpose ones,
multicast, and IPv6 address space. Hosts as a browser reads them: WHATWG URL, 4.4 and 3.5.
"""

import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote

import idna

# Globally reachable: false; and the anycast addresses and relays among the others.
_SPECIAL = [
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
]
_UNICAST = ip_network("2000::/3")
_ISATAP = {f"0{bits}00:5efe" for bits in "0123"}

_SPECIAL_SCHEME = re.compile(r"\s*(https?):[/\\]*([^/\\?#]*)", re.IGNORECASE)
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE | re.ASCII)
_PARTS_OF_IPV4 = 4


def is_public(text: str) -> bool:
    address = ip_address(text)
    if any(address in network for network in _SPECIAL):
        return False
    if isinstance(address, IPv4Address):
        return True
    return address in _UNICAST and address.exploded[20:29] not in _ISATAP


def browser_host(text: str) -> str | None:
    """The host that a browser would go to: a name in ASCII or a canonical address; None where
    it goes nowhere.
    """
    text = re.sub(r"[\t\n\r]", "", text.strip("".join(map(chr, range(0x21)))))
    match = _SPECIAL_SCHEME.match(text)
    if match is None:
        return None
    host = match[2].rpartition("@")[2]
    if not host.startswith("["):
        return _domain(host.partition(":")[0])
    try:
        return str(IPv6Address(host[1 : host.rindex("]")]))
    except (AddressValueError, ValueError):
        return None


def _domain(host: str) -> str | None:
    decoded = unquote(host)
    try:
        name = idna.encode(decoded.removesuffix("."), uts46=True).decode("ascii")
    except idna.IDNAError:
        name = unicodedata.normalize("NFKC", decoded).lower().removesuffix(".")
    name = name.removesuffix(".")  # an ideographic one, until now
    if not name.isascii() or not name:
        return None
    if _NUMERIC.fullmatch(name.rpartition(".")[2]):
        return _ipv4(name.split("."))
    return name.lower()


def _ipv4(parts: list[str]) -> str | None:
    numbers = [_number(part) for part in parts]
    if len(parts) > _PARTS_OF_IPV4 or None in numbers:
        return None
    *firsts, last = (number or 0 for number in numbers)
    if any(number > 0xFF for number in firsts) or last >= 256 ** (5 - len(parts)):
        return None
    return str(IPv4Address(sum(n << 24 - 8 * k for k, n in enumerate(firsts)) + last))


def _number(part: str) -> int | None:
    base = 16 if part[:2].lower() == "0x" else 8 if len(part) > 1 and part[0] == "0" else 10
    digits = part[2:] if base == 16 else part
    try:
        return int(digits or "0", base) if part and digits.isalnum() | (not digits) else None
    except ValueError:
        return None
