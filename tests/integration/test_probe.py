import asyncio
from pathlib import Path

import pytest

from tests import media
from validators.errors import ToolCrashedError
from validators.facts import StreamType
from validators.media.probe import Probe, UnreadableError, _arguments, probe
from validators.media.sandbox import Sandbox, tool_name
from validators.media.signature import AUDIO_FORMATS, VIDEO_FORMATS, demuxer, read_signature

SANDBOX = Sandbox()


async def look(path: Path, signature: str | None = None) -> Probe:
    signature = signature or await asyncio.to_thread(read_signature, path)
    assert signature is not None
    return await probe(path, signature, SANDBOX, ffprobe=tool_name("ffprobe"), up_to_s=20)


def length_s(probed: Probe) -> float:
    length = probed.length_s((*probed.container.video, *probed.container.audio))
    assert length is not None
    return length


async def test_streams_are_described_and_their_packets_counted(tmp_path: Path) -> None:
    probed = await look(media.clip(tmp_path / "a.mp4", seconds=5))
    video, audio = probed.container.streams
    assert (video.type, video.codec, video.width, video.height) == (
        StreamType.VIDEO,
        "h264",
        320,
        240,
    )
    assert (video.packets, video.promised_packets) == (125, 125)
    assert (audio.codec, audio.sample_rate_hz, audio.channels) == ("aac", 48_000, 1)
    assert audio.packets == audio.promised_packets
    assert length_s(probed) == pytest.approx(5, abs=0.05)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a.ogg", "a.opus", "a.m4a", "a.aac"])
async def test_every_common_sound_opens_under_its_own_demuxer(tmp_path: Path, name: str) -> None:
    probed = await look(media.tone(tmp_path / name, seconds=5))
    assert len(probed.container.audio) == 1
    assert length_s(probed) == pytest.approx(5, abs=0.15)


async def test_a_truncated_file_promises_more_than_it_holds(tmp_path: Path) -> None:
    options = ("-movflags", "+faststart")
    whole = media.clip(tmp_path / "whole.mp4", options=options)
    probed = await look(media.truncated(tmp_path / "cut.mp4", whole, 0.5))
    video = probed.container.video[0]
    assert video.promised_packets == 125
    assert video.packets < 90


async def test_what_an_edit_list_leaves_out_was_not_promised(tmp_path: Path) -> None:
    whole = media.clip(tmp_path / "whole.mp4", seconds=8, options=("-g", "250"))
    cut = tmp_path / "cut.mp4"
    media.ffmpeg("-ss", "3", "-i", whole, "-c", "copy", cut)
    video = (await look(cut)).container.video[0]
    assert video.packets == video.promised_packets == 125


async def test_rotation_is_read_from_the_display_matrix(tmp_path: Path) -> None:
    flat = media.clip(tmp_path / "flat.mp4")
    turned = media.turned_clockwise(tmp_path / "turned.mp4", flat)
    video = (await look(turned)).container.video[0]
    assert video.rotation_deg == 90
    assert video.display_size == (240, 320)


async def test_cover_art_is_no_video(tmp_path: Path) -> None:
    cover, sound = media.still(tmp_path / "c.png"), media.tone(tmp_path / "s.mp3")
    both = tmp_path / "both.mp3"
    maps = ("-map", "0", "-map", "1", "-c", "copy", "-disposition:v", "attached_pic")
    media.ffmpeg("-i", sound, "-i", cover, *maps, both)
    container = (await look(both)).container
    assert len(container.streams) == 2
    assert container.video == ()


async def test_a_long_file_is_read_only_as_far_as_it_matters(tmp_path: Path) -> None:
    probed = await look(media.tone(tmp_path / "long.m4a", seconds=40, rate=8000))
    assert 19.5 <= length_s(probed) < 30
    assert probed.container.streams[0].promised_packets is None
    assert probed.container.declared_duration_s == pytest.approx(40, abs=0.1)


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nother.ts\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile other.ts\n",
        b"",
        b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41",
    ],
    ids=["hls", "ffconcat", "empty", "ftyp only"],
)
@pytest.mark.parametrize("signature", ["mp4", "webm", "mp3", "wav"])
async def test_no_bytes_make_it_open_another_file(
    tmp_path: Path, content: bytes, signature: str
) -> None:
    media.clip(tmp_path / "other.ts")
    path = tmp_path / "hostile.mp4"
    path.write_bytes(content)
    try:
        probed = await look(path, signature)
    except UnreadableError:
        return
    assert probed.container.video == probed.container.audio == ()


async def test_a_reference_to_another_file_is_not_followed(tmp_path: Path) -> None:
    """With the option that ffmpeg has for it, it would be: so the reference is a real one."""
    other = media.clip(tmp_path / "other.mov", seconds=4, sound=False)
    hostile = media.referring(tmp_path / "hostile.mov", other, str(other))
    probed = await look(hostile)
    assert probed.container.streams[0].packets == 0
    follow = ("-enable_drefs", "1", "-use_absolute_path", "1")
    shown = ("-show_entries", "packet=size", "-of", "csv=p=0")
    argv = [tool_name("ffprobe"), "-v", "error", *follow, *shown, str(hostile)]
    assert (await SANDBOX.run(argv, reads=[hostile, other])).stdout.count(b"\n") == 100
    assert (await SANDBOX.run(argv, reads=[hostile])).stdout.count(b"\n") == 0


@pytest.mark.parametrize("signature", sorted({*VIDEO_FORMATS, *AUDIO_FORMATS}))
def test_every_opening_is_of_one_demuxer_and_a_local_file(signature: str) -> None:
    argv = _arguments(Path("/m"), signature, 21)
    for option, value in (
        ("-f", demuxer(signature)),
        ("-format_whitelist", demuxer(signature)),
        ("-protocol_whitelist", "file,pipe"),
    ):
        assert argv[argv.index(option) + 1] == value
    assert argv[-1] == "file:/m"
    assert not {"-enable_drefs", "-use_absolute_path", "-safe"} & set(argv)


async def test_a_name_that_looks_like_a_protocol_is_a_file(tmp_path: Path) -> None:
    odd = media.clip(tmp_path / "a.mp4").rename(tmp_path / "http:%2d02 x.mp4")
    assert (await look(odd)).container.video


async def test_sound_that_ffprobe_gives_up_on_without_a_word_is_unreadable(tmp_path: Path) -> None:
    path = media.tone(tmp_path / "a.m4a", options=("-c:a", "alac"))
    data = bytearray(path.read_bytes())
    depth = data.index(b"alac", data.index(b"alac", data.index(b"stsd")) + 4) + 13
    assert data[depth] == 16
    data[depth] = 114
    path.write_bytes(data)
    with pytest.raises(UnreadableError):
        await look(path)


async def test_an_ffprobe_that_ends_without_a_word_is_ours_to_mend(tmp_path: Path) -> None:
    path = media.tone(tmp_path / "a.wav")
    with pytest.raises(ToolCrashedError, match="said nothing"):
        await probe(path, "wav", Sandbox(), ffprobe="false", up_to_s=21)
