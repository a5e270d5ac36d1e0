import asyncio
import os
import zlib
from pathlib import Path

import pytest
from PIL import Image

from tests import media
from tests.fakes.analyzer import drain
from validators.errors import ToolCrashedError
from validators.facts import PictureFacts
from validators.media.picture import UNREADABLE, Picture, decode_picture, parse
from validators.media.sandbox import Limits, Sandbox
from validators.media.signature import read_signature

SANDBOX = Sandbox()


async def look(
    path: Path, *, max_pixels: int = 50_000_000, sandbox: Sandbox = SANDBOX
) -> tuple[Picture, bytes]:
    signature = await asyncio.to_thread(read_signature, path)
    assert signature is not None
    opened: asyncio.Future[Picture] = asyncio.get_running_loop().create_future()
    read, write = os.pipe()
    reading = asyncio.create_task(asyncio.to_thread(drain, read))
    try:
        await decode_picture(
            path, signature, sandbox, max_pixels=max_pixels, frame_fd=write, opened=opened
        )
    finally:
        frame = await reading
    return await opened, frame


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif"])
async def test_a_picture_becomes_one_frame(tmp_path: Path, name: str) -> None:
    picture, frame = await look(media.still(tmp_path / name))
    assert picture == Picture(facts=PictureFacts(width=64, height=48), frame=(64, 48))
    assert len(frame) == 64 * 48 * 3
    assert max(frame[:30]) < 60
    assert min(frame[64 * 3 - 30 : 64 * 3]) > 150


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "I;16"])
async def test_every_mode_of_a_png_becomes_colour(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    if mode == "I;16":
        deep = Image.new("I", (64, 48), 200 * 257)
        deep.paste(20 * 257, (0, 0, 32, 48))
        deep.convert("I;16").save(path)
    else:
        media.still(path, mode=mode)
    picture, frame = await look(path)
    assert picture.unreadable is None
    assert max(frame[:30]) < 60
    assert min(frame[64 * 3 - 30 : 64 * 3]) > 150


async def test_cmyk_is_not_inverted(tmp_path: Path) -> None:
    _, frame = await look(media.still(tmp_path / "a.jpg", mode="CMYK"))
    assert max(frame[:30]) < 60


async def test_what_is_transparent_shows_paper(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 48), (0, 0, 0, 0)).save(tmp_path / "a.png")
    _, frame = await look(tmp_path / "a.png")
    assert set(frame) == {255}


async def test_blue_comes_first(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (10, 20, 30)).save(tmp_path / "a.png")
    _, frame = await look(tmp_path / "a.png")
    assert frame[:3] == bytes([30, 20, 10])


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
async def test_the_camera_s_orientation_is_applied(tmp_path: Path, name: str) -> None:
    picture, frame = await look(media.still(tmp_path / name, orientation=6))
    assert picture.facts == PictureFacts(width=48, height=64)
    assert picture.frame == (48, 64)
    assert max(frame[: 48 * 3]) < 60  # dark was left: turned clockwise it is above


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
async def test_a_large_picture_is_scaled_and_its_own_size_told(tmp_path: Path, name: str) -> None:
    picture, frame = await look(media.still(tmp_path / name, size=(4000, 3000)))
    assert picture.facts == PictureFacts(width=4000, height=3000)
    assert picture.frame == (1280, 960)
    assert len(frame) == 1280 * 960 * 3


async def test_a_picture_over_the_cap_is_measured_and_not_decoded(tmp_path: Path) -> None:
    picture, frame = await look(media.still(tmp_path / "a.png"), max_pixels=64 * 48 - 1)
    assert picture == Picture(facts=PictureFacts(width=64, height=48))
    assert frame == b""


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
async def test_a_second_frame_makes_an_animation(tmp_path: Path, name: str) -> None:
    picture, frame = await look(media.animated(tmp_path / name))
    assert picture.facts == PictureFacts(width=64, height=48, frames=2)
    assert len(frame) == 64 * 48 * 3


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
async def test_a_truncated_picture_is_unreadable(tmp_path: Path, name: str) -> None:
    whole = tmp_path / f"whole{Path(name).suffix}"
    Image.effect_noise((400, 400), 80).convert("RGB").save(whole)
    picture, frame = await look(media.truncated(tmp_path / name, whole, 0.6))
    assert picture.unreadable
    assert picture.frame is None
    assert frame == b""


async def test_a_header_over_the_cap_costs_no_memory(tmp_path: Path) -> None:
    data = bytearray(media.still(tmp_path / "a.png").read_bytes())
    data[16:24] = (60_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    (tmp_path / "b.png").write_bytes(data)
    picture, frame = await look(tmp_path / "b.png")
    assert picture == Picture(facts=PictureFacts(width=60_000, height=60_000))
    assert frame == b""


async def test_a_header_that_lies_about_its_size_is_unreadable(tmp_path: Path) -> None:
    data = bytearray(media.still(tmp_path / "a.png").read_bytes())
    data[16:20] = (5000).to_bytes(4)
    (tmp_path / "b.png").write_bytes(data)
    picture, _ = await look(tmp_path / "b.png")
    assert picture.unreadable


async def test_a_chunk_that_claims_two_gigabytes_is_unreadable(tmp_path: Path) -> None:
    """Pillow asks for all of it at once, which its limits refuse."""
    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 64)).save(path)
    data = bytearray(path.read_bytes())
    length = data.index(b"IDAT") - 4
    data[length : length + 4] = (0x7FFF_FFFF).to_bytes(4, "big")
    path.write_bytes(data)
    picture, _ = await look(path)
    assert picture == Picture(facts=None, unreadable=UNREADABLE, strained=True)


async def test_the_previews_in_a_phone_s_jpeg_are_no_frames(tmp_path: Path) -> None:
    photo, preview = (Image.new("RGB", size, (90, 60, 30)) for size in ((64, 48), (32, 24)))
    photo.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    picture, _ = await look(tmp_path / "a.jpg")
    assert picture.facts == PictureFacts(width=64, height=48)


@pytest.mark.parametrize("line", [b"{}", b'{"unreadable": "x"}'])
def test_a_child_that_saw_no_size_saw_no_picture(line: bytes) -> None:
    assert parse(line).unreadable


@pytest.mark.parametrize("line", [b"", b"[]", b'{"width": "wide"}', b"Traceback"])
def test_senseless_words_of_the_child_are_our_failure(line: bytes) -> None:
    with pytest.raises(ToolCrashedError):
        parse(line)


async def test_too_little_memory_is_no_fault_of_the_picture(tmp_path: Path) -> None:
    path = media.still(tmp_path / "a.png", size=(6000, 6000))
    small = Sandbox(limits=Limits(address_space_bytes=100 << 20))
    with pytest.raises(ToolCrashedError, match="MemoryError"):
        await look(path, sandbox=small)
