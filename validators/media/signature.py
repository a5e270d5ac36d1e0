"""What a medium is by its first bytes, and which of these formats we take.

Bytes decide, never a name or a Content-Type. The format found here is the only demuxer that
ffmpeg may then open: left to choose for itself it would follow a playlist into another file.
"""

import errno
import os
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from validators.facts import Kind

HEAD_BYTES = 4096

VIDEO_FORMATS = {
    "mp4": "what phones, cameras and browsers record",
    "mov": "the same from Apple",
    "m4a": "so that sound alone is told by its missing picture, whatever its brand",
    "3gp": "the same from old phones",
    "matroska": "screen and stream recorders",
    "webm": "MediaRecorder in browsers",
    "avi": "old cameras; decodes reliably",
    "mpegts": "broadcast and camera recordings; truncation-proof",
}
AUDIO_FORMATS = {
    "mp3": "the common denominator",
    "wav": "recorders and studios",
    "flac": "lossless archives",
    "ogg": "Opus and Vorbis from messengers",
    "m4a": "voice memos",
    "aac": "raw streams of the same codec",
    "aiff": "studios; plain samples",
    "webm": "MediaRecorder in browsers",
    "mp4": "an m4a by another brand; its sound is used",
    "mov": "the same from Apple",
    "3gp": "phone voice recorders",
    "matroska": "a webm by another name",
}
IMAGE_FORMATS = {
    "jpeg": "cameras",
    "png": "editors",
    "webp": "the web",
    "gif": "so that animation can be told from the bytes and reported as such",
}
ALLOWED: dict[Kind, dict[str, str]] = {
    Kind.VIDEO: VIDEO_FORMATS,
    Kind.AUDIO: AUDIO_FORMATS,
    Kind.IMAGE: IMAGE_FORMATS,
}

VIDEO_CODECS = frozenset(
    {"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "h263", "mjpeg", "prores", "mpeg2video"}
)
AUDIO_CODECS = frozenset(
    {"aac", "mp3", "opus", "vorbis", "flac", "alac", "ac3", "eac3", "amr_nb", "amr_wb"}
    | {f"pcm_{kind}" for kind in ("u8", "s8", "s16le", "s16be", "s24le", "s24be", "s32le")}
    | {f"pcm_{kind}" for kind in ("s32be", "f32le", "f32be", "f64le", "f64be", "mulaw", "alaw")}
)

DEMUXERS = {
    "mp4": "mov",
    "m4a": "mov",
    "3gp": "mov",
    "webm": "matroska",
}  # where ffmpeg's name for the reader differs from ours


@dataclass(frozen=True, slots=True)
class _Magic:
    name: str
    at: int
    prefix: bytes


MAGICS = (
    _Magic("png", 0, b"\x89PNG\r\n\x1a\n"),
    _Magic("jpeg", 0, b"\xff\xd8\xff"),
    _Magic("gif", 0, b"GIF87a"),
    _Magic("gif", 0, b"GIF89a"),
    _Magic("bmp", 0, b"BM"),
    _Magic("tiff", 0, b"II*\x00"),
    _Magic("tiff", 0, b"MM\x00*"),
    _Magic("jp2", 0, b"\x00\x00\x00\x0cjP  \r\n\x87\n"),
    _Magic("flac", 0, b"fLaC"),
    _Magic("ogg", 0, b"OggS"),
    _Magic("flv", 0, b"FLV\x01"),
    _Magic("asf", 0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    _Magic("wavpack", 0, b"wvpk"),
    _Magic("amr", 0, b"#!AMR"),
)
FORM_TYPES = {
    (b"RIFF", b"WAVE"): "wav",
    (b"RF64", b"WAVE"): "wav",
    (b"RIFF", b"AVI "): "avi",
    (b"RIFF", b"WEBP"): "webp",
    (b"FORM", b"AIFF"): "aiff",
    (b"FORM", b"AIFC"): "aiff",
}
BRANDS = {
    b"qt  ": "mov",
    b"M4A ": "m4a",
    b"M4B ": "m4a",
    b"avif": "avif",
    b"avis": "avif",
    b"heic": "heic",
    b"heix": "heic",
    b"mif1": "heic",
    b"msf1": "heic",
}
OLD_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip")  # files without ftyp begin so
EBML = b"\x1a\x45\xdf\xa3"
TS_PACKETS = ((0, 188), (4, 192))  # first sync byte, packet length: broadcast, and cameras
ADTS = re.compile(rb"\xff[\xf0\xf1\xf8\xf9]")
LAYER_THREE = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]")  # any bit rate but none
ID3_HEADER_BYTES = 10
MAX_TAG_BYTES = 16 << 20  # a large cover has 5 MB; a longer tag is no cover
PDF = b"%PDF-"
PDF_WITHIN_BYTES = 1024  # how far readers of PDF look for its header
ZIP_END = struct.Struct("<4s8xI4xH")  # magic, size of the directory, size of the comment
ZIP_MAGIC = re.compile(b"PK\5\6")


def identify(head: bytes) -> str | None:
    """Our name of the format that begins with *head*, or None. Up to HEAD_BYTES are looked at."""
    for magic in MAGICS:
        if head.startswith(magic.prefix, magic.at):
            return magic.name
    return _form(head) or _iso_base_media(head) or _stream(head)


def id3_length(head: bytes) -> int:
    """Bytes of the ID3v2 tag in front of the sound (0: none); its size is four 7-bit bytes."""
    if not head.startswith(b"ID3") or len(head) < ID3_HEADER_BYTES:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return size + ID3_HEADER_BYTES


def read_signature(path: Path) -> str | None:
    """`identify` for a file; looks behind an ID3 tag. Blocks; raises OSError.

    What is a document or an archive as well is named as both, `jpeg+zip`: whoever gets the file
    later may open it as either.
    """
    expect_regular(path)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        name = _behind_tag(file, head) if id3_length(head) else identify(head)
        also = _second_nature(file, head)
    return name if name is None or also is None else f"{name}+{also}"


def tag_bytes(path: Path) -> int:
    """`id3_length` of a file. Blocks; raises OSError."""
    with path.open("rb") as file:
        return id3_length(file.read(ID3_HEADER_BYTES))


def _behind_tag(file: BinaryIO, head: bytes) -> str:
    file.seek(id3_length(head))
    behind = identify(file.read(HEAD_BYTES))
    return behind if behind in {"aac", "flac"} else "mp3"  # players skip any tag, so do we


def _second_nature(file: BinaryIO, head: bytes) -> str | None:
    """PDF and ZIP are found by what stands near the beginning, and at the end."""
    if PDF in head[:PDF_WITHIN_BYTES]:
        return "pdf"
    return "zip" if _ends_in_zip(file) else None


def _ends_in_zip(file: BinaryIO) -> bool:
    """Whether a directory of an archive stands where a record near the end of the file says.

    Readers forgive bytes behind it, and a comment may hold another such record.
    """
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - ZIP_END.size - 0xFFFF))
    tail = file.read()
    last = len(tail) - ZIP_END.size
    records = (found.start() for found in ZIP_MAGIC.finditer(tail) if found.start() <= last)
    return any(_has_directory(file, start, tail, at) for at in records)


