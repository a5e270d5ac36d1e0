"""The page from facts and verdicts alone: what it says, where it draws, and what it escapes."""

import base64
import hashlib
from dataclasses import fields, replace
from typing import Any

import pytest

from service.console.lanes import axis_of
from service.console.readout import amount
from service.console.report import PairReport, Report, content_security_policy, render
from tests.facts import FACE, FRAMES, IMAGE, VIDEO
from tests.pages import Element, loads_nothing, read
from validators.facts import (
    Cut,
    Face,
    FaceFacts,
    FaceLook,
    Facts,
    MotionFacts,
    Overlay,
    OverlayFacts,
    OverlayKind,
    SpeakerFacts,
)
from validators.media.contact_sheet import ContactSheet, Envelope, Shot
from validators.policy import STANDARD
from validators.rules import judge
from validators.verdict import Code, Decision, Outcome, PairCode, PairFinding, PairVerdict, Verdict

HOSTILE = "<img src=x onerror=alert(1)>\"'&.mp4"
SECOND = Face(left=0.7, top=0.5, width=0.1, height=0.2, confidence=0.95, confirmation=0.9)
STRAIGHT = {each.name: 0.0 for each in fields(FaceLook)}
LOOK = FaceLook(**STRAIGHT | {"presence": 1, "yaw_deg": 30, "mouth_open": 0.1})
TWO_FACES = tuple(
    replace(frame, faces=(FACE, SECOND)) if 3 <= frame.time_s < 6 else frame for frame in FRAMES
)
PLAIN = replace(
    VIDEO,
    faces=FaceFacts(
        frames=tuple(replace(frame, look=None, stranger=None) for frame in FRAMES), interval_s=0.2
    ),
    motion=None,
    overlays=None,
)
TWO_PEOPLE = replace(
    VIDEO,
    faces=FaceFacts(frames=TWO_FACES, interval_s=0.2),
    speakers=SpeakerFacts(score=3, second_voice_s=3.5, second_voice=((6.0, 9.5),)),
)
SHEET = ContactSheet(
    shots=tuple(Shot(time_s=at, width=4, height=2, jpeg=b"jpeg") for at in (0.0, 4.0, 7.0)),
    envelope=Envelope(start_s=0, end_s=10, low=(-0.5, -0.1), high=(0.5, 0.2)),
)


def report(facts: Facts, *, name: str = "a.mp4", sheet: ContactSheet = SHEET) -> Report:
    return Report(name=name, facts=facts, verdict=judge(facts, STANDARD), sheet=sheet)


def page(*reports: Report) -> Element:
    return read(render(reports))


def tracks(section: Element) -> dict[str, Element]:
    """By what they are called."""
    found = section.all(class_="track", role="listitem")
    return {track.one(class_="title").text: track for track in found}


def placed(track: Element) -> list[tuple[float, float]]:
    """Left and right of each bar, in percent."""
    found = [each.attributes for each in track.all("rect", class_="bar")]
    numbers = [(float(each["x"].rstrip("%")), float(each["width"].rstrip("%"))) for each in found]
    return [(left, left + width) for left, width in numbers]


def changed(verdict: Verdict, code: Code, **fields: Any) -> Verdict:  # noqa: ANN401 - of any field
    checks = (replace(each, **fields) if each.code is code else each for each in verdict.checks)
    return replace(verdict, checks=tuple(checks))


def test_the_decision_comes_first() -> None:
    heading = page(report(TWO_PEOPLE)).one("h1")
    assert heading.one(class_="word").text == "Rejected"
    assert heading.one("bdi").text == "a.mp4"


def test_a_failure_says_what_was_measured_where_and_what_to_do() -> None:
    found = page(report(TWO_PEOPLE)).one("article", id="m1-multiple_speakers")
    assert found.one("h2").text == "A second voice speaks for 3.5\u00a0s."
    assert [each.text for each in found.all("dd")] == [
        "3.5\u202fs",
        amount(STANDARD.second_voice_s, "s"),
        "6.0\u20139.5\u202fs",
    ]
    assert found.one(class_="hint").text == "Record one person alone."
    assert found.one("rect", class_="value").attributes["width"] == "80.0%"


def test_every_check_is_named_with_its_outcome() -> None:
    facts = replace(TWO_PEOPLE, container=None)
    for one in (report(TWO_PEOPLE), report(facts), report(IMAGE)):
        assert one.verdict is not None
        shown = read(render([one])).one("ul", class_="panel").all("li")
        assert [(each.one("code").text, each.one(class_="state").text) for each in shown] == [
            (check.code, check.outcome) for check in one.verdict.checks
        ]


def test_every_link_leads_somewhere() -> None:
    shown = page(report(TWO_PEOPLE), report(IMAGE), report(VIDEO))
    places = [each.attributes["id"] for each in shown.all() if "id" in each.attributes]
    assert len(places) == len(set(places))
    links = {each.attributes["href"] for each in shown.all("a")}
    assert links <= {f"#{place}" for place in places}


