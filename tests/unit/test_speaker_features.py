import math

import numpy as np
import pytest

from validators.analysis.models.speaker_features import (
    SEGMENTATION_STEP_S,
    Floats,
    Mask,
    Split,
    activity,
    best_split,
    by_presence,
    embedding_features,
    intersection,
    is_turn,
    length_s,
    parts_of,
    ranges_of,
    score,
    second_part,
    segmentation_features,
    union,
)
from validators.facts import Range

NONE, A, B, C, AB, AC, BC = range(7)
ONE_VOICE = {"soft2": 0.0, "softov": 0.0, "cam_seg": 0.9, "cam_mn": 0.7, "cam_ahc": 0.9}


def heard(*sets: int) -> Floats:
    """Log-probabilities of a network that is certain of one set of speakers in each frame."""
    odds = np.full((len(sets), 7), 1e-9, np.float32)
    odds[np.arange(len(sets)), list(sets)] = 1
    return np.log(odds)


def voices(*directions: int) -> Floats:
    """Unit embeddings: windows with the same number have the same voice."""
    return np.eye(4, dtype=np.float32)[list(directions)]


@pytest.mark.parametrize(
    ("speakers", "active"),
    [
        (NONE, (0, 0, 0)),
        (A, (1, 0, 0)),
        (B, (0, 1, 0)),
        (C, (0, 0, 1)),
        (AB, (1, 1, 0)),
        (AC, (1, 0, 1)),
        (BC, (0, 1, 1)),
    ],
)
def test_each_set_of_speakers_makes_its_members_active(
    speakers: int, active: tuple[int, int, int]
) -> None:
    assert activity(heard(speakers))[0] == pytest.approx(active, abs=1e-6)


def test_whoever_is_heard_longest_comes_first_whatever_its_letter() -> None:
    ordered = by_presence(activity(heard(C, C, C, A, BC)))
    assert ordered.sum(axis=0) == pytest.approx([4, 1, 1], abs=1e-6)


def test_seconds_of_the_second_speaker_count_turns_and_overlap() -> None:
    features = segmentation_features(heard(*[A] * 50, *[B] * 20, *[AB] * 10))
    assert features["soft2"] == pytest.approx(30 * SEGMENTATION_STEP_S, abs=1e-4)
    assert features["softov"] == pytest.approx(10 * SEGMENTATION_STEP_S, abs=1e-4)


def test_one_voice_in_every_window_is_alike() -> None:
    features = embedding_features(voices(0, 0, 0, 0, 0))
    assert features == pytest.approx({"cam_seg": 1, "cam_mn": 1, "cam_ahc": 1})


def test_features_that_were_not_taken_count_as_one_voice() -> None:
    heard_once = {"soft2": 0.04, "softov": 0.0}
    alike = {"cam_seg": 1.0, "cam_mn": 1.0, "cam_ahc": 1.0, "cam_parts": 1.0}
    assert score(heard_once) == score(heard_once | alike) < 0


def test_the_split_falls_where_the_voice_changes() -> None:
    split = best_split(voices(0, 0, 0, 1, 1, 1, 0, 0))
    assert (split.first, split.last) == (3, 6)
    assert split.similarity == pytest.approx(0, abs=1e-6)


def test_one_odd_window_among_many_is_no_part_of_its_own() -> None:
    split = best_split(voices(0, 0, 0, 1, 0, 0, 0))
    assert split.last - split.first >= 2
    assert split.similarity > 0.5
    assert embedding_features(voices(0, 0, 0, 1, 0, 0, 0))["cam_ahc"] == pytest.approx(0.5)


def test_one_odd_window_among_few_counts() -> None:
    assert best_split(voices(0, 0, 0, 1)).similarity == pytest.approx(0, abs=1e-6)


def test_the_score_is_the_published_sum() -> None:
    features = {"soft2": 4.0, "softov": 0.25, "cam_seg": 0.5, "cam_mn": 0.4, "cam_ahc": 0.6}
    expected = 8.726 + 1.925 * 2 + 3.894 * 0.5 - 7.138 * 0.5 - 0.5 * 0.4 - 7.445 * 0.6
    assert score(features) == pytest.approx(expected)
    assert score(features | {"cam_parts": 0.6}) == pytest.approx(expected)
    assert score(features | {"cam_parts": 0.48}) == pytest.approx(expected + 2.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("soft2", 2.0), ("softov", 1.0), ("cam_seg", 0.4), ("cam_ahc", 0.4), ("cam_parts", 0.4)],
)
def test_every_sign_of_a_second_voice_raises_the_score(name: str, value: float) -> None:
    assert score(ONE_VOICE | {name: value}) > score(ONE_VOICE) + 2


