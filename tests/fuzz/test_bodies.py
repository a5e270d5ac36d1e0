"""Whatever a body holds: an answer in time, in the envelope, and nothing kept of what is refused.

The real application on a real database and a real store; every example goes over a bare socket,
so that nothing is set right on its way.
"""

import asyncio
import contextlib
import itertools
import json
import logging
from asyncio import IncompleteReadError
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from service.api.problem import ErrorType
from service.db.embedded import EmbeddedPostgres
from tests.api import Api, running_api, settings_for
from tests.conftest import TEMPLATE
from tests.forms import BOUNDARY, CONTENT_TYPE, Field, form, joined, jpeg, png

ANSWER_WITHIN_S = 10.0
NEXT_GOOD = 8  # after how many examples a form without fault must be taken; it costs as much
CAP_BYTES = 4096
CODES = {
    "asset_not_found",
    "avatar_not_found",
    "body_too_large",
    "image_unsupported",
    "invalid_field",
    "malformed_body",
    "malformed_request",
    "missing_field",
    "not_fitting",
    "runtime_type_unsupported",
    "source_conflict",
    "source_url_expired",
    "source_url_forbidden",
    "source_url_invalid",
    "sources_incomplete",
    "unknown_field",
    "unsupported_content_encoding",
    "unsupported_media_type",
    "idempotency_key_reused",
}
PICTURE = png()
GOOD = form(
    Field("name", b"Ann"), Field("image", PICTURE, "me.png"), Field("runtime_type", b"mock")
)
VIDEO = b'{"name": "x", "sources": {"video_url": "https://media.example/v.mp4"}}'
SAID = b'{"status": "failed", "code": "bad_mesh", "message": "The mesh broke."}'

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One request. *framing* says how its length is told, and whether that is true."""

    path: str
    content_type: str
    body: bytes
    framing: str = "length"
    key: str | None = None

    @property
    def honest(self) -> bool:
        return self.framing in {"length", "chunked"}

    def bytes_for(self, api_key: str) -> bytes:
        head = [
            f"POST {self.path} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {api_key}",
            f"Content-Type: {self.content_type}",
            *([] if self.key is None else [f"Idempotency-Key: {self.key}"]),
        ]
        if self.framing == "chunked":
            head.append("Transfer-Encoding: chunked")
        else:
            more = {"length": 0, "more": 7, "less": -min(7, len(self.body))}[self.framing]
            head.append(f"Content-Length: {len(self.body) + more}")
        raw = chunked(self.body) if self.framing == "chunked" else self.body
        return "\r\n".join([*head, "", ""]).encode("latin-1") + raw


def chunked(body: bytes) -> bytes:
    pieces = [body[at : at + 37] for at in range(0, len(body), 37)]
    return b"".join(f"{len(one):x}\r\n".encode() + one + b"\r\n" for one in [*pieces, b""])


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The application under test, and a loop to ask it from a test that has none."""

    runner: asyncio.Runner
    api: Api
    turns: Iterator[int] = field(default_factory=itertools.count)

    def run(self, coroutine: Coroutine[Any, Any, _Value]) -> _Value:
        return self.runner.run(coroutine)

    async def check(self, post: Post) -> int | None:
        """Send *post*; its status, or None when a liar's connection just ended."""
        before = await self.held()
        answer = await self.send(post)
        if answer is None:
            assert not post.honest
            await self.until_held(before)
        else:
            status, body = answer
            assert status < 500, body
            if status >= 400:
                assert_envelope(body)
                await self.until_held(before)
        await self.assert_whole()
        if next(self.turns) % NEXT_GOOD == 0:
            await self.assert_takes_a_good_one()
        return None if answer is None else answer[0]

    async def assert_takes_a_good_one(self) -> None:
        answer = await self.send(Post(path="/v1/avatars", content_type=CONTENT_TYPE, body=GOOD))
        assert answer is not None
        assert answer[0] == 201

    async def send(self, post: Post) -> tuple[int, Any] | None:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.api.client.port)
            try:
                writer.write(post.bytes_for(self.api.key))
                if post.framing == "more":
                    writer.write_eof()
                return await answer_of(reader)
            except (IncompleteReadError, ConnectionError):
                return None
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

    async def held(self) -> tuple[int, ...]:
        """How much there is of everything that a refusal must not add to."""
        row = await self.api.base.pool.fetchrow(
            """
            SELECT (SELECT count(*) FROM avatar), (SELECT count(*) FROM asset),
                   (SELECT count(*) FROM blob), (SELECT count(*) FROM event),
                   (SELECT count(*) FROM source), (SELECT count(*) FROM pgqueuer)
            """
        )
        assert row is not None
        return tuple(row.values())

    async def until_held(self, before: tuple[int, ...]) -> None:
        """Who goes away is noticed at once, but not by us."""
        for _ in range(200):
            if await self.held() == before:
                return
            await asyncio.sleep(0.01)
        assert await self.held() == before

    async def assert_whole(self) -> None:
        """Every blob counts and lies in the store, and nothing else does.

        Of a put that was cut off at its end the row stays for a while, discarded.
        """
        sql = "SELECT key, state FROM blob WHERE state <> 'discarded'"
        keys = await self.api.base.pool.fetch(sql)
        assert {row["state"] for row in keys} <= {"stored"}
        objects = {stat.key async for stat in self.api.base.store.list()}
        assert objects == {row["key"] for row in keys}
        partials = self.api.base.settings.data_dir / "assets" / ".partial"
        assert not await asyncio.to_thread(lambda: list(partials.iterdir()))


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    (length,) = (line.partition(":")[2] for line in head if line.startswith("content-length:"))
    return int(head[0].split()[1]), json.loads(await reader.readexactly(int(length)))


