"""No medium makes a tool open a second file or a connection, whatever it is called.

Inspected as strangers' files are, and then with the tools' own command lines alone: the lists of
demuxers and protocols must hold without any sandbox around them.
"""

import asyncio
import itertools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import media
from tests.fakes.analyzer import FakeAnalyzer
from tests.integration.test_inspect import GOOD
from tests.makers import Bench
from tests.makers.references import BINARIES, TEXTS, Bait
from tests.watching import FileWatch, Listener, listening, watched_file
from validators.facts import Kind, StreamFacts, StreamType
from validators.inspect import Tools, inspect
from validators.media.decode import Plan, command
from validators.media.probe import _arguments
from validators.media.sandbox import Sandbox, tool_name
from validators.media.signature import read_signature
from validators.policy import STANDARD
from validators.verdict import Code

EXTENSIONS: tuple[str, ...] = (
    "mp4",
    "mov",
    "m4a",
    "webm",
    "mkv",
    "mp3",
    "wav",
    "png",
    "jpg",
    "gif",
    "avi",
    "txt",
)
EXTENSIONS += ("m3u8", "ffconcat", "mpd", "sdp", "svg", "%03d.ts", "")
FOLLOWING: tuple[str, ...] = (
    "hls, a file",
    "hls, a connection",
    "ffconcat, absolute",
    "dash",
    "session description",
)
FOLLOWING += ("svg", "image pattern", "rtsp text")
NOT_TAKEN = frozenset({Code.UNSUPPORTED_FORMAT, Code.UNREADABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """A medium and a port that are watched, beside the file that names them."""

    bench: Bench
    bait: Bait
    file: FileWatch
    port: Listener

    def expect_untouched(self) -> None:
        assert not self.file.was_touched(), "the other file was opened"
        assert not self.port.was_called(), "something connected"

    def text(self, name: str, extension: str) -> Path:
        path = self.bench.folder / ("hostile." + extension if extension else "hostile")
        path.write_text(TEXTS[name](self.bait))
        return path


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    sibling = media.clip(
        tmp_path / "001.ts", seconds=4.2, codecs=("-c:v", "mpeg2video", "-f", "mpegts")
    )
    with watched_file(sibling) as file, listening() as port:
        bait = Bait(sibling=sibling, host=port.host)
        yield Trap(bench=Bench(tmp_path), bait=bait, file=file, port=port)


async def failures(path: Path, kind: Kind) -> set[Code]:
    tools = Tools(sandbox=Sandbox(), analyzer=FakeAnalyzer(answer=GOOD))
    return set((await inspect(path, kind, STANDARD, tools)).verdict.failed)


@pytest.mark.parametrize("name", TEXTS)
async def test_a_list_of_other_media_is_none_under_every_name(trap: Trap, name: str) -> None:
    for extension, kind in itertools.product(EXTENSIONS, Kind):
        path = trap.text(name, extension)
        assert NOT_TAKEN & await failures(path, kind), f"{extension} as {kind}"
    trap.expect_untouched()


@pytest.mark.parametrize("name", BINARIES)
async def test_a_medium_that_names_another_opens_nothing(trap: Trap, name: str) -> None:
    """What refers is ignored or makes the file unreadable; the rest is judged by itself."""
    make, usual = BINARIES[name]
    hostile = make(trap.bench, trap.bait)
    trap.file.was_touched()  # making it may have
    for extension, kind in [("", Kind(usual)), ("txt", Kind.VIDEO), ("m3u8", Kind.AUDIO)]:
        path = hostile.rename(hostile.with_suffix(f".{extension}" if extension else ""))
        await failures(path, kind)
        hostile = path
    assert NOT_TAKEN & await failures(hostile, Kind.IMAGE)
    trap.expect_untouched()


@pytest.mark.parametrize("name", ["mov, external data", "mov, reference movie"])
async def test_a_track_that_lies_elsewhere_is_no_track(trap: Trap, name: str) -> None:
    hostile = BINARIES[name][0](trap.bench, trap.bait)
    assert await failures(hostile, Kind.VIDEO) & {*NOT_TAKEN, Code.NO_VIDEO_STREAM}


def run(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, check=False, capture_output=True, timeout=20)


def probing(path: Path, signature: str) -> list[str]:
    return [tool_name("ffprobe"), *_arguments(path, signature, 16)]


def decoding(path: Path, signature: str) -> list[str]:
    video = StreamFacts(index=0, type=StreamType.VIDEO, codec="h264", width=320, height=240)
    plan = Plan(
        signature=signature,
        size_bytes=0,
        video=video,
        audio=None,
        up_to_s=16,
        max_pixels=10**7,
    )
    return command(path, plan, ffmpeg_name=tool_name("ffmpeg"))


@pytest.mark.parametrize("signature", ["mp4", "webm", "mpegts", "avi", "mp3"])
def test_no_demuxer_of_ours_follows_a_text_without_a_sandbox(trap: Trap, signature: str) -> None:
    for name in FOLLOWING:
        run(probing(trap.text(name, "m3u8"), signature))
        assert not trap.file.was_touched(), name
    run(decoding(trap.text("hls, a file", "m3u8"), signature))
    run(decoding(trap.text("ffconcat", "ffconcat"), signature))
    trap.expect_untouched()


@pytest.mark.parametrize("name", BINARIES)
def test_no_medium_is_followed_without_a_sandbox(trap: Trap, name: str) -> None:
    hostile = BINARIES[name][0](trap.bench, trap.bait)
    signature = read_signature(hostile)
    assert signature is not None
    trap.file.was_touched()
    run(probing(hostile, signature))
    run(decoding(hostile, signature))
    trap.expect_untouched()


@pytest.mark.parametrize("odd", ["subfile,,start,0,end,9,,", "concat", "http", "001.ts|002.ts"])
async def test_a_name_that_looks_like_a_protocol_is_a_name(trap: Trap, odd: str) -> None:
    clip = media.clip(trap.bench.folder / "a.mp4", seconds=4.2, size="640x512")
    path = clip.rename(trap.bench.folder / f"{odd}:001.ts")
    assert await failures(path, Kind.VIDEO) == set()
    trap.expect_untouched()


ANY_DEMUXER = ["-protocol_whitelist", "file,tcp,udp,rtp,http,crypto,data"]
ANY_SEGMENT = ["-allowed_extensions", "ALL"]


@pytest.mark.parametrize("name", ["hls, a file", "ffconcat", "hls, a map"])
async def test_left_to_itself_the_tool_opens_the_other_file(trap: Trap, name: str) -> None:
    """So the watch is a watch, and the lists are what keeps it silent."""
    demuxing = ANY_SEGMENT if name.startswith("hls") else ["-safe", "0"]
    form = ["-f", "hls" if name.startswith("hls") else "concat"]
    path = trap.text(name, "mp4")
    await asyncio.to_thread(run, [tool_name("ffprobe"), *ANY_DEMUXER, *form, *demuxing, str(path)])
    assert trap.file.was_touched()


def test_left_to_itself_the_tool_connects(trap: Trap) -> None:
    path = trap.text("hls, a connection", "mp4")
    opened = [tool_name("ffprobe"), *ANY_DEMUXER, "-f", "hls", str(path)]
    with subprocess.Popen(opened, stdout=-1, stderr=-1) as process:
        try:
            process.wait(timeout=3)  # it may wait for an answer
        except subprocess.TimeoutExpired:
            process.kill()
    assert trap.port.was_called()


def test_left_to_itself_the_tool_follows_a_track(trap: Trap) -> None:
    hostile = BINARIES["mov, external data"][0](trap.bench, trap.bait)
    trap.file.was_touched()
    run([tool_name("ffprobe"), "-enable_drefs", "1", "-use_absolute_path", "1", str(hostile)])
    assert trap.file.was_touched()
