"""Decode one still image with Pillow. A program of its own: `media.picture` starts it confined.

Run as `python -I -B -m validators.media.still FORMAT MAX_PIXELS SIDE FD PATH`. It prints one line
of JSON, and when the picture could be decoded writes it to FD as one bgr24 frame.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from validators.media.jpeg import check_jpeg

Image.MAX_IMAGE_PIXELS = None  # the caller's own cap is checked before anything is decoded
PAPER = (255, 255, 255)  # what a viewer sees behind a transparent picture
MOVING = frozenset({"GIF", "PNG", "WEBP"})  # further pictures in a JPEG are previews, no frames


def describe(image: Image.Image) -> dict[str, Any]:
    """Size in display orientation and frames. Pillow decodes a PNG to find its orientation."""
    width, height = image.size
    if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # EXIF orientation: a quarter turn
        width, height = height, width
    return {"width": width, "height": height, "frames": count_frames(image)}


def count_frames(image: Image.Image) -> int:
    """One, or 2 for any more: telling their number would read a GIF to its end."""
    return 2 if image.format in MOVING and getattr(image, "is_animated", False) else 1


def upright(image: Image.Image, side: int) -> Image.Image:
    """The first frame as a viewer sees it: RGB, at most *side* long, turned the right way up."""
    image.seek(0)
    image.draft("RGB", (side, side))  # JPEG alone: decodes straight to a half, quarter or eighth
    image.load()
    turned = flat(ImageOps.exif_transpose(image))
    turned.thumbnail((side, side))
    return turned


def flat(image: Image.Image) -> Image.Image:
    """Any mode as RGB. Samples of 16 bits are scaled, since Pillow would clip them."""
    if image.mode.startswith("I"):
        return image.convert("F").point(lambda value: value / 257).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    paper = Image.new("RGBA", layer.size, (*PAPER, 255))
    return Image.alpha_composite(paper, layer).convert("RGB")


def main(argv: list[str]) -> None:
    form, max_pixels, side, fd, path = argv
    report: dict[str, Any] = {}
    frame = b""
    try:
        with Image.open(path, formats=[form]) as image:
            report |= {"width": image.width, "height": image.height}
            if image.width * image.height <= int(max_pixels):
                if form == "JPEG":
                    check_jpeg(Path(path))
                report |= describe(image)
                picture = upright(image, int(side))
                report |= {"frame": picture.size}
                frame = picture.tobytes("raw", "BGR")
    except MemoryError:  # ours to solve: no line at all says so
        raise
    except Exception as exc:  # noqa: BLE001 - a decoder may raise anything, and all of it means this
        report["unreadable"] = f"{type(exc).__name__}: {exc}"
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()
    with os.fdopen(int(fd), "wb") as pipe:
        pipe.write(frame)


if __name__ == "__main__":
    main(sys.argv[1:])
