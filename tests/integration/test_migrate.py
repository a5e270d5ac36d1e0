"""Migrations on a real database: applied once, in order, and never behind anybody's back."""

import asyncio
import itertools
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from service.db import avatars, blobs
from service.db.embedded import EmbeddedPostgres
from service.db.migrate import Migration, MigrationError, migrate, migrations, pending
from service.db.types import Conn
from service.domain import Settlement, Status
from service.events.outbox import unit_of_work
from service.ingest.settle import settle_fitted
from service.settings import SettingsError
from service.wiring import open_base
from tests.api import settings_for

_numbers = itertools.count()

ALL = migrations()
GOOD = Migration(
    name="9001_good.sql", sql="CREATE TABLE good (id int); INSERT INTO good VALUES (1)"
)
BAD = Migration(name="9002_bad.sql", sql="CREATE TABLE half (id int); SELECT 1 / 0")

OLD_ROWS = """
    INSERT INTO organisation (id, name) VALUES ('acme', 'Acme');
    INSERT INTO avatar (id, organisation_id, name, runtime_type, policy, status, created_at,
                        fitting_since)
    VALUES (gen_random_uuid(), 'acme', 'a', 'mock', 'standard', 'fitting', now(), now()),
           (gen_random_uuid(), 'acme', 'b', 'mock', 'standard', 'inspecting', now(), NULL);
    INSERT INTO blob (id, organisation_id, key, written_for, state, sha256, size_bytes)
    SELECT gen_random_uuid(), 'acme', 'k', id, 'stored', repeat('a', 64), 3
      FROM avatar WHERE name = 'a';
    INSERT INTO asset (id, organisation_id, kind, origin, policy, state, blob_id, created_at)
    SELECT gen_random_uuid(), 'acme', 'video', 'fetch', 'standard', 'ready', id, now() FROM blob;
    INSERT INTO source (avatar_id, role, asset_id)
    SELECT avatar.id, 'video', asset.id FROM avatar, asset;
"""


@pytest.fixture
async def empty(postgres: EmbeddedPostgres) -> str:
    """A database without any table of ours."""
    return await postgres.ensure_database(f"empty_{next(_numbers)}")


async def fetchval(dsn: str, sql: str) -> object:
    conn = await asyncpg.connect(dsn)
    try:
        return await conn.fetchval(sql)
    finally:
        await conn.close()


async def lacking(dsn: str, wanted: tuple[Migration, ...]) -> tuple[str, ...]:
    conn = await asyncpg.connect(dsn)
    try:
        return await pending(conn, wanted)
    finally:
        await conn.close()


def test_migrations_are_numbered_in_order_without_gap_or_repeat() -> None:
    assert [int(m.name[:4]) for m in ALL] == list(range(1, len(ALL) + 1))


async def test_an_empty_database_gets_everything_once(empty: str) -> None:
    names = tuple(m.name for m in ALL)
    assert await lacking(empty, ALL) == names
    assert await migrate(empty, ALL) == names
    assert await lacking(empty, ALL) == ()
    assert await migrate(empty, ALL) == ()
    assert await fetchval(empty, "SELECT count(*) FROM organisation") == 1
    assert await fetchval(empty, "SELECT to_regclass('pgqueuer') IS NOT NULL") is True


async def test_several_that_migrate_at_once_apply_everything_once(empty: str) -> None:
    applied = await asyncio.gather(*(migrate(empty, (*ALL, GOOD)) for _ in range(4)))
    assert sorted(applied, key=len) == [(), (), (), tuple(m.name for m in (*ALL, GOOD))]
    assert await fetchval(empty, "SELECT count(*) FROM good") == 1


async def test_a_database_catches_up_with_what_it_lacks_only(empty: str) -> None:
    await migrate(empty, ALL)
    assert await migrate(empty, (*ALL, GOOD)) == (GOOD.name,)


