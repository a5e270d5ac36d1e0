"""The way out: its names, its proxy, this host itself, and what the log says of refusals."""

import asyncio
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import ClientConnectorError, ClientSession
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from yarl import URL

from service.domain import Work
from service.errors import FailureCode, IngestError, SourceError, UnavailableError
from service.fetch.address import AddressGuard, Allowed, AllowedBlock, Refused, Why
from service.fetch.connector import is_this_host, judge, proxied_connector
from service.fetch.egress import Egress, ProxyError, RefusedError, UnreachableError
from service.fetch.fetcher import Fetcher
from service.fetch.limits import FetchLimits
from service.fetch.refusals import ForbiddenError, without_secrets
from service.fetch.resolver import DnsResolver
from service.fetch.source_url import parse_source_url
from service.settings import Settings
from service.wiring import open_base, open_worker
from tests.api import running_api, settings_for
from tests.fakes.authority import Authority
from tests.fakes.name_server import NameServer
from tests.fakes.origin import Origin, answer, head, redirect
from tests.fakes.proxy import Proxy
from tests.integration.test_pipeline import Site, here, running

__all__ = ["here"]  # a fixture

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MEDIA = b"\0\0\0\x20ftypisom" + bytes(range(256)) * 64
NAME, ELSEWHERE = "media.example", "198.51.100.0/24"
SECRET = "X-Signature=do-not-log-me"  # noqa: S105 - of nothing
PASSWORD = "hunter2"  # noqa: S105 - of nothing
CONNECT_S = 2.0
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])

Run = Callable[[Any], None]


def guard_for(port: int, network: str = "127.0.0.1/32") -> AddressGuard:
    return AddressGuard(blocks=(AllowedBlock(network=ip_network(network), port=port),))


async def fetch(egress: Egress, url: str, *, connect_s: float = CONNECT_S) -> bytes:
    fetcher = Fetcher(egress, FetchLimits(connect_s=connect_s, idle_s=5))
    async with fetcher.open(url, max_bytes=1 << 20, now=NOW) as source:
        return b"".join([chunk async for chunk in source.body()])


async def failure(egress: Egress, url: str) -> IngestError:
    """The error that fetching *url* ends in; it shows neither a query nor a password."""
    with pytest.raises(IngestError) as caught:
        await fetch(egress, url)
    shown = f"{caught.value!r} {caught.value} {caught.value.detail}"
    assert SECRET not in shown
    assert PASSWORD not in shown
    return caught.value


@asynccontextmanager
async def named(
    names: Mapping[str, list[list[str]]], guard: AddressGuard, *, connect_s: float = CONNECT_S
) -> AsyncIterator[tuple[Egress, NameServer]]:
    async with NameServer(names) as server:
        resolver = DnsResolver(timeout_s=connect_s, nameservers=[server.address])
        async with Egress(guard=guard, connect_s=connect_s, resolver=resolver) as egress:
            yield egress, server


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as made:
        made.serves("/a", answer(MEDIA))
        yield made


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@LOOPS
def test_names_that_hang_do_not_hold_up_another(run: Run) -> None:
    hanging = 50

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        names = {f"h{number}.example": [["HANG"]] for number in range(hanging)}
        async with Origin() as origin:
            origin.serves("/a", answer(MEDIA))
            guard, connect_s = guard_for(origin.port), 20.0
            names[NAME] = [["127.0.0.1"]]
            async with named(names, guard, connect_s=connect_s) as (egress, server):
                waiting = [
                    asyncio.create_task(egress.request("GET", URL(f"http://h{number}.example/")))
                    for number in range(hanging)
                ]
                while len({name for name, _ in server.questions}) < hanging:  # noqa: ASYNC110 - the server wakes nobody
                    await asyncio.sleep(0.01)
                began_s = clock()
                assert await fetch(egress, origin.url("/a", host=NAME)) == MEDIA
                assert clock() - began_s < connect_s / 10
                assert not any(task.done() for task in waiting)
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    run(main())


