from dataclasses import replace

import pytest

from tests.facts import AUDIO_STREAM, FACE, IMAGE, LOOK, VIDEO, VIDEO_STREAM, the
from validators.facts import Face, FaceFacts, FaceLook, Facts, FrameFacts, TrackFacts
from validators.verdict import Code, Outcome

BESIDE = replace(FACE, left=0.7, width=0.1, height=0.2)
FAINT = replace(BESIDE, confidence=0.65, confirmation=None)
UNSURE = replace(BESIDE, confirmation=0.3)


def seen(*frames: tuple[Face, ...]) -> Facts:
    """Five frames a second, the rest of ten seconds filled with the main face alone."""
    shown = [*frames, *[(FACE,)] * (50 - len(frames))]
    facts = FaceFacts(
        frames=tuple(FrameFacts(time_s=n / 5, faces=faces) for n, faces in enumerate(shown)),
        interval_s=0.2,
    )
    return replace(VIDEO, faces=facts)


def everywhere(*faces: Face) -> Facts:
    return seen(*[faces] * 50)


def test_one_face_all_the_time_passes() -> None:
    facts = everywhere(FACE)
    for code in (Code.NO_FACE, Code.FACE_MISSING, Code.MULTIPLE_FACES, Code.FACE_CUT_OFF):
        assert the(code, facts).outcome is Outcome.PASS


@pytest.mark.parametrize(
    "face",
    [
        replace(FACE, confirmation=0.5),
        replace(FACE, confidence=0.7),
        replace(FACE, confirmation=None),
    ],
    ids=["denied", "faint", "never confirmed"],
)
def test_a_face_that_no_network_is_sure_of_is_none(face: Face) -> None:
    facts = everywhere(face)
    assert the(Code.NO_FACE, facts).outcome is Outcome.FAIL
    assert the(Code.FACE_MISSING, facts).outcome is Outcome.SKIPPED


def test_no_box_at_all_is_no_face() -> None:
    assert the(Code.NO_FACE, everywhere()).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("missing", "outcome"),
    [(1, Outcome.PASS), (2, Outcome.WARN), (5, Outcome.WARN), (6, Outcome.FAIL)],
)
def test_the_share_without_the_face_is_graded(missing: int, outcome: Outcome) -> None:
    finding = the(Code.FACE_MISSING, seen(*[()] * missing))
    assert finding.outcome is outcome
    assert finding.ranges == ((0.0, round(missing / 5, 2)),)


def test_a_sure_second_face_counts_in_a_single_frame() -> None:
    finding = the(Code.MULTIPLE_FACES, seen((FACE,), (FACE, BESIDE)))
    assert (finding.outcome, finding.value) == (Outcome.FAIL, 0.2)
    assert finding.ranges == ((0.2, 0.4),)


@pytest.mark.parametrize(("frames", "outcome"), [(2, Outcome.PASS), (3, Outcome.FAIL)])
@pytest.mark.parametrize("second", [FAINT, UNSURE], ids=["faint", "denied"])
def test_a_faint_second_face_counts_when_it_is_seen_again(
    second: Face, frames: int, outcome: Outcome
) -> None:
    facts = seen(*[(FACE, second)] * frames)
    assert the(Code.MULTIPLE_FACES, facts).outcome is outcome


def test_a_faint_second_face_must_last() -> None:
    """Looks may follow each other at once, where much changes: three of them prove little."""
    quick = tuple(
        FrameFacts(time_s=time_s, faces=faces)
        for time_s, faces in [
            (0.0, (FACE,)),
            (4.0, (FACE, FAINT)),
            (4.04, (FACE, FAINT)),
            (4.08, (FACE, FAINT)),
            (4.12, (FACE,)),
        ]
    )
    facts = replace(VIDEO, faces=FaceFacts(frames=quick, interval_s=0.4))
    assert the(Code.MULTIPLE_FACES, facts).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("confidence", "confirmation", "outcome"),
    [
        (0.5, 0.5, Outcome.FAIL),
        (0.49, 0.9, Outcome.PASS),
        (0.59, 0.49, Outcome.PASS),
        (0.59, None, Outcome.PASS),
    ],
)
def test_what_both_networks_think_likely_counts_when_it_stays(
    confidence: float, confirmation: float | None, outcome: Outcome
) -> None:
    second = replace(BESIDE, confidence=confidence, confirmation=confirmation)
    assert the(Code.MULTIPLE_FACES, everywhere(FACE, second)).outcome is outcome


