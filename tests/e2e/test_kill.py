"""The service is killed without warning, in the middle of its work, and finishes it afterwards."""

import asyncio
import time
from pathlib import Path

import pytest
from aiohttp import ClientSession
from cryptography.fernet import Fernet

from service.db.types import Pool
from service.settings import Settings
from tests.api import running_api
from tests.e2e.processes import Service, command, dev, holding_ffmpeg, kill, origin
from validators.derive.recipes import Recipe

PAIR = {"image": "portrait.jpg", "audio": "voice.flac"}


async def assert_fitting_once(service: Service, avatar: str) -> None:
    await service.verdict_when(avatar, "fitting")
    assert len(await service.events("avatar.ready_for_fitting")) == 1
    stored = await service.events("asset.stored")
    assert len({event["subject"] for event in stored}) == len(stored) == 2


def partials(data: Path) -> list[Path]:
    """What is being written, or was left behind by whoever wrote it."""
    return list((data / "assets" / ".partial").iterdir())


async def half_stored(service: Service, data: Path) -> None:
    """Wait until one source is stored and another is being written."""
    while not (await service.events("asset.stored") and partials(data)):  # noqa: ASYNC110 - files have no event
        await asyncio.sleep(0.02)


async def test_killed_in_the_middle_of_a_fetch(tmp_path: Path) -> None:
    async with origin() as source:
        source.held["voice.flac"] = asyncio.Event()
        environ = {"GREENROOM_FETCH_ALLOW": f"127.0.0.1/32:{source.port}"}
        async with dev(tmp_path / "data", environ) as service:
            avatar = await service.create(source.url, **PAIR)
            async with asyncio.timeout(30):
                await source.half_way.wait()
                await half_stored(service, tmp_path / "data")
            await kill(service.process)
        assert len(partials(tmp_path / "data")) == 1
        source.held["voice.flac"].set()
        async with dev(tmp_path / "data", environ) as service:
            await assert_fitting_once(service, avatar)
            assert partials(tmp_path / "data") == []


async def test_killed_in_the_middle_of_an_inspection(tmp_path: Path) -> None:
    ffmpeg, hold = holding_ffmpeg(tmp_path)
    async with origin() as source:
        environ = {
            "GREENROOM_FETCH_ALLOW": f"127.0.0.1/32:{source.port}",
            "FFMPEG": str(ffmpeg),
            "GREENROOM_SANDBOX": "off",  # a script that starts other programs
        }
        async with dev(tmp_path / "data", environ) as service:
            hold.touch()
            avatar = await service.create(source.url, **PAIR)
            await service.verdict_when(avatar, "inspecting")
            await service.inspecting(avatar)
            await asyncio.sleep(0.5)
            await kill(service.process)
        hold.unlink()
        async with dev(tmp_path / "data", environ) as service:
            await assert_fitting_once(service, avatar)


async def inspections_in_hand(pool: Pool, number: int) -> None:
    """Wait until so many inspections are some worker's."""
    sql = "SELECT count(*) FROM pgqueuer WHERE entrypoint = 'inspect' AND status = 'picked'"
    async with asyncio.timeout(60):
        while await pool.fetchval(sql) < number:  # noqa: ASYNC110 - rows of others have no event
            await asyncio.sleep(0.05)


async def taken_over_after(pool: Pool) -> float:
    """Seconds until another run claims what a dead one has left open."""
    began = time.monotonic()
    async with asyncio.timeout(60):
        while not await pool.fetchval("SELECT max(losses) FROM asset"):  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.timeout(420)
