"""A form is read the same however it is cut, and what is none is refused."""

from collections.abc import AsyncGenerator

import pytest

from service.api.forms import (
    MAX_HEADERS_BYTES,
    MAX_PARTS,
    FormReader,
    _boundary_of,
)
from service.api.problem import ApiError
from tests.forms import BOUNDARY, Field, form, joined

DELIMITER = f"--{BOUNDARY}".encode()
NAMED = b'Content-Disposition: form-data; name="a"'
# what looks like a delimiter and is none
TRICKY = b"\r\n--greenroom-for\r\n--\r\n\r\n-\r\r\n--greenroom-\x00\xff"


async def cut(body: bytes, size: int) -> AsyncGenerator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


async def read(body: bytes, size: int = 1 << 16) -> list[tuple[str, bytes]]:
    reader = FormReader(BOUNDARY.encode(), cut(body, size))
    found = []
    while (name := await reader.next_part()) is not None:
        value = b""
        while chunk := await reader.read():
            value += chunk
        found.append((name, value))
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 17, 18, 64, 1 << 16])
async def test_a_form_is_read_the_same_however_it_comes(size: int) -> None:
    body = form(
        Field("a", b""), Field("b", TRICKY, filename="x.png"), Field("c", b"\r\n"), Field("d", b"-")
    )
    assert await read(body, size) == [("a", b""), ("b", TRICKY), ("c", b"\r\n"), ("d", b"-")]


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n\r\n", b" \t\r\n"])
async def test_a_form_may_end_with_white_space(end: bytes) -> None:
    body = form(Field("a", b"1")).removesuffix(b"\r\n")
    assert await read(body + end, 1) == [("a", b"1")]


@pytest.mark.parametrize(
    "header",
    [
        NAMED + b'; filename="C:\\x\\y.png"',
        NAMED + b'; filename="a\\"b;c.png"; filename*=UTF-8\'\'%e2%82%ac.png',
        NAMED + '; filename="größe.png"'.encode(),
        NAMED + b"; filename=bare.png ;",
        b"content-disposition:FORM-DATA;NAME=a",
        NAMED + b"\r\nContent-Transfer-Encoding: binary\r\nX-Other: a:b",
        NAMED + b"\r\nContent-Type: image/png\r\nContent-Length: 99",
    ],
)
async def test_a_part_is_known_by_its_name_however_it_is_written(header: bytes) -> None:
    assert await read(joined([header + b"\r\n\r\nvalue"])) == [("a", b"value")]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_body"),
        (b"\r\n", "malformed_body"),
        (b"hello", "malformed_body"),
        (b"text before\r\n" + form(Field("a", b"1")), "malformed_body"),
        (form(Field("a", b"1")) + b"text after", "malformed_body"),
        (form(Field("a", b"1"))[:-5], "malformed_body"),
        (form(Field("a", b"1")).replace(b"\r\n", b"\n"), "malformed_body"),
        (DELIMITER + b"x\r\n" + NAMED + b"\r\n\r\n1\r\n" + DELIMITER + b"--", "malformed_body"),
        (DELIMITER + b"\r\n" + NAMED + b"\r\n\r\n1\r\n", "malformed_body"),
        (joined([b"\r\n\r\nno headers"]), "malformed_body"),
        (joined([b"Content-Type: text/plain\r\n\r\n1"]), "malformed_body"),
        (joined([b"Content-Disposition: form-data\r\n\r\n1"]), "malformed_body"),
        (joined([b'Content-Disposition: attachment; name="a"\r\n\r\n1']), "malformed_body"),
        (joined([NAMED + b'; name="b"\r\n\r\n1']), "malformed_body"),
        (joined([NAMED + b"; filename=a b\r\n\r\n1"]), "malformed_body"),
        (joined([NAMED + b"\r\n" + NAMED + b"\r\n\r\n1"]), "malformed_body"),
        (joined([NAMED + b"\r\n folded\r\n\r\n1"]), "malformed_body"),
        (joined([NAMED + b"\r\nX: \x00\r\n\r\n1"]), "malformed_body"),
        (joined([NAMED + b"\r\nX-Bare: a\nb\r\n\r\n1"]), "malformed_body"),
        (joined([NAMED + b"\r\nContent-Encoding: gzip\r\n\r\n1"]), "unsupported_content_encoding"),
        (
            joined([NAMED + b"\r\nContent-Transfer-Encoding: base64\r\n\r\nMQ=="]),
            "unsupported_content_encoding",
        ),
        (
            joined([NAMED + b"\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x"]),
            "unsupported_media_type",
        ),
        (joined([NAMED + b"\r\nX: " + b"x" * MAX_HEADERS_BYTES + b"\r\n\r\n1"]), "body_too_large"),
        (DELIMITER + b"\r\n" + b"x" * MAX_HEADERS_BYTES * 2, "body_too_large"),
        (form(*(Field(f"f{n}", b"") for n in range(MAX_PARTS + 1))), "body_too_large"),
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 16])
async def test_what_is_no_form_is_refused(body: bytes, code: str, size: int) -> None:
    with pytest.raises(ApiError) as caught:
        await read(body, size)
    assert caught.value.code == code


async def test_headers_and_parts_up_to_their_limits_are_taken() -> None:
    filler = b"x" * (MAX_HEADERS_BYTES - len(b"\r\n" + NAMED + b"\r\nX: \r\n\r\n"))
    body = joined([NAMED + b"\r\nX: " + filler + b"\r\n\r\n1"])
    assert await read(body) == [("a", b"1")]
    assert len(await read(form(*(Field(f"f{n}", b"") for n in range(MAX_PARTS))))) == MAX_PARTS


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data; charset=utf-8; Boundary="a b:c"', b"a b:c"),
        ("multipart/form-data; boundary=----=_Part_7.1", b"----=_Part_7.1"),
        ("multipart/form-data;boundary=" + "x" * 70, b"x" * 70),
    ],
)
def test_a_boundary_is_what_the_content_type_says(header: str, boundary: bytes) -> None:
    assert _boundary_of(header) == boundary


@pytest.mark.parametrize(
    "header",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        'multipart/form-data; boundary="a "',
        'multipart/form-data; boundary="unclosed',
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=" + "x" * 71,
        'multipart/form-data; boundary="a\\\r\nb"',
        "multipart/form-data; boundary=\udcff",
        "multipart/form-data; boundary=é",
    ],
)
def test_a_boundary_that_cannot_be_is_refused(header: str) -> None:
    with pytest.raises(ApiError) as caught:
        _boundary_of(header)
    assert caught.value.code == "malformed_body"
