"""Which addresses we connect to, against tables of our own and an independent oracle."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.fetch.address import (
    AddressGuard,
    Allowed,
    AllowedBlock,
    Refused,
    Why,
    classify,
    parse_allowed_blocks,
)

PUBLIC = [
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.88.98.255",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:db7:ffff::1",
    "2001:db9::1",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
    "3ffe:ffff::1",
    "3fff:1000::1",
]

REFUSED = {
    "0.0.0.0": Why.UNSPECIFIED,  # noqa: S104 - judged, not bound
    "0.255.255.255": Why.UNSPECIFIED,
    "10.0.0.0": Why.PRIVATE,
    "10.255.255.255": Why.PRIVATE,
    "100.64.0.0": Why.SHARED,
    "100.100.100.199": Why.SHARED,
    "100.96.0.96": Why.METADATA,
    "100.100.100.200": Why.METADATA,
    "100.127.255.255": Why.SHARED,
    "127.0.0.1": Why.LOOPBACK,
    "127.255.255.255": Why.LOOPBACK,
    "168.63.129.16": Why.METADATA,
    "169.254.0.0": Why.LINK_LOCAL,
    "169.254.169.253": Why.LINK_LOCAL,
    "169.254.169.254": Why.METADATA,
    "169.254.170.2": Why.METADATA,
    "169.254.170.23": Why.METADATA,
    "169.254.255.255": Why.LINK_LOCAL,
    "172.16.0.0": Why.PRIVATE,
    "172.31.255.255": Why.PRIVATE,
    "192.0.0.191": Why.PROTOCOL,
    "192.0.0.192": Why.METADATA,
    "192.0.2.1": Why.DOCUMENTATION,
    "192.88.99.1": Why.PROTOCOL,
    "192.168.0.0": Why.PRIVATE,
    "192.168.255.255": Why.PRIVATE,
    "198.18.0.0": Why.BENCHMARK,
    "198.19.255.255": Why.BENCHMARK,
    "198.51.100.1": Why.DOCUMENTATION,
    "203.0.113.1": Why.DOCUMENTATION,
    "224.0.0.1": Why.MULTICAST,
    "239.255.255.255": Why.MULTICAST,
    "240.0.0.1": Why.RESERVED,
    "255.255.255.255": Why.RESERVED,
    "::": Why.UNSPECIFIED,
    "::1": Why.LOOPBACK,
    "0:0:0:0:0:0:0:1": Why.LOOPBACK,
    "fc00::1": Why.PRIVATE,
    "fd00:ec2::253": Why.PRIVATE,
    "fd00:ec2::254": Why.METADATA,
    "fd00:ec2::23": Why.METADATA,
    "fd20:ce::254": Why.METADATA,
    "fe80::a9fe:a9fe": Why.METADATA,
    "fe80::1": Why.LINK_LOCAL,
    "fec0::1": Why.PRIVATE,
    "ff02::1": Why.MULTICAST,
    "ff0e::1": Why.MULTICAST,
    "2001:20::1": Why.PROTOCOL,
    "2001:1ff:ffff::1": Why.PROTOCOL,
    "2001:db8::1": Why.DOCUMENTATION,
    "2001:db8:ffff:ffff::1": Why.DOCUMENTATION,
    "3fff::1": Why.DOCUMENTATION,
    "3fff:fff::1": Why.DOCUMENTATION,
    "5f00::1": Why.NOT_UNICAST,
    "64:ff9c::1": Why.NOT_UNICAST,
    "100::1": Why.NOT_UNICAST,
    "1fff:ffff::1": Why.NOT_UNICAST,
    "4000::": Why.NOT_UNICAST,
    "fe80::1%eth0": Why.ZONE,
    "2606:4700:4700::1111%1": Why.ZONE,
    "": Why.NOT_AN_ADDRESS,
    "localhost": Why.NOT_AN_ADDRESS,
    "127.1": Why.NOT_AN_ADDRESS,
    "0177.0.0.1": Why.NOT_AN_ADDRESS,
    "2130706433": Why.NOT_AN_ADDRESS,
    "0x7f000001": Why.NOT_AN_ADDRESS,
    "127.0.0.1.": Why.NOT_AN_ADDRESS,
    "[::1]": Why.NOT_AN_ADDRESS,
}

EMBEDDING = {
    "::ffff:127.0.0.1": "127.0.0.1",
    "::ffff:8.8.8.8": "8.8.8.8",  # even a public one: we would not know where it ends
    "::127.0.0.1": "127.0.0.1",
    "64:ff9b::7f00:1": "127.0.0.1",
    "64:ff9b::a9fe:a9fe": "169.254.169.254",
    "64:ff9b:1::a00:1": "10.0.0.1",
    "2002:7f00:1::": "127.0.0.1",
    "2002:a9fe:a9fe::1": "169.254.169.254",
    "2001:0:4136:e378:8000:63bf:80ff:fffe": "127.0.0.1",
    "2606:4700::5efe:7f00:1": "127.0.0.1",
    "2606:4700::100:5efe:a00:1": "10.0.0.1",
    "2606:4700::200:5efe:a00:1": "10.0.0.1",
    "2606:4700::300:5efe:a00:1": "10.0.0.1",
    "::ffff:0:7f00:1": "127.0.0.1",
    "::ffff:0:808:808": "8.8.8.8",
    "2001:0:7f00:1::1": "255.255.255.254",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert classify(address) == Allowed()


@pytest.mark.parametrize(("address", "why"), REFUSED.items())
def test_all_others_are_refused_and_say_why(address: str, why: Why) -> None:
    assert classify(address) == Refused(why=why)


@pytest.mark.parametrize(("address", "embedded"), EMBEDDING.items())
def test_an_address_that_stands_for_an_ipv4_address_is_refused(address: str, embedded: str) -> None:
    assert classify(address) == Refused(why=Why.EMBEDDED, embedded=IPv4Address(embedded))


def test_local_use_nat64_is_refused_in_every_layout() -> None:
    assert isinstance(classify("64:ff9b:1:a00:0:100::"), Refused)


def test_a_value_is_judged_like_its_text() -> None:
    assert classify(ip_address("127.0.0.1")) == Refused(why=Why.LOOPBACK)
    assert classify(IPv6Address("fe80::1%eth0")) == Refused(why=Why.ZONE)


ANYWHERE_V4 = st.integers(0, 2**32 - 1).map(IPv4Address)
ANYWHERE_V6 = st.integers(0, 2**128 - 1).map(IPv6Address)
GLOBAL_V6 = st.integers(0b001 << 125, (0b010 << 125) - 1).map(IPv6Address)
NEAR_V6 = st.builds(
    lambda prefix, rest: IPv6Address(int(IPv6Address(prefix)) | rest),
    st.sampled_from(["2001::", "2001:db8::", "2002::", "3fff::", "64:ff9b::", "::", "fc00::"]),
    st.integers(0, 2**96 - 1),
)
ISATAP = {"0000:5efe", "0100:5efe", "0200:5efe", "0300:5efe"}
# What `is_global` of Python 3.11 wrongly calls global; written independently of the tables.
NOT_GLOBAL_EITHER = [
    ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2002::/16")
] + [ip_network("3fff::/20"), ip_network("64:ff9b::/32"), ip_network("5f00::/16")]


@given(st.one_of(ANYWHERE_V4, ANYWHERE_V6, GLOBAL_V6, NEAR_V6))
@example(IPv4Address("192.0.0.192"))
@example(IPv6Address("2606:4700::5efe:7f00:1"))
def test_whatever_is_allowed_is_public_by_another_judge(address: IPv4Address | IPv6Address) -> None:
    if isinstance(classify(address), Allowed):
        assert address.is_global
        assert not (address.is_multicast)
        assert not (address.is_reserved)
        assert not (address.is_unspecified)
        assert not any(address in network for network in NOT_GLOBAL_EITHER)
        if isinstance(address, IPv6Address):
            assert address in IPv6Network("2000::/3")
            assert not (address.ipv4_mapped)
            assert not (address.sixtofour)
            assert not (address.teredo)
            assert address.exploded[20:29] not in ISATAP


@given(st.one_of(ANYWHERE_V4, GLOBAL_V6))
def test_whatever_is_refused_is_special_by_another_judge(
    address: IPv4Address | IPv6Address,
) -> None:
    """A guard that refuses everything must fail."""
    if isinstance(classify(address), Refused):
        isatap = address.version == 6 and address.exploded[20:29] in ISATAP
        assert (
            isatap
            or not address.is_global
            or address.is_multicast
            or any(address in network for network in NOT_GLOBAL_EITHER)
        )


@pytest.mark.parametrize("port", [80, 443, 8080, 8443])
def test_public_addresses_are_reached_on_the_usual_ports(port: int) -> None:
    assert AddressGuard().judge("1.1.1.1", port) == Allowed()


@pytest.mark.parametrize("port", [0, 22, 25, 6379, 9000, 11211])
def test_public_addresses_are_refused_on_other_ports(port: int) -> None:
    assert AddressGuard().judge("1.1.1.1", port) == Refused(why=Why.PORT)


def test_a_block_with_a_port_opens_that_port_of_those_addresses_alone() -> None:
    (block,) = parse_allowed_blocks("127.0.0.0/30:9000")
    guard = AddressGuard(blocks=(block,))
    assert guard.judge("127.0.0.3", 9000) == Allowed(block=block)
    assert guard.judge("127.0.0.4", 9000) == Refused(why=Why.LOOPBACK)
    assert guard.judge("127.0.0.3", 80) == Refused(why=Why.LOOPBACK)
    assert guard.judge("1.1.1.1", 9000) == Refused(why=Why.PORT)
    assert guard.judge("::ffff:127.0.0.3", 9000).__class__ is Refused
    assert guard.ports == {80, 443, 8080, 8443, 9000}


def test_a_block_without_a_port_opens_the_usual_ports() -> None:
    guard = AddressGuard(blocks=parse_allowed_blocks("10.0.0.0/8"))
    assert isinstance(guard.judge("10.1.2.3", 443), Allowed)
    assert guard.judge("10.1.2.3", 22) == Refused(why=Why.PRIVATE)
    assert guard.ports == AddressGuard().ports


@pytest.mark.parametrize(
    ("block", "metadata"),
    [
        ("169.254.0.0/16", "169.254.169.254"),
        ("100.64.0.0/10", "100.100.100.200"),
        ("0.0.0.0/0", "168.63.129.16"),
        ("fd00::/8", "fd00:ec2::254"),
        ("::/0", "fd20:ce::254"),
    ],
)
def test_a_block_that_covers_a_metadata_service_by_the_way_does_not_open_it(
    block: str, metadata: str
) -> None:
    guard = AddressGuard(blocks=parse_allowed_blocks(block))
    assert guard.judge(metadata, 80) == Refused(why=Why.METADATA)
    neighbour = str(ip_address(metadata) + 1)
    assert guard.judge(neighbour, 80) == Allowed(block=guard.blocks[0])
    named = AddressGuard(blocks=parse_allowed_blocks(metadata))
    assert named.judge(metadata, 80) == Allowed(block=named.blocks[0])


def test_a_block_that_opens_nat64_opens_what_is_open_without_it() -> None:
    guard = AddressGuard(blocks=parse_allowed_blocks("64:ff9b::/96,10.1.2.0/24"))
    for inner in ("93.184.216.34", "10.1.2.3"):
        assert guard.judge(f"64:ff9b::{inner}", 443) == Allowed(block=guard.blocks[0])
    for inner in ("127.0.0.1", "169.254.169.254", "10.1.3.1"):
        refused = Refused(why=Why.EMBEDDED, embedded=IPv4Address(inner))
        assert guard.judge(f"64:ff9b::{inner}", 443) == refused


def test_loopback_of_both_kinds_can_be_opened() -> None:
    guard = AddressGuard(blocks=parse_allowed_blocks("::1,127.0.0.1"))
    assert isinstance(guard.judge("::1", 80), Allowed)
    assert isinstance(guard.judge("127.0.0.1", 80), Allowed)
    assert guard.judge("::", 80) == Refused(why=Why.UNSPECIFIED)


def test_blocks_are_read_with_and_without_ports() -> None:
    text = " 127.0.0.1/32:9000, 10.0.0.0/8,[fd00::/8]:9000,[::1],fd01::/16 ,192.0.2.1:80,"
    assert parse_allowed_blocks(text) == tuple(
        AllowedBlock(network=ip_network(network), port=port)
        for network, port in (
            ("127.0.0.1/32", 9000),
            ("10.0.0.0/8", None),
            ("fd00::/8", 9000),
            ("::1/128", None),
            ("fd01::/16", None),
            ("192.0.2.1/32", 80),
        )
    )
    assert parse_allowed_blocks("") == ()


@pytest.mark.parametrize(
    "text",
    [
        "localhost:9000",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/8:0",
        "10.0.0.0/8:65536",
        "10.0.0.0/8:",
        "10.0.0.0/8:http",
        "10.0.0.0/8 :80",
        "fd00::/8]:80",
        "10.0.0.0/٨",
    ],
)
def test_what_is_no_block_is_named_in_the_message(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'") as caught:
        parse_allowed_blocks(f"127.0.0.1,{text}")
    assert repr(text) in str(caught.value)


def test_every_mistake_is_reported_together() -> None:
    with pytest.raises(ValueError, match=r"'a'.*; 'b'.*"):
        parse_allowed_blocks("a,127.0.0.1,b")