@pytest.mark.parametrize(("people", "code"), [(2, Code.NO_FACE), (3, Code.MULTIPLE_FACES)])
def test_many_small_faces_confirm_each_other(people: int, code: Code) -> None:
    group = [replace(UNSURE, left=0.1 + n / 4, confirmation=0.4) for n in range(people)]
    facts = everywhere(*group)
    assert the(code, facts).outcome is Outcome.FAIL


def test_a_second_box_that_is_surely_no_face_is_forgotten() -> None:
    doll = replace(BESIDE, confirmation=0.29)
    assert the(Code.MULTIPLE_FACES, everywhere(FACE, doll)).outcome is Outcome.PASS


def test_a_second_face_that_the_edge_cuts_off_cannot_be_denied() -> None:
    inset = replace(BESIDE, top=0.81, height=0.19, confirmation=0.05)
    assert the(Code.MULTIPLE_FACES, everywhere(FACE, inset)).outcome is Outcome.FAIL


def test_there_is_no_second_face_without_a_first() -> None:
    dogs = (replace(FACE, confirmation=0.4), UNSURE)
    finding = the(Code.MULTIPLE_FACES, everywhere(*dogs))
    assert finding.outcome is Outcome.SKIPPED
    assert "no_face" in finding.message


def showing(start_s: float, end_s: float) -> Facts:
    """Ten seconds of sound with a picture that shows the face for a part of it."""
    assert VIDEO.decode is not None
    frames = tuple(
        FrameFacts(time_s=start_s + n / 5, faces=(FACE,))
        for n in range(round((end_s - start_s) * 5))
    )
    track = TrackFacts(start_s=start_s, end_s=end_s, units=250)
    return replace(
        VIDEO,
        decode=replace(VIDEO.decode, video=track),
        faces=FaceFacts(frames=frames, interval_s=0.2),
    )


@pytest.mark.parametrize(
    ("start_s", "end_s", "outcome"),
    [(0, 10, Outcome.PASS), (0, 9.5, Outcome.WARN), (0, 1, Outcome.FAIL), (4, 10, Outcome.FAIL)],
)
def test_where_no_picture_shows_the_face_is_missing(
    start_s: float, end_s: float, outcome: Outcome
) -> None:
    assert the(Code.FACE_MISSING, showing(start_s, end_s)).outcome is outcome


def test_the_ranges_without_a_face_include_those_without_a_picture() -> None:
    assert the(Code.FACE_MISSING, showing(2, 8)).ranges == ((0, 2), (8, 10))


def test_a_frame_stands_for_the_time_until_the_next() -> None:
    frames = (FrameFacts(time_s=0, faces=(FACE,)), FrameFacts(time_s=7, faces=()))
    facts = replace(VIDEO, faces=FaceFacts(frames=frames, interval_s=0.2))
    finding = the(Code.FACE_MISSING, facts)
    assert (finding.value, finding.ranges) == (0.3, ((7, 10),))


def test_a_second_box_on_the_main_face_is_the_same_face() -> None:
    nose = replace(FACE, left=0.45, top=0.4, width=0.08, height=0.1)
    assert the(Code.MULTIPLE_FACES, everywhere(FACE, nose)).outcome is Outcome.PASS


def test_the_main_face_is_the_largest_sure_one() -> None:
    poster = replace(FACE, left=0.0, width=0.35, height=0.9, confidence=0.62)
    finding = the(Code.FACE_TOO_SMALL, seen((poster, FACE)))
    assert finding.value == FACE.height


@pytest.mark.parametrize(
    ("height", "outcome"),
    [
        (0.089, Outcome.FAIL),
        (0.091, Outcome.UNCERTAIN),
        (0.109, Outcome.UNCERTAIN),
        (0.111, Outcome.WARN),
        (0.179, Outcome.WARN),
        (0.18, Outcome.PASS),
    ],
)
def test_the_height_of_the_face_is_graded(height: float, outcome: Outcome) -> None:
    facts = everywhere(replace(FACE, height=height))
    assert the(Code.FACE_TOO_SMALL, facts).outcome is outcome


def test_a_face_is_measured_against_the_shorter_side() -> None:
    small = replace(FACE, height=0.15)
    assert the(Code.FACE_TOO_SMALL, everywhere(small)).outcome is Outcome.WARN
    upright = replace(VIDEO_STREAM, width=720, height=1280)
    assert VIDEO.container is not None
    container = replace(VIDEO.container, streams=(upright, AUDIO_STREAM))
    finding = the(Code.FACE_TOO_SMALL, replace(everywhere(small), container=container))
    assert (finding.outcome, finding.value) == (Outcome.PASS, 0.267)