async def test_avatars_of_the_first_schema_go_on_under_the_newest(empty: str) -> None:
    """One waits for its fitter, which was told before anything was derived; one is inspected."""
    await migrate(empty, ALL[:1])
    conn = await asyncpg.connect(empty)
    try:
        await conn.execute(OLD_ROWS)
        assert await migrate(empty, ALL) == tuple(m.name for m in ALL[1:])
        fitting, inspecting = await conn.fetch("SELECT * FROM avatar ORDER BY name")
        assert (fitting["status"], inspecting["status"]) == ("fitting", "inspecting")
        now = datetime.now(UTC)
        avatar = await avatars.lock(conn, fitting["id"], organisation_id="acme")
        assert avatar is not None
        async with unit_of_work(conn, now=now) as work:
            await settle_fitted(work, avatar, None, now=now)
        assert await conn.fetchval("SELECT status FROM avatar WHERE name = 'a'") == "ready"
        to = Settlement(status=Status.DERIVING)
        waiting = await avatars.lock(conn, inspecting["id"], organisation_id="acme")
        assert waiting is not None
        assert await avatars.move(conn, waiting, to, message=None, now=now)
        assert await avatars.start_run(conn, waiting.id, now=now) is not None
    finally:
        await conn.close()


# of the release before deletion: what is in work, what ended each way, and what was left behind
ROWS_IN_EVERY_STATE = """
    INSERT INTO organisation (id, name) VALUES ('acme', 'Acme');
    INSERT INTO blob (id, organisation_id, key, written_for, state, sha256, size_bytes)
    SELECT md5(key)::uuid, 'acme', key, gen_random_uuid(), state, sha256, length(sha256)
      FROM (VALUES ('stored', 'stored', repeat('a', 64)), ('ready', 'stored', repeat('b', 64)),
                   ('rejected', 'stored', repeat('c', 64)), ('unread', 'stored', repeat('d', 64)),
                   ('derived', 'stored', repeat('e', 64)),
                   ('needless', 'discarded', repeat('a', 64)),
                   ('writing', 'writing', NULL), ('broken', 'discarded', NULL))
           AS b (key, state, sha256);
    INSERT INTO asset (id, organisation_id, kind, origin, policy, state, blob_id, error_code,
                       error_message, source_url, created_at)
    SELECT md5('asset ' || name)::uuid, 'acme', 'video', origin, 'standard', state,
           (SELECT id FROM blob WHERE key = name), error, error, url,
           '2026-01-01 00:00Z'
      FROM (VALUES ('pending', 'fetch', 'pending', NULL, 'sealed'::bytea),
                   ('stored', 'upload', 'stored', NULL, NULL),
                   ('ready', 'fetch', 'ready', NULL, NULL),
                   ('rejected', 'fetch', 'rejected', NULL, NULL),
                   ('unread', 'fetch', 'failed', 'internal', NULL),
                   ('absent', 'fetch', 'failed', 'source_unreachable', NULL))
           AS a (name, origin, state, error, url);
    INSERT INTO asset (id, organisation_id, kind, origin, policy, state, blob_id, derived_from,
                       recipe, recipe_version, media, created_at)
    SELECT md5('asset derived')::uuid, 'acme', 'image', 'derive', 'standard', 'ready', b.id,
           md5('asset ready')::uuid, 'portrait', 1, '{}', now() FROM blob b WHERE key = 'derived';
    INSERT INTO verdict (asset_id, policy, accepted, codes, facts, document, judged_at)
    SELECT md5('asset ' || state)::uuid, 'standard-1', state = 'ready',
           CASE state WHEN 'ready' THEN '{}' ELSE '{no_face}'::text[] END, '{}', '{}',
           '2026-01-02 00:00Z'
      FROM unnest('{ready,rejected}'::text[]) state;
    INSERT INTO event (position, id, organisation_id, type, subject_id, subject, sequence, time,
                       data)
    VALUES (nextval('event_position'), gen_random_uuid(), 'acme', 'asset.failed',
            md5('asset unread')::uuid, 'x', 1, '2026-01-03 00:00Z', '{}');
"""


# size, and the day on which it became final: by its verdict, its event, or when it was created
ENDED = {
    "pending": (None, None),
    "stored": (64, None),
    "ready": (64, 2),
    "rejected": (64, 2),
    "unread": (64, 3),
    "absent": (None, 1),
    "derived": (64, None),
}


