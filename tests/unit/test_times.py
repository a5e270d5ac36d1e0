"""Times as callers read them."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from service.times import now_utc, rfc3339


def test_times_are_utc_with_a_z() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(moment) == "2026-01-02T01:04:05Z"


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1)))  # noqa: DTZ001 - hypothesis wants naive bounds
def test_a_time_reads_back_to_the_microsecond(naive: datetime) -> None:
    moment = naive.replace(tzinfo=UTC)
    assert datetime.fromisoformat(rfc3339(moment)) == moment


def test_the_clock_is_aware() -> None:
    assert now_utc().utcoffset() == timedelta(0)
