"""Fixtures that many suites share: real Postgres, a database per test, no blocking calls."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
import structlog
from blockbuster import BlockBuster, blockbuster_ctx

from service.db.embedded import EmbeddedPostgres
from service.db.migrate import migrate, migrations
from service.db.types import Pool
from service.logs import configure
from tests.servers.ceph import ceph, missing
from tests.servers.moto import moto
from tests.servers.s3 import S3Server

TEMPLATE = "template_greenroom"
_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rounds", type=int, default=25, help="How often tests of races repeat what they race."
    )


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    given: int = request.config.getoption("--rounds")
    return given


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """Fail any test in which our own code blocks the event loop."""
    with blockbuster_ctx(["service", "storage", "validators"]) as blocker:
        for call in ("os.stat", "io.BufferedReader.read", "io.TextIOWrapper.read"):
            blocker.functions[call].can_block_in(
                "asyncpg/connect_utils.py", "_parse_connect_dsn_and_args"
            )
        yield blocker


@pytest.fixture(scope="session", autouse=True)
def logs() -> None:
    """Log as in production: a renderer that reads source files would block the event loop."""
    configure("info", terminal=False)
    structlog.configure(cache_logger_on_first_use=False)  # so that a test can look at records


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One real server for the whole run, with a migrated database to copy from."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        asyncio.run(_make_template(server))
        yield server


async def _make_template(server: EmbeddedPostgres) -> None:
    await migrate(await server.ensure_database(TEMPLATE), migrations())


@pytest.fixture
async def dsn(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A database of this test's own, at the newest schema."""
    name = f"test_{next(_numbers)}"
    conn = await asyncpg.connect(postgres.dsn())
    try:
        await conn.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        yield postgres.dsn(name)
        await conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await conn.close()


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=10) as opened:
        yield opened


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """A quick S3 server for the whole run, that keeps to most of the protocol."""
    with moto() as server:
        yield server


@pytest.fixture(scope="session")
def ceph_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the whole run. Tests that use it are marked `s3`."""
    if absent := missing():
        pytest.skip(f"{', '.join(absent)} not installed: NOT tested on a real S3 server")
    with ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server
