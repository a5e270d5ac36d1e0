"""`greenroom check --pair` as a person types it."""

from pathlib import Path

import pytest

from tests import media
from tests.integration.test_commands import greenroom
from validators.facts import Kind

SAMPLES = Path(__file__).parents[2] / "samples"
CLIP, PORTRAIT, VOICE = (
    SAMPLES / name for name in ("one_person.mp4", "portrait.jpg", "voice.flac")
)


async def test_a_pair_is_judged_after_its_media() -> None:
    ended = await greenroom("check", "--json", CLIP, "--pair", PORTRAIT, VOICE)
    *verdicts, pair = ended.lines
    assert [line["path"] for line in verdicts] == [str(CLIP), str(PORTRAIT), str(VOICE)]
    assert [line["media"]["kind"] for line in verdicts] == ["video", "image", "audio"]
    assert pair["pair"] == {"video": str(CLIP), "image": str(PORTRAIT), "audio": str(VOICE)}
    assert pair["verdict"] == "accepted"
    assert [(c["code"], c["outcome"]) for c in pair["checks"]] == [
        ("face_mismatch", "pass"),
        ("voice_mismatch", "pass"),
    ]
    assert ended.status == 0


async def test_another_voice_rejects_the_pair_alone(tmp_path: Path) -> None:
    man = media.speech(tmp_path / "man.wav", voice="en-us+m3")
    ended = await greenroom("check", "--json", CLIP, "--pair", "-", man)
    video, audio, pair = ended.lines
    assert (video["verdict"], audio["verdict"]) == ("accepted", "accepted")
    assert set(pair["pair"]) == {"video", "audio"}
    assert pair["verdict"] == "rejected"
    assert [(c["code"], c["outcome"]) for c in pair["checks"]] == [
        ("face_mismatch", "skipped"),
        ("voice_mismatch", "fail"),
    ]
    assert ended.status == 1


async def test_what_is_not_accepted_is_not_compared(tmp_path: Path) -> None:
    nobody = media.still(tmp_path / "nobody.png", size=(640, 480))
    ended = await greenroom("check", "--json", CLIP, "--pair", nobody, "-")
    video, image, pair = ended.lines
    assert (video["verdict"], image["verdict"]) == ("accepted", "rejected")
    assert pair["error"]["code"] == "not_compared"
    assert nobody.name in pair["error"]["message"]
    assert ended.status == 1


@pytest.mark.parametrize("words", [("-", "-"), (PORTRAIT, VOICE, "--kind", Kind.AUDIO)])
async def test_a_pair_of_nothing_is_a_mistake(words: tuple[str | Path, ...]) -> None:
    ended = await greenroom("check", CLIP, "--pair", *words)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("greenroom: --pair: ")


async def test_people_read_a_pair_in_words() -> None:
    ended = await greenroom("check", CLIP, "--pair", PORTRAIT, "-")
    assert "together" in ended.out
    assert "face_mismatch" in ended.out