@pytest.mark.parametrize(("frames", "outcome"), [(12, Outcome.PASS), (13, Outcome.WARN)])
def test_a_face_may_be_small_for_a_quarter_of_the_time(frames: int, outcome: Outcome) -> None:
    small = replace(FACE, height=0.12)
    finding = the(Code.FACE_TOO_SMALL, seen(*[(small,)] * frames))
    assert finding.outcome is outcome
    assert finding.ranges == (((0.0, 2.6),) if outcome is Outcome.WARN else ())


@pytest.mark.parametrize(
    ("left", "outcome"), [(0.0, Outcome.PASS), (-0.02, Outcome.WARN), (-0.1, Outcome.FAIL)]
)
def test_a_box_over_the_edge_is_of_a_face_that_is_cut_off(left: float, outcome: Outcome) -> None:
    assert the(Code.FACE_CUT_OFF, everywhere(replace(FACE, left=left))).outcome is outcome


def looking(*looks: FaceLook, face: Face = FACE) -> Facts:
    """As many frames as *looks*, evenly over ten seconds."""
    every_s = 10 / len(looks)
    frames = tuple(
        FrameFacts(time_s=n * every_s, faces=(face,), look=look) for n, look in enumerate(looks)
    )
    return replace(VIDEO, faces=FaceFacts(frames=frames, interval_s=every_s))


@pytest.mark.parametrize(
    ("outside", "outcome"),
    [
        (0.05, Outcome.PASS),
        (0.051, Outcome.WARN),
        (0.249, Outcome.WARN),
        (0.251, Outcome.UNCERTAIN),
        (0.349, Outcome.UNCERTAIN),
        (0.351, Outcome.FAIL),
    ],
)
def test_the_mesh_says_how_much_of_a_face_is_cut_off(outside: float, outcome: Outcome) -> None:
    finding = the(Code.FACE_CUT_OFF, looking(replace(LOOK, outside=outside)))
    assert finding.outcome is outcome
    assert finding.value == outside


def test_frames_between_the_looks_do_not_make_a_cut_face_whole() -> None:
    cut = FrameFacts(time_s=0, faces=(FACE,), look=replace(LOOK, outside=0.6))
    rest = [FrameFacts(time_s=n / 10, faces=(FACE,)) for n in range(1, 100)]
    facts = replace(VIDEO, faces=FaceFacts(frames=(cut, *rest), interval_s=0.1))
    assert the(Code.FACE_CUT_OFF, facts).outcome is Outcome.FAIL


DENIED = replace(FACE, confirmation=0.4)


def test_a_face_that_is_denied_because_it_is_cut_off_is_one() -> None:
    facts = looking(replace(LOOK, outside=0.6), face=DENIED)
    assert the(Code.NO_FACE, facts).outcome is Outcome.PASS
    assert the(Code.FACE_CUT_OFF, facts).outcome is Outcome.FAIL


def test_a_face_that_is_denied_because_it_lies_is_one() -> None:
    facts = looking(replace(LOOK, roll_deg=-90), face=DENIED)
    assert the(Code.NO_FACE, facts).outcome is Outcome.PASS
    assert the(Code.FACE_TURNED, facts).outcome is Outcome.FAIL
    for code in (Code.FACE_MISSING, Code.MULTIPLE_FACES):
        finding = the(code, facts)
        assert finding.outcome is Outcome.SKIPPED
        assert "face_turned" in finding.message


@pytest.mark.parametrize(
    "look",
    [
        replace(LOOK, roll_deg=90, presence=0.98),
        replace(LOOK, outside=0.6, presence=0.98),
        replace(LOOK, roll_deg=47),
        LOOK,
    ],
    ids=["unsure, lying", "unsure, cut", "tilted", "upright"],
)
def test_the_mesh_confirms_no_other_face(look: FaceLook) -> None:
    assert the(Code.NO_FACE, looking(look, face=DENIED)).outcome is Outcome.FAIL


def test_a_picture_has_no_times() -> None:
    two = FaceFacts(frames=(FrameFacts(time_s=0, faces=(FACE, BESIDE)),), interval_s=0)
    finding = the(Code.MULTIPLE_FACES, replace(IMAGE, faces=two))
    assert (finding.outcome, finding.ranges) == (Outcome.FAIL, ())
    assert finding.message == "A second face shows."


def test_who_was_there_first_stays_the_main_face() -> None:
    larger = replace(FACE, left=0.62, width=0.35, height=0.6)
    facts = seen((FACE,), (FACE, larger), (FACE, larger))
    finding = the(Code.MULTIPLE_FACES, facts)
    assert finding.outcome is Outcome.FAIL
    assert finding.value == 0.6
