"""What does not fit between store and rows is found, reported once it is sure, and repaired."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import pytest
import structlog.testing
from cryptography.fernet import Fernet

from service.commands.reconcile import reconcile
from service.db import blobs
from service.db.avatars import Avatar
from service.db.types import Pool
from service.domain import Work
from service.ids import avatar_spelling, new_id
from service.ingest.reconcile import (
    Finding,
    Outcome,
    Problem,
    Reconciler,
    Wanted,
    WrongStoreError,
)
from service.settings import Settings
from service.times import now_utc
from storage.local import LocalStore
from storage.s3 import S3Store
from storage.store import AssetStat, AssetStore
from tests.api import Api, running_api, settings_for
from tests.integration.test_commands import Ended, greenroom
from tests.integration.test_deriving import content, deriving, until_final
from tests.integration.test_pipeline import Site, running, site
from tests.rows import ORGANISATION, add_organisation
from tests.servers.s3 import make_bucket

Happening: TypeAlias = Callable[[], Awaitable[None]]

LATER = blobs.WRITTEN_WITHIN + timedelta(minutes=1)
LOOK, REPAIR = Wanted(), Wanted(repair=True)


@pytest.fixture(params=["local", "moto"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AssetStore]:
    if request.param == "local":
        made: AssetStore = LocalStore(tmp_path / "assets")
    else:
        made = S3Store(await make_bucket(request.getfixturevalue("moto_server"), prefix="p/"))
    async with made as opened:
        yield opened


@pytest.fixture
async def here(pool: Pool, tmp_path: Path, store: AssetStore) -> AsyncIterator[Site]:
    async with site(pool, tmp_path / "site") as opened:
        yield replace(opened, store=store, ports=replace(opened.ports, store=store))


@asynccontextmanager
async def reconciler(
    here: Site, wanted: Wanted = LOOK, *, later: timedelta = timedelta(0)
) -> AsyncIterator[Reconciler]:
    async with here.pool.acquire() as conn:
        yield Reconciler(
            shelf=here.ports, conn=conn, wanted=wanted, clock=lambda: now_utc() + later
        )


async def look(
    here: Site, wanted: Wanted = LOOK, *, later: timedelta = timedelta(0)
) -> list[Finding]:
    async with reconciler(here, wanted, later=later) as looking:
        return [finding async for finding in looking.findings()]


def said(findings: list[Finding]) -> list[tuple[Problem, Outcome]]:
    return [(finding.problem, finding.outcome) for finding in findings]


async def derived(here: Site) -> Avatar:
    """An avatar with a video, and everything that is derived from it."""
    avatar = await deriving(here)
    await here.pool.execute(
        "UPDATE asset SET sha256 = b.sha256, size_bytes = b.size_bytes"
        "  FROM blob b WHERE b.id = blob_id"
    )
    async with running(here.worker(Work.DERIVE)):
        await until_final(here, avatar)
    return avatar


async def place(here: Site, what: str) -> tuple[UUID, UUID, str]:
    """The asset, blob and key of a recipe's asset, or of the source."""
    row = await here.pool.fetchrow(
        """
        SELECT a.id AS asset_id, b.id AS blob_id, b.key FROM asset a JOIN blob b ON b.id = a.blob_id
         WHERE coalesce(a.recipe, 'source') = $1
        """,
        what,
    )
    assert row is not None
    return row["asset_id"], row["blob_id"], row["key"]


async def overwrite(here: Site, key: str, text: str) -> None:
    await here.store.put(key, content(text), replace=True)


async def text_of(here: Site, key: str) -> str:
    return b"".join([chunk async for chunk in here.store.open(key)]).decode()


async def state_of(here: Site, blob_id: UUID) -> str | None:
    state: str | None = await here.pool.fetchval("SELECT state FROM blob WHERE id = $1", blob_id)
    return state


