"""The whole way with real recipes: three sources of one person, and what its fitter gets."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import SAMPLES, Service, dev, origin

ALL_THREE = {"video": "one_person.mp4", "image": "portrait.jpg", "audio": "voice.flac"}
SIGNATURES = {"portrait": b"\x89PNG", "voice_reference": b"RIFF", "preview": b"ftyp"}


async def download(service: Service, path: str) -> tuple[bytes, str]:
    async with service.client.get(path) as response:
        assert response.status == 200
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        return await response.read(), response.headers["Content-Type"]


async def assert_derived(service: Service, derived: dict[str, Any], recipe: str) -> None:
    """Its link leads to its bytes, which are what the event says, and of the right format."""
    body, type_ = await download(service, derived["content"])
    assert sha256(body).hexdigest() == derived["sha256"] == derived["media"]["sha256"]
    assert len(body) == derived["media"]["size_bytes"]
    assert SIGNATURES[recipe] in body[:12]
    assert type_.split("/")[0] == derived["media"]["kind"]


@pytest.mark.timeout(240)
async def test_an_avatar_of_three_sources_reaches_its_fitter_with_all_that_was_derived(
    tmp_path: Path,
) -> None:
    async with origin() as source:
        environ = {"GREENROOM_FETCH_ALLOW": f"127.0.0.1/32:{source.port}"}
        async with dev(tmp_path / "data", environ) as service:
            avatar = await service.create(source.url, **ALL_THREE)
            verdict = await service.verdict_when(avatar, "fitting", "failed", within_s=200)
            assert (verdict["state"], verdict["cause"]) == ("fitting", None), verdict
            outcomes = {check["code"]: check["outcome"] for check in verdict["checks"]}
            assert set(outcomes) == {"face_mismatch", "voice_mismatch"}
            assert set(outcomes.values()) <= {"pass", "uncertain"}
            (event,) = await service.events("avatar.ready_for_fitting")
            for role, name in ALL_THREE.items():
                body, type_ = await download(service, event["data"]["sources"][role]["content"])
                assert body == (SAMPLES / name).read_bytes()
                assert type_ == "application/octet-stream"
            for recipe in SIGNATURES:
                await assert_derived(service, event["data"][recipe], recipe)
            profile = await service.get(f"/avatar-profiles/{avatar}")
            preview, type_ = await download(service, profile["video_preview_url"])
            assert sha256(preview).hexdigest() == event["data"]["preview"]["sha256"]
            assert type_ == "video/mp4"
