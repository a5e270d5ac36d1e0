"""Still images: orientations, colours, formats by another name, and bombs."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from tests.makers import PORTRAIT, Bench, maker
from tests.makers.containers import with_zip

ORIENTATION, GPS = 0x0112, 0x8825
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # what brings an upright picture into the way that a camera with this tag stores it
P3 = {b"rXYZ": (0.5151, 0.2412, -0.0011), b"gXYZ": (0.292, 0.6922, 0.0419)}
P3 |= {b"bXYZ": (0.1571, 0.0666, 0.7841)}  # the primaries of Display P3, adapted to D50


def portrait() -> Image.Image:
    with Image.open(PORTRAIT) as picture:
        return picture.convert("RGB")


def _jpeg(picture: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=92, **options)
    return out.getvalue()


def _orientation(number: int) -> Callable[[Bench], Path]:
    def make(bench: Bench) -> Path:
        exif = Image.Exif()
        exif[ORIENTATION] = number
        picture = portrait()
        stored = picture.transpose(TURNS[number]) if number in TURNS else picture
        return bench.write(_jpeg(stored, exif=exif), "jpg")

    make.__name__ = f"orientation_{number}"
    return make


for _number in range(1, 9):
    maker(_orientation(_number))


@maker
def position_and_serial_number(bench: Bench) -> Path:
    exif = Image.Exif()
    exif.get_ifd(GPS).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    exif[0x010F], exif[0xC62F] = "Camera", "SERIAL-4711"
    return bench.write(_jpeg(portrait(), exif=exif), "jpg")


@maker
def cmyk(bench: Bench) -> Path:
    return bench.write(_jpeg(portrait().convert("CMYK")), "jpg")


@maker
def ycck(bench: Bench) -> Path:
    """The same with its first three inks stored as YCbCr, as Photoshop does."""
    black = Image.new("L", portrait().size, 0)
    inks = Image.merge("CMYK", (*portrait().convert("YCbCr").split(), black))
    luma, blue, red, ink = inks.split()
    stored = [plane.point(lambda value: 255 - value) for plane in (luma, blue, red)]
    data = _jpeg(Image.merge("CMYK", (*stored, ink)))
    at = data.index(b"Adobe") + 11
    return bench.write(data[:at] + b"\x02" + data[at + 1 :], "jpg")


@maker
def display_p3(bench: Bench) -> Path:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for tag, xyz in P3.items():
        entry = profile.index(tag, 128)
        at = int.from_bytes(profile[entry + 4 : entry + 8])
        profile[at + 8 : at + 20] = struct.pack(">3i", *(round(v * 65536) for v in xyz))
    return bench.write(_jpeg(portrait(), icc_profile=bytes(profile)), "jpg")


@maker
def sixteen_bit_png(bench: Bench) -> Path:
    levels = np.asarray(portrait().convert("L")).astype(np.uint16) * 257
    path = bench.new("png")
    Image.fromarray(levels).save(path)
    return path


@maker
def see_through_png(bench: Bench) -> Path:
    path, picture = bench.new("png"), portrait()
    picture.putalpha(Image.new("L", picture.size, 255))
    picture.save(path)
    return path


@maker
def webp(bench: Bench) -> Path:
    path = bench.new("webp")
    portrait().save(path)
    return path


def _animated(bench: Bench, form: str) -> Path:
    path, first = bench.new("png"), portrait().resize((300, 300))
    shifted = [first.rotate(degrees) for degrees in (2, 4)]
    first.save(path, format=form, save_all=True, append_images=shifted, duration=100)
    return path


@maker
def animated_png(bench: Bench) -> Path:
    return _animated(bench, "PNG")


@maker
def animated_webp_called_png(bench: Bench) -> Path:
    return _animated(bench, "WEBP")


@maker
def animated_gif_called_png(bench: Bench) -> Path:
    return _animated(bench, "GIF")


def _by_brand(bench: Bench, brand: bytes) -> Path:
    """The first box is all that tells them from a video."""
    return bench.write(b"\x00\x00\x00\x18ftyp" + brand + bytes(4) + b"mif1" + brand, "jpg")


@maker
def heic(bench: Bench) -> Path:
    return _by_brand(bench, b"heic")


@maker
def avif(bench: Bench) -> Path:
    return _by_brand(bench, b"avif")


@maker
def png_of_50000_pixels(bench: Bench) -> Path:
    """One bit each, all of them black: two gigapixels in a few hundred kilobytes."""
    side = 50_000
    row = bytes(1 + side // 8)
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(row * 1000) for _ in range(side // 1000)) + packer.flush()
    header = struct.pack(">2I5B", side, side, 1, 0, 0, 0, 0)
    return bench.write(_png((b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")), "png")


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    packed = (
        len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)
        for name, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@maker
def a_thousand_scans(bench: Bench) -> Path:
    """A progressive JPEG whose shortest scan comes a thousand times."""
    data = _jpeg(portrait(), progressive=True)
    first, *later = data.split(b"\xff\xda")
    shortest = min(later[1:-1], key=len)
    scans = b"".join(b"\xff\xda" + scan for scan in (later[0], *[shortest] * 1000, *later[1:]))
    return bench.write(first + scans, "jpg")


@maker
def progressive(bench: Bench) -> Path:
    return bench.write(_jpeg(portrait(), progressive=True), "jpg")


@maker
def garbage_after_2_kilobytes(bench: Bench) -> Path:
    data = _jpeg(portrait())
    noise = np.random.default_rng(7).bytes(len(data) - 2048)
    return bench.write(data[:2048] + noise, "jpg")


@maker
def zeros_after_2_kilobytes(bench: Bench) -> Path:
    data = _jpeg(portrait())
    return bench.write(data[:2048] + bytes(len(data) - 2048), "jpg")


@maker
def jpeg_cut_in_half(bench: Bench) -> Path:
    data = _jpeg(portrait())
    return bench.write(data[: len(data) // 2], "jpg")


@maker
def more_pictures_in_one_jpeg(bench: Bench) -> Path:
    path, preview = bench.new("jpg"), portrait().resize((128, 128))
    portrait().save(path, format="MPO", save_all=True, append_images=[preview])
    return path


@maker
def clip_behind_a_photo(bench: Bench) -> Path:
    """A motion photo: phones hang the video behind the JPEG."""
    return bench.write(_jpeg(portrait()) + bench.clip.read_bytes(), "jpg")


@maker
def fits(bench: Bench) -> Path:
    return bench.write(b"SIMPLE  =                    T".ljust(2880), "png")


@maker
def postscript(bench: Bench) -> Path:
    return bench.write(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "png")


@maker
def photoshop(bench: Bench) -> Path:
    return bench.write(b"8BPS\x00\x01" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3), "png")


@maker
def gd(bench: Bench) -> Path:
    return bench.write(b"\xff\xfe\x00\x09\x00\x09" + bytes(100), "png")


@maker
def two_hundred_pixels(bench: Bench) -> Path:
    return bench.write(_jpeg(portrait().crop((120, 20, 320, 220))), "jpg")


@maker
def gif_and_jar(bench: Bench) -> Path:
    path = bench.new("gif")
    portrait().convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    return with_zip(path)


@maker
def jpeg_and_zip(bench: Bench) -> Path:
    return with_zip(bench.write(_jpeg(portrait()), "jpg"))


@maker
def png_and_zip(bench: Bench) -> Path:
    path = bench.new("png")
    portrait().save(path)
    return with_zip(path)


PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


@maker
def pdf_in_front_of_a_jpeg(bench: Bench) -> Path:
    return bench.write(PDF + _jpeg(portrait()), "jpg")


@maker
def pdf_in_a_comment_of_a_jpeg(bench: Bench) -> Path:
    """PDF readers look for its header in the first kilobyte; decoders skip comments."""
    data = _jpeg(portrait())
    comment = b"\xff\xfe" + (len(PDF) + 2).to_bytes(2) + PDF
    return bench.write(data[:2] + comment + data[2:], "jpg")


@maker
def drawn_face(bench: Bench) -> Path:
    """Two dots and a line: not a person."""
    path, picture = bench.new("png"), np.full((600, 600, 3), 230, np.uint8)
    rows, columns = np.mgrid[:600, :600]
    picture[np.hypot(rows - 300, columns - 300) < 200] = (250, 210, 60)
    for across in (230, 370):
        picture[np.hypot(rows - 250, columns - across) < 22] = 20
    picture[390:402, 220:380] = 20
    Image.fromarray(picture).save(path)
    return path


@maker
def garbage_in_the_middle(bench: Bench) -> Path:
    """Decoders paint the rest grey and complain to nobody."""
    data = _jpeg(portrait())
    middle, noise = len(data) // 2, np.random.default_rng(7).bytes(4096)
    return bench.write(data[:middle] + noise + data[middle + 4096 :], "jpg")
