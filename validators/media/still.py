"""Decode one still image with Pillow. A program of its own: `media.picture` starts it confined.

Run as `python -I -B -m validators.media.still FORMAT MAX_PIXELS SIDE FD PATH`. It prints one line
of JSON, and when the picture could be decoded writes it to FD as one bgr24 frame.
"""

import json
import os
import sys
from typing import Any

from PIL import Image, ImageOps

Image.MAX_IMAGE_PIXELS = None  # the caller's own cap is checked before anything is decoded
PAPER = (255, 255, 255)  # what a viewer sees behind a transparent picture
FRAMES_COUNTED = 1000  # past that it is an animation whatever their number


def describe(image: Image.Image) -> dict[str, Any]:
    """Size in display orientation and frames, from the header alone."""
    width, height = image.size
    if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # EXIF orientation: a quarter turn
        width, height = height, width
    return {"width": width, "height": height, "frames": count_frames(image)}


def count_frames(image: Image.Image) -> int:
    if not getattr(image, "is_animated", False):
        return 1
    return min(FRAMES_COUNTED, getattr(image, "n_frames", 1))


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
            report |= describe(image)
            if image.width * image.height <= int(max_pixels):
                picture = upright(image, int(side))
                report |= {"frame": picture.size}
                frame = picture.tobytes("raw", "BGR")
    except Exception as exc:  # noqa: BLE001 - a decoder may raise anything, and all of it means this
        report["unreadable"] = f"{type(exc).__name__}: {exc}"
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()
    with os.fdopen(int(fd), "wb") as pipe:
        pipe.write(frame)


if __name__ == "__main__":
    main(sys.argv[1:])
