"""The whole way of uploaded files with real models: from their forms to what their fitter gets."""

import io
from hashlib import sha256
from pathlib import Path

import pytest
from aiohttp import ClientSession, FormData

from tests.e2e.processes import SAMPLES, Service, dev


async def upload(service: Service, kind: str, name: str) -> str:
    async with service.client.post(f"/uploads/{kind}/get_upload_url") as response:
        grant = await response.json()
    form = FormData(default_to_multipart=True)
    for field, value in grant["upload_fields"].items():
        form.add_field(field, value)
    form.add_field("file", io.BytesIO((SAMPLES / name).read_bytes()), filename=name)
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
