"""What a JPEG decoder swallows without a word: endless scans, and damage in the coded pixels.

Pillow tells neither, and libjpeg paints what is missing grey. Markers are laid out as ITU-T T.81,
annex B, has them.
"""

import re
from pathlib import Path

MAX_SCANS = 64  # a progressive picture has 10; each costs as much as the first
MARKER = re.compile(rb"\xff([^\xff\x00\xd0-\xd7])")  # behind coded pixels: no stuffing, no restart
START, END, SCAN = 0xD8, 0xD9, 0xDA
TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF})  # between scans, too
FRAMES = frozenset(range(0xC0, 0xD0)) - TABLES
REMARKS = frozenset({*range(0xE0, 0xF0), 0xFE})


def check_jpeg(path: Path) -> None:
    """Raise ValueError where the first picture of the file is damaged or has too many scans.

    One that ends early is left to the decoder: it knows whether all of it was there by then.
    """
    data = path.read_bytes()
    at, scans = 2, 0
    while (found := MARKER.search(data, at)) is not None:
        marker = found[1][0]
        if marker == END:
            return
        if marker not in TABLES | FRAMES | REMARKS | {SCAN}:
            raise ValueError(f"marker {marker:#x} in the middle of the picture")
        scans += marker == SCAN
        if scans > MAX_SCANS:
            raise ValueError(f"more than {MAX_SCANS} scans")
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
