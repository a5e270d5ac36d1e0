"""Files that make a careless demuxer open another file, or a connection.

Each is a function of the other file's name and of a listener's address.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import media
from tests.makers import Bench, maker


@dataclass(frozen=True, slots=True, kw_only=True)
class Bait:
    """What must not be touched: a medium beside the hostile file, and a listener."""

    sibling: Path
    host: str  # 127.0.0.1:port

    @property
    def url(self) -> str:
        return f"http://{self.host}/x.ts"


TEXTS: Mapping[str, Callable[[Bait], str]] = {
    "hls, a file": lambda b: _hls(f"file://{b.sibling}"),
    "hls, a sibling": lambda b: _hls(b.sibling.name),
    "hls, a connection": lambda b: _hls(b.url),
    "hls, a key": lambda b: _hls(b.sibling.name, f'#EXT-X-KEY:METHOD=AES-128,URI="{b.url}"\n'),
    "hls, a map": lambda b: _hls(b.sibling.name, f'#EXT-X-MAP:URI="{b.sibling.name}"\n'),
    "hls, variants": lambda b: f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{b.url}\n",
    "hls, concatenated": lambda b: _hls(f"concat:{b.sibling}|{b.url}"),
    "hls, subfile": lambda b: _hls(f"subfile,,start,0,end,0,,:{b.sibling}"),
    "ffconcat": lambda b: f"ffconcat version 1.0\nfile {b.sibling.name}\n",
    "ffconcat, absolute": lambda b: f"ffconcat version 1.0\nfile '{b.sibling}'\n",
    "ffconcat, a connection": lambda b: f"ffconcat version 1.0\nfile {b.url}\n",
    "concat without a header": lambda b: f"file '{b.sibling}'\n",
    "dash": lambda b: _dash(f"file://{b.sibling}"),
    "dash, a connection": lambda b: _dash(b.url),
    "dash, an entity": lambda b: f'<!DOCTYPE x [<!ENTITY e SYSTEM "{b.url}">]>{_dash("&e;")}',
    "smooth streaming": lambda b: (
        f'<SmoothStreamingMedia><StreamIndex Url="{b.url}"/></SmoothStreamingMedia>'
    ),
    "composition playlist": lambda b: (
        '<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
        f"<Path>{b.sibling}</Path></CompositionPlaylist>"
    ),
    "session description": lambda b: (
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {b.host.rpartition(':')[2]} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    ),
    "svg": lambda b: (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<image xlink:href="{b.sibling}"/><image href="{b.url}"/></svg>'
    ),
    "m3u": lambda b: f"{b.sibling}\n{b.url}\n",
    "pls": lambda b: f"[playlist]\nFile1={b.sibling}\nFile2={b.url}\nNumberOfEntries=2\n",
    "asx": lambda b: f'<asx version="3.0"><entry><ref href="{b.url}"/></entry></asx>',
    "ram": lambda b: f"rtsp://{b.host}/x.rm\n",
    "windows reference": lambda b: f"[Reference]\nRef1={b.url}\nRef2={b.sibling}\n",
    "cue": lambda b: f'FILE "{b.sibling.name}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "subtitles": lambda b: f"WEBVTT\n\n00:00.000 --> 00:05.000\n<img src={b.url}>\n",
    "rtsp text": lambda b: f"RTSPtext\nrtsp://{b.host}/x.mov\n",
    "quicktime link": lambda b: f'<?quicktime type="application/x-qtl"?><embed src="{b.url}"/>',
    "smil": lambda b: f'<smil><body><video src="{b.url}"/></body></smil>',
    "xspf": lambda b: f"<playlist><location>file://{b.sibling}</location></playlist>",
    "vidstab": lambda b: f"VID.STAB 1\n{b.sibling}\n",
    "avisynth": lambda b: f'DirectShowSource("{b.sibling}")\n',
    "vapoursynth": lambda b: f'open("{b.sibling}").read()\n',
    "filter graph": lambda b: f"movie={b.sibling}\n",
    "image pattern": lambda b: f"{b.sibling.with_name('%03d.ts')}\n",
    "postscript": lambda b: f"%!PS\n({b.sibling}) run\n",
    "magick": lambda b: f"push graphic-context\nimage over 0,0 0,0 '{b.url}'\n",
}


def _hls(target: str, more: str = "") -> str:
    head = f"#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:5\n{more}"
    return f"{head}#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n"


def _dash(target: str) -> str:
    inner = f"<SegmentList><SegmentURL media='{target}'/></SegmentList>"
    level = f"<Representation id='1' bandwidth='1'><BaseURL>{target}</BaseURL>{inner}"
    head = "<MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'><Period><AdaptationSet>"
    return f"<?xml version='1.0'?>{head}{level}</Representation></AdaptationSet></Period></MPD>"


Binary = Callable[[Bench, Bait], Path]


def _external_data(bench: Bench, bait: Bait) -> Path:
    """A track whose samples are said to be in another file."""
    clip = media.clip(bench.new("mov"), seconds=4.2, size="640x512")
    return media.referring(bench.new("mov"), clip, str(bait.sibling))


def _external_url(bench: Bench, bait: Bait) -> Path:
    """The same by address, as ISO base media have it."""
    data = media.clip(bench.new("mov"), seconds=4.2, size="640x512").read_bytes()
    at = data.index(b"dref") + 12
    address = bait.url.encode() + b"\x00"
    length = int.from_bytes(data[at : at + 4])
    entry = (12 + len(address)).to_bytes(4) + b"url " + bytes(4) + address
    return bench.write(grown(data, data.index(b"dref"), at, length, entry), "mov")


def grown(data: bytes, inside: int, at: int, length: int, entry: bytes) -> bytes:
    """*data* with *entry* for what stands at *at*; the boxes around it are as much longer."""
    changed = bytearray(data)
    changed[at : at + length] = entry
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        start = changed.rindex(box, 0, inside + 4) - 4
        size = int.from_bytes(changed[start : start + 4]) + len(entry) - length
        changed[start : start + 4] = size.to_bytes(4)
    return bytes(changed)


def _reference_movie(bench: Bench, bait: Bait) -> Path:
    address = bait.url.encode() + b"\x00"
    inner = b"rdrf" + bytes(4) + b"url " + len(address).to_bytes(4) + address
    for name in (b"rmda", b"rmra", b"moov"):
        inner = name + (len(inner) + 4).to_bytes(4) + inner
    box = (len(inner) + 4).to_bytes(4) + inner
    return bench.write(b"\x00\x00\x00\x14ftypqt  " + bytes(4) + b"qt  " + box, "mov")


def _playlist_in_subtitles(bench: Bench, bait: Bait) -> Path:
    """Subtitles of an AVI are files in themselves (GAB2), and a demuxer of their own opens them."""
    text = _hls(f"file://{bait.sibling}").encode()
    name = "a.m3u8".encode("utf-16-le") + b"\x00\x00"
    gab2 = b"GAB2\x00\x02\x00" + len(name).to_bytes(4, "little") + name
    gab2 += b"\x04\x00" + len(text).to_bytes(4, "little") + text
    clip = media.clip(bench.new("avi"), seconds=4.2)
    data = clip.read_bytes()
    movie = data.index(b"movi") + 4
    chunk = b"02tx" + len(gab2).to_bytes(4, "little") + gab2 + bytes(len(gab2) % 2)
    header = b"strl" + b"strh" + (56).to_bytes(4, "little") + b"txts" + bytes(16)
    header += (1).to_bytes(4, "little") * 2 + bytes(28)
    header += b"strf" + bytes(4)
    stream = b"LIST" + len(header).to_bytes(4, "little") + header
    lists = data.index(b"hdrl") - 4
    length = int.from_bytes(data[lists : lists + 4], "little")
    head = data[:lists] + (length + len(stream)).to_bytes(4, "little")
    body = data[lists + 4 : lists + 4 + length] + stream
    rest = data[lists + 4 + length : movie] + chunk + data[movie:]
    return bench.write(head + body + rest, "avi")


def _linked_segments(bench: Bench, bait: Bait) -> Path:
    """A Matroska that names the file that goes before it, and one that is attached to it."""
    clip, path = media.clip(bench.new("mkv"), seconds=4.2, sound=False), bench.new("mkv")
    kind = ("-metadata:s:t", "mimetype=application/x-mpegurl")
    playlist = bench.write(_hls(f"file://{bait.sibling}").encode(), "m3u8")
    media.ffmpeg("-i", clip, "-c", "copy", "-attach", playlist, *kind, path)
    name = str(bait.sibling).encode()
    before = b"\x3c\x83\xab" + (len(name) | 1 << 56).to_bytes(8) + name  # PrevFilename
    data = path.read_bytes()
    at = data.index(b"\x15\x49\xa9\x66")  # Info
    size = data[at + 4 : at + 12]
    wide = size[0] == 1
    held = int.from_bytes(size[1:8]) if wide else size[0] & 0x7F
    start = at + (12 if wide else 5)
    info = before + data[start : start + held]
    head = data[:at] + data[at : at + 4] + (len(info) | 1 << 56).to_bytes(8)
    return bench.write(head + info + data[start + held :], "mkv")


def _linked_cover(bench: Bench, bait: Bait) -> Path:
    """An ID3 tag whose picture is an address: its type is said to be `-->`."""
    sound = media.tone(bench.new("mp3"), options=("-id3v2_version", "0")).read_bytes()
    picture = b"\x00-->\x00\x03\x00" + bait.url.encode()
    frame = b"APIC" + len(picture).to_bytes(4) + b"\x00\x00" + picture
    return bench.write(b"ID3\x03\x00\x00\x00\x00\x00" + bytes([len(frame)]) + frame + sound, "mp3")


BINARIES: Mapping[str, tuple[Binary, str]] = {
    "mov, external data": (_external_data, "video"),
    "mov, external address": (_external_url, "video"),
    "mov, reference movie": (_reference_movie, "video"),
    "avi, playlist in subtitles": (_playlist_in_subtitles, "video"),
    "matroska, linked segments": (_linked_segments, "video"),
    "mp3, linked cover": (_linked_cover, "audio"),
}

ELSEWHERE = Bait(sibling=Path("/etc/hostname"), host="127.0.0.1:9")


@maker
def ffconcat_called_mp4(bench: Bench) -> Path:
    return bench.write(TEXTS["ffconcat, absolute"](ELSEWHERE).encode())


@maker
def session_description_called_mp4(bench: Bench) -> Path:
    return bench.write(TEXTS["session description"](ELSEWHERE).encode())


@maker
def manifest_called_mp4(bench: Bench) -> Path:
    return bench.write(TEXTS["dash"](ELSEWHERE).encode())