def _has_directory(file: BinaryIO, start: int, tail: bytes, at: int) -> bool:
    """Whether the record at *at* is true. That of an empty archive has nothing but its length."""
    _, directory_bytes, comment_bytes = ZIP_END.unpack_from(tail, at)
    if directory_bytes == 0:
        return at + ZIP_END.size + int(comment_bytes) == len(tail)
    file.seek(max(0, start + at - directory_bytes))
    return file.read(4) == b"PK\1\2"


def expect_regular(path: Path) -> None:
    """Raise OSError for what is no regular file: a pipe or a device may never end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def demuxer(signature: str) -> str:
    """The one ffmpeg demuxer for a format, for `-f` and `-format_whitelist`."""
    return DEMUXERS.get(signature, signature)


def _form(head: bytes) -> str | None:
    return FORM_TYPES.get((head[:4], head[8:12]))


def _iso_base_media(head: bytes) -> str | None:
    if head[4:8] in OLD_QUICKTIME:
        return "mov"
    if head[4:8] != b"ftyp":
        return None
    brand = head[8:12]
    return "3gp" if brand.startswith((b"3gp", b"3g2")) else BRANDS.get(brand, "mp4")


def _stream(head: bytes) -> str | None:
    """Formats without a magic number at their very start, surest first."""
    if head.startswith(EBML):
        return "webm" if b"webm" in head[:64] else "matroska"
    if any(head[at : at + 2 * length + 1 : length] == b"GGG" for at, length in TS_PACKETS):
        return "mpegts"
    return _mpeg_audio(head)


def _mpeg_audio(head: bytes) -> str | None:
    """Both begin with 11 or 12 set bits; the two bits of the layer tell them apart."""
    if ADTS.match(head):
        return "aac"
    return "mp3" if LAYER_THREE.match(head) else None
