import os
from pathlib import Path

import pytest

from validators.facts import Kind
from validators.media.signature import (
    ALLOWED,
    demuxer,
    id3_length,
    identify,
    read_signature,
)

ID3 = b"ID3\x04\x00\x00\x00\x00\x01\x02"  # 130 bytes follow
MP3_FRAME = b"\xff\xfb\x90\x64"
ADTS_FRAME = b"\xff\xf1\x50\x80"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x00\x00\x00\x20ftypisom", "mp4"),
        (b"\x00\x00\x00\x20ftypqt  ", "mov"),
        (b"\x00\x00\x00\x20ftypM4A ", "m4a"),
        (b"\x00\x00\x00\x20ftyp3gp5", "3gp"),
        (b"\x00\x00\x00\x20ftypavif", "avif"),
        (b"\x00\x00\x00\x20ftypheic", "heic"),
        (b"\x00\x00\x00\x08wide\x00\x00", "mov"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm", "webm"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x88matroska", "matroska"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "wav"),
        (b"RF64\xff\xff\xff\xffWAVEds64", "wav"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "avi"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "webp"),
        (b"FORM\x00\x00\x00\x00AIFFCOMM", "aiff"),
        (b"fLaC\x00\x00\x00\x22", "flac"),
        (b"OggS\x00\x02", "ogg"),
        (MP3_FRAME, "mp3"),
        (ADTS_FRAME, "aac"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"GIF89a", "gif"),
        (b"BM\x00\x00", "bmp"),
        ((b"G" + bytes(187)) * 3, "mpegts"),
        ((bytes(4) + b"G" + bytes(187)) * 3, "mpegts"),  # a camera's, with a clock in front
    ],
)
def test_the_first_bytes_name_the_format(head: bytes, name: str) -> None:
    assert identify(head) == name


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"<!doctype html><html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'>",
        b"#EXTM3U\n#EXT-X-VERSION:3\n",
        b"ffconcat version 1.0\n",
        b"%PDF-1.7",
        b"PK\x03\x04",
        b"G" + bytes(400),  # one sync byte is no transport stream
        b"\xff\xfb\xf0\x00",  # no bit rate
        b"RIFF\x00\x00\x00\x00CDDA",
    ],
)
def test_what_is_no_medium_has_no_name(head: bytes) -> None:
    assert identify(head) is None


def test_nothing_that_can_refer_to_another_file_is_allowed() -> None:
    referring = {"hls", "concat", "dash", "sdp", "image2", "svg", "imf", "asf"}
    assert not referring & {demuxer(name) for names in ALLOWED.values() for name in names}


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="Not a regular file"):
            read_signature(path)
    with pytest.raises(IsADirectoryError):
        read_signature(tmp_path)


def test_images_are_no_recordings_and_recordings_no_images() -> None:
    recordings = ALLOWED[Kind.VIDEO].keys() | ALLOWED[Kind.AUDIO].keys()
    assert not recordings & ALLOWED[Kind.IMAGE].keys()


def test_every_allowed_format_says_why() -> None:
    assert all(reason for names in ALLOWED.values() for reason in names.values())


@pytest.mark.parametrize(
    ("signature", "forced"), [("mp4", "mov"), ("webm", "matroska"), ("wav", "wav")]
)
def test_a_format_forces_its_demuxer(signature: str, forced: str) -> None:
    assert demuxer(signature) == forced


def test_the_length_of_a_tag_is_in_four_seven_bit_bytes() -> None:
    assert id3_length(ID3) == 10 + (1 << 7) + 2


@pytest.mark.parametrize(
    ("behind", "name"), [(MP3_FRAME, "mp3"), (ADTS_FRAME, "aac"), (b"fLaC", "flac"), (b"", "mp3")]
)
def test_a_tag_is_looked_behind(tmp_path: Path, behind: bytes, name: str) -> None:
    path = tmp_path / "song"
    path.write_bytes(ID3 + bytes(130) + behind)
    assert read_signature(path) == name


ZIP_END = b"PK\5\6" + bytes(18)  # an empty archive
ZIP = b"PK\1\2...." + b"PK\5\6" + bytes(8) + b"\x08" + bytes(9)  # a directory and its record


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xff\xd8\xff\xfe" + b"%PDF-1.4", "jpeg+pdf"),
        (b"\xff\xd8\xff\xfe" + bytes(1024) + b"%PDF-1.4", "jpeg"),  # readers stop looking
        (b"GIF89a" + ZIP_END, "gif+zip"),
        (b"GIF89a" + ZIP_END + b"x", "gif"),  # no comment is announced
        (b"GIF89a" + ZIP, "gif+zip"),
        (b"GIF89a" + ZIP + b"\n", "gif+zip"),  # which readers of archives forgive
        (
            b"GIF89a" + ZIP + b"PK\5\6" + b"\xff" * 18,
            "gif+zip",
        ),  # a false record behind the true one
        (b"GIF89a" + b"PK\5\6", "gif"),
        (b"GIF89a" + b"PK\5\6" + bytes(8) + b"\x09" + bytes(9), "gif"),  # no directory there
        (ZIP_END, None),
    ],
)
def test_what_is_something_else_as_well_is_named_as_both(
    tmp_path: Path, data: bytes, name: str | None
) -> None:
    path = tmp_path / "upload"
    path.write_bytes(data)
    assert read_signature(path) == name
