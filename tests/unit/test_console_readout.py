import pytest

from service.console import readout
from service.console.gauge import Gauge, gauge
from validators.verdict import Code, Finding, Outcome


def found(value: float | None, limit: float | None, outcome: Outcome, unit: str = "s") -> Finding:
    return Finding(
        code=Code.CLIPPED_AUDIO, outcome=outcome, value=value, limit=limit, unit=unit, message="x"
    )


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (None, "s", "\u2013"),
        (3.86, "s", "3.86\u202fs"),
        (0.275, "share", "27.5\u202f%"),
        (0.0, "share", "0\u202f%"),
        (8_300_000, "px", "8\u202f300\u202f000\u202fpx"),
        (-23.97, "dBFS", "\u221223.97\u202fdBFS"),
        (0.0022, "probability", "0.0022"),
        (1, "streams", "1\u202fstream"),
        (2, "streams", "2\u202fstreams"),
        (40, "deg", "40\u00b0"),
        (2.0, None, "2"),
        (100, "px", "100\u202fpx"),
    ],
)
def test_values_are_shown_as_people_write_them(
    value: float | None, unit: str | None, shown: str
) -> None:
    assert readout.amount(value, unit) == shown


def test_ranges_say_from_and_to_and_how_many_more() -> None:
    assert readout.spans([(3, 6), (7.01, 7.04)]) == "3.0\u20136.0\u202fs, 7.0\u202fs"
    assert readout.spans([(n, n + 0.5) for n in range(9)]).endswith(" and 3 more")


def test_names_cannot_turn_text_around_or_break_lines() -> None:
    shown = readout.plain("a\u202egpj.mp4\n\x1b[31m\udcff.mp4")
    assert shown == "a\ufffdgpj.mp4\ufffd\ufffd[31m\ufffd.mp4"
    assert readout.plain("Zoë – 東京.mp4") == "Zoë – 東京.mp4"  # noqa: RUF001 - a dash may be in a name


def test_a_number_keeps_its_unit_on_its_line() -> None:
    assert readout.sentence("It speaks for 3.9 s.") == "It speaks for 3.9\u00a0s."


def test_sizes() -> None:
    assert [readout.size(each) for each in (0, 1023, 2048, 5 << 20)] == [
        "0\u202fbytes",
        "1023\u202fbytes",
        "2.0\u202fKiB",
        "5.0\u202fMiB",
    ]


def test_a_value_over_its_limit_fails_to_the_right() -> None:
    assert gauge(found(4, 1, Outcome.FAIL)) == Gauge(value=80, limit=20, failing=(20, 80))


def test_a_value_under_its_limit_fails_to_the_left() -> None:
    assert gauge(found(2, 4, Outcome.FAIL)) == Gauge(value=40, limit=80, failing=(0, 80))


def test_only_a_failure_says_which_side_is_bad() -> None:
    for outcome in (Outcome.PASS, Outcome.WARN, Outcome.UNCERTAIN):
        shown = gauge(found(4, 1, outcome))
        assert shown is not None
        assert shown.failing is None


def test_without_value_or_limit_there_is_no_bar() -> None:
    assert gauge(found(None, 1, Outcome.PASS)) is None
    assert gauge(found(1, None, Outcome.PASS)) is None
    assert gauge(found(float("inf"), 1, Outcome.FAIL)) is None


@pytest.mark.parametrize(
    ("value", "limit", "unit"),
    [(0, 0, "s"), (-24, -40, "dBFS"), (-80, -40, "dBFS"), (-1.4, 15, "dB"), (1, 0.9, "share")],
)
def test_every_bar_stays_on_its_scale(value: float, limit: float, unit: str) -> None:
    shown = gauge(found(value, limit, Outcome.FAIL, unit))
    assert shown is not None
    assert 0 <= shown.value <= 100
    assert 0 <= shown.limit <= 100
    assert (value > limit) == (shown.value > shown.limit)
