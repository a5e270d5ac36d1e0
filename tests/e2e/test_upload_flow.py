"""The whole way of uploaded files with real models: from their forms to what their fitter gets."""

import asyncio
import io
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
from aiohttp import ClientSession, FormData
from yarl import URL

from tests.e2e.processes import SAMPLES, Service, dev


async def upload(service: Service, kind: str, name: str) -> str:
    return await upload_bytes(service, kind, (SAMPLES / name).read_bytes())


async def upload_bytes(service: Service, kind: str, file: bytes) -> str:
    async with service.client.post(f"/uploads/{kind}/get_upload_url") as response:
        grant = await response.json()
    form = FormData(default_to_multipart=True)
    for field, value in grant["upload_fields"].items():
        form.add_field(field, value)
    form.add_field("file", io.BytesIO(file), filename="x")
    async with ClientSession() as anybody, anybody.post(grant["upload_url"], data=form) as response:
        assert response.status == 204
    named = {f"{kind}_id": grant[f"{kind}_id"]}
    async with service.client.post(f"/uploads/{kind}/finalize_upload", json=named) as response:
        assert (response.status, await response.json()) == (200, named)
    upload_id: str = grant[f"{kind}_id"]
    return upload_id


@pytest.mark.timeout(180)
async def test_uploaded_files_reach_a_fitter_in_as_many_avatars_as_one_likes(
    tmp_path: Path,
) -> None:
    async with dev(tmp_path / "data", {}) as service:
        image = await upload(service, "image", "portrait.jpg")
        audio = await upload(service, "audio", "voice.flac")
        body = {"name": "Eileen", "sources": {"image_id": image, "audio_id": audio}}
        for _ in range(2):  # before its assets were judged, and after
            async with service.client.post("/avatar-profiles/create", json=body) as response:
                assert response.status == 200, await response.text()
                avatar = await response.json()
            verdict = await service.verdict_when(avatar["id"], "fitting", "failed", within_s=150)
            assert (verdict["state"], verdict["cause"]) == ("fitting", None), verdict
        first, second = [
            event["data"] for event in await service.events("avatar.ready_for_fitting")
        ]
        assert first["avatar"] != second["avatar"]
        for shared in ("sources", "portrait", "voice_reference"):
            assert first[shared] == second[shared]
        voice = (SAMPLES / "voice.flac").read_bytes()
        assert first["sources"]["audio"]["sha256"] == sha256(voice).hexdigest()


async def test_a_stored_file_is_closed_as_soon_as_its_readers_have_gone(tmp_path: Path) -> None:
    """And not when the garbage collector gets to it: until then it would hold a descriptor."""
    async with dev(tmp_path / "data", {}) as service:
        asset_id = await upload_bytes(service, "video", bytes(32 << 20))
        path = f"/v1/assets/{asset_id}/content"
        location = None
        async with asyncio.timeout(30):
            while location is None:
                async with service.client.get(path, allow_redirects=False) as response:
                    location = response.headers.get("Location")
                await asyncio.sleep(0.1)
        for _ in range(60):
            await leave_early(URL(location))
        await asyncio.sleep(2)
        open_ = [file.path for file in psutil.Process(service.process.pid).open_files()]
        assert not [path for path in open_ if "/assets/" in path]


async def leave_early(url: URL) -> None:
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET {url.raw_path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.read(1000)
    writer.transport.abort()