@LOOPS
def test_closing_ends_look_ups_and_leaves_no_socket(run: Run) -> None:
    async def main() -> None:
        async with NameServer({NAME: [["HANG"]]}) as server:
            before = open_files()
            resolver = DnsResolver(timeout_s=60, nameservers=[server.address])
            task = asyncio.create_task(resolver.resolve(NAME, 80))
            while not server.questions:  # noqa: ASYNC110 - the server wakes nobody
                await asyncio.sleep(0.01)
            assert open_files() > before
            await resolver.close()
            with pytest.raises(OSError, match="failed"):
                await task
            async with asyncio.timeout(5):  # c-ares tidies up on a thread of its own
                while open_files() > before:  # noqa: ASYNC110 - likewise
                    await asyncio.sleep(0.01)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


@pytest.mark.parametrize(
    ("records", "code", "detail"),
    [
        (["NXDOMAIN"], FailureCode.SOURCE_UNREACHABLE, "its name does not exist"),
        (["EMPTY"], FailureCode.SOURCE_UNREACHABLE, "its name has no address"),
        (["SERVFAIL"], FailureCode.SOURCE_UNREACHABLE, "its name could not be resolved"),
        (["REFUSED"], FailureCode.SOURCE_UNREACHABLE, "its name could not be resolved"),
        (["HANG"], FailureCode.SOURCE_TIMEOUT, "its name servers did not answer in time"),
    ],
)
async def test_names_fail_in_ways_that_are_told_apart(
    records: list[str], code: FailureCode, detail: str
) -> None:
    async with named({NAME: [records]}, AddressGuard(), connect_s=0.5) as (egress, _):
        error = await failure(egress, f"http://{NAME}/?{SECRET}")
    assert (error.code, error.detail, error.retryable) == (code, detail, True)


async def test_a_name_is_looked_up_as_it_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    aliases = tmp_path / "aliases"
    aliases.write_text(f"metadata {NAME}\n")
    monkeypatch.setenv("LOCALDOMAIN", "example")  # what `search` says in resolv.conf
    monkeypatch.setenv("HOSTALIASES", str(aliases))
    names = {NAME: [["127.0.0.1"]], "redis.example": [["127.0.0.1"]]}
    async with NameServer(names) as server:
        resolver = DnsResolver(timeout_s=CONNECT_S, nameservers=[server.address])
        for host in ("redis", "metadata"):
            with pytest.raises(OSError, match="no such name"):
                await resolver.resolve(host, 80)
        await resolver.close()
    assert {name for name, _ in server.questions} == {"redis", "metadata"}


def name_in_hosts_file() -> tuple[str, str]:
    """A name of this machine's own that no rule but /etc/hosts resolves, and its address."""
    for line in Path("/etc/hosts").read_text().splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        for name in names:
            if not name.startswith(("localhost", "ip6-")) and "." in address:
                return name, address
    pytest.skip("/etc/hosts names nothing but localhost")


async def test_the_hosts_file_goes_first() -> None:
    name, address = name_in_hosts_file()
    async with NameServer({name: [["192.0.2.7"]]}) as server:
        resolver = DnsResolver(timeout_s=CONNECT_S, nameservers=[server.address])
        found = await resolver.resolve(name, 80)
        await resolver.close()
    assert (address, 80) in {(each["host"], each["port"]) for each in found}
    assert server.questions == []


async def test_a_name_with_both_kinds_of_addresses_has_both() -> None:
    async with NameServer({NAME: [["192.0.2.7", "2001:db8::7"]]}) as server:
        resolver = DnsResolver(timeout_s=CONNECT_S, nameservers=[server.address])
        found = await resolver.resolve(NAME, 80)
        await resolver.close()
    assert {(each["host"], each["family"]) for each in found} == {
        ("192.0.2.7", socket.AF_INET),
        ("2001:db8::7", socket.AF_INET6),
    }


