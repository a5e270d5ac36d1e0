"""Where the numbers of a medium are, and where its parts begin and end, by its container.

Only as much of each format as it takes to change a number that a parser will read, and to keep
the check-sums right around it: a reader that stops at a wrong check-sum looks no further.
"""

import re
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

MOST_WORDS = 48  # of a table; its later rows are read as its first ones
Order = Literal["big", "little"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """Bytes that a parser reads as one number. `mask`: the bits of them that are the number's."""

    at: int
    size: int
    name: str
    order: Order = "big"
    mask: int

    def read(self, data: bytes | bytearray) -> int:
        return int.from_bytes(data[self.at : self.at + self.size], self.order) & self.mask

    def write(self, data: bytearray, value: int) -> None:
        old = int.from_bytes(data[self.at : self.at + self.size], self.order)
        new = (old & ~self.mask) | (value & self.mask)
        data[self.at : self.at + self.size] = new.to_bytes(self.size, self.order)


@dataclass(slots=True)
class Layout:
    """What was found. A part is a box, chunk, page, packet or frame: its begin and its end."""

    data: bytes
    numbers: list[Number] = field(default_factory=list)
    parts: list[tuple[int, int]] = field(default_factory=list)

    def number(
        self, at: int, size: int, name: str, order: Order = "big", mask: int | None = None
    ) -> None:
        if at + size <= len(self.data):
            bits = (1 << 8 * size) - 1 if mask is None else mask
            self.numbers.append(Number(at=at, size=size, name=name, order=order, mask=bits))

    def words(self, start: int, end: int, size: int, name: str, order: Order = "big") -> None:
        """Numbers of one *size*, one after the other."""
        last = min(end, start + size * MOST_WORDS) - size
        for at in range(start, last + 1, size):
            self.number(at, size, f"{name}+{at - start}", order)

    def part(self, start: int, end: int) -> None:
        self.parts.append((start, min(end, len(self.data))))

    def text(self, start: int, end: int) -> str:
        return self.data[start:end].decode("latin-1").strip()


def layout_of(data: bytes, container: str) -> Layout:
    """What is known of *data*: less where it is no clean medium of a *container* that we take."""
    layout = Layout(data)
    if container in WALKERS:
        with suppress(IndexError, struct.error):  # it ends before it says
            WALKERS[container](layout)
    return layout


def seal(data: bytearray, layout: Layout, container: str) -> None:
    """Make the check-sums of the parts right, which are where they were in *layout*."""
    if container in SEALS:
        for start, end in layout.parts:
            SEALS[container](data, start, end)


NESTED = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"mvex", b"moof", b"traf"}


