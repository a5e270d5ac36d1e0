"""The whole way of a portrait with real models: from its form to what its fitter gets."""

from hashlib import sha256
from pathlib import Path

import pytest
from aiohttp import FormData

from tests.e2e.processes import SAMPLES, dev


@pytest.mark.timeout(180)
async def test_an_uploaded_portrait_reaches_its_fitter(tmp_path: Path) -> None:
    picture = (SAMPLES / "portrait.jpg").read_bytes()
    form = FormData(default_to_multipart=True)
    form.add_field("image", picture, filename="portrait.jpg")
    async with dev(tmp_path / "data", {}) as service:
        async with service.client.post("/v1/avatars", data=form) as response:
            assert response.status == 201
            avatar = await response.json()
        verdict = await service.verdict_when(avatar["id"], "fitting", "failed", within_s=150)
        assert (verdict["state"], verdict["cause"]) == ("fitting", None), verdict
        (event,) = await service.events("avatar.ready_for_fitting")
        assert event["data"]["sources"]["image"]["sha256"] == sha256(picture).hexdigest()
        assert event["data"]["portrait"]["media"]["kind"] == "image"
        assert not {"voice_reference", "preview"} & set(event["data"])