class Unguarded(AddressGuard):
    """Takes every address for a public one."""

    __slots__ = ()

    def judge(self, address: str, port: int) -> Allowed | Refused:
        del address, port
        return Allowed()


def own_address() -> str:
    """An address of this host that is not loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.200", 9))
        except OSError:
            pytest.skip("this host has no address but loopback")
        return str(asking.getsockname()[0])


async def test_an_address_of_this_host_is_known_by_the_kernel_and_refused() -> None:
    own = own_address()
    assert is_this_host(own, 80)
    assert is_this_host("127.0.0.9", 80)
    assert not is_this_host("192.0.2.200", 80)
    assert not is_this_host("2001:db8::1", 80)
    assert judge(Unguarded(), own, 80) == Refused(why=Why.SELF)
    assert judge(Unguarded(), "192.0.2.200", 80) == Allowed()
    async with Origin(host=own) as origin, Egress(guard=Unguarded(), connect_s=1) as egress:
        with pytest.raises(RefusedError) as caught:
            await egress.request("GET", URL(origin.url("/a")))
    assert (caught.value.why, caught.value.address) == (Why.SELF, own)
    assert origin.connections == 0


async def test_a_block_of_the_operator_opens_this_host() -> None:
    own = own_address()
    async with Origin(host=own) as origin:
        origin.serves("/a", answer(MEDIA))
        guard = AddressGuard(blocks=(origin.block,))
        async with Egress(guard=guard, connect_s=1) as egress:
            assert await fetch(egress, origin.url("/a")) == MEDIA


@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0", "::"])  # noqa: S104 - not bound here
@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", NAME])
async def test_no_block_opens_the_service_itself(origin: Origin, listening: str, host: str) -> None:
    blocks = tuple(
        AllowedBlock(network=ip_network(network), port=origin.port)
        for network in ("127.0.0.0/8", "::ffff:0:0/96")
    )
    guard = AddressGuard(blocks=blocks, own=frozenset({(listening, origin.port)}))
    async with named({NAME: [["127.0.0.1"]]}, guard) as (egress, _):
        error = await failure(egress, origin.url(f"/a?{SECRET}", host=host))
        with pytest.raises(RefusedError):
            await egress.request("GET", URL(origin.url("/a", host=host)))
    assert isinstance(error, ForbiddenError)
    assert error.why is Why.SELF
    assert origin.connections == 0


async def test_a_redirect_to_the_service_s_own_name_is_refused(origin: Origin) -> None:
    origin.serves("/away", redirect(f"http://Greenroom.Example./a?{SECRET}"))
    guard = replace(guard_for(origin.port), own=frozenset({("greenroom.example", 80)}))
    async with Egress(guard=guard, connect_s=1) as egress:
        error = await failure(egress, origin.url("/away"))
    assert isinstance(error, ForbiddenError)
    assert error.why is Why.SELF
    assert "Greenroom.Example" in error.url


async def test_the_guards_know_where_the_service_answers(dsn: str, tmp_path: Path) -> None:
    settings = replace(
        settings_for(dsn, tmp_path),
        public_url="https://greenroom.example",
        port=81,
        fetch_ports=(9443,),
    )
    async with open_base(settings, connections=2) as base:
        for guard in (base.guard, base.webhook_guard):
            assert guard.judge("127.0.0.1", 81) == Refused(why=Why.SELF)
            with pytest.raises(SourceError):
                parse_source_url("https://greenroom.example/v1/bytes/x", guard)
            assert guard.judge("1.1.1.1", 9444) == Refused(why=Why.PORT)
            assert parse_source_url("https://other.example/x", guard).host == "other.example"

        assert base.guard.judge("1.1.1.1", 9443) == Allowed()
        assert base.webhook_guard.judge("1.1.1.1", 9443) == Refused(why=Why.PORT)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@LOOPS
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_requests_go_through_the_proxy(run: Run, scheme: str, authority: Authority) -> None:
    async def main() -> None:
        tls = authority.serving([NAME]) if scheme == "https" else None
        async with Origin(tls=tls) as origin, Proxy(names={NAME: origin.port}) as proxy:
            origin.serves("/a", answer(MEDIA))
            async with (
                NameServer({}) as server,
                Egress(
                    guard=AddressGuard(),  # so the proxy's own address is a forbidden one
                    connect_s=CONNECT_S,
                    proxy=proxy.url(f"us%40er:{PASSWORD}@"),
                    resolver=DnsResolver(timeout_s=1, nameservers=[server.address]),
                    tls=authority.trusting(),
                ) as egress,
            ):
                assert await fetch(egress, f"{scheme}://{NAME}/a?x=%2F~") == MEDIA
            assert server.questions == []
        (asked,) = proxy.requests
        assert asked.method == {"http": "GET", "https": "CONNECT"}[scheme]
        assert asked.target == {"http": f"http://{NAME}/a?x=%2F~", "https": f"{NAME}:443"}[scheme]
        credentials = b64encode(f"us@er:{PASSWORD}".encode()).decode()
        assert asked.headers["proxy-authorization"] == f"Basic {credentials}"
        (request,) = origin.requests
        assert request.target == "/a?x=%2F~"
        ours = {"host", "user-agent", "accept", "accept-encoding", "connection"}
        assert set(request.headers) <= ours

    run(main())


async def test_the_proxy_s_own_name_is_resolved_by_us(origin: Origin) -> None:
    names = {"proxy.internal": [["127.0.0.1"]]}
    async with NameServer(names) as server, Proxy(names={NAME: origin.port}) as proxy:
        resolver = DnsResolver(timeout_s=CONNECT_S, nameservers=[server.address])
        url = proxy.url(host="proxy.internal")
        async with Egress(
            guard=AddressGuard(), connect_s=CONNECT_S, proxy=url, resolver=resolver
        ) as egress:
            assert await fetch(egress, f"http://{NAME}/a") == MEDIA
    assert {name for name, _ in server.questions} == {"proxy.internal"}


async def test_the_worker_uses_the_operator_s_proxy(
    dsn: str, tmp_path: Path, origin: Origin
) -> None:
    body = {"name": "Eileen", "sources": {"video_url": f"http://{NAME}/a?{SECRET}"}}
    async with Proxy(names={NAME: origin.port}) as proxy:
        settings = replace(settings_for(dsn, tmp_path), fetch_allow=(), egress_proxy=proxy.url())
        async with (
            running_api(settings) as api,
            open_worker(api.base, frozenset({Work.FETCH})) as worker,
        ):
            assert (await api.post("/avatar-profiles/create", json=body)).status == 200
            async with running(worker), asyncio.timeout(20):
                while not await api.base.pool.fetchval(  # noqa: ASYNC110 - the database does not wake us
                    "SELECT bool_and(state = 'stored') FROM asset"
                ):
                    await asyncio.sleep(0.02)
    assert [request.target for request in proxy.requests] == [f"http://{NAME}/a?{SECRET}"]


@pytest.mark.parametrize("host", ["127.0.0.1", NAME])
async def test_sockets_lead_to_the_proxy_alone(origin: Origin, host: str) -> None:
    async with NameServer({NAME: [["127.0.0.1"]]}) as server:
        resolver = DnsResolver(timeout_s=CONNECT_S, nameservers=[server.address])
        connector = proxied_connector(
            URL("http://127.0.0.1:3128"), resolver, dns_timeout_s=CONNECT_S
        )
        async with ClientSession(connector=connector) as session:
            with pytest.raises(ClientConnectorError):
                await session.get(origin.url("/a", host=host))
        await resolver.close()
    assert origin.connections == 0
    assert server.questions == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://10.0.0.1/", Why.PRIVATE),
        ("https://169.254.169.254/", Why.METADATA),
        ("http://[::1]/", Why.LOOPBACK),
        ("http://127.0.0.1:9000/", Why.LOOPBACK),
        ("http://1.1.1.1:25/", Why.PORT),
        (f"http://{NAME}:25/", Why.PORT),
        ("http://greenroom.example/", Why.SELF),
    ],
)
async def test_what_the_url_shows_is_judged_before_the_proxy_hears_of_it(
    url: str, why: Why
) -> None:
    guard = AddressGuard(own=frozenset({("greenroom.example", 80)}))
    async with Proxy() as proxy, Egress(guard=guard, connect_s=1, proxy=proxy.url()) as egress:
        with pytest.raises(RefusedError) as caught:
            await egress.request("GET", URL(url))
        assert (await failure(egress, url)).code is FailureCode.SOURCE_URL_FORBIDDEN
    assert caught.value.why is why
    assert proxy.requests == []


AUTHENTICATE = {"Proxy-Authenticate": "Basic"}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("said", "error_type"),
    [
        (head(407, {"X-Smokescreen-Error": "denied", "Content-Length": "0"}), RefusedError),
        (head(407, AUTHENTICATE | {"Content-Length": "0"}), ProxyError),
        (head(502, {"X-Squid-Error": "ERR_DNS_FAIL 0"}), UnreachableError),
        (head(504, {"X-Smokescreen-Error": "timeout"}), UnreachableError),
        (b"", UnreachableError),
    ],
)
async def test_a_proxy_says_no_in_several_ways(
    scheme: str, said: bytes, error_type: type[Exception]
) -> None:
    async with (
        Proxy(instead=said) as proxy,
        Egress(guard=AddressGuard(), connect_s=1, proxy=proxy.url()) as egress,
    ):
        with pytest.raises(error_type):
            await egress.request("GET", URL(f"{scheme}://{NAME}/"))


async def test_a_tunnel_that_is_refused_is_no_answer_of_the_origin() -> None:
    said = {"http": [(403, "source_http_error"), (502, "source_http_error")]}
    said["https"] = [(403, "source_url_forbidden"), (502, "source_unreachable")]
    for scheme, answers in said.items():
        for status, code in answers:
            text = head(status, {"Content-Length": "0"})
            async with (
                Proxy(instead=text) as proxy,
                Egress(guard=AddressGuard(), connect_s=1, proxy=proxy.url()) as egress,
            ):
                error = await failure(egress, f"{scheme}://{NAME}/?{SECRET}")
            assert error.code == code


async def test_a_name_that_the_proxy_does_not_know_is_unreachable() -> None:
    async with (
        Proxy() as proxy,
        Egress(guard=AddressGuard(), connect_s=1, proxy=proxy.url()) as egress,
    ):
        for scheme in ("http", "https"):
            error = await failure(egress, f"{scheme}://{NAME}/?{SECRET}")
            assert error.code is FailureCode.SOURCE_UNREACHABLE


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_away_is_our_trouble(scheme: str) -> None:
    async with NameServer({}) as server:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            for host in ("127.0.0.1", "proxy.internal"):
                proxy = URL(f"http://user:{PASSWORD}@{host}:{port}")
                resolver = DnsResolver(timeout_s=1, nameservers=[server.address])
                async with Egress(
                    guard=AddressGuard(), connect_s=1, proxy=proxy, resolver=resolver
                ) as egress:
                    error = await failure(egress, f"{scheme}://{NAME}/?{SECRET}")
                assert isinstance(error, UnavailableError)
                assert (error.code, error.retryable) == (FailureCode.INTERNAL, True)


async def test_a_proxy_that_takes_no_connection_is_our_trouble() -> None:
    async with AsyncFull() as port:
        proxy = URL(f"http://127.0.0.1:{port}")
        async with Egress(guard=AddressGuard(), connect_s=0.3, proxy=proxy) as egress:
            error = await failure(egress, f"https://{NAME}/?{SECRET}")
    assert isinstance(error, UnavailableError)


class AsyncFull:
    """A listener whose line is full: the kernel lets further connections wait."""

    async def __aenter__(self) -> int:
        self._sockets = [socket.create_server(("127.0.0.1", 0), backlog=0)]
        address = self._sockets[0].getsockname()
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(address)
            self._sockets.append(waiting)
        await asyncio.sleep(0.05)
        return int(address[1])

    async def __aexit__(self, *_: object) -> None:
        for each in self._sockets:
            each.close()


async def test_an_origin_whose_tls_hangs_behind_the_proxy_is_the_source_s_fault() -> None:
    async with (
        Origin() as origin,
        Proxy(names={NAME: origin.port}) as proxy,
        Egress(guard=AddressGuard(), connect_s=0.3, proxy=proxy.url()) as egress,
    ):
        error = await failure(egress, f"https://{NAME}/?{SECRET}")
    assert (error.code, error.retryable) == (FailureCode.SOURCE_TIMEOUT, True)


class Receiver:
    """Takes one request, keeps its bytes, and says 204."""

    def __init__(self) -> None:
        self.head = b""
        self.body = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = await reader.readuntil(b"\r\n\r\n")
        line = next(line for line in self.head.split(b"\r\n") if line.startswith(b"Content-Length"))
        self.body = await reader.readexactly(int(line.partition(b":")[2]))
        writer.write(head(204, {}))
        writer.close()


async def test_a_webhook_goes_out_byte_for_byte_by_a_list_of_its_own(
    dsn: str, tmp_path: Path
) -> None:
    server = await asyncio.start_server(receiver := Receiver(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    body = b'{"id":"evt_1","x":"\xc3\xa9 \\u20ac"}\r\n'
    headers = {"Content-Type": "application/json", "webhook-signature": "v1,a+b/c="}
    environ = {"GREENROOM_FETCH_ALLOW": "127.0.0.2", "GREENROOM_WEBHOOK_ALLOW": f"127.0.0.1:{port}"}
    ways = Settings.from_environ(environ)
    settings = replace(
        settings_for(dsn, tmp_path), fetch_allow=ways.fetch_allow, webhook_allow=ways.webhook_allow
    )
    async with server, open_base(settings, connections=2) as base:
        async with Egress(guard=base.webhook_guard, connect_s=1) as egress:
            url = URL(f"http://127.0.0.1:{port}/hook?a=%2F", encoded=True)
            response = await egress.request("POST", url, headers=headers, data=body)
            assert response.status == 204
            response.close()
            with pytest.raises(RefusedError):
                await egress.request("POST", URL("http://127.0.0.2:8443/"), data=body)
        async with Egress(guard=base.guard, connect_s=1) as egress:
            with pytest.raises(RefusedError):
                await egress.request("POST", url, data=body)
            with pytest.raises(UnreachableError):
                await egress.request("POST", URL("http://127.0.0.2:8443/"), data=body)
    assert receiver.body == body
    assert receiver.head.startswith(b"POST /hook?a=%2F HTTP/1.1\r\n")
    for name, value in headers.items():
        assert f"\r\n{name}: {value}\r\n".encode() in receiver.head


async def test_a_port_that_settings_add_is_one_of_public_addresses() -> None:
    guard = AddressGuard(
        blocks=(AllowedBlock(network=ip_network("10.0.0.0/8")),), more_ports=frozenset({9443})
    )
    assert guard.judge("1.1.1.1", 9443) == Allowed()
    assert guard.judge("1.1.1.1", 9444) == Refused(why=Why.PORT)
    assert isinstance(guard.judge("10.0.0.1", 9443), Allowed)
    assert guard.judge("192.168.0.1", 9443) == Refused(why=Why.PRIVATE)
    assert parse_source_url("https://media.example:9443/a", guard).port == 9443


async def test_every_use_of_an_exception_is_counted_by_its_block(origin: Origin) -> None:
    block = f"127.0.0.1/32:{origin.port}"
    before = counted("greenroom_egress_exceptions_total", block=block)
    async with named({NAME: [["127.0.0.1"]]}, guard_for(origin.port)) as (egress, _):
        await fetch(egress, origin.url("/a"))
        await fetch(egress, origin.url("/a", host=NAME))
    assert counted("greenroom_egress_exceptions_total", block=block) == before + 2


async def test_a_refusal_at_create_says_who_asked_and_why(dsn: str, tmp_path: Path) -> None:
    urls = [f"http://u:{PASSWORD}@10.0.0.1/v?{SECRET}", f"http://10.0.0.1/v.mp4?{SECRET}"]
    bodies = [{"name": "Eileen", "sources": {"video_url": url}} for url in urls]
    private = counted("greenroom_egress_refused_total", why="private")
    async with running_api(settings_for(dsn, tmp_path)) as api:
        with capture_logs() as records:
            answers = [await api.post("/avatar-profiles/create", json=body) for body in bodies]
    assert [response.status for response in answers] == [422, 422]
    refused = [record for record in records if record["event"] == "source_refused"]
    assert [record["why"] for record in refused] == ["credentials in the URL", "private"]
    assert [record["url"] for record in refused] == ["http://10.0.0.1/v", "http://10.0.0.1/v.mp4"]
    assert {record["role"] for record in refused} == {"video"}
    assert {record["code"] for record in refused} == {"source_url_forbidden"}
    assert all(record["organisation"] for record in refused)
    assert SECRET not in str(records)
    assert PASSWORD not in str(records)
    assert counted("greenroom_egress_refused_total", why="private") == private + 1


async def test_a_refusal_on_the_worker_says_what_was_resolved(here: Site) -> None:
    there = f"http://elsewhere.example/v.mp4?{SECRET}"
    here.origin.serves("/a", redirect(there))
    async with NameServer({"elsewhere.example": [["192.168.7.7"]]}) as server:
        resolver = DnsResolver(timeout_s=CONNECT_S, nameservers=[server.address])
        guard = AddressGuard(blocks=(here.origin.block,))
        async with Egress(guard=guard, connect_s=CONNECT_S, resolver=resolver) as egress:
            site = replace(here, ports=replace(here.ports, fetcher=Fetcher(egress)))
            with capture_logs() as records:
                avatar = await site.create(f"/a?{SECRET}")
                async with running(site.worker()):
                    await site.until_asset("failed")
    (refused,) = [record for record in records if record["event"] == "source_refused"]
    asset = await here.asset(avatar)
    assert refused["url"] == "http://elsewhere.example/v.mp4"
    assert (refused["why"], refused["address"]) == ("private", "192.168.7.7")
    assert (refused["asset_id"], refused["role"]) == (str(asset["id"]), "audio")
    assert refused["organisation"] == asset["organisation_id"]
    assert SECRET not in str(records)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://media.example/a/b.mp4?{SECRET}", "https://media.example/a/b.mp4"),
        (f"https://media.example/a#{SECRET}", "https://media.example/a"),
        (f"https://u:{PASSWORD}@media.example:8443/a", "https://media.example:8443/a"),
        (f"https://u:{PASSWORD}@[::1]:80/a", "https://[::1]:80/a"),
        (f"https://u:x/{PASSWORD}@media.example/a", "https:"),
        ("https://media.example/@eileen/a", "https://media.example/"),
        (f"{PASSWORD}@media.example/a", ""),
        (f"https:\\\\u:{PASSWORD}@media.example/a", "https:"),
        (f"https:///u:{PASSWORD}@media.example/a", "https:"),
        (f"u:{PASSWORD}@media.example/a", "u:"),
        ("https://media.example/\x1b[31m\u202e", "https://media.example/\ufffd[31m\ufffd"),
        ("https://media.example/" + "a" * 500, "https://media.example/" + "a" * 178),
    ],
)
def test_what_a_log_shows_of_a_url_is_neither_query_nor_password(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
