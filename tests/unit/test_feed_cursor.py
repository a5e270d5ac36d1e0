"""A reader's place in the feed: opaque, and only what we gave out."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.events.feed import BadCursorError, decode_cursor, encode_cursor

MAX = (1 << 63) - 1


@given(st.integers(0, MAX))
def test_a_cursor_leads_back_to_its_position(position: int) -> None:
    cursor = encode_cursor(position)
    assert decode_cursor(cursor) == position
    assert cursor.isascii()
    assert not set("+/=&?# ") & set(cursor)  # goes into a URL and an SSE id as it is


@given(st.text())
def test_only_canonical_cursors_are_taken(text: str) -> None:
    try:
        position = decode_cursor(text)
    except BadCursorError:
        return
    assert encode_cursor(position) == text


def spelled(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "!!",
        "0",
        "ünïcode",
        encode_cursor(7) + "=",
        encode_cursor(7) + " ",
        spelled(b"7"),  # no version
        spelled(b"2:7"),
        spelled(b"1:"),
        spelled(b"1:07"),
        spelled(b"1:+7"),
        spelled(b"1: 7"),
        spelled(b"1:1_0"),
        spelled(b"1:-1"),
        spelled(b"1:7.0"),
        spelled("1:\u0667".encode()),
        spelled(b"1:" + str(MAX + 1).encode()),
        spelled(b"1:" + b"9" * 5000),
    ],
)
def test_what_we_did_not_give_out_is_refused(cursor: str) -> None:
    with pytest.raises(BadCursorError):
        decode_cursor(cursor)