def mask(text: str) -> Mask:
    return np.array([letter == "#" for letter in text])


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("", []),
        ("....", []),
        ("####", [(0.0, 3.5)]),
        ("..##..", [(1.5, 3.5)]),
        ("##.##", [(0.0, 4.5)]),
        ("##...##", [(0.0, 1.5), (4.5, 6.5)]),
        ("#...#...##", [(7.5, 9.5)]),
    ],
)
def test_gaps_are_bridged_before_crumbs_are_dropped(text: str, ranges: list[Range]) -> None:
    found = ranges_of(mask(text), step_s=1.0, bridge_s=1.0, least_s=1.5)
    assert list(found) == ranges


def test_ranges_begin_half_a_step_before_the_middle_of_their_first_frame() -> None:
    ((start, end),) = ranges_of(mask(".#"), step_s=0.1, lead_s=0.03, bridge_s=0, least_s=0)
    assert (start, end) == pytest.approx((0.08, 0.18))


def test_a_union_joins_what_touches_and_sorts_the_rest() -> None:
    assert union(((3, 4), (0, 1)), ((1, 2),), ((3.5, 5),)) == ((0, 2), (3, 5))


def test_a_length_is_the_sum_of_its_ranges() -> None:
    assert length_s(()) == 0
    assert length_s(((0, 1.5), (3, 4))) == 2.5


def test_an_intersection_keeps_what_both_have() -> None:
    assert intersection(((0, 2), (3, 5)), ((1, 4),)) == ((1, 2), (3, 4))
    assert intersection(((-math.inf, 1),), ((0.5, 3),)) == ((0.5, 1),)
    assert intersection(((0, 1),), ((1, 2),)) == ()


def test_a_turn_begins_and_ends_between_the_middles_of_two_windows() -> None:
    split = Split(similarity=0.2, first=2, last=4)
    inside, outside = parts_of(split, [0.0, 0.75, 1.5, 2.25, 3.0], ((0.0, 2.0), (2.5, 4.5)))
    assert inside == ((1.875, 2.0), (2.5, 3.375))
    assert outside == ((0.0, 1.875), (3.375, 4.5))


def test_a_turn_at_an_end_reaches_to_that_end() -> None:
    speech = ((0.1, 4.4),)
    starts = [0.0, 0.75, 1.5, 2.25, 3.0]
    assert parts_of(Split(similarity=0, first=0, last=2), starts, speech)[0] == ((0.1, 1.875),)
    assert parts_of(Split(similarity=0, first=3, last=5), starts, speech)[0] == ((2.625, 4.4),)


def test_the_second_voice_is_the_shorter_part() -> None:
    short, long = ((0.0, 2.0),), ((2.0, 9.0),)
    assert second_part((short, long), ()) == short
    assert second_part((long, short), ((5.0, 5.5),)) == short  # a crumb of overlap says nothing


def test_both_networks_mean_the_same_voice_by_the_second() -> None:
    """Otherwise two halves of about one length would both be the second voice's."""
    first_half, second_half = ((0.0, 5.1),), ((5.1, 10.0),)
    heard_second = ((0.2, 4.9),)
    assert second_part((first_half, second_half), heard_second) == first_half


@pytest.mark.parametrize(
    ("windows", "parts", "overlap", "turn"),
    [
        (0.6, 1.0, 0.0, True),
        (0.61, 1.0, 0.0, False),
        (0.7, 0.55, 0.9, True),
        (0.7, 0.56, 0.0, False),
        (0.3, 0.3, 1.0, False),
    ],
)
def test_a_turn_needs_parts_that_differ_and_little_overlap(
    windows: float, parts: float, overlap: float, turn: bool
) -> None:
    assert is_turn({"cam_seg": windows, "cam_parts": parts, "softov": overlap}) is turn
