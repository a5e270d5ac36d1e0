"""A database is asked at start whether sessions are ours alone."""

from typing import Self, cast

import pytest

from service.db import direct
from service.db.direct import is_direct
from service.db.types import Pool


async def test_a_direct_connection_hears_its_notifications(pool: Pool) -> None:
    assert await is_direct(pool)


class ForgetfulConnection:
    """As behind a transaction pooler: what was said to one session is asked of another."""

    async def add_listener(self, *_: object) -> None: ...

    async def remove_listener(self, *_: object) -> None: ...

    async def execute(self, *_: object) -> str:
        return "SELECT 1"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


class ForgetfulPool:
    def acquire(self) -> ForgetfulConnection:
        return ForgetfulConnection()


async def test_a_pooler_that_forgets_sessions_is_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(direct, "PATIENCE_S", 0.1)
    assert not await is_direct(cast("Pool", ForgetfulPool()))