async def rebuilt(here: Site) -> None:
    async with running(here.worker(Work.REBUILD, Work.PURGE)):
        sql = "SELECT count(*) = 0 FROM pgqueuer WHERE entrypoint IN ('rebuild', 'purge')"
        await here.until(sql)


async def test_where_everything_fits_nothing_is_found(here: Site) -> None:
    await derived(here)
    assert await look(here, Wanted(repair=True, verify=True), later=LATER) == []


async def test_what_was_derived_is_not_promised_when_its_origin_is_lost_as_well(
    here: Site,
) -> None:
    await derived(here)
    for what in ("portrait", "source"):
        *_, key = await place(here, what)
        await here.store.delete(key)
    assert said(await look(here, REPAIR)) == 2 * [(Problem.OBJECT_MISSING, Outcome.LEFT)]
    assert said(await look(here, REPAIR)) == 2 * [(Problem.OBJECT_MISSING, Outcome.LEFT)]


async def test_a_source_whose_object_is_gone_is_reported_with_all_that_it_affects(
    here: Site,
) -> None:
    avatar = await derived(here)
    asset_id, blob_id, key = await place(here, "source")
    await here.store.delete(key)
    (finding,) = await look(here)
    assert finding.problem is Problem.OBJECT_MISSING
    assert finding.outcome is Outcome.FOUND
    assert (finding.key, finding.organisation) == (key, ORGANISATION)
    assert (finding.assets, finding.avatars) == ((asset_id,), (avatar.id,))
    assert await state_of(here, blob_id) == "stored"

    assert said(await look(here, REPAIR)) == [(Problem.OBJECT_MISSING, Outcome.LEFT)]
    assert await state_of(here, blob_id) == "lost"
    assert said(await look(here, REPAIR)) == [(Problem.OBJECT_MISSING, Outcome.LEFT)]


async def test_a_lost_object_that_was_restored_counts_again(here: Site) -> None:
    await derived(here)
    _, blob_id, key = await place(here, "source")
    text = await text_of(here, key)
    await here.store.delete(key)
    await look(here, REPAIR)
    await overwrite(here, key, "x" * len(text))
    assert said(await look(here, REPAIR)) == [(Problem.OTHER_BYTES, Outcome.LEFT)]
    await overwrite(here, key, text)
    assert said(await look(here)) == [(Problem.OBJECT_BACK, Outcome.FOUND)]
    assert await state_of(here, blob_id) == "lost"
    assert said(await look(here, REPAIR)) == [(Problem.OBJECT_BACK, Outcome.REPAIRED)]
    assert await state_of(here, blob_id) == "stored"
    assert await look(here, Wanted(verify=True)) == []


async def test_what_was_derived_and_is_gone_is_made_again(here: Site) -> None:
    await derived(here)
    asset_id, blob_id, key = await place(here, "portrait")
    text = await text_of(here, key)
    await here.store.delete(key)
    assert said(await look(here, REPAIR)) == [(Problem.OBJECT_MISSING, Outcome.REPAIRED)]
    await rebuilt(here)
    again, _, new_key = await place(here, "portrait")
    assert again == asset_id
    assert await text_of(here, new_key) == text
    assert await state_of(here, blob_id) is None
    assert await look(here, Wanted(verify=True), later=LATER) == []


async def test_another_size_is_found_without_reading_and_other_bytes_by_reading_alone(
    here: Site,
) -> None:
    await derived(here)
    *_, preview = await place(here, "preview")
    *_, portrait = await place(here, "portrait")
    await overwrite(here, preview, "short")
    text = await text_of(here, portrait)
    await overwrite(here, portrait, text.swapcase())
    (finding,) = await look(here)
    assert (finding.problem, finding.key, finding.found_bytes) == (Problem.OTHER_SIZE, preview, 5)
    found = {finding.key: finding.problem for finding in await look(here, Wanted(verify=True))}
    assert found == {preview: Problem.OTHER_SIZE, portrait: Problem.OTHER_BYTES}

    await look(here, Wanted(repair=True, verify=True))
    await rebuilt(here)
    *_, portrait = await place(here, "portrait")
    assert await text_of(here, portrait) == text
    assert await look(here, Wanted(verify=True), later=LATER) == []


