"""Containers: durations that lie, packets that are missing, tracks that nobody expects."""

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests import media
from tests.makers import COPY, PORTRAIT, X264, Bench, maker

AES = ("-encryption_key", "0123456789abcdef0123456789abcdef", "-encryption_kid", "00" * 16)


def patched(bench: Bench, source: Path, *changes: tuple[bytes, int, bytes]) -> Path:
    """*source* with bytes replaced at an offset from the first place of each box's name."""
    data = bytearray(source.read_bytes())
    for box, offset, new in changes:
        at = data.index(box) + offset
        data[at : at + len(new)] = new
    return bench.write(bytes(data), source.suffix[1:])


@maker
def movie_header_says_an_hour(bench: Bench) -> Path:
    data = bench.clip.read_bytes()
    ticks = int.from_bytes(data[(at := data.index(b"mvhd") + 16) : at + 4])
    return patched(bench, bench.clip, (b"mvhd", 20, (3600 * ticks).to_bytes(4)))


@maker
def headers_say_five_seconds_of_twenty(bench: Bench) -> Path:
    looped = bench.new()
    media.ffmpeg("-stream_loop", "3", "-i", bench.clip, *COPY, "-use_editlist", "0", looped)
    return media.lying(bench.new(), looped, seconds=5)


@maker
def fragmented_and_without_a_duration(bench: Bench) -> Path:
    return bench.convert(*COPY, "-movflags", "frag_keyframe+empty_moov+default_base_moof")


@maker
def piped_and_without_a_duration(bench: Bench) -> Path:
    return bench.convert(*COPY, "-live", "1", to="mkv")


@maker
def cut_at_55_percent(bench: Bench) -> Path:
    return media.truncated(bench.new(), bench.whole, 0.55)


@maker
def cut_at_80_percent(bench: Bench) -> Path:
    return media.truncated(bench.new(), bench.whole, 0.80)


@maker
def index_at_the_end(bench: Bench) -> Path:
    path = bench.convert(*COPY)
    data = path.read_bytes()
    assert data.index(b"mdat") < data.index(b"moov")
    return path


@maker
def index_at_the_end_cut_off(bench: Bench) -> Path:
    return media.truncated(bench.new(), index_at_the_end(bench), 0.9)


@maker
def sound_two_seconds_late(bench: Bench) -> Path:
    """With an empty edit, as ffmpeg writes it."""
    path = bench.new()
    late = ("-itsoffset", "2", "-i", bench.clip, "-map", "0:v", "-map", "1:a")
    media.ffmpeg("-i", bench.whole, *late, *COPY, path)
    return path


@maker
def edit_list_at_half_speed(bench: Bench) -> Path:
    data = bench.clip.read_bytes()
    entries = int.from_bytes(data[(at := data.index(b"elst") + 8) : at + 4])
    return patched(bench, bench.clip, (b"elst", 12 * entries + 8, b"\x00\x00\x80\x00"))


@maker
def edit_list_that_cuts_the_start_off(bench: Bench) -> Path:
    """A copy from the middle of a group of pictures: what comes before is held and not shown."""
    path = bench.new()
    long = bench.convert(*X264, "-g", "250", "-c:a", "copy", source=bench.whole)
    media.ffmpeg("-ss", "1.5", "-i", long, *COPY, path)
    return path


@maker
def picture_of_5_s_and_sound_of_40_s(bench: Bench) -> Path:
    path = bench.new()
    sound = ("-stream_loop", "8", "-t", "40", "-i", bench.voice)
    media.ffmpeg("-i", bench.clip, *sound, "-map", "0:v", "-map", "1:a", "-c:v", "copy", path)
    return path


@maker
def sound_of_3_s_under_a_longer_picture(bench: Bench) -> Path:
    path = bench.new()
    sound = ("-t", "3", "-i", bench.clip, "-map", "0:v", "-map", "1:a")
    media.ffmpeg("-i", bench.whole, *sound, *COPY, path)
    return path


@maker
def one_frame_for_eight_seconds(bench: Bench) -> Path:
    path = bench.new()
    still = ("-loop", "1", "-framerate", "1/8", "-t", "8", "-i", PORTRAIT)
    sound = ("-stream_loop", "1", "-i", bench.voice)
    media.ffmpeg(*still, *sound, "-t", "8", *X264, path)
    return path


@maker
def photo_for_five_seconds(bench: Bench) -> Path:
    path = bench.new()
    still = ("-loop", "1", "-framerate", "15", "-i", PORTRAIT)
    media.ffmpeg(*still, "-i", bench.voice, "-t", "5", *X264, path)
    return path


@maker
def three_seconds(bench: Bench) -> Path:
    return bench.convert("-t", "3", *COPY)


@maker
def sixteen_seconds(bench: Bench) -> Path:
    path = bench.new()
    media.ffmpeg("-stream_loop", "2", "-t", "16", "-i", bench.whole, *COPY, path)
    return path


@maker
def no_extension(bench: Bench) -> Path:
    path = bench.new().with_suffix("")
    path.write_bytes(bench.clip.read_bytes())
    return path


@maker
def video_called_png(bench: Bench) -> Path:
    return bench.write(bench.clip.read_bytes(), "png")


