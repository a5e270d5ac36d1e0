"""Draw one still image again with Pillow. A program of its own: `derive.portrait` confines it.

Run as `python -I -B -m validators.derive.redraw FORMAT FD PATH`. It writes to FD a PNG of 8-bit
RGB at full size, the right way up, with nothing in it but the picture.
"""

import io
import os
import sys

from PIL import Image, ImageCms, ImageOps

from validators.media.still import flat

FAST = 3  # of zlib's 0..9: quicker than its default of 6, and somewhat larger


def redrawn(image: Image.Image) -> Image.Image:
    """The first frame as a viewer sees it. Colours are brought to sRGB, which a PNG without a
    profile is taken for.
    """
    image.seek(0)
    profile = image.info.get("icc_profile")
    turned = ImageOps.exif_transpose(image)
    pixels = (in_srgb(turned, profile) if profile else None) or flat(turned)
    return Image.frombytes("RGB", pixels.size, pixels.tobytes())  # pixels alone: no metadata


def in_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """None where the profile does not fit: then the colours are taken as they are."""
    if image.mode not in {"RGB", "CMYK", "L"} or image.has_transparency_data:
        return None
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def main(argv: list[str]) -> None:
    form, fd, path = argv
    Image.MAX_IMAGE_PIXELS = None  # the picture was judged, and its size with it
    with Image.open(path, formats=[form]) as image:
        picture = redrawn(image)
    with os.fdopen(int(fd), "wb") as pipe:
        picture.save(pipe, "PNG", compress_level=FAST)


if __name__ == "__main__":
    main(sys.argv[1:])
