"""Forms as bytes, so that a test can say each of them, and a picture that goes into one."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, field

from PIL import Image

BOUNDARY = "greenroom-form"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


@dataclass(frozen=True, slots=True)
class Field:
    """One part; *headers* stand after its Content-Disposition."""

    name: str
    value: bytes
    filename: str | None = None
    headers: tuple[str, ...] = field(default=())

    def encoded(self) -> bytes:
        disposition = f'Content-Disposition: form-data; name="{self.name}"'
        if self.filename is not None:
            disposition += f'; filename="{self.filename}"'
        return "\r\n".join([disposition, *self.headers, "", ""]).encode() + self.value


def form(*fields: Field, boundary: str = BOUNDARY) -> bytes:
    return joined((field.encoded() for field in fields), boundary=boundary)


def joined(parts: Iterable[bytes], *, boundary: str = BOUNDARY) -> bytes:
    """A body of parts that are spelled out."""
    begin = f"--{boundary}\r\n".encode()
    return b"".join(begin + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()


def png(side: int = 32, shade: int = 0) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), (shade, 80, 120)).save(out, "PNG")
    return out.getvalue()


def jpeg(side: int = 32) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), (10, 80, 120)).save(out, "JPEG")
    return out.getvalue()
