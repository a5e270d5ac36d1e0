"""May we connect to this IP address, and if not, why? Pure: no name is resolved here.

The tables are our own: on Python 3.11 `ipaddress.is_global` is true for IPv4-compatible, NAT64,
6to4, ISATAP, site-local and multicast addresses and for two clouds' metadata services. Sources:
the IANA special-purpose registries (RFC 6890 and its updates), RFC 6052, RFC 8215, RFC 9637, and
the clouds' own pages for their metadata services.

No table can know the IPv4 address behind a network's own NAT64 prefix (RFC 6052 2.2) or behind a
provider's 6rd prefix (RFC 5969): they lie in public address space, and only the network can close
them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

PUBLIC_PORTS = frozenset({80, 443, 8080, 8443})
MAX_PORT = 65_535
IPV6 = 6


class Why(StrEnum):
    """Why an address is refused."""

    NOT_AN_ADDRESS = "not an address"
    ZONE = "zone id"
    UNSPECIFIED = "this network"
    PRIVATE = "private"
    SHARED = "shared by a carrier's customers"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    METADATA = "metadata service"
    PROTOCOL = "protocol assignments"
    DOCUMENTATION = "documentation"
    BENCHMARK = "benchmark"
    MULTICAST = "multicast"
    RESERVED = "reserved"
    EMBEDDED = "embeds an IPv4 address"
    NOT_UNICAST = "not global unicast"
    PORT = "port"
    SELF = "this host itself"
    PROXY = "the proxy refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """We may connect. `block` is the operator's exception that says so, if one was needed."""

    block: "AllowedBlock | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """We may not. `embedded` is the IPv4 address that the IPv6 address stands for, `address` the
    one that was judged, where a request met it.
    """

    why: Why
    embedded: IPv4Address | None = None
    address: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedBlock:
    """Addresses that are reachable although not public: on `port`, or on the public ports."""

    network: IPNetwork
    port: int | None = None

    def __str__(self) -> str:
        network = f"[{self.network}]" if self.network.version == IPV6 else str(self.network)
        return str(self.network) if self.port is None else f"{network}:{self.port}"

    def covers(
        self, address: IPAddress, port: int, public_ports: frozenset[int] = PUBLIC_PORTS
    ) -> bool:
        """Metadata services only where the block names that very address: 10.0.0.0/8 or fd00::/8
        open a network, and nobody means the credentials of the machine by them.
        """
        if address in _METADATA and self.network.num_addresses > 1:
            return False
        return address in self.network and (
            port in public_ports if self.port is None else port == self.port
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressGuard:
    """The public Internet on its usual ports, and what the operator adds to it.

    `own` are the hosts, names or addresses, and ports where this service itself answers: no block
    opens those.
    """

    blocks: tuple[AllowedBlock, ...] = ()
    more_ports: frozenset[int] = frozenset()
    own: frozenset[tuple[str, int]] = frozenset()

    @property
    def public_ports(self) -> frozenset[int]:
        """The ports of public addresses, and of blocks that name none."""
        return PUBLIC_PORTS | self.more_ports

    @property
    def ports(self) -> frozenset[int]:
        """Every port that some address may be reached on."""
        return self.public_ports | {block.port for block in self.blocks if block.port is not None}

    def is_own(self, host: str, port: int) -> bool:
        """Whether the service itself answers there, as far as the names say it."""
        name = _plain(host)
        if (name, port) in {(_plain(own), port_of_own) for own, port_of_own in self.own}:
            return True
        parsed = _parsed(name)
        return not isinstance(parsed, Refused) and parsed.is_loopback and self.is_everywhere(port)

    def is_everywhere(self, port: int) -> bool:
        """Whether the service answers at *port* of every address of its host."""
        return not {("0.0.0.0", port), ("::", port)}.isdisjoint(self.own)  # noqa: S104 - nothing is bound here

    def judge(self, address: str, port: int) -> Allowed | Refused:
        parsed = _parsed(address)
        if isinstance(parsed, Refused):
            return parsed
        if self.is_own(address, port):
            return Refused(why=Why.SELF)
        for block in self.blocks:
            if block.covers(parsed, port, self.public_ports):
                return self._judge_inner(parsed, port) or Allowed(block=block)
        verdict = classify(parsed)
        if isinstance(verdict, Allowed) and port not in self.public_ports:
            return Refused(why=Why.PORT)
        return verdict

    def _judge_inner(self, address: IPAddress, port: int) -> Refused | None:
        """A block that opens NAT64 does not open the IPv4 addresses that are closed without it."""
        embedded = _embedded_v4(address) if isinstance(address, IPv6Address) else None
        if embedded is None or isinstance(self.judge(str(embedded), port), Allowed):
            return None
        return Refused(why=Why.EMBEDDED, embedded=embedded)


def classify(address: str | IPAddress) -> Allowed | Refused:
    """Judge *address* as a public one, whatever the port."""
    parsed = _parsed(address) if isinstance(address, str) else address
    match parsed:
        case Refused():
            return parsed
        case IPv4Address():
            return _classify_v4(parsed)
        case IPv6Address():
            return _classify_v6(parsed)


def parse_allowed_blocks(text: str) -> tuple[AllowedBlock, ...]:
    """Read `127.0.0.1/32:9000, 10.0.0.0/8, [fd00::/8]:9000`; ValueError lists every mistake."""
    blocks: list[AllowedBlock] = []
    mistakes: list[str] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            blocks.append(_parse_block(item))
        except ValueError as exc:
            mistakes.append(f"{item!r}: {exc}")
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return tuple(blocks)


_BLOCK = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.]+(?:/\d+)?)\]|(?P<v4>[0-9.]+(?:/\d+)?))(?::(?P<port>\d+))?"
    r"|(?P<bare>[0-9a-fA-F:.]+(?:/\d+)?)",
    re.ASCII,
)


def _parse_block(item: str) -> AllowedBlock:
    match = _BLOCK.fullmatch(item)
    if match is None:
        raise ValueError("not a block like 10.0.0.0/8, 127.0.0.1/32:9000 or [fd00::/8]:9000")
    network = ip_network(match["v6"] or match["v4"] or match["bare"])
    port = None if match["port"] is None else int(match["port"])
    if port is not None and not 1 <= port <= MAX_PORT:
        raise ValueError(f"port {port} is not between 1 and {MAX_PORT}")
    return AllowedBlock(network=network, port=port)


def _plain(host: str) -> str:
    """*host* in its one spelling: an IPv4 address where it is mapped into IPv6."""
    parsed = _parsed(host)
    if isinstance(parsed, Refused):
        return host.lower().removesuffix(".")
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return str(mapped or parsed)


def _parsed(address: str) -> IPAddress | Refused:
    if "%" in address:
        return Refused(why=Why.ZONE)
    try:
        return ip_address(address)
    except ValueError:
        return Refused(why=Why.NOT_AN_ADDRESS)


# By address, so that the log can name them; all but Azure's WireServer lie in refused ranges too.
_METADATA: frozenset[IPAddress] = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # nearly everybody
            "169.254.170.2",  # AWS ECS tasks
            "169.254.170.23",  # AWS EKS pods
            "169.254.0.23",  # Tencent
            "169.254.42.42",  # Scaleway
            "169.254.169.250",  # Rancher
            "100.96.0.96",  # Volcengine
            "100.100.100.200",  # Alibaba
            "168.63.129.16",  # Azure's WireServer, by number a public address
            "192.0.0.192",  # Oracle
            "fd00:ec2::254",  # AWS
            "fd00:ec2::23",  # AWS EKS pods
            "fd20:ce::254",  # Google
            "fd00:c1::a9fe:a9fe",  # Oracle
            "fd00:42::42",  # Scaleway
            "fd00:a9fe:a9fe::1",  # Linode
            "fe80::a9fe:a9fe",  # OpenStack
        ),
    )
)

_REFUSED_V4 = tuple(
    (IPv4Network(network), why)
    for network, why in (
        ("0.0.0.0/8", Why.UNSPECIFIED),
        ("10.0.0.0/8", Why.PRIVATE),
        ("100.64.0.0/10", Why.SHARED),
        ("127.0.0.0/8", Why.LOOPBACK),
        ("169.254.0.0/16", Why.LINK_LOCAL),
        ("172.16.0.0/12", Why.PRIVATE),
        ("192.0.0.0/24", Why.PROTOCOL),
        ("192.0.2.0/24", Why.DOCUMENTATION),
        ("192.88.99.0/24", Why.PROTOCOL),  # 6to4 relays, RFC 7526
        ("192.168.0.0/16", Why.PRIVATE),
        ("198.18.0.0/15", Why.BENCHMARK),
        ("198.51.100.0/24", Why.DOCUMENTATION),
        ("203.0.113.0/24", Why.DOCUMENTATION),
        ("224.0.0.0/4", Why.MULTICAST),
        ("240.0.0.0/4", Why.RESERVED),  # and the broadcast address
    )
)

_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that IANA ever handed out

_REFUSED_V6 = tuple(
    (IPv6Network(network), why)
    for network, why in (
        ("2001::/23", Why.PROTOCOL),  # Teredo, ORCHID, benchmarks
        ("2001:db8::/32", Why.DOCUMENTATION),
        ("3fff::/20", Why.DOCUMENTATION),
        # Outside global unicast; named for the log's sake alone.
        ("::/128", Why.UNSPECIFIED),
        ("::1/128", Why.LOOPBACK),
        ("fc00::/7", Why.PRIVATE),
        ("fe80::/10", Why.LINK_LOCAL),
        ("fec0::/10", Why.PRIVATE),
        ("ff00::/8", Why.MULTICAST),
    )
)

# Where the IPv4 address begins, in bits from the right. The local-use NAT64 prefix may hold it
# elsewhere (RFC 6052 2.2), so it is refused whole and its low bits are only what the log shows.
_EMBEDDING = tuple(
    (IPv6Network(network), shift)
    for network, shift in (
        ("::ffff:0:0/96", 0),
        ("::ffff:0:0:0/96", 0),  # IPv4-translated, RFC 2765
        ("::/96", 0),
        ("64:ff9b::/96", 0),
        ("64:ff9b:1::/48", 0),
        ("2002::/16", 80),
    )
)
_TEREDO = IPv6Network("2001::/32")  # names its server too, in the clear; the client is the end
# The upper half of the interface id, RFC 5214 6.1, whatever its universal and group bits say.
_ISATAP, _UNIVERSAL_OR_GROUP = 0x0000_5EFE, 0x0300_0000
_LOW_32 = 0xFFFF_FFFF


def _classify_v4(address: IPv4Address) -> Allowed | Refused:
    why = Why.METADATA if address in _METADATA else _first_holding(address, _REFUSED_V4)
    return Allowed() if why is None else Refused(why=why)


def _classify_v6(address: IPv6Address) -> Allowed | Refused:
    if address.scope_id is not None:
        return Refused(why=Why.ZONE)
    embedded = _embedded_v4(address)
    if embedded is not None:
        return Refused(why=Why.EMBEDDED, embedded=embedded)
    why = Why.METADATA if address in _METADATA else _first_holding(address, _REFUSED_V6)
    if why is None and address not in _GLOBAL_UNICAST:
        why = Why.NOT_UNICAST
    return Allowed() if why is None else Refused(why=why)


def _embedded_v4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that *address* carries; traffic to it would end there, so none is used."""
    bits = int(address)
    if bits <= 1:  # ::0 and ::1 are no IPv4-compatible addresses
        return None
    for network, shift in _EMBEDDING:
        if address in network:
            return IPv4Address(bits >> shift & _LOW_32)
    if address in _TEREDO:
        return IPv4Address(~bits & _LOW_32)
    if bits >> 32 & _LOW_32 & ~_UNIVERSAL_OR_GROUP == _ISATAP:
        return IPv4Address(bits & _LOW_32)
    return None


def _first_holding(
    address: IPAddress, table: Iterable[tuple[IPv4Network | IPv6Network, Why]]
) -> Why | None:
    return next((why for network, why in table if address in network), None)