async def test_objects_without_a_row_are_erased_when_nobody_can_be_writing_them(
    here: Site,
) -> None:
    await derived(here)
    kept = await here.keys()
    stray, foreign = new_id().hex, "backup.tar"
    for key in (stray, "check/abc", foreign):
        await here.store.put(key, content("stray"))
    assert await look(here, REPAIR) == []
    found = await look(here, later=LATER)
    assert {finding.key for finding in found} == {stray, "check/abc"}
    assert set(said(found)) == {(Problem.STRAY_OBJECT, Outcome.FOUND)}
    assert len(await here.keys()) == len(kept) + 3
    found = await look(here, REPAIR, later=LATER)
    assert set(said(found)) == {(Problem.STRAY_OBJECT, Outcome.REPAIRED)}
    assert await here.keys() == sorted([*kept, foreign])


@pytest.mark.parametrize(
    ("state", "asset", "wanted"),
    [
        ("open", None, True),
        ("finalised", "pending", True),
        ("finalised", "ready", False),
        ("finalised", None, False),
        ("void", None, False),
        (None, None, False),
    ],
)
async def test_files_of_uploads_are_erased_when_their_upload_is_over(
    here: Site, state: str | None, asset: str | None, *, wanted: bool
) -> None:
    upload_id = new_id()
    key = f"incoming/{upload_id.hex}"
    async with here.pool.acquire() as conn:
        await add_organisation(conn)
    if state:
        sql = """
            INSERT INTO upload (id, organisation_id, kind, policy, key, max_bytes, state,
                                created_at, expires_at)
            VALUES ($1, $2, 'audio', 'standard', $3, 9, $4, now(), now())
        """
        await here.pool.execute(sql, upload_id, ORGANISATION, key, state)
    if asset:
        await derived(here)
        await here.pool.execute(
            "UPDATE upload SET id = (SELECT id FROM asset WHERE recipe IS NULL)"
        )
        if asset == "pending":
            change = (
                "UPDATE asset SET state = 'pending', origin = 'upload', blob_id = NULL,"
                " sha256 = NULL, size_bytes = NULL WHERE recipe IS NULL"
            )
            await here.pool.execute("DELETE FROM verdict")
            await here.pool.execute(change)
    await here.store.put(key, content("sent"))
    found = [one for one in await look(here, REPAIR, later=LATER) if one.key == key]
    assert said(found) == ([] if wanted else [(Problem.STRAY_UPLOAD, Outcome.REPAIRED)])
    assert (key in await here.keys()) is wanted


async def test_rows_that_nobody_comes_back_for_are_purged(here: Site) -> None:
    await derived(here)
    kept = await here.keys()
    await here.pool.execute("DELETE FROM pgqueuer")
    for state, digest in (("writing", None), ("discarded", None), ("discarded", "0" * 64)):
        key = new_id().hex
        await here.store.put(key, content("left"))
        await here.pool.execute(
            """
            INSERT INTO blob (id, organisation_id, key, state, written_for, sha256, created_at)
            VALUES ($1, $2, $3, $4, $1, $5, now() - $6::interval)
            """,
            *(UUID(key), ORGANISATION, key, state, digest, LATER),
        )
    assert said(await look(here)) == 3 * [(Problem.LEFT_BEHIND, Outcome.FOUND)]
    assert said(await look(here, REPAIR)) == 3 * [(Problem.LEFT_BEHIND, Outcome.REPAIRED)]
    assert await here.keys() == kept
    assert await look(here, later=LATER) == []


