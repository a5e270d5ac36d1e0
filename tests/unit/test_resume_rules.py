"""When RFC 9110 lets a transfer go on. The origins that break it are in integration/test_resume."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fetch.resume import Validator, part_of, strong_validator, why_not_the_rest

TAG = Validator(name="ETag", value='"v1"')
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "tag", ['W/"v1"', "v1", '"v1', '"a"b"', '"a b"', '""', '"' + "x" * 257 + '"']
)
def test_only_a_strong_tag_that_can_be_sent_back_counts(tag: str) -> None:
    assert strong_validator({"ETag": tag}) is None


@given(st.integers(0, 120))
def test_a_date_counts_once_a_minute_lies_behind_it(age_s: int) -> None:
    headers = {
        "Last-Modified": format_datetime(NOON, usegmt=True),
        "Date": format_datetime(NOON + timedelta(seconds=age_s), usegmt=True),
    }
    assert (strong_validator(headers) is not None) == (age_s >= 60)


@pytest.mark.parametrize(
    "text", ["", "now", "Sat, 21 Nov 2026 12:00:00", "Sat, 99 Nov 2026 12:00:00 GMT"]
)
def test_a_date_that_cannot_be_read_or_names_no_zone_is_none(text: str) -> None:
    date = format_datetime(NOON + timedelta(days=9), usegmt=True)
    assert strong_validator({"Last-Modified": text, "Date": date}) is None


def test_an_origin_that_takes_no_ranges_is_believed() -> None:
    assert strong_validator({"ETag": '"v1"', "Accept-Ranges": "None"}) is None
    assert strong_validator({"ETag": '"v1"', "Accept-Ranges": "bytes"}) == TAG


@given(st.text(alphabet="bytes 0123456789-/*,=", max_size=40))
def test_a_range_is_read_strictly(text: str) -> None:
    part = part_of({"Content-Range": text})
    if part is not None:
        assert text.strip() == f"bytes {text.split()[1]}"
        assert min(part.first, part.last, part.total) >= 0


@given(st.integers(0, 10), st.integers(0, 10), st.integers(0, 10), st.integers(0, 10))
def test_nothing_but_the_very_rest_is_taken(at: int, first: int, last: int, total: int) -> None:
    headers = {"Content-Range": f"bytes {first}-{last}/{total}", "ETag": '"v1"'}
    trouble = why_not_the_rest(206, headers, TAG, at, 10)
    assert (trouble is None) == (first == at and last == 9 and total == 10)