def _boxes(layout: Layout, start: int = 0, end: int | None = None) -> None:
    end = len(layout.data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", layout.data, start)
        name = layout.text(start + 4, start + 8)
        layout.part(start, start + size)
        layout.number(start, 4, f"{name}.size")
        layout.number(start + 4, 4, f"{name}.kind")
        if kind in NESTED:
            _boxes(layout, start + 8, start + size)
        elif kind != b"mdat":
            layout.words(start + 8, start + size, 4, name)
            if kind in {b"stsd", b"hdlr", b"ftyp"}:  # codecs, sizes of pictures, descriptors
                layout.words(start + 16, start + size, 2, name)
        start += max(size, 8)


MASTERS = {
    *(0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1654AE6B, 0x1549A966, 0x114D9B74, 0x1C53BB6B),
    *(0xAE, 0xE0, 0xE1, 0x4DBB, 0xBB, 0xB7, 0xA0, 0x1254C367, 0x7373, 0x67C8),
}
SMALL = 8  # bytes: what is longer is no number


def _elements(layout: Layout, start: int = 0, end: int | None = None) -> None:
    end = len(layout.data) if end is None else end
    while start < end:
        id_bytes = _vint_bytes(layout.data[start])
        sized = start + id_bytes
        size_bytes = _vint_bytes(layout.data[sized])
        body, bits = sized + size_bytes, (1 << 7 * size_bytes) - 1
        name = layout.data[start:sized].hex()
        size = int.from_bytes(layout.data[sized:body]) & bits
        stop = end if size == bits else min(end, body + size)
        layout.part(start, stop)
        layout.number(start, id_bytes, f"{name}.id")
        layout.number(sized, size_bytes, f"{name}.size", mask=bits)
        if int(name, 16) in MASTERS:
            _elements(layout, body, stop)
        elif 0 < stop - body <= SMALL:
            layout.number(body, stop - body, name)
        else:
            layout.words(body, min(stop, body + 8), 1, name)  # of a block: its track and its time
        start = stop


def _vint_bytes(first: int) -> int:
    return 9 - max(1, first.bit_length())


def _riff(layout: Layout) -> None:
    _chunks(layout, 0, len(layout.data), "little")


def _aiff(layout: Layout) -> None:
    _chunks(layout, 0, len(layout.data), "big")


def _chunks(layout: Layout, start: int, end: int, order: Order) -> None:
    while start + 8 <= end:
        name = layout.text(start, start + 4)
        size = int.from_bytes(layout.data[start + 4 : start + 8], order)
        stop = min(end, start + 8 + size)
        layout.part(start, stop)
        layout.number(start, 4, f"{name}.kind")
        layout.number(start + 4, 4, f"{name}.size", order)
        if name in {"RIFF", "LIST", "FORM"}:
            _chunks(layout, start + 12, stop, order)
        else:
            layout.words(start + 8, min(stop, start + 64), 2, name, order)
            layout.words(start + 8, min(stop, start + 64), 4, name, order)
        start = stop + size % 2


def _pages(layout: Layout) -> None:
    begins = [found.start() for found in re.finditer(b"OggS\\0", layout.data)]
    for at, end in zip(begins, [*begins[1:], len(layout.data)], strict=True):
        layout.part(at, end)
        for offset, size, name in ((5, 1, "flags"), (6, 8, "granule"), (14, 4, "serial")):
            layout.number(at + offset, size, f"page.{name}", "little")
        layout.number(at + 18, 4, "page.sequence", "little")
        layout.words(at + 26, min(end, at + 40), 1, "page.lacing", "little")
    for at in begins[:2]:
        layout.words(at + 28, at + 72, 1, "codec", "little")
        layout.words(at + 28, at + 72, 4, "codec", "little")


def _seal_page(data: bytearray, start: int, end: int) -> None:
    data[start + 22 : start + 26] = bytes(4)
    data[start + 22 : start + 26] = _crc32(data[start:end], 0).to_bytes(4, "little")


def _crc32(data: bytes | bytearray, crc: int) -> int:
    """With the polynomial of Ogg and MPEG, highest bit first."""
    for byte in data:
        crc = (crc << 8 & 0xFFFFFFFF) ^ CRC_TABLE[crc >> 24 ^ byte]
    return crc


def _crc_row(byte: int) -> int:
    crc = byte << 24
    for _ in range(8):
        crc = crc << 1 ^ (0x104C11DB7 if crc & 0x80000000 else 0)
    return crc


CRC_TABLE = [_crc_row(byte) for byte in range(256)]


def _flac(layout: Layout) -> None:
    at, last = 4, False
    while not last:
        last = bool(layout.data[at] & 0x80)
        size = int.from_bytes(layout.data[at + 1 : at + 4])
        layout.part(at, at + 4 + size)
        layout.number(at, 1, "block.kind")
        layout.number(at + 1, 3, "block.size")
        layout.words(at + 4, at + 4 + size, 2, "block")
        at += 4 + size
    _frames(layout, rb"\xff\xf8", 8, at)


def _mp3(layout: Layout) -> None:
    if layout.data.startswith(b"ID3"):
        layout.number(6, 4, "id3.size", mask=0x7F7F7F7F)
        layout.words(3, 40, 1, "id3")
    _frames(layout, rb"\xff[\xf2\xf3\xfa\xfb]", 40, 0)


def _adts(layout: Layout) -> None:
    _frames(layout, rb"\xff[\xf0\xf1\xf8\xf9]", 8, 0)


def _frames(layout: Layout, sync: bytes, header: int, start: int) -> None:
    """Frames that only their first bytes tell: what looks like these is taken for one."""
    begins = [start + found.start() for found in re.finditer(sync, layout.data[start:])]
    for at, end in zip(begins, [*begins[1:], len(layout.data)], strict=True):
        layout.part(at, end)
        layout.words(at + 1, at + header, 1, "frame")


def _png(layout: Layout) -> None:
    at = 8
    while at + 12 <= len(layout.data):
        size, name = int.from_bytes(layout.data[at : at + 4]), layout.text(at + 4, at + 8)
        layout.part(at, at + 12 + size)
        layout.number(at, 4, f"{name}.size")
        layout.number(at + 4, 4, f"{name}.kind")
        layout.words(at + 8, min(at + 8 + size, at + 40), 4, name)
        layout.words(at + 8, min(at + 8 + size, at + 40), 1, name)
        at += 12 + size


def _seal_chunk(data: bytearray, start: int, end: int) -> None:
    data[end - 4 : end] = zlib.crc32(data[start + 4 : end - 4]).to_bytes(4)


BARE_MARKERS = {0xD8, 0xD9, *range(0xD0, 0xD8)}


def _jpeg(layout: Layout) -> None:
    for found in re.finditer(rb"\xff([\xc0-\xfe])", layout.data):
        at, marker = found.start(), found[1][0]
        layout.number(at + 1, 1, f"marker {marker:x}")
        if marker in BARE_MARKERS:
            continue
        end = at + 2 + int.from_bytes(layout.data[at + 2 : at + 4])
        layout.part(at, end)
        layout.number(at + 2, 2, f"{marker:x}.size")
        layout.words(at + 4, end, 1, f"{marker:x}")
        layout.words(at + 5, min(end, at + 9), 2, f"{marker:x}.size of picture")


def _gif(layout: Layout) -> None:
    layout.words(6, 13, 1, "screen", "little")
    layout.words(6, 10, 2, "screen", "little")
    for found in re.finditer(rb"\0(?:!\xf9|!\xff|,)", layout.data):
        at = found.start() + 1
        layout.part(at, min(len(layout.data), at + 20))
        layout.words(at, at + 12, 1, "block", "little")
        layout.words(at + 1, at + 9, 2, "block", "little")


PACKET = 188
TABLES = {0: "programs", 0x1000: "program"}  # where ffmpeg puts them


def _packets(layout: Layout) -> None:
    for at in range(0, len(layout.data) - PACKET + 1, PACKET):
        layout.part(at, at + PACKET)
        begins, pid = layout.data[at + 1] & 0x40, int.from_bytes(layout.data[at + 1 : at + 3])
        layout.number(at, 1, "packet.sync")
        layout.number(at + 1, 2, "packet.pid", mask=0x1FFF)
        layout.words(at + 3, at + 12, 1, "packet")
        if begins:
            layout.words(at + 4, at + 44, 1, TABLES.get(pid & 0x1FFF, "elementary"))


def _seal_table(data: bytearray, start: int, _: int) -> None:
    if data[start + 1] & 0x40 and int.from_bytes(data[start + 1 : start + 3]) & 0x1FFF in TABLES:
        table = start + 5 + data[start + 4]
        end = table + 3 + (int.from_bytes(data[table + 1 : table + 3]) & 0xFFF) - 4
        if end + 4 <= start + PACKET:
            data[end : end + 4] = _crc32(data[table:end], 0xFFFFFFFF).to_bytes(4)


WALKERS: dict[str, Callable[[Layout], None]] = {
    **dict.fromkeys(("mp4", "mov", "3gp", "m4a"), _boxes),
    **dict.fromkeys(("matroska", "webm"), _elements),
    **dict.fromkeys(("avi", "wav", "webp"), _riff),
    "aiff": _aiff,
    "ogg": _pages,
    "flac": _flac,
    "mp3": _mp3,
    "aac": _adts,
    "png": _png,
    "jpeg": _jpeg,
    "gif": _gif,
    "mpegts": _packets,
}
SEALS: dict[str, Callable[[bytearray, int, int], None]] = {
    "ogg": _seal_page,
    "png": _seal_chunk,
    "mpegts": _seal_table,
}
