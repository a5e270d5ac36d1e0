import math

import numpy as np
import pytest

from validators.analysis.models.speaker_features import (
    SEGMENTATION_STEP_S,
    Floats,
    Mask,
    activity,
    by_presence,
    intersection,
    is_turn,
    least_alike,
    length_s,
    pooled,
    ranges_of,
    score,
    second_part,
    segmentation_features,
    spoken_frames,
    union,
)
from validators.facts import Range

NONE, A, B, C, AB, AC, BC = range(7)
ONE_VOICE = {"soft2": 0.0, "softov": 0.0, "unlike": -0.15}


def heard(*sets: int) -> Floats:
    """Log-probabilities of a network that is certain of one set of speakers in each frame."""
    odds = np.full((len(sets), 7), 1e-9, np.float32)
    odds[np.arange(len(sets)), list(sets)] = 1
    return np.log(odds)


def talk(*directions: int) -> Floats:
    """(8, frames) of CAM++, a second for each number: the same number is the same voice."""
    steady = np.repeat(np.eye(4, dtype=np.float32)[list(directions)], 50, axis=0).T
    wobble = np.random.default_rng(1).standard_normal((4, steady.shape[1])) * 0.05
    return np.vstack([steady, wobble]).astype(np.float32)


def by_means(pools: Floats) -> Floats:
    """An embedding that listens to the steady part of the means alone."""
    means = pools[:, :4]
    unit: Floats = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


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


def test_one_voice_is_alike_wherever_it_is_split() -> None:
    split = least_alike(talk(0, 0, 0, 0), by_means)
    assert split is not None
    assert split.unlike < -0.2


def test_features_that_were_not_taken_count_as_one_voice() -> None:
    heard_once = {"soft2": 0.04, "softov": 0.0}
    assert score(heard_once) == score(heard_once | {"unlike": -0.3}) < 0


@pytest.mark.parametrize("place", [0, 2, 5])
def test_the_split_falls_where_a_voice_of_one_second_speaks(place: int) -> None:
    order = [0] * 6
    order[place] = 1
    split = least_alike(talk(*order), by_means)
    assert split is not None
    assert split.unlike > 0.25
    run, spoken = np.zeros(300, bool), np.ones(300, bool)
    run[split.first : split.last] = True
    ((start, end),) = second_part(run, spoken, ())
    assert start == pytest.approx(place, abs=0.25)
    assert end == pytest.approx(place + 1, abs=0.25)


def test_too_little_speech_is_not_split() -> None:
    assert least_alike(talk(0)[:, :60], by_means) is None


def test_less_is_expected_of_a_shorter_run() -> None:
    """The same cosine of zero is worse news of a long run than of a short one."""
    short, long = least_alike(talk(0, 1), by_means), least_alike(talk(0, 0, 0, 1, 1, 1), by_means)
    assert short is not None
    assert long is not None
    assert long.unlike > short.unlike + 0.1


def test_pools_are_means_and_deviations() -> None:
    frames = talk(0, 1, 2)
    expected = np.concatenate([frames.mean(axis=1), frames.std(axis=1, ddof=1)])
    assert pooled(frames)[0] == pytest.approx(expected, abs=1e-5)


def test_frames_are_spoken_by_their_middles() -> None:
    assert np.flatnonzero(spoken_frames(10, ((0.05, 0.11),))).tolist() == [2, 3, 4]
    assert not spoken_frames(10, ()).any()


def test_the_score_is_the_published_sum() -> None:
    features = {"soft2": 4.0, "softov": 0.25, "unlike": 0.05}
    expected = -3.3 + 2.67 * 2 + 4.64 * 0.5 + 21.7 * 0.05
    assert score(features) == pytest.approx(expected)


def test_nothing_more_is_said_beyond_what_was_measured() -> None:
    assert score(ONE_VOICE | {"unlike": 0.3}) == score(ONE_VOICE | {"unlike": 0.9})
    assert score(ONE_VOICE | {"unlike": 0.3}) > score(ONE_VOICE | {"unlike": 0.29})


@pytest.mark.parametrize(("name", "value"), [("soft2", 2.0), ("softov", 1.0), ("unlike", 0.1)])
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


FIRST_HALF = np.repeat([True, False], 250)
ALL_SPOKEN = np.ones(500, bool)


def test_the_second_voice_is_the_shorter_part() -> None:
    run = np.arange(500) < 200
    crumb = ((5.0, 5.5),)  # of overlap says nothing
    for part in (run, ~run):
        (found,) = second_part(part, ALL_SPOKEN, crumb)
        assert found == pytest.approx((0.0, 4.0))


@pytest.mark.parametrize(("heard_s", "part_s"), [((0.2, 4.9), (0, 5)), ((5.2, 9.9), (5, 10))])
def test_both_networks_mean_the_same_voice_by_the_second(heard_s: Range, part_s: Range) -> None:
    """Otherwise two halves of about one length would both be the second voice's."""
    (found,) = second_part(FIRST_HALF, ALL_SPOKEN, (heard_s,))
    assert found == pytest.approx(part_s)


@pytest.mark.parametrize(
    ("unlike", "overlap", "turn"),
    [(0.01, 0.0, True), (0.0, 0.0, False), (0.1, 0.99, True), (0.1, 1.0, False)],
)
def test_a_turn_needs_parts_that_differ_and_little_overlap(
    unlike: float, overlap: float, turn: bool
) -> None:
    assert is_turn({"unlike": unlike, "softov": overlap}) is turn