@maker
def encrypted(bench: Bench) -> Path:
    return bench.convert(*COPY, "-encryption_scheme", "cenc-aes-ctr", *AES)


@maker
def encrypted_sound(bench: Bench) -> Path:
    scheme = ("-encryption_scheme", "cenc-aes-ctr")
    return bench.convert("-c:a", "aac", *scheme, *AES, source=bench.voice, to="mp4")


@maker
def unknown_codec(bench: Bench) -> Path:
    return patched(bench, bench.clip, (b"avc1\x00", 0, b"zzz1"))


@maker
def unknown_codec_of_sound(bench: Bench) -> Path:
    return patched(bench, bench.voice, (b"fmt ", 8, b"\x34\x12"))


@maker
def codec_that_is_not_taken(bench: Bench) -> Path:
    return bench.convert("-c:v", "msmpeg4v2", "-c:a", "libmp3lame", to="avi")


@maker
def two_pictures(bench: Bench) -> Path:
    return bench.convert("-map", "0:v", "-map", "0:v", "-map", "0:a", *COPY)


@maker
def two_sounds(bench: Bench) -> Path:
    return bench.convert("-map", "0:v", "-map", "0:a", "-map", "0:a", *COPY)


@maker
def cover_art_beside_a_voice(bench: Bench) -> Path:
    path = bench.new("m4a")
    maps = ("-map", "0", "-map", "1", "-c:a", "aac", "-c:v", "copy", "-disposition:v")
    media.ffmpeg("-i", bench.voice, "-i", PORTRAIT, *maps, "attached_pic", path)
    return path


@maker
def cover_art_beside_a_clip(bench: Bench) -> Path:
    path = bench.new()
    maps = ("-map", "0", "-map", "1", *COPY, "-disposition:v:1", "attached_pic")
    media.ffmpeg("-i", bench.clip, "-i", PORTRAIT, *maps, path)
    return path


@maker
def subtitles_and_time_codes(bench: Bench) -> Path:
    coded = bench.convert(*COPY, "-timecode", "01:00:00:00", to="mov")
    return media.subtitled(bench.new("mov"), coded, seconds=3)


@maker
def track_of_data(bench: Bench) -> Path:
    """A track of a kind that no player knows, as action cameras write for their position."""
    coded = bench.convert(*COPY, "-timecode", "01:00:00:00", to="mov")
    data = coded.read_bytes()
    at = data.index(b"hdlr", data.index(b"tmcd"))
    data = data[:at] + data[at:].replace(b"tmcd", b"gpmd", 1)
    return bench.write(data.replace(b"mhlrtmcd", b"mhlrmeta"), "mov")


@maker
def a_hundred_tracks(bench: Bench) -> Path:
    return bench.convert("-map", "0:v", *("-map", "0:a") * 110, *COPY, "-t", "4.2", to="mkv")


@maker
def a_million_packets(bench: Bench) -> Path:
    """A Matroska of one sample of sound in each block."""
    return bench.write(b"".join(_blocks(1_000_000)), "mkv")


def _element(number: str, content: bytes) -> bytes:
    return bytes.fromhex(number) + (len(content) | 1 << 56).to_bytes(8) + content


def _blocks(packets: int) -> Iterator[bytes]:
    rate = _element("b5", struct.pack(">d", 8000)) + _element("6264", b"\x08")
    sound = _element("e1", rate + _element("9f", b"\x01"))
    codec = _element("86", b"A_PCM/INT/LIT")
    track = _element("d7", b"\x01") + _element("73c5", b"\x01") + _element("83", b"\x02")
    yield _element("1a45dfa3", _element("4282", b"matroska"))
    yield bytes.fromhex("18538067") + b"\x01" + b"\xff" * 7  # a segment of unknown length
    yield _element("1654ae6b", _element("ae", track + codec + sound))
    second = _element("a3", bytes.fromhex("8100008080")) * 100_000
    for at_s in range(packets // 100_000):
        yield _element("1f43b675", _element("e7", (at_s * 1000).to_bytes(2)) + second)


@maker
def nothing(bench: Bench) -> Path:
    return bench.write(b"")


@maker
def one_byte(bench: Bench) -> Path:
    return bench.write(b"\x00")


@maker
def file_type_alone(bench: Bench) -> Path:
    return bench.write(b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41")


@maker
def header_of_png_alone(bench: Bench) -> Path:
    return bench.write(b"\x89PNG\r\n\x1a\n", "png")


@maker
def no_sound(bench: Bench) -> Path:
    return bench.convert("-an", "-c:v", "copy")


@maker
def silence(bench: Bench) -> Path:
    path = bench.new()
    quiet = ("-f", "lavfi", "-i", "anullsrc=r=48000:cl=stereo", "-shortest", "-map", "0:v")
    media.ffmpeg("-i", bench.clip, *quiet, "-map", "1:a", "-c:v", "copy", path)
    return path


@maker
def sound_in_an_mp4(bench: Bench) -> Path:
    return bench.convert("-c:a", "aac", source=bench.voice, to="mp4")


@maker
def clip_and_zip(bench: Bench) -> Path:
    return with_zip(bench.write(bench.clip.read_bytes()))


def with_zip(path: Path) -> Path:
    """*path* with an archive behind it that any ZIP tool opens."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Main-Class: Hostile\n")
    return path