async def test_what_is_being_written_or_waits_for_its_purge_is_no_finding(here: Site) -> None:
    await derived(here)
    _, blob_id, _ = await place(here, "preview")
    await here.pool.execute("DELETE FROM derived WHERE recipe = 'preview'")
    await here.pool.execute("DELETE FROM asset WHERE recipe = 'preview'")
    async with here.pool.acquire() as conn:
        await blobs.release(conn, [blob_id])
        key = new_id().hex
        sql = "INSERT INTO blob (id, organisation_id, key, written_for) VALUES ($1, $2, $3, $1)"
        await conn.execute(sql, UUID(key), ORGANISATION, key)
    await here.store.put(key, content("half"))
    assert await look(here, REPAIR, later=LATER) == []
    await here.pool.execute("DELETE FROM pgqueuer")
    assert said(await look(here, REPAIR)) == [(Problem.NOT_USED, Outcome.REPAIRED)]
    assert await state_of(here, blob_id) is None


async def test_an_asset_that_differs_from_its_blob_is_left_to_people(here: Site) -> None:
    avatar = await derived(here)
    asset_id, *_ = await place(here, "source")
    await here.pool.execute("UPDATE asset SET size_bytes = 7 WHERE id = $1", asset_id)
    (finding,) = await look(here, REPAIR)
    assert (finding.problem, finding.outcome) == (Problem.ASSET_DIFFERS, Outcome.LEFT)
    assert (finding.assets, finding.avatars) == ((asset_id,), (avatar.id,))


async def test_a_store_that_shares_nothing_with_the_rows_is_not_repaired(here: Site) -> None:
    keys = [new_id().hex for _ in range(20)]
    for key in keys:
        await here.store.put(key, content("another database's"))
    with pytest.raises(WrongStoreError):
        await look(here, REPAIR, later=LATER)
    assert await here.keys() == sorted(keys)
    assert len(await look(here, later=LATER)) == 20
    assert len(await look(here, Wanted(repair=True, force=True), later=LATER)) == 20
    assert await here.keys() == []