def id_of(name: str) -> UUID:
    return UUID(md5(name.encode(), usedforsecurity=False).hexdigest())


async def counts(conn: Conn) -> list[int]:
    sql = "SELECT count(*) FROM {}"
    tables = ("asset", "blob", "verdict", "event")
    return [await conn.fetchval(sql.format(table)) for table in tables]


async def test_rows_in_every_state_of_the_last_release_are_all_kept(empty: str) -> None:
    await migrate(empty, ALL[:3])
    conn = await asyncpg.connect(empty)
    try:
        await conn.execute(ROWS_IN_EVERY_STATE)
        before = await counts(conn)
        states = await conn.fetch("SELECT id, state, blob_id FROM asset ORDER BY id")
        assert await migrate(empty, ALL) == tuple(m.name for m in ALL[3:])
        assert await counts(conn) == before
        assert await conn.fetch("SELECT id, state, blob_id FROM asset ORDER BY id") == states
        rows = await conn.fetch(
            """
            SELECT a.id, a.sha256 IS NOT DISTINCT FROM b.sha256 AS same, a.size_bytes,
                   extract(day FROM a.final_at AT TIME ZONE 'UTC')::int AS final_on
              FROM asset a LEFT JOIN blob b ON b.id = a.blob_id
            """
        )
        assert all(row["same"] for row in rows)
        found = {row["id"]: (row["size_bytes"], row["final_on"]) for row in rows}
        assert found == {id_of(f"asset {name}"): ended for name, ended in ENDED.items()}
        # the needless one at once, the others when nobody can be writing them
        assert await blobs.unerased(conn) == [id_of("needless")]
        await conn.execute("UPDATE blob SET created_at = created_at - interval '1 day'")
        assert len(await blobs.unerased(conn)) == 3
    finally:
        await conn.close()


async def test_a_migration_that_was_edited_is_refused_and_nothing_is_applied(empty: str) -> None:
    await migrate(empty, ALL)
    edited = replace(ALL[0], sql=ALL[0].sql + "\n-- a word more")
    with pytest.raises(MigrationError, match=f"edited.*{edited.name}"):
        await migrate(empty, (edited, *ALL[1:], GOOD))
    assert await fetchval(empty, "SELECT to_regclass('good') IS NULL") is True


async def test_a_newer_database_is_refused_by_an_older_release(empty: str) -> None:
    await migrate(empty, (*ALL, GOOD))
    with pytest.raises(MigrationError, match=f"newer than this release.*{GOOD.name}"):
        await migrate(empty, ALL)


async def test_a_migration_that_fails_leaves_nothing_of_itself_and_can_be_repaired(
    empty: str,
) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty, (*ALL, GOOD, BAD))
    assert await fetchval(empty, "SELECT to_regclass('half') IS NULL") is True
    assert await lacking(empty, (*ALL, GOOD, BAD)) == (BAD.name,)
    repaired = replace(BAD, sql="CREATE TABLE half (id int)")
    async with asyncio.timeout(5):  # the lock was given back
        assert await migrate(empty, (*ALL, GOOD, repaired)) == (BAD.name,)


async def test_the_service_does_not_start_on_a_database_that_lags_behind(
    empty: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"run `greenroom migrate` first: 0001_"):
        async with open_base(settings_for(empty, tmp_path), connections=2):
            pass
    await migrate(empty, ALL)
    async with open_base(settings_for(empty, tmp_path), connections=2) as base:
        assert base.dsn == empty


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"database_url": None}, "GREENROOM_DATABASE_URL"),
        ({"secret_keys": ()}, "greenroom keys secret"),
    ],
)
async def test_the_service_does_not_start_without_what_it_needs(
    dsn: str, tmp_path: Path, change: dict[str, object], hint: str
) -> None:
    settings = replace(settings_for(dsn, tmp_path), **change)  # type: ignore[arg-type]  # literals above
    with pytest.raises(SettingsError, match=hint):
        async with open_base(settings, connections=2):
            pass