def test_failing_ranges_are_drawn_where_they_are() -> None:
    shown = page(report(TWO_PEOPLE))
    assert placed(tracks(shown)["multiple_faces"]) == [(30, 60)]
    assert placed(tracks(shown)["multiple_speakers"]) == [(60, 95)]
    band = shown.one("rect", class_="band").attributes
    assert (band["x"], band["width"]) == ("30.0%", "65.0%")


def test_a_picture_within_a_failing_range_says_so() -> None:
    shown = page(report(TWO_PEOPLE)).all("figure")
    assert [each.attributes.get("data-code") for each in shown] == [
        None,
        "multiple_faces",
        "multiple_speakers",
    ]
    assert (
        shown[1].one("img").attributes["alt"]
        == "Frame at 4.0 s: 2 faces marked; fails multiple_faces."
    )


def test_boxes_lie_over_the_faces() -> None:
    (_, second, _) = page(report(TWO_PEOPLE)).all("figure")
    (box,) = second.all("rect", class_="second")
    keys = ("x", "y", "width", "height")
    assert [box.attributes[key] for key in keys] == ["70.0%", "50.0%", "10.0%", "20.0%"]
    assert len(second.all("rect", class_="main")) == 1


def test_a_second_face_that_does_not_count_is_drawn_faint() -> None:
    frames = (replace(FRAMES[0], faces=(FACE, replace(SECOND, confidence=0.61))), *FRAMES[1:])
    facts = replace(VIDEO, faces=FaceFacts(frames=frames, interval_s=0.2))
    first = page(report(facts)).all("figure")[0]
    assert first.all("rect", class_="faint")
    assert not first.all("rect", class_="second")


def test_speech_voices_and_faces_have_a_track_each() -> None:
    shown = tracks(page(report(TWO_PEOPLE)))
    assert placed(shown["Speech"]) == [(5, 95)]
    assert placed(shown["Second voice"]) == [(60, 95)]
    assert placed(shown["Face"]) == [(0, 100)]
    assert placed(shown["Second face"]) == [(30, 60)]
    assert shown["Sound"].one("path", class_="area").attributes["d"].startswith("M250,0L")
    assert shown["Speech"].one("svg", role="img").attributes["aria-label"].startswith("Speech: 0.5")


def test_movement_looks_strangers_and_overlays_have_tracks_where_there_are_facts() -> None:
    plain = tracks(page(replace(report(VIDEO), facts=PLAIN)))
    assert not {"Change", "Head turned", "Mouth open", "Other person", "Overlay"} & set(plain)
    frames = tuple(replace(frame, look=LOOK, stranger=0.4) for frame in FRAMES)
    times = tuple(n / 25 for n in range(250))
    motion = MotionFacts(
        times_s=times,
        change=tuple(1.0 for _ in times),
        block_change=times,
        luma=times,
        dark=times,
        cuts=(Cut(time_s=2.5, score=9),),
    )
    overlay = Overlay(
        kind=OverlayKind.TEXT,
        left=0.1,
        top=0.8,
        width=0.8,
        height=0.1,
        confidence=1,
        shown=((1.0, 4.5),),
    )
    facts = replace(
        VIDEO,
        faces=FaceFacts(frames=frames, interval_s=0.2),
        motion=motion,
        overlays=OverlayFacts(overlays=(overlay,), frames=5),
    )
    shown = page(report(facts))
    drawn = tracks(shown)
    assert drawn["Change"].one("line", class_="mark").attributes["x1"] == "25.0%"
    assert drawn["Head turned"].one("path", class_="line").attributes["d"].endswith("L1000,25")
    assert drawn["Mouth open"].one("path", class_="area").attributes["d"].startswith("M0,60L")
    assert drawn["Other person"].one("path").attributes["d"].startswith("M0,60L")
    assert placed(drawn["Overlay"]) == [(10, 45)]
    assert [len(each.all("rect", class_="overlay")) for each in shown.all("figure")] == [0, 1, 0]


def test_nothing_that_was_found_missing_is_drawn_as_there() -> None:
    frames = tuple(replace(each, faces=()) if each.time_s >= 5 else each for each in FRAMES)
    facts = replace(VIDEO, faces=FaceFacts(frames=frames, interval_s=0.2))
    assert placed(tracks(page(report(facts)))["Face"]) == [(0, 50)]


def test_a_still_image_has_a_picture_and_no_time() -> None:
    shown = page(report(IMAGE, sheet=ContactSheet(shots=SHEET.shots[:1])))
    assert len(shown.all("img")) == 1
    assert not shown.all("figcaption")
    assert not shown.all(class_="tracks")
    assert axis_of(IMAGE, judge(IMAGE, STANDARD), None) is None


