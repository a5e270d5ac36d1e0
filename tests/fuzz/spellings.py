"""Strategies for hosts and URLs in all the spellings that led somebody inside."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

SECRET = "X-Signature=do-not-log-me"  # noqa: S105 - of nothing

_EDGES_V4 = (
    "0.0.0.0",  # noqa: S104 - judged, not bound
    "10.0.0.0",
    "11.0.0.0",
    "93.184.216.34",
    "100.64.0.0",
    "100.128.0.0",
    "127.0.0.1",
    "128.0.0.0",
    "168.63.129.16",
    "169.254.0.0",
    "169.254.169.254",
    "169.255.0.0",
    "172.16.0.0",
    "172.32.0.0",
    "192.0.0.192",
    "192.0.2.0",
    "192.88.99.0",
    "192.168.0.0",
    "192.169.0.0",
    "198.18.0.0",
    "198.20.0.0",
    "198.51.100.0",
    "203.0.113.0",
    "203.0.114.0",
    "224.0.0.0",
    "240.0.0.0",
)
_EDGES_V6 = (
    "::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "2001:1ff::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "3fff::1",
    "3fff:1000::1",
    "5f00::1",
    "1fff::1",
    "2000::",
    "4000::",
    "2002::1",
)
_EMBEDDING = (
    "::",
    "::ffff:0:0",
    "::ffff:0:0:0",
    "64:ff9b::",
    "64:ff9b:1::",
    "2606:4700::5efe:0:0",
    "2606:4700::300:5efe:0:0",
    "2606:4700::",
    "fd00::",
)
V4 = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address),
    st.builds(
        lambda edge, beside: IPv4Address(edge) + beside,
        st.sampled_from(_EDGES_V4),
        st.integers(0, 1),
    ),
)
V6 = st.one_of(
    st.integers(0, 2**128 - 1).map(IPv6Address),
    st.integers(1 << 125, (2 << 125) - 1).map(IPv6Address),
    st.builds(
        lambda prefix, inner: IPv6Address(int(IPv6Address(prefix)) | int(inner)),
        st.sampled_from(_EMBEDDING),
        V4,
    ),
    V4.map(lambda inner: IPv6Address(0x2002 << 112 | int(inner) << 80)),
    V4.map(lambda inner: IPv6Address(0x20010000 << 96 | ~int(inner) & 0xFFFFFFFF)),
    st.sampled_from(_EDGES_V6).map(IPv6Address),
)

_DIGITS = "0123456789"
_OTHER_DIGITS = [  # fullwidth, mathematical, superscript; and Arabic ones, which IDNA keeps
    dict(zip(map(ord, _DIGITS), others, strict=True))
    for others in (
        _DIGITS,
        _DIGITS,
        "".join(chr(0xFF10 + digit) for digit in range(10)),
        "".join(chr(0x1D7CE + digit) for digit in range(10)),
        "⁰¹²³⁴⁵⁶⁷⁸⁹",
        "".join(chr(0x660 + digit) for digit in range(10)),
    )
]
_DOTS = st.sampled_from([".", ".", ".", "\u3002", "\uff0e", "\uff61"])
_NUMBERS = ["{}", "{}", "0{:o}", "000{:o}", "0x{:x}", "0X{:X}", "0x00{:x}", "00{}"]


@st.composite
def spelt_v4(draw: st.DrawFn) -> str:
    """Every form that inet_aton takes, and digits and dots that NFKC makes of others."""
    value, count = int(draw(V4)), draw(st.integers(1, 4))
    firsts = [value >> 24 - 8 * place & 0xFF for place in range(count - 1)]
    last = value & (1 << 8 * (5 - count)) - 1
    wraps = draw(st.sampled_from([0, 0, 0, 256 if firsts else 1 << 32]))
    text = ""
    for number in firsts:
        text += draw(st.sampled_from(_NUMBERS)).format(number) + draw(_DOTS)
    text += draw(st.sampled_from(_NUMBERS)).format(last + wraps)
    text += draw(st.sampled_from(["", "", "", ".", "\u3002"]))
    return text.translate(draw(st.sampled_from(_OTHER_DIGITS)))


@st.composite
def spelt_v6(draw: st.DrawFn) -> str:
    address = draw(V6)
    upper, low = IPv6Address(int(address) >> 32 << 32), IPv4Address(int(address) & 0xFFFFFFFF)
    dotted = f"{upper}{low}" if str(upper).endswith("::") else str(address)
    forms = [str(address), address.exploded, str(address).upper(), dotted]
    zone = draw(st.sampled_from(["", "", "", "", "%25eth0", "%1"]))
    return f"[{draw(st.sampled_from(forms))}{zone}]"


_NAMES = st.one_of(
    st.sampled_from(
        [
            "localhost",
            "LOCALHOST.",
            "example.com",
            "EXAMPLE.com.",
            "a..b",
            "redis",
            "metadata.google.internal",
            "metadata.goog",
            "api.default.svc.cluster.local",
            "bücher.example",
            "faß.example",
            "xn--bcher-kva.example",
            "\uff4cocalhost",
            "ⓔxample.com",
            "127.0.0.1.nip.io",
            "a_b.example",
            "-a.example",
            "exa%6dple.com",
        ]
    ),
    st.text("aZ09_-.", min_size=1, max_size=20),
    st.text(max_size=12),
)
ORDINARY_NAMES = st.builds(
    lambda labels, top: ".".join([*labels, top]),
    st.lists(st.text("abcxyz0189", min_size=1, max_size=20), min_size=1, max_size=4),
    st.sampled_from(["com", "example", "test", "co.uk"]),
)
_ODD = st.one_of(
    st.sampled_from(
        " \t\n\r\0\\/@#?%:;,[]|<>^*${}\u00ad\u200b\u2028\ufeff\uff20\uff1a\uff0f\uff03"
    ),
    st.text(max_size=2),
)


@st.composite
def spelt_hosts(draw: st.DrawFn) -> str:
    """A host, as it is, with one character encoded, or with something odd in it."""
    host = draw(st.one_of(spelt_v4(), spelt_v4(), spelt_v6(), _NAMES))
    at = draw(st.integers(0, len(host)))
    match draw(st.sampled_from(["plain", "plain", "plain", "encoded", "odd"])):
        case "encoded":
            encoded = "".join(
                f"%{byte:02x}" for byte in host[at : at + 1].encode("utf-8", "replace")
            )
            return host[:at] + encoded + host[at + 1 :]
        case "odd":
            return host[:at] + draw(_ODD) + host[at:]
        case _:
            return host


_SCHEMES = ["http://"] * 6 + ["https://"] * 4
_SCHEMES += ["HTTP://", "http:", "http:///", "ftp://", "//", "http:\\\\", " http://"]
_BEFORE = [""] * 9 + ["@", "u:p@", "example.com@", "127.0.0.1:80@", "a\\@"]
_PORTS = ["", "", "", "", ":", ":80", ":443", ":0080", ":8080", ":22", ":\uff18\uff10", ":80@b"]
_PATHS = ["", "/", "/a.mp4", "/@127.0.0.1/", "/%00", "/a b", "/ä", "\\a", "/../.."]


@st.composite
def spelt_urls(draw: st.DrawFn) -> str:
    """A URL whose query is SECRET."""
    scheme, before = draw(st.sampled_from(_SCHEMES)), draw(st.sampled_from(_BEFORE))
    port = draw(st.sampled_from(_PORTS) | st.integers(-1, 70_000).map(":{}".format))
    path = draw(st.sampled_from(_PATHS))
    return f"{scheme}{before}{draw(spelt_hosts())}{port}{path}?{SECRET}"