class Meddled(LocalStore):
    """A store on which something happens between two of its answers."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.after_listing: Happening | None = None
        self.after_stat: Happening | None = None

    async def list(self, prefix: str = "") -> AsyncIterator[AssetStat]:
        async for stat in super().list(prefix):
            yield stat
        if self.after_listing:
            await self.after_listing()

    async def stat(self, key: str) -> AssetStat:
        try:
            return await super().stat(key)
        finally:
            if self.after_stat:
                await self.after_stat()


@pytest.fixture
async def meddled(pool: Pool, tmp_path: Path) -> AsyncIterator[tuple[Site, Meddled]]:
    async with site(pool, tmp_path / "site") as opened, Meddled(tmp_path / "meddled") as store:
        yield replace(opened, store=store, ports=replace(opened.ports, store=store)), store


async def delete_preview(here: Site) -> None:
    """As a deletion and its purge do it: nothing of the preview is left."""
    *_, key = await place(here, "preview")
    await here.pool.execute("DELETE FROM derived WHERE recipe = 'preview'")
    blob_id = await here.pool.fetchval(
        "DELETE FROM asset WHERE recipe = 'preview' RETURNING blob_id"
    )
    await here.store.delete(key)
    await here.pool.execute("DELETE FROM blob WHERE id = $1", blob_id)


async def test_what_comes_and_goes_while_the_store_is_listed_is_no_finding(
    meddled: tuple[Site, Meddled],
) -> None:
    here, store = meddled
    await derived(here)

    async def meanwhile() -> None:
        store.after_listing = None
        await delete_preview(here)
        await derived(here)

    store.after_listing = meanwhile
    assert await look(here, Wanted(repair=True, verify=True), later=LATER) == []


async def test_a_row_that_goes_while_its_object_is_looked_for_is_no_finding(
    meddled: tuple[Site, Meddled],
) -> None:
    here, store = meddled
    await derived(here)
    *_, key = await place(here, "preview")
    await store.delete(key)

    async def meanwhile() -> None:
        store.after_stat = None
        await here.pool.execute("UPDATE blob SET state = 'discarded' WHERE key = $1", key)

    store.after_stat = meanwhile
    found = await look(here, REPAIR)
    assert [one.key for one in found if one.problem is Problem.OBJECT_MISSING] == []


async def test_an_object_whose_row_comes_to_light_in_the_last_moment_is_not_erased(
    meddled: tuple[Site, Meddled],
) -> None:
    here, store = meddled
    await derived(here)
    key = new_id().hex
    await store.put(key, content("known after all"))

    async def meanwhile() -> None:
        store.after_stat = None
        sql = "INSERT INTO blob (id, organisation_id, key, written_for) VALUES ($1, $2, $3, $1)"
        await here.pool.execute(sql, UUID(key), ORGANISATION, key)

    store.after_stat = meanwhile
    assert await look(here, REPAIR, later=LATER) == []
    assert key in await here.keys()


async def test_two_reconcilers_and_workers_at_once_do_each_others_work_no_harm(
    meddled: tuple[Site, Meddled],
) -> None:
    here, store = meddled
    await derived(here)
    for what in ("portrait", "preview"):
        *_, key = await place(here, what)
        await store.delete(key)
    for _ in range(5):
        await store.put(new_id().hex, content("stray"))
    async with running(here.worker(Work.REBUILD, Work.PURGE)):
        await asyncio.gather(*(look(here, REPAIR, later=LATER) for _ in range(3)))
        sql = "SELECT count(*) = 0 FROM pgqueuer WHERE entrypoint IN ('rebuild', 'purge')"
        await here.until(sql)
    assert await look(here, Wanted(verify=True), later=LATER) == []
    assert len(await here.keys()) == 4


@pytest.fixture
async def api(dsn: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(settings_for(dsn, tmp_path)) as opened:
        yield opened


async def test_lost_bytes_are_said_to_be_lost_and_not_promised(api: Api, tmp_path: Path) -> None:
    async with site(api.base.pool, tmp_path / "site") as opened:
        here = replace(
            opened, store=api.base.store, ports=replace(opened.ports, store=api.base.store)
        )
        avatar = await derived(here)
        asset_id, _, key = await place(here, "preview")
        path, profile = f"/v1/assets/{asset_id}/content", f"/avatar-profiles/{avatar.id}"
        assert (await (await api.get(profile)).json())["video_preview_url"] is not None
        await here.store.delete(key)
        await look(here, REPAIR)
        answer = await api.get(path)
        error = (await answer.json())["error"]
        assert (answer.status, error["type"]) == (503, "service_unavailable")
        assert error["code"] == "asset_bytes_lost"
        assert int(answer.headers["Retry-After"]) > 0
        assert (await (await api.get(profile)).json())["video_preview_url"] is None
        await rebuilt(here)
        assert (await api.get(path)).status == 307
        assert (await (await api.get(profile)).json())["video_preview_url"] is not None


async def test_deriving_from_a_lost_source_is_our_failure_and_the_log_names_it(
    meddled: tuple[Site, Meddled],
) -> None:
    here, store = meddled
    avatar = await deriving(here)
    asset_id, _, key = await place(here, "source")
    await store.delete(key)
    with structlog.testing.capture_logs() as logs:
        async with running(here.worker(Work.DERIVE)):
            await until_final(here, avatar)
    assert await here.status(avatar) == ("failed", "internal")
    lost = [entry for entry in logs if entry["event"] == "source_is_lost"]
    assert [entry["asset_id"] for entry in lost] == [str(asset_id)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A database and a local store, as the command finds them by its settings."""

    here: Site
    settings: Settings
    capsys: pytest.CaptureFixture[str]

    async def reconcile(self, wanted: Wanted = LOOK, *, as_json: bool = False) -> Ended:
        self.capsys.readouterr()
        status = await reconcile(self.settings, wanted, as_json=as_json)
        out, err = self.capsys.readouterr()
        return Ended(status=status, out=out, err=err)


