"""What is past its time goes, and nothing else: on a clock that is moved."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from service.db import blobs, events, idempotency, retention
from service.db.idempotency import Answer, AnsweredTwiceError
from service.db.types import Pool
from service.domain import Work
from service.errors import FailureCode, InternalError
from service.events.feed import encode_cursor
from service.ids import new_id
from service.ingest.jobs import Worker
from service.ingest.retention import Keep, Retention
from service.ingest.settle import settle_failed
from service.times import now_utc
from storage.local import LocalStore
from storage.store import AssetNotFoundError, StoreUnavailableError
from tests.api import Api, running_api, settings_for
from tests.integration.test_deriving import content, deriving, until_final
from tests.integration.test_pipeline import LIMITS, Site, running, site
from tests.integration.test_settling import judge
from tests.rows import NOW, ORGANISATION, add_avatar, add_organisation, store_all

DAY = timedelta(days=1)
KEEP = Keep(events=30 * DAY, job_log=20 * DAY, answers=DAY, uploads=2 * DAY, refused=7 * DAY)


@pytest.fixture
async def here(pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(pool, tmp_path) as opened:
        yield opened


@pytest.fixture
async def api(dsn: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(settings_for(dsn, tmp_path)) as opened:
        yield opened


def cleaner(here: Site, at: datetime, *, rows: int = 1000) -> Retention:
    return Retention(shelf=here.ports, keep=KEEP, clock=lambda: at, rows=rows)


async def clean(here: Site, at: datetime, *, rows: int = 1000) -> None:
    """One turn of a process on whose clock it is *at*."""
    await cleaner(here, at, rows=rows).take_turn(asyncio.Event())


async def positions(pool: Pool) -> list[int]:
    rows = await pool.fetch("SELECT position FROM event ORDER BY position")
    return [row["position"] for row in rows]


async def start_of_feed(pool: Pool) -> int:
    position: int = await pool.fetchval("SELECT position FROM feed_start")
    return position


async def add_events(pool: Pool, *ages: timedelta) -> None:
    """An avatar and its event for each age, before NOW, in this order."""
    for age in ages:
        await add_avatar(pool)
        sql = "UPDATE event SET time = $1 WHERE position = (SELECT max(position) FROM event)"
        await pool.execute(sql, NOW - age)


async def test_events_go_when_they_and_all_before_them_are_old(here: Site) -> None:
    await add_events(here.pool, 40 * DAY, 31 * DAY, 30 * DAY, 35 * DAY, DAY)
    before = await positions(here.pool)
    await clean(here, NOW)
    assert await positions(here.pool) == before[2:]
    assert await start_of_feed(here.pool) == before[1]


async def test_a_backlog_is_removed_in_one_turn_in_batches(here: Site) -> None:
    await add_events(here.pool, *(7 * [40 * DAY]))
    await clean(here, NOW, rows=2)
    assert await positions(here.pool) == []


async def test_a_stop_ends_the_turn_after_the_batch_in_hand(here: Site) -> None:
    await add_events(here.pool, *(5 * [40 * DAY]))
    stopping = asyncio.Event()
    turn = cleaner(here, NOW, rows=2)
    stopping.set()
    await turn.take_turn(stopping)
    assert len(await positions(here.pool)) == 5


async def test_one_process_at_a_time_cleans_up(here: Site) -> None:
    await add_events(here.pool, 40 * DAY)
    async with here.pool.acquire() as other:
        assert await retention.take_turn(other)
        await clean(here, NOW)
        assert len(await positions(here.pool)) == 1
        await retention.end_turn(other)
    await clean(here, NOW)
    assert await positions(here.pool) == []


async def test_a_turn_gives_its_lock_back_when_it_fails(here: Site) -> None:
    await here.pool.execute("ALTER TABLE idempotency RENAME TO away")
    with pytest.raises(Exception, match="idempotency"):
        await clean(here, NOW)
    async with here.pool.acquire() as conn:
        assert await retention.take_turn(conn)


async def test_events_that_a_deletion_is_erasing_wait_for_the_next_turn(here: Site) -> None:
    await add_events(here.pool, 40 * DAY, 40 * DAY)
    async with here.pool.acquire() as conn, conn.transaction():
        await conn.execute("UPDATE event SET data = '{}'")
        async with asyncio.timeout(5):
            await clean(here, NOW)
    assert len(await positions(here.pool)) == 2
    await clean(here, NOW)
    assert await positions(here.pool) == []


async def test_a_deletion_that_erases_young_events_holds_up_nothing(here: Site) -> None:
    await add_events(here.pool, 40 * DAY, DAY)
    old, young = await positions(here.pool)
    async with here.pool.acquire() as conn, conn.transaction():
        await conn.execute("UPDATE event SET data = '{}' WHERE position = $1", young)
        await clean(here, NOW)
        assert await positions(here.pool) == [young]
    assert await start_of_feed(here.pool) == old


async def test_a_cursor_before_the_oldest_event_is_told_so(api: Api) -> None:
    pool = api.base.pool
    await add_events(pool, 40 * DAY, 40 * DAY, DAY)
    gone, last_gone, kept = await positions(pool)
    await clean_through(api, NOW)
    for position in (0, gone):
        answer = await api.get("/v1/events", params={"after": encode_cursor(position)})
        assert answer.status == 410
        error = (await answer.json())["error"]
        assert (error["type"], error["code"]) == ("not_found", "cursor_expired")
        assert error["param"] == "after"
    for params in ({"after": encode_cursor(last_gone)}, {}):
        answer = await api.get("/v1/events", params=params)
        assert answer.status == 200
        page = await answer.json()
        assert len(page["data"]) == 1
        assert page["next_cursor"] == encode_cursor(kept)


async def test_a_reader_at_the_end_of_a_feed_that_is_all_gone_reads_on(api: Api) -> None:
    pool = api.base.pool
    await add_events(pool, 40 * DAY)
    (gone,) = await positions(pool)
    await clean_through(api, NOW)
    first = await (await api.get("/v1/events")).json()
    assert first["next_cursor"] == encode_cursor(gone)
    again = await api.get("/v1/events", params={"after": first["next_cursor"]})
    assert again.status == 200


async def test_a_reader_who_waits_while_the_feed_is_cut_off_loses_nothing(api: Api) -> None:
    pool = api.base.pool
    await add_events(pool, 40 * DAY)
    reading = asyncio.create_task(
        api.get("/v1/events", params={"type": "avatar.ready", "wait": "5"})
    )
    await asyncio.sleep(0.3)
    await clean_through(api, NOW)
    await add_avatar(pool)
    await pool.execute("UPDATE event SET type = 'avatar.ready'")
    await pool.execute("SELECT pg_notify($1, '')", events.CHANNEL)
    answer = await reading
    assert answer.status == 200
    assert len((await answer.json())["data"]) == 1


async def clean_through(api: Api, at: datetime) -> None:
    turn = Retention(shelf=api.base, keep=KEEP, clock=lambda: at)
    await turn.take_turn(asyncio.Event())


async def keep_answer(pool: Pool, key: str, at: datetime, kept_for: timedelta = DAY) -> None:
    answer = Answer(fingerprint=b"f", status=200, body=b"{}", request_id="req_1")
    async with pool.acquire() as conn:
        await idempotency.keep(
            conn, ORGANISATION, key, answer, avatar_id=None, kept_for=kept_for, now=at
        )


async def test_answers_go_after_their_time(here: Site) -> None:
    async with here.pool.acquire() as conn:
        await add_organisation(conn)
    await keep_answer(here.pool, "old", NOW - DAY)
    await keep_answer(here.pool, "young", NOW - DAY + timedelta(seconds=1))
    await clean(here, NOW)
    assert await here.pool.fetchval("SELECT string_agg(key, ',') FROM idempotency") == "young"


async def test_a_key_is_free_again_after_the_time_that_is_set(here: Site) -> None:
    async with here.pool.acquire() as conn:
        await add_organisation(conn)
    await keep_answer(here.pool, "key", NOW)
    later, kept_for = NOW + timedelta(hours=2), timedelta(hours=1)
    async with here.pool.acquire() as conn:
        long = await idempotency.find(conn, ORGANISATION, "key", kept_for=DAY, now=later)
        short = await idempotency.find(conn, ORGANISATION, "key", kept_for=kept_for, now=later)
    assert long is not None
    assert short is None
    with pytest.raises(AnsweredTwiceError):
        await keep_answer(here.pool, "key", later)
    await keep_answer(here.pool, "key", later, kept_for)


async def test_the_log_of_jobs_and_jobs_that_failed_go(here: Site) -> None:
    log = """
        INSERT INTO pgqueuer_log (created, job_id, status, priority, entrypoint)
        VALUES ($1, 1, 'successful', 0, 'fetch')
    """
    await here.pool.execute(log, NOW - 21 * DAY)
    await here.pool.execute(log, NOW - 19 * DAY)
    job = """
        INSERT INTO pgqueuer (updated, priority, status, entrypoint)
        VALUES ($1, 0, $2::text::pgqueuer_status, 'fetch')
    """
    await here.pool.execute(job, NOW - 21 * DAY, "failed")
    await here.pool.execute(job, NOW - 21 * DAY, "queued")
    await here.pool.execute(job, NOW - 19 * DAY, "failed")
    await clean(here, NOW)
    assert await here.pool.fetchval("SELECT count(*) FROM pgqueuer_log") == 1
    rows = await here.pool.fetch("SELECT status, updated < $1 AS old FROM pgqueuer", NOW - 20 * DAY)
    assert {(row["status"], row["old"]) for row in rows} == {("queued", True), ("failed", False)}


async def refused(here: Site, *, accepted: bool = False) -> UUID:
    """An asset with bytes in the store, judged at NOW."""
    avatar = await add_avatar(here.pool)
    (run,) = (await store_all(here.pool, avatar)).values()
    key = await here.pool.fetchval(
        "SELECT b.key FROM blob b JOIN asset a ON a.blob_id = b.id WHERE a.id = $1", run.id
    )
    await here.store.put(key, content("abc"))
    await judge(here.pool, run, accepted=accepted)
    return run.id


async def purge_all(here: Site) -> None:
    async with running(here.worker(Work.PURGE)):
        await here.until("SELECT count(*) = 0 FROM pgqueuer WHERE entrypoint = 'purge'")


async def test_bytes_of_what_was_rejected_go_and_its_verdict_stays(here: Site) -> None:
    asset_id = await refused(here)
    await clean(here, NOW + 7 * DAY)
    assert len(await here.keys()) == 1
    await clean(here, NOW + 7 * DAY + timedelta(seconds=1))
    await purge_all(here)
    assert await here.keys() == []
    assert await here.pool.fetchval("SELECT count(*) FROM blob") == 0
    asset = await here.pool.fetchrow("SELECT * FROM asset WHERE id = $1", asset_id)
    assert asset is not None
    assert asset["sha256"] == asset_id.hex * 2
    assert asset["size_bytes"] == 3
    assert asset["bytes_erased_at"] == NOW + 7 * DAY + timedelta(seconds=1)
    assert await here.pool.fetchval("SELECT count(*) FROM verdict") == 1


async def test_bytes_of_what_could_not_be_judged_go_counted_from_its_failure(here: Site) -> None:
    avatar = await add_avatar(here.pool)
    (run,) = (await store_all(here.pool, avatar)).values()
    async with here.pool.acquire() as conn:
        error = InternalError(FailureCode.INTERNAL)
        await settle_failed(conn, run, error, now=NOW + 3 * DAY)
    await clean(here, NOW + 10 * DAY)
    assert await here.pool.fetchval("SELECT blob_id IS NOT NULL FROM asset")
    await clean(here, NOW + 11 * DAY)
    row = await here.pool.fetchrow("SELECT blob_id, sha256, error_code FROM asset")
    assert row is not None
    assert row["blob_id"] is None
    assert row["sha256"] is not None
    assert row["error_code"] == "internal"


async def test_bytes_that_an_accepted_asset_shares_stay(here: Site) -> None:
    rejected, accepted = await refused(here), await refused(here, accepted=True)
    sql = "UPDATE asset SET blob_id = (SELECT blob_id FROM asset WHERE id = $1) WHERE id = $2"
    await here.pool.execute(sql, accepted, rejected)
    await clean(here, NOW + 8 * DAY)
    await purge_all(here)
    kept = await here.pool.fetch("SELECT id FROM asset WHERE blob_id IS NOT NULL")
    assert [row["id"] for row in kept] == [accepted]
    key = await here.pool.fetchval("SELECT key FROM blob JOIN asset a ON a.blob_id = blob.id")
    assert (await here.store.stat(key)).size_bytes == 3


async def test_what_was_accepted_and_derived_stays_however_its_avatar_ends(here: Site) -> None:
    avatar = await deriving(here)
    async with running(here.worker(Work.DERIVE)):
        await until_final(here, avatar)
    await here.pool.execute(
        "UPDATE avatar SET status = 'failed', cause = 'fitting', message = 'No.'"
    )
    keys = await here.keys()
    await clean(here, now_utc() + 365 * DAY)
    assert await here.pool.fetchval("SELECT bool_and(blob_id IS NOT NULL) FROM asset")
    assert await here.keys() == keys


async def test_content_whose_bytes_were_erased_is_gone(api: Api) -> None:
    pool = api.base.pool
    (run,) = (await store_all(pool, await add_avatar(pool))).values()
    await judge(pool, run, accepted=False)
    await clean_through(api, NOW + 8 * DAY)
    answer = await api.get(f"/v1/assets/{run.id}/content")
    assert answer.status == 410
    error = (await answer.json())["error"]
    assert (error["type"], error["code"]) == ("not_found", "asset_bytes_erased")
    shown = await (await api.get(f"/v1/assets/{run.id}")).json()
    assert (shown["sha256"], shown["size_bytes"]) == (run.id.hex * 2, 3)
    assert shown["verdict"]["verdict"] == "rejected"


async def add_upload(
    here: Site, state: str, *, created_at: datetime, expires_at: datetime
) -> tuple[UUID, str]:
    async with here.pool.acquire() as conn:
        await add_organisation(conn)
    upload_id = new_id()
    key = f"incoming/{upload_id.hex}"
    await here.pool.execute(
        """
        INSERT INTO upload (id, organisation_id, kind, policy, key, max_bytes, state, created_at,
                            expires_at) VALUES ($1, $2, 'audio', 'standard', $3, 9, $4, $5, $6)
        """,
        *(upload_id, ORGANISATION, key, state, created_at, expires_at),
    )
    await here.store.put(key, content("sent"))
    return upload_id, key


async def test_an_upload_that_nobody_finalises_goes_with_its_file(here: Site) -> None:
    expires_at = NOW + timedelta(hours=1)
    await add_upload(here, "open", created_at=NOW, expires_at=expires_at)
    await clean(here, NOW + 2 * DAY)
    assert len(await here.keys()) == 1
    await clean(here, NOW + 2 * DAY + timedelta(seconds=1))
    assert await here.keys() == []
    assert await here.pool.fetchval("SELECT count(*) FROM upload") == 0


async def test_an_upload_whose_form_is_good_stays_however_short_uploads_are_kept(
    here: Site,
) -> None:
    await add_upload(here, "open", created_at=NOW - 3 * DAY, expires_at=NOW + DAY)
    await clean(here, NOW)
    assert len(await here.keys()) == 1
    assert await here.pool.fetchval("SELECT state FROM upload") == "open"


@pytest.mark.parametrize("state", ["finalised", "void"])
async def test_what_is_sent_to_a_form_that_is_over_goes_and_its_row_once_nothing_can_come(
    here: Site, state: str
) -> None:
    _, key = await add_upload(here, state, created_at=NOW, expires_at=NOW + DAY)
    await clean(here, NOW)
    assert await here.keys() == []
    await here.store.put(key, content("sent again"))
    await clean(here, NOW + DAY + blobs.WRITTEN_WITHIN)
    assert await here.keys() == []
    assert await here.pool.fetchval("SELECT count(*) FROM upload") == 1
    await here.store.put(key, content("and again"))
    turn = cleaner(here, NOW + DAY + blobs.WRITTEN_WITHIN + timedelta(seconds=1))
    turn.listed_at = turn.clock()
    await turn.take_turn(asyncio.Event())
    assert await here.keys() == []
    assert await here.pool.fetchval("SELECT count(*) FROM upload") == 0


async def test_a_finalised_upload_keeps_its_file_until_it_was_copied(here: Site) -> None:
    upload_id, key = await add_upload(here, "finalised", created_at=NOW, expires_at=NOW)
    await here.pool.execute(
        "INSERT INTO asset (id, organisation_id, kind, origin, policy, standalone, created_at)"
        " VALUES ($1, $2, 'audio', 'upload', 'standard', true, $3)",
        *(upload_id, ORGANISATION, NOW),
    )
    await clean(here, NOW + 10 * DAY)
    assert await here.keys() == [key]


async def test_a_file_that_came_after_its_upload_was_forgotten_goes(here: Site) -> None:
    _, known = await add_upload(here, "open", created_at=NOW, expires_at=NOW + DAY)
    await here.store.put("incoming/late", content("late"))
    await here.store.put("not-incoming", content("other"))
    await clean(here, NOW)
    assert await here.keys() == sorted([known, "not-incoming"])


async def test_the_store_is_listed_now_and_then_and_not_at_every_turn(here: Site) -> None:
    at = NOW
    turn = Retention(shelf=here.ports, keep=KEEP, clock=lambda: at)
    await turn.take_turn(asyncio.Event())
    await here.store.put("incoming/late", content("late"))
    at = NOW + timedelta(minutes=59)
    await turn.take_turn(asyncio.Event())
    assert await here.keys() == ["incoming/late"]
    at = NOW + timedelta(minutes=60)
    await turn.take_turn(asyncio.Event())
    assert await here.keys() == []


async def test_what_a_put_of_a_dead_process_left_goes(here: Site, tmp_path: Path) -> None:
    """Another process of this machine may run on for months without a start that sweeps."""
    (partial,) = (tmp_path / "assets").glob(".partial")
    await asyncio.to_thread((partial / "left").write_bytes, b"half a face")
    await clean(here, NOW)
    assert await asyncio.to_thread(lambda: list(partial.iterdir())) == []


class OddStore(LocalStore):
    """A store that answers what no store should."""

    async def delete(self, key: str) -> None:
        raise AssetNotFoundError(key)


async def test_an_answer_that_no_store_should_give_ends_the_turn_and_no_worker(
    here: Site, tmp_path: Path
) -> None:
    await add_upload(here, "void", created_at=NOW, expires_at=NOW)
    odd = replace(here, ports=replace(here.ports, store=OddStore(tmp_path / "assets")))
    await clean(odd, NOW + DAY)
    assert await here.pool.fetchval("SELECT count(*) FROM upload") == 1


class AwayStore(LocalStore):
    """A store that erases nothing."""

    async def delete(self, key: str) -> None:
        raise StoreUnavailableError(key)


async def test_while_the_store_is_away_rows_that_lead_to_objects_stay(
    here: Site, tmp_path: Path
) -> None:
    await add_upload(here, "void", created_at=NOW, expires_at=NOW)
    away = replace(here, ports=replace(here.ports, store=AwayStore(tmp_path / "assets")))
    await clean(away, NOW + DAY)
    assert await here.pool.fetchval("SELECT count(*) FROM upload") == 1
    await clean(here, NOW + DAY)
    assert await here.pool.fetchval("SELECT count(*) FROM upload") == 0
    assert await here.keys() == []


@asynccontextmanager
async def working(here: Site, at: datetime) -> AsyncIterator[Worker]:
    worker = Worker(
        ports=replace(here.ports, clock=lambda: at),
        limits=replace(LIMITS, keep=KEEP),
        kinds=frozenset({Work.PURGE}),
    )
    async with running(worker):
        yield worker


async def test_every_worker_cleans_up_without_being_told(here: Site) -> None:
    await add_events(here.pool, 40 * DAY)
    await refused(here)
    async with working(here, NOW + 8 * DAY), working(here, NOW + 8 * DAY):
        await here.until("SELECT count(*) = 0 FROM blob")
        await here.until("SELECT position > 0 FROM feed_start")
    assert await here.keys() == []
