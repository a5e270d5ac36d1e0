"""Media that cost more processor time than any recording are refused, busy machine or not."""

import asyncio
import subprocess
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from tests import media
from tests.fakes.analyzer import FakeAnalyzer
from validators.errors import ToolSpentError
from validators.facts import Kind, StreamFacts, StreamType
from validators.inspect import Tools, measure
from validators.media.sandbox import Limits, Sandbox
from validators.media.spending import OPENING_S, decoding_s, spent_s, within
from validators.policy import STANDARD
from validators.rules import judge
from validators.verdict import Code

STINGY = Limits(cpu_s=1)


def many_scans(path: Path, *, scans: int) -> Path:
    """A progressive JPEG that is drawn over again and again: 51 bytes, and as slow as a picture."""
    Image.new("RGB", (3000, 2500), (90, 90, 90)).save(path, progressive=True, quality=50)
    data = path.read_bytes()
    first, second, third = (_nth(data, b"\xff\xda", which) for which in (1, 2, 3))
    scan = data[second:third].partition(b"\xff\xc4")[0]
    assert first < second
    path.write_bytes(data[:third] + scan * scans + data[third:])
    return path


def _nth(data: bytes, what: bytes, which: int) -> int:
    at = -1
    for _ in range(which):
        at = data.index(what, at + 1)
    return at


def drawn_for_ever(path: Path) -> Path:
    """A short video of such pictures, in which each frame takes seconds."""
    frame = many_scans(path.with_suffix(".jpg"), scans=400)
    still = ("-f", "image2", "-loop", "1", "-framerate", "10", "-i", frame)
    sound = ("-f", "lavfi", "-i", "sine=f=330:r=16000:d=5")
    media.ffmpeg(*still, *sound, "-frames:v", "50", "-c:v", "copy", "-c:a", "pcm_s16le", path)
    return path


def with_many_words(path: Path, *, words: int) -> Path:
    """The same PNG with so many pieces of text in front of its pixels."""
    data = path.read_bytes()
    at = data.index(b"IDAT") - 4
    texts = (b"tEXt" + f"{number}\0a".encode() for number in range(words))
    chunks = ((len(text) - 4).to_bytes(4) + text + zlib.crc32(text).to_bytes(4) for text in texts)
    path.write_bytes(data[:at] + b"".join(chunks) + data[at:])
    return path


async def test_a_tool_that_computes_too_long_is_stopped_before_its_deadline() -> None:
    began = time.monotonic()
    with pytest.raises(ToolSpentError):
        await Sandbox().run(["sh", "-c", "while :; do :; done"], cpu_s=0.5)
    assert time.monotonic() - began < 30


async def test_waiting_costs_nothing() -> None:
    completed = await Sandbox().run(["sleep", "1"], cpu_s=0.2)
    assert completed.succeeded


async def test_what_is_watched_over_is_cancelled_with_its_watch() -> None:
    ended = asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await within(60, 1, never())
    assert ended.is_set()


def test_all_threads_of_a_process_count() -> None:
    busy = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    try:
        time.sleep(0.5)
        assert 0.02 < spent_s(busy.pid) < 5
    finally:
        busy.kill()
        busy.wait()
    assert spent_s(busy.pid) == 0


async def test_a_video_that_takes_too_long_to_decode_is_unreadable(tmp_path: Path) -> None:
    path = await asyncio.to_thread(drawn_for_ever, tmp_path / "a.avi")
    tools = Tools(sandbox=Sandbox(limits=STINGY), analyzer=FakeAnalyzer())
    facts = await measure(path, Kind.VIDEO, tools)
    assert facts.decode is not None
    assert not facts.decode.complete
    assert Code.UNREADABLE in judge(facts, STANDARD).failed


async def test_a_container_that_takes_too_long_to_read_is_unreadable(tmp_path: Path) -> None:
    busy = tmp_path / "ffprobe"
    busy.write_text("#!/bin/sh\nwhile :; do :; done\n")
    busy.chmod(0o755)
    tools = Tools(sandbox=Sandbox(limits=STINGY), analyzer=FakeAnalyzer(), ffprobe=str(busy))
    facts = await measure(media.tone(tmp_path / "a.wav"), Kind.AUDIO, tools)
    assert facts.unreadable is not None
    assert judge(facts, STANDARD).failed == (Code.UNREADABLE,)


async def test_a_picture_that_takes_too_long_to_decode_is_unreadable(tmp_path: Path) -> None:
    path = with_many_words(media.still(tmp_path / "a.png"), words=300_000)
    tools = Tools(sandbox=Sandbox(limits=STINGY), analyzer=FakeAnalyzer())
    facts = await measure(path, Kind.IMAGE, tools)
    assert facts.picture is None
    assert judge(facts, STANDARD).failed == (Code.UNREADABLE,)


def test_twice_what_a_large_recording_costs_is_granted() -> None:
    full_hd = StreamFacts(
        index=0, type=StreamType.VIDEO, codec="h264", width=1920, height=1080, packets=450
    )
    assert decoding_s(full_hd, 20_000_000) > 2 * 10  # one thread decodes that in 10 s
    assert decoding_s(None, 1_000_000) < OPENING_S + 1


def test_4k_of_60_frames_a_second_is_granted_twice_its_cost_as_well() -> None:
    """HEVC with 10 bits: 74 s of processor time were measured."""
    video = StreamFacts(
        index=0, type=StreamType.VIDEO, codec="hevc", width=3840, height=2160, packets=900
    )
    assert min(Limits().cpu_s, decoding_s(video, 30_000_000)) > 2 * 74