def assert_envelope(body: Any) -> None:  # noqa: ANN401 - whatever came
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"type", "code", "message", "param", "request_id"}
    assert error["type"] in set(ErrorType)
    assert error["code"] in CODES, error
    assert error["message"]


@pytest.fixture(scope="module")
def service(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    with asyncio.Runner() as runner:
        runner.run(make_database(postgres))
        folder = tmp_path_factory.mktemp("bodies")
        opened = contextlib.AsyncExitStack()
        api = runner.run(opened.enter_async_context(started(postgres, folder)))
        yield Service(runner=runner, api=api)
        runner.run(opened.aclose())


@contextlib.asynccontextmanager
async def started(postgres: EmbeddedPostgres, folder: Path) -> Any:  # noqa: ANN401 - an iterator of Api
    small = replace(
        settings_for(postgres.dsn("bodies"), folder),
        max_portrait_bytes=CAP_BYTES,
        max_json_bytes=CAP_BYTES,
    )
    async with running_api(small) as api:
        yield api


async def make_database(postgres: EmbeddedPostgres) -> None:
    conn = await asyncpg.connect(postgres.dsn())
    await conn.execute("DROP DATABASE IF EXISTS bodies WITH (FORCE)")
    await conn.execute(f"CREATE DATABASE bodies TEMPLATE {TEMPLATE}")
    await conn.close()


@pytest.fixture(autouse=True)
def nothing_unhandled(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What the HTTP library had to catch for us never reached an answer."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


FRAMINGS = st.sampled_from(["length", "length", "length", "chunked", "more", "less"])
KEYS = st.one_of(st.none(), st.none(), st.just("k"), st.uuids().map(str))
# a busy machine is no finding; an example costs a connection and commits, so there are fewer
unhurried = settings(deadline=None, max_examples=max(1, settings().max_examples // 4))

NAMES = st.one_of(
    st.sampled_from(["image", "name", "runtime_type"]),
    st.sampled_from(["", "IMAGE", "voice", "_charset_", "größe", "image[]", "a\\", "x" * 300]),
    st.text(st.characters(exclude_characters='"\\\r\n', codec="utf-8"), max_size=8),
)
VALUES = st.one_of(
    st.sampled_from([PICTURE, jpeg(), b"mock", b"avtr1", b"Ann", b""]),
    st.sampled_from([b"\xff\xd8\xff", PICTURE[:8], b"GIF89a", b"<svg/>", b"\x00", b"x" * 201]),
    st.sampled_from([b"x" * 5000, PICTURE + bytes(CAP_BYTES), f"\r\n--{BOUNDARY}".encode()]),
    st.binary(max_size=80),
)
HEADERS = st.lists(
    st.sampled_from(
        [
            "Content-Type: image/png",
            "Content-Type: multipart/mixed; boundary=x",
            "Content-Type: text/plain; charset=utf-16",
            "Content-Transfer-Encoding: binary",
            "Content-Transfer-Encoding: base64",
            "Content-Encoding: gzip",
            "Content-Length: 3",
            "Content-Length: -1",
            'Content-Disposition: form-data; name="name"',
            " folded",
            "no colon",
            ": no name",
            "X: " + "x" * 9000,
            "X: \x00",
            "X: \x7f",
        ]
    ),
    max_size=2,
).map(tuple)
FIELDS = st.builds(
    Field, NAMES, VALUES, st.one_of(st.none(), st.sampled_from(["me.png", "C:\\x"])), HEADERS
)
PLAIN_FIELDS = st.builds(Field, NAMES, VALUES)
CONTENT_TYPES = st.one_of(
    st.just(CONTENT_TYPE),
    st.just(CONTENT_TYPE),
    st.sampled_from(
        [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=other",
            f'multipart/form-data; boundary="{BOUNDARY}"; charset=utf-8',
            f"multipart/form-data; boundary={BOUNDARY}; boundary=x",
            f"multipart/form-data; boundary*=utf-8''{BOUNDARY}",
            f"multipart/mixed; boundary={BOUNDARY}",
            f"MULTIPART/FORM-DATA; BOUNDARY={BOUNDARY}",
            "application/json",
            "text/plain;;;=",
            "\xff",
        ]
    ),
)


def cut(body: bytes, at: float) -> bytes:
    return body[: round(len(body) * at)]


STRUCTURED = st.builds(
    cut,
    st.lists(st.one_of(FIELDS, PLAIN_FIELDS), max_size=20).map(lambda fields: form(*fields)),
    st.one_of(st.just(1.0), st.floats(0, 1)),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One mutation of bytes, its place as a share of them."""

    how: str
    at: float
    data: bytes

    def made(self, body: bytes) -> bytes:
        start = round(self.at * len(body))
        end = start + len(self.data)
        match self.how:
            case "insert":
                return body[:start] + self.data + body[start:]
            case "replace":
                return body[:start] + self.data + body[end:]
            case "repeat":
                return body[:end] + body[start:]
            case _:
                return body[:start] + body[end:]


CHANGES = st.lists(
    st.builds(
        Change,
        st.sampled_from(["insert", "replace", "repeat", "delete"]),
        st.floats(0, 1),
        st.one_of(
            st.binary(min_size=1, max_size=12),
            st.sampled_from(
                [b"\r\n", b"--", b'"', b"\r\n--" + BOUNDARY.encode(), b"\x00", b"{", b"\\u"]
            ),
        ),
    ),
    min_size=1,
    max_size=4,
)


def changed(body: bytes, changes: Sequence[Change]) -> bytes:
    for change in changes:
        body = change.made(body)
    return body


def forms(bodies: SearchStrategy[bytes]) -> SearchStrategy[Post]:
    return st.builds(
        Post,
        path=st.just("/v1/avatars"),
        content_type=CONTENT_TYPES,
        body=bodies,
        framing=FRAMINGS,
        key=KEYS,
    )


@unhurried
@given(post=forms(STRUCTURED))
@example(post=Post(path="/v1/avatars", content_type=CONTENT_TYPE, body=b""))
def test_a_form_of_any_parts_is_taken_or_refused(service: Service, post: Post) -> None:
    service.run(service.check(post))


@unhurried
@given(post=forms(st.builds(changed, st.just(GOOD), CHANGES)))
@example(post=Post(path="/v1/avatars", content_type=CONTENT_TYPE, body=joined([b"\r\n\r\n"])))
def test_a_damaged_form_is_taken_or_refused(service: Service, post: Post) -> None:
    service.run(service.check(post))


@unhurried
@given(
    name=st.text(st.characters(exclude_categories=("Cc", "Cs", "Z")), min_size=1, max_size=200),
    boundary=st.text("0123456789abcdefXYZ'()+_,-./:=?", min_size=1, max_size=70),
    image_first=st.booleans(),
    framing=st.sampled_from(["length", "chunked"]),
)
def test_a_form_without_fault_is_taken(
    service: Service, name: str, boundary: str, framing: str, *, image_first: bool
) -> None:
    fields = [Field("image", PICTURE), Field("name", name.encode())]
    post = Post(
        path="/v1/avatars",
        content_type=f'multipart/form-data; boundary="{boundary}"',
        body=form(*(fields if image_first else fields[::-1]), boundary=boundary),
        framing=framing,
    )
    if f"\r\n--{boundary}".encode() in PICTURE:
        return
    assert service.run(service.check(post)) == 201


WORDS = st.one_of(
    st.sampled_from(["", "x", "ready", "failed", "a\x00b", "x" * 201, "x" * 4097, "\ud800"]),
    st.sampled_from(["https://media.example/v", "http://169.254.169.254/", "file:///etc/passwd"]),
    st.sampled_from(["http://[::1", "http://a:99999/", "http://\udcff/", "http://xn--/", "//"]),
    st.text(max_size=12),
)
LEAVES = st.one_of(WORDS, st.none(), st.booleans(), st.integers(), st.floats())
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.sampled_from(["name", "sources", "video_url", "image_url", "audio_url"]),
                st.sampled_from(["video_id", "image_id", "status", "message", "code"]),
                WORDS,
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
).map(lambda document: json.dumps(document).encode())
SHAPED = st.builds(
    lambda name, sources: json.dumps({"name": name, "sources": sources}).encode(),
    WORDS,
    st.dictionaries(
        st.sampled_from(
            [
                f"{kind}_{by}"
                for kind in ("video", "image", "audio")
                for by in ("url", "id", "sha256")
            ]
        ),
        WORDS,
        max_size=3,
    ),
)
ODD = st.sampled_from(
    [
        b"",
        b"null",
        b"NaN",
        b"[" * 4000,
        b"[" * 1500 + b"]" * 1500,
        b'{"name":' * 400 + b"1" + b"}" * 400,
        b"1" * 4000,
        b"1e99999",
        b"\xef\xbb\xbf" + VIDEO,
        VIDEO.decode().encode("utf-16"),
        b'{"name": "\\ud800", "sources": {}}',
        b'{"name": "a", "name": "b", "sources": {"video_url": "https://media.example/v"}}',
        b'{"name": "' + b"x" * 5000,
    ]
)
JSON_BODIES = st.one_of(
    DOCUMENTS, SHAPED, ODD, st.builds(changed, st.sampled_from([VIDEO, SAID]), CHANGES)
)
UNKNOWN = "/v1/avatars/av_00000000000000000000000000/fitting"


@unhurried
@given(
    post=st.builds(
        Post,
        path=st.sampled_from(["/avatar-profiles/create", "/avatar-profiles/create", UNKNOWN]),
        content_type=st.sampled_from(
            ["application/json", "application/json", "application/json; charset=x", "text/json"]
        ),
        body=JSON_BODIES,
        framing=FRAMINGS,
        key=KEYS,
    )
)
@example(
    post=Post(
        path="/avatar-profiles/create",
        content_type="application/json",
        body=b"[" * 1500 + b"]" * 1500,
        key="deep",
    )
)
def test_any_json_is_taken_or_refused(service: Service, post: Post) -> None:
    service.run(service.check(post))


@unhurried
@given(body=JSON_BODIES)
def test_any_report_of_a_fitter_is_refused_before_its_time(
    service: Service, avatar: str, body: bytes
) -> None:
    path = f"/v1/avatars/{avatar}/fitting"
    status = service.run(service.check(Post(path=path, content_type="application/json", body=body)))
    assert status is not None
    assert status >= 400


@pytest.fixture(scope="module")
def avatar(service: Service) -> str:
    """One that does not wait for its fitter."""
    post = Post(path="/v1/avatars", content_type=CONTENT_TYPE, body=GOOD)
    answer = service.run(service.send(post))
    assert answer is not None
    created: str = answer[1]["id"]
    return created