def test_what_could_not_be_judged_says_why() -> None:
    shown = page(Report(name="a.mp4", error=("not_readable", "No such file")))
    assert shown.one("h1").one(class_="word").text == "Not judged"
    assert "No such file" in shown.one("section").text


def test_several_media_have_an_index() -> None:
    shown = page(report(TWO_PEOPLE), report(VIDEO, name="b.mp4"))
    index = shown.one("nav").one("table")
    assert [
        each.attributes["href"] for each in index.all("th", scope="row") for each in each.all("a")
    ] == [
        "#m1",
        "#m2",
    ]
    assert [each.text for each in index.all("td", class_="word")] == ["Rejected", "Accepted"]
    assert [each.text for each in shown.all("h1")] == ["2 media judged"]


def test_media_beside_each_other_have_a_section() -> None:
    found = PairFinding(
        code=PairCode.FACE_MISMATCH, outcome=Outcome.FAIL, message="They show two people."
    )
    verdict = PairVerdict(verdict=Decision.REJECTED, policy="standard-1", checks=(found,))
    pairs = [PairReport(names=("a.jpg", HOSTILE), verdict=verdict)]
    pairs += [PairReport(names=("b.jpg", "a.mp4"), error=("not_compared", "b.jpg failed."))]
    shown = read(render([report(VIDEO)], pairs))
    assert shown.one("article", id="p1-face_mismatch").one("h3").text == "They show two people."
    assert "b.jpg failed." in shown.one("section", **{"aria-labelledby": "p2"}).text


def test_a_pair_that_was_rejected_stands_in_the_index_beside_media_that_were_not() -> None:
    found = PairFinding(
        code=PairCode.FACE_MISMATCH, outcome=Outcome.FAIL, message="They show two people."
    )
    verdict = PairVerdict(verdict=Decision.REJECTED, policy="standard-1", checks=(found,))
    pair = PairReport(names=("a.mp4", "a.jpg"), verdict=verdict)
    whole = read(render([report(VIDEO), report(IMAGE, name="a.jpg")], [pair]))
    row = whole.one("table", class_="index").all("tr")[-1]
    assert row.one(class_="word").text == "Rejected"
    assert row.one("code").text == "face_mismatch"
    for link in row.all("a"):
        assert whole.all(id=link.attributes["href"].removeprefix("#"))


def test_when_it_failed_is_told_also_of_what_has_no_value() -> None:
    given = report(TWO_PEOPLE)
    assert given.verdict is not None
    bare = changed(given.verdict, Code.MULTIPLE_SPEAKERS, value=None, limit=None)
    found = page(replace(given, verdict=bare)).one("article", id="m1-multiple_speakers")
    assert [each.text for each in found.all("dd")] == ["6.0\u20139.5\u202fs"]


def test_nothing_from_a_file_becomes_markup() -> None:
    verdict = judge(TWO_PEOPLE, STANDARD)
    hostile = changed(verdict, Code.MULTIPLE_FACES, message=HOSTILE, hint=HOSTILE)
    hostile = changed(hostile, Code.NO_FACE, message=HOSTILE)
    hostile = changed(hostile, Code.BLURRY, message=HOSTILE)
    media = replace(verdict.media, video_codec=HOSTILE, sha256=HOSTILE)
    hostile = replace(hostile, engines={HOSTILE: HOSTILE}, media=media, policy=HOSTILE)
    reports = [
        Report(name=HOSTILE, verdict=hostile, facts=TWO_PEOPLE, sheet=SHEET),
        Report(name=HOSTILE, error=(HOSTILE, HOSTILE)),
        Report(name=HOSTILE, verdict=hostile, facts=TWO_PEOPLE, unseen=HOSTILE),
    ]
    html = render(reports, [PairReport(names=(HOSTILE,), error=(HOSTILE, HOSTILE))])
    assert "<img src=x" not in html
    assert loads_nothing(read(html))
    assert read(html).one("head").one("title").text == "3 media judged"


def test_a_name_that_is_no_utf_8_can_be_written() -> None:
    html = render([report(VIDEO, name="a\udcff\u202e.mp4")])
    assert "a\ufffd\ufffd.mp4" in html
    html.encode()


def test_the_policy_allows_our_own_style_and_script_alone() -> None:
    shown = page(report(VIDEO))
    (said,) = [each for each in shown.all("meta") if "http-equiv" in each.attributes]
    assert said.attributes["content"] == content_security_policy()
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        text = render([report(VIDEO)]).partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in content_security_policy()


@pytest.mark.parametrize("facts", [VIDEO, TWO_PEOPLE, IMAGE, replace(VIDEO, decode=None)])
def test_any_facts_make_a_page_that_loads_nothing(facts: Facts) -> None:
    verdict = judge(TWO_PEOPLE, STANDARD)
    shown = read(render([Report(name="a", facts=facts, verdict=verdict, sheet=SHEET)]))
    assert loads_nothing(shown)
    assert all(each.attributes["alt"] for each in shown.all("img"))
