import io
import time
from pathlib import Path

import pytest
from PIL import Image

from validators.media.jpeg import MAX_SCANS, check_jpeg

SCAN = b"\xff\xda"


def jpeg(**options: object) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 60).convert("RGB").save(out, "JPEG", **options)
    return out.getvalue()


def check(folder: Path, data: bytes) -> None:
    path = folder / "a.jpg"
    path.write_bytes(data)
    check_jpeg(path)


@pytest.mark.parametrize(
    "data",
    [
        jpeg(),
        jpeg(progressive=True),
        jpeg(restart_marker_blocks=1),
        jpeg(comment=SCAN * 100),  # what a comment says is no scan
        jpeg() + SCAN * 100,  # phones hang other things behind the end
        jpeg()[:-2],
        jpeg()[:-2] + b"\xff\xff\xff\xd9",  # a marker may be filled up
    ],
    ids=["plain", "progressive", "restarts", "comment", "behind", "without end", "filled"],
)
def test_what_cameras_write_passes(tmp_path: Path, data: bytes) -> None:
    check(tmp_path, data)


def with_scans(scans: int) -> bytes:
    head, last = jpeg().split(SCAN)
    return head + (SCAN + last[:-2]) * scans + last[-2:]


def test_scans_are_counted(tmp_path: Path) -> None:
    check(tmp_path, with_scans(MAX_SCANS))
    with pytest.raises(ValueError, match="scans"):
        check(tmp_path, with_scans(MAX_SCANS + 1))


@pytest.mark.parametrize("marker", [b"\xff\x37", b"\xff\xd8", b"\xff\x01"])
def test_no_marker_of_that_kind_stands_among_coded_pixels(tmp_path: Path, marker: bytes) -> None:
    data = jpeg()
    with pytest.raises(ValueError, match="marker"):
        check(tmp_path, data[:-100] + marker + data[-98:])


def test_filling_without_end_is_passed_over_once(tmp_path: Path) -> None:
    begun_s = time.process_time()
    check(tmp_path, b"\xff\xd8" + b"\xff" * 200_000 + b"\0")
    assert time.process_time() - begun_s < 2  # some minutes, where each byte begins it anew