@pytest.fixture
async def installed(
    pool: Pool, dsn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Installation]:
    settings = settings_for(dsn, tmp_path / "data")
    async with (
        site(pool, tmp_path / "site") as opened,
        LocalStore(tmp_path / "data" / "assets") as store,
    ):
        here = replace(opened, store=store, ports=replace(opened.ports, store=store))
        yield Installation(here=here, settings=settings, capsys=capsys)


async def test_the_command_says_what_it_finds_and_ends_accordingly(
    installed: Installation,
) -> None:
    avatar = await derived(installed.here)
    clean = await installed.reconcile(Wanted(verify=True))
    assert (clean.status, clean.out) == (0, "Everything fits.\n")

    source, _, source_key = await place(installed.here, "source")
    portrait, _, portrait_key = await place(installed.here, "portrait")
    await installed.here.store.delete(portrait_key)
    found = await installed.reconcile()
    assert found.status == 1
    (first, *_) = found.out.splitlines()
    assert first.split() == [
        *("found", "object_missing", portrait_key, "assets", str(portrait)),
        *("avatars", avatar_spelling(avatar.id)),
    ]
    assert "an asset's object is gone" in found.out
    repaired = await installed.reconcile(REPAIR, as_json=True)
    assert repaired.status == 0
    (line,) = repaired.lines
    assert line == {
        "problem": "object_missing",
        "outcome": "repaired",
        "key": portrait_key,
        "organisation": ORGANISATION,
        "size_bytes": line["size_bytes"],
        "count": 1,
        "assets": [str(portrait)],
        "avatars": [avatar_spelling(avatar.id)],
    }
    await installed.here.store.delete(source_key)
    left = await installed.reconcile(REPAIR, as_json=True)
    assert left.status == 1
    assert {one["outcome"] for one in left.lines} == {"left"}
    assert [str(source)] in [one["assets"] for one in left.lines]


async def test_the_command_repairs_no_store_of_another_database(installed: Installation) -> None:
    keys = [new_id().hex for _ in range(20)]
    old = (now_utc() - LATER).timestamp()
    for key in keys:
        await installed.here.store.put(key, content("another database's"))
        os.utime(installed.settings.data_dir / "assets" / key, (old, old))
    ended = await installed.reconcile(REPAIR)
    assert ended.status == 3
    assert "do not belong together" in ended.err
    assert await installed.here.keys() == sorted(keys)


async def test_the_command_says_when_the_store_is_away(installed: Installation) -> None:
    settings = replace(
        installed.settings,
        s3_bucket="b",
        s3_endpoint="http://127.0.0.1:9",
        s3_access_key_id="k",
        s3_secret_access_key="s",  # noqa: S106 - of no server
    )
    ended = await replace(installed, settings=settings).reconcile()
    assert (ended.status, ended.out) == (3, "")
    assert "GREENROOM_S3_BUCKET: " in ended.err


async def test_the_command_says_when_the_database_is_away() -> None:
    ended = await greenroom(
        "reconcile",
        database_url="postgres://127.0.0.1:9/x",
        secret_keys=Fernet.generate_key().decode(),
    )
    assert (ended.status, ended.out) == (3, "")
    assert "the database went away" in ended.err


async def test_the_command_as_it_is_typed(installed: Installation) -> None:
    await derived(installed.here)
    *_, key = await place(installed.here, "preview")
    await installed.here.store.delete(key)
    ended = await greenroom(
        *("reconcile", "--json", "--verify"),
        database_url=str(installed.settings.database_url),
        secret_keys=installed.settings.secret_keys[0],
        data_dir=str(installed.settings.data_dir),
    )
    assert (ended.status, ended.err) == (1, "")
    assert [line["key"] for line in ended.lines] == [key]