async def test_a_second_worker_finishes_what_a_killed_one_began(dsn: str, tmp_path: Path) -> None:
    """It takes over within seconds of the death, and not before: how long models take is no part
    of that."""
    ffmpeg, hold = holding_ffmpeg(tmp_path)
    async with origin() as source:
        for name in PAIR.values():
            source.held[name] = asyncio.Event()
        environ = {
            "GREENROOM_DATABASE_URL": dsn,
            "GREENROOM_SECRET_KEYS": Fernet.generate_key().decode(),
            "GREENROOM_DATA_DIR": str(tmp_path / "data"),
            "GREENROOM_FETCH_ALLOW": f"127.0.0.1/32:{source.port}",
            "GREENROOM_INSPECT_CONCURRENCY": "1",  # two jobs in hand, and no third
        }
        held = environ | {"FFMPEG": str(ffmpeg), "GREENROOM_SANDBOX": "off"}
        async with (
            running_api(Settings.from_environ(environ)) as api,
            ClientSession(
                api.client.make_url("/"), headers={"Authorization": f"Bearer {api.key}"}
            ) as client,
            command("worker", "--kinds", "fetch,inspect", environ=held) as first,
        ):
            service, pool = Service(process=first, client=client), api.base.pool
            avatar = await service.create(source.url, **PAIR)
            async with asyncio.timeout(60):
                await source.half_way.wait()  # so the worker has started
            hold.touch()
            for name in PAIR.values():
                source.held[name].set()
            await inspections_in_hand(pool, 2)
            await service.inspecting(avatar)
            async with command("worker", "--kinds", "inspect,derive", environ=environ) as _second:
                other = await service.create(source.url, **PAIR)
                await service.verdict_when(other, "fitting", within_s=180)  # the second one's work
                assert (await service.get(f"/v1/avatars/{avatar}/verdict"))["state"] == "inspecting"
                assert await pool.fetchval("SELECT max(losses) FROM asset") == 0
                await kill(first)
                assert await taken_over_after(pool) < 15
                await service.verdict_when(avatar, "fitting", within_s=180)
            assert await pool.fetchval("SELECT max(losses) FROM asset") == 1
            assert len(await service.events("avatar.ready_for_fitting")) == 2


async def deriving(service: Service, avatar: str) -> None:
    """Wait until something is being derived."""
    async with asyncio.timeout(60):
        while True:
            verdict = await service.get(f"/v1/avatars/{avatar}/verdict")
            if (verdict["progress"] or {}).get("stage") in set(Recipe):
                assert verdict["state"] == "deriving"
                return
            await asyncio.sleep(0.02)


async def assert_whole(pool: Pool, data: Path) -> None:
    """One of everything that is derived, and no object that nothing points to.

    Of what the killed had begun the row is kept for as long as they might live, not the object.
    """
    recipes = await pool.fetch("SELECT recipe FROM asset WHERE origin = 'derive' ORDER BY 1")
    assert [row["recipe"] for row in recipes] == ["portrait", "voice_reference"]
    blobs = await pool.fetch("SELECT state, key FROM blob")
    assert {blob["state"] for blob in blobs} <= {"stored", "discarded"}
    objects = {path.name for path in (data / "assets").iterdir() if path.is_file()}
    assert objects == {blob["key"] for blob in blobs if blob["state"] == "stored"}


async def test_killed_in_the_middle_of_a_derivation(dsn: str, tmp_path: Path) -> None:
    ffmpeg, hold = holding_ffmpeg(tmp_path)
    async with origin() as source:
        source.held["voice.flac"] = asyncio.Event()
        environ = {
            "GREENROOM_DATABASE_URL": dsn,
            "GREENROOM_SECRET_KEYS": Fernet.generate_key().decode(),
            "GREENROOM_DATA_DIR": str(tmp_path / "data"),
            "GREENROOM_FETCH_ALLOW": f"127.0.0.1/32:{source.port}",
        }
        environ["TMPDIR"] = str(tmp_path / "tmp")
        (tmp_path / "tmp").mkdir()
        held = environ | {"FFMPEG": str(ffmpeg), "GREENROOM_SANDBOX": "off"}
        async with (
            running_api(Settings.from_environ(environ)) as api,
            ClientSession(
                api.client.make_url("/"), headers={"Authorization": f"Bearer {api.key}"}
            ) as client,
            command("worker", "--kinds", "fetch,derive", environ=held) as first,
            command("worker", "--kinds", "inspect", environ=environ) as _inspector,
        ):
            service = Service(process=first, client=client)
            avatar = await service.create(source.url, **PAIR)
            async with asyncio.timeout(60):
                await source.half_way.wait()  # so the worker has started
            hold.touch()
            source.held["voice.flac"].set()
            await deriving(service, avatar)
            async with asyncio.timeout(30):
                while not list((tmp_path / "tmp").glob("greenroom-derive-*")):  # noqa: ASYNC110 - a folder wakes nobody
                    await asyncio.sleep(0.05)
            await kill(first)
            hold.unlink()
            async with command("worker", "--kinds", "derive", environ=environ) as _second:
                await assert_fitting_once(service, avatar)
            assert await api.base.pool.fetchval("SELECT losses FROM avatar") == 1
            await assert_whole(api.base.pool, tmp_path / "data")
            assert list((tmp_path / "tmp").glob("greenroom-*")) == []
