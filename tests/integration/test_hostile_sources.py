"""Every case of tests/cases against the live fetcher, in a world of its own on loopback.

The case says what may be connected to; the world notes what was. So a refusal is shown by what
did not happen, and a control by the bytes that came.
"""

from collections import Counter
from pathlib import Path

import pytest

from service.errors import SourceError
from service.fetch.source_url import parse_source_url
from tests.cases.labelled import labelled_cases
from tests.cases.table import ALLOWED, Case, Stage, cases
from tests.fakes.authority import Authority
from tests.fakes.world import BODIES, World, guard_of, reached_first
from validators.facts import Kind
from validators.media.signature import ALLOWED as FORMATS
from validators.media.signature import HEAD_BYTES, identify

CASES = cases()
AT_LEAST = {
    "ipv4": 45,
    "encodings": 50,
    "ipv6": 70,
    "schemes": 30,
    "parser": 70,
    "ports": 35,
    "dns": 80,
    "redirects": 55,
    "responses": 60,
    "controls": 110,
}
# What a client of ours may say about itself to a stranger.
OUR_HEADERS = {"host", "user-agent", "accept", "accept-encoding", "connection"}
OUR_HEADERS |= {"range", "if-range"}  # of a transfer that goes on


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def hostile_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A proxy that would bypass the guard, and credentials for everybody."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("default login greenroom password do-not-send-me\n", encoding="ascii")
    monkeypatch.setenv("NETRC", str(netrc))


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_case_ends_as_the_table_says(case: Case, authority: Authority) -> None:
    await ends_as_it_says(case, authority)


@pytest.mark.corpus
@pytest.mark.parametrize("case", labelled_cases())
async def test_a_case_of_others_ends_as_it_says(case: Case, authority: Authority) -> None:
    await ends_as_it_says(case, authority)


@pytest.mark.parametrize("case", [case for case in CASES if case.stage is Stage.CREATE], ids=str)
def test_what_the_url_alone_shows_is_refused_when_it_is_given(case: Case) -> None:
    with pytest.raises(SourceError) as caught:
        parse_source_url(case.url, guard_of(case))
    assert (caught.value.code, caught.value.retryable) == (case.outcome, case.retryable)


def test_the_table_covers_every_category_and_names_each_case_once() -> None:
    counts = Counter(case.category for case in CASES)
    assert counts.keys() == AT_LEAST.keys()
    assert not {name: count for name, count in counts.items() if count < AT_LEAST[name]}
    assert max(Counter(map(str, CASES)).values()) == 1


async def ends_as_it_says(case: Case, authority: Authority) -> World:
    """Fetch the case's URL; assert its outcome and, by the world's notes, what was not done."""
    async with World(case, authority) as world:
        for _ in range(case.fetches - 1):
            await world.fetch()
        if case.outcome == ALLOWED:
            assert is_medium(await world.fetch(), case)
            assert world.asked
            assert_query_is_untouched(world)
        else:
            with pytest.raises(SourceError) as caught:
                await world.fetch()
            assert (caught.value.code, caught.value.retryable) == (case.outcome, case.retryable)
            assert world_stopped_at(world) in stages(case)
        assert set(world.asked) <= reachable(case)
        for request in world.requests:
            assert request.method == "GET"
            assert set(request.headers) <= OUR_HEADERS
    return world


def assert_query_is_untouched(world: World) -> None:
    """Signatures cover every byte of it."""
    path, _, query = world.case.url.partition("#")[0].partition("?")
    if query.isascii() and path.isascii():
        assert world.requests[0].target.partition("?")[2] == query


def is_medium(body: bytes, case: Case) -> bool:
    """The bytes that the world sent; and if they are no medium, that they are known not to be."""
    sent = {
        BODIES[page.body] for turns in case.pages.values() for page in turns if page.body in BODIES
    }
    assert body in sent | {BODIES["media"]}
    taken = identify(body[:HEAD_BYTES]) in FORMATS[Kind.VIDEO]
    return taken is (case.verdict != "unsupported_format")


def reachable(case: Case) -> set[str]:
    """The sockets that the case allows; none where it is refused before any is opened."""
    if case.reaches is not None:
        return set(case.reaches)
    if case.stage in {Stage.CREATE, Stage.BEGIN, Stage.RESOLVE} and case.fetches == 1:
        return set()
    return set(reached_first(case))


def world_stopped_at(world: World) -> Stage:
    """How far the fetch came, by what the world saw of it."""
    if world.requests:
        return Stage.RESPONSE
    if world.asked:
        return Stage.CONNECT
    return Stage.RESOLVE if world.dns.questions else Stage.CREATE


def stages(case: Case) -> set[Stage]:
    """What the world sees of a case's stage: a redirect is an answer to it, like any other."""
    if case.fetches > 1 or case.stage is Stage.REDIRECT:
        return {Stage.RESPONSE}
    return {Stage.CREATE} if case.stage is Stage.BEGIN else {case.stage}
