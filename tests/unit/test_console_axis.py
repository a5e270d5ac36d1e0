import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.console.axis import (
    MOST_LABELS,
    MOST_POINTS,
    bars,
    curve,
    filled,
    height_of,
    joined,
    marks,
    peaks,
    ticks,
    waveform,
    without,
)

Points = list[tuple[float, float]]
SECONDS = st.floats(min_value=0, max_value=20, allow_nan=False)
RANGES = st.lists(st.tuples(SECONDS, SECONDS).map(lambda pair: (min(pair), max(pair))), max_size=8)


def points(path: str) -> Points:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.-]+),([\d.-]+)", path)]


def test_a_range_is_drawn_where_it_is() -> None:
    (bar,) = bars([(3, 6)], 10)
    assert (bar.left, bar.width, bar.shown) == (30, 30, (3, 6))


def test_what_lies_past_the_end_is_cut_off_or_left_out() -> None:
    (bar,) = bars([(8, 12), (12, 13), (-2, -1)], 10)
    assert (bar.left, bar.width) == (80, 20)
    assert [mark.left for mark in marks([-1, 5, 11], 10)] == [50]


@given(RANGES, st.floats(min_value=0.1, max_value=20))
def test_no_bar_leaves_the_axis(ranges: list[tuple[float, float]], length_s: float) -> None:
    for bar in bars(ranges, length_s):
        assert bar.left >= 0
        assert bar.width >= 0
        assert bar.left + bar.width <= 100.01


@pytest.mark.parametrize(
    ("length_s", "seconds"),
    [(0.4, [0]), (4.0, [0, 1, 2, 3, 4]), (9.86, [0, 2, 4, 6, 8]), (15.9, list(range(0, 16, 2)))],
)
def test_ticks_are_whole_seconds(length_s: float, seconds: list[float]) -> None:
    assert [tick.time_s for tick in ticks(length_s)] == seconds


@given(st.floats(min_value=0.1, max_value=100_000))
def test_labels_stand_apart(length_s: float) -> None:
    assert 1 <= len(ticks(length_s)) <= MOST_LABELS


def test_ranges_that_touch_are_one() -> None:
    assert joined([(5, 6), (1, 3), (3, 4), (2, 2.5)]) == ((1, 4), (5, 6))


def test_the_rest_of_the_axis() -> None:
    assert without([(2, 3), (5, 10)], 10) == ((0, 2), (3, 5))
    assert without([], 10) == ((0, 10),)
    assert without([(0, 10)], 10) == ()


@given(RANGES)
def test_ranges_and_their_rest_fill_the_axis(ranges: list[tuple[float, float]]) -> None:
    length_s = 20
    covered = math.fsum(end - start for start, end in joined(ranges))
    rest = math.fsum(end - start for start, end in without(ranges, length_s))
    assert covered + rest == pytest.approx(length_s)


def test_a_curve_rises_with_its_values_and_stays_in_its_box() -> None:
    assert points(curve([(0, 0), (5, 1), (10, 9)], 10, (0, 2))) == [(0, 100), (500, 50), (1000, 0)]


def test_an_area_ends_at_the_bottom() -> None:
    path = filled([(2, 1), (8, 1)], 10, (0, 1))
    assert path.endswith("Z")
    assert points(path) == [(200, 0), (800, 0), (800, 100), (200, 100)]
    assert filled([], 10, (0, 1)) == ""


def test_thinning_keeps_what_stands_out() -> None:
    many = [(n / 100, 9.0 if n == 777 else 1.0) for n in range(5000)]
    thinned = peaks(many)
    assert len(thinned) <= MOST_POINTS
    assert (7.77, 9.0) in thinned


def test_the_loudest_column_of_a_waveform_fills_the_lane() -> None:
    drawn = points(waveform([-0.1, -0.2], [0.1, 0.05], (0, 10), 10))
    assert drawn == [(250, 25), (750, 37.5), (750, 100), (250, 75)]


def test_a_waveform_that_starts_late_is_drawn_late() -> None:
    drawn = points(waveform([-0.1], [0.1], (4, 6), 10))
    assert {x for x, _ in drawn} == {500}


def test_silence_is_a_line_in_the_middle() -> None:
    assert {y for _, y in points(waveform([0, 0], [0, 0], (0, 1), 1))} == {50}


def test_a_limit_stands_at_its_height() -> None:
    assert height_of(0.3, (0, 1)) == 70
