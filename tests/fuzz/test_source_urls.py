"""URLs from a grammar of hostile spellings, against other readers and another judge.

Whatever we allow, a browser's reading, yarl's and the C library's agree with ours on who is asked,
and what is asked is public by an oracle of its own.
"""

import asyncio
import os
import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from service.errors import SourceError
from service.fetch.address import AddressGuard, Allowed
from service.fetch.source_url import SourceUrl, parse_source_url
from tests.cases.table import ALLOWED, Case
from tests.fakes.authority import Authority
from tests.fakes.world import MEDIA, World
from tests.fuzz.oracle import browser_host, is_public
from tests.fuzz.spellings import ORDINARY_NAMES, SECRET, V4, V6, spelt_hosts, spelt_urls

PROFILE = settings(settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "short")))
pytestmark = pytest.mark.timeout(0)  # a soak takes as long as its profile says
PUBLIC = AddressGuard()
LIVE_SHARE = 4  # a fetch costs some hundred times what a look at a URL does


def judged(text: str) -> SourceUrl | None:
    """The URL if it is allowed; a refusal shows nothing of the query."""
    try:
        return parse_source_url(text, PUBLIC)
    except SourceError as error:
        shown = f"{error!r} {error} {error.detail} {error.message}"
    assert SECRET not in shown
    return None


def followed(location: str) -> SourceUrl | None:
    base = parse_source_url("https://example.com/a/b", PUBLIC)
    try:
        return base.follow(location, PUBLIC)
    except SourceError as error:
        shown = f"{error!r} {error} {error.detail} {error.message}"
    assert SECRET not in shown
    return None


def assert_public_to_all(url: SourceUrl, text: str) -> None:
    host = url.host.removesuffix(".")
    # A browser goes nowhere by some names that IDNA 2003 still knew; ours are names then, no more.
    assert browser_host(text) == host or ("xn--" in host and browser_host(text) is None)
    assert (URL(text).raw_host or "").lower() == url.host
    assert url.port in {80, 443, 8080, 8443}
    address = read_by_c(url.host)
    if address is not None:
        assert address == url.host
        assert is_public(address)
    assert SECRET not in f"{url!r} {url}"


def read_by_c(host: str) -> str | None:
    """The address that the C library makes of *host* without asking anybody."""
    if ":" in host:
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host))
    try:
        return socket.inet_ntoa(socket.inet_aton(host.removesuffix(".")))
    except OSError:
        return None


@PROFILE
@given(spelt_urls())
@example(f"http://①②⑦.⓪.⓪.①/?{SECRET}")
@example(f"http://0x7f.1/?{SECRET}")
@example(f"http://[::ffff:127.0.0.1]/?{SECRET}")
def test_whatever_is_allowed_is_public_to_every_reader(text: str) -> None:
    url = judged(text)
    if url is not None:
        assert_public_to_all(url, text)


@settings(PROFILE, max_examples=PROFILE.max_examples * 3)
@given(st.one_of(V4, V6))
def test_an_address_is_allowed_just_where_the_registries_call_it_public(
    address: IPv4Address | IPv6Address,
) -> None:
    host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    allowed = judged(f"http://{host}/") is not None
    assert allowed is is_public(str(address))
    assert isinstance(PUBLIC.judge(str(address), 80), Allowed) is allowed


@PROFILE
@given(ORDINARY_NAMES)
def test_an_ordinary_name_is_allowed(name: str) -> None:
    url = judged(f"https://{name}/a.mp4")
    assert url is not None
    assert url.host == name


@PROFILE
@given(spelt_urls() | st.text(max_size=30) | spelt_hosts().map("//{}/".format))
@example("http:/127.0.0.1/")
@example("///127.0.0.1/")
@example("//#127.0.0.1/")
@example("//0.A。")
def test_a_redirect_leads_where_a_browser_would_go_or_nowhere(location: str) -> None:
    target = followed(location)
    if target is None:
        return
    assert target.scheme == "https"
    if location.startswith("//"):
        assert_public_to_all(target, f"https:{location}")
    elif location.lower().startswith("https:"):
        assert_public_to_all(target, location)
    else:
        assert target.host == "example.com"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@settings(PROFILE, max_examples=PROFILE.max_examples // LIVE_SHARE)
@given(st.lists(st.one_of(V4, V6).map(str), min_size=1, max_size=4, unique=True))
@example(["93.184.216.34", "127.0.0.1"])
@example(["2606:4700:4700::1111", "::ffff:127.0.0.1"])
@example(["93.184.216.34", "151.101.1.69"])
def test_only_public_addresses_of_an_answer_are_connected_to(
    authority: Authority, addresses: list[str]
) -> None:
    asked, body = asyncio.run(fetched(authority, addresses))
    assert all(map(is_public, asked))
    assert bool(asked) is all(map(is_public, addresses))
    assert (body == MEDIA) is bool(asked)


async def fetched(authority: Authority, addresses: list[str]) -> tuple[list[str], bytes | None]:
    """Who was connected to, and what came, when a name had these *addresses*."""
    case = Case(
        id="any",
        category="dns",
        url="http://name.test/a.mp4",
        outcome=ALLOWED,
        why="",
        names={"name.test": [addresses]},
    )
    async with World(case, authority) as world:
        try:
            body = await world.fetch()
        except SourceError:
            body = None
        return [place.rpartition(":")[0].strip("[]") for place in world.asked], body
