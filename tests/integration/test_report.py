"""`greenroom check --html` on real media, with the real ffmpeg and models."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.commands.check import PageError, write_page
from tests.integration.test_commands import ROOT, Ended, greenroom
from tests.pages import Element, loads_nothing, read
from validators.facts import Kind
from validators.rules import KINDS

SAMPLES = ROOT / "samples"
HOSTILE = "<img src=x onerror=alert(1)>.mp4"
MAX_BYTES = 1_500_000

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    ended: Ended
    html: str
    page: Element

    def section(self, number: int) -> Element:
        return self.page.one("section", id=f"m{number}")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """One page of four media: a clip of two people, an image, a recording and no bytes at all."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copy(SAMPLES / "two_people.mp4", folder / HOSTILE)
    (folder / "empty.mp4").touch()
    media = (folder / HOSTILE, SAMPLES / "portrait.jpg", SAMPLES / "voice.flac")
    words = ("--html", folder / "r.html", *media, folder / "empty.mp4")
    ended = asyncio.run(greenroom("check", *words))
    html = (folder / "r.html").read_text("utf-8")
    assert sorted(path.name for path in folder.iterdir()) == [HOSTILE, "empty.mp4", "r.html"]
    return Written(ended=ended, html=html, page=read(html))


def test_the_page_says_what_the_command_says(written: Written) -> None:
    assert written.ended.status == 1
    decisions = [each.text for each in written.page.one("nav").all("td", class_="word")]
    assert decisions == ["Rejected", "Accepted", "Accepted", "Rejected"]


def test_every_check_of_the_kind_is_there(written: Written) -> None:
    kinds = (Kind.VIDEO, Kind.IMAGE, Kind.AUDIO, Kind.VIDEO)
    for number, kind in enumerate(kinds, 1):
        codes = [code for code in KINDS if kind in KINDS[code]]
        panel = written.section(number).one("ul", class_="panel")
        assert [each.text for each in panel.all("code")] == codes
        for code in codes:
            assert len(written.page.all(id=f"m{number}-{code}")) == 1


def test_it_loads_nothing_and_runs_nothing_of_a_name(written: Written) -> None:
    assert loads_nothing(written.page)
    assert "<img src=x" not in written.html
    assert "://" not in written.html
    name = written.section(1).one("h2").one("bdi").text
    assert name.endswith(HOSTILE)


def test_it_stays_small(written: Written) -> None:
    assert len(written.html.encode()) < MAX_BYTES


def test_failing_ranges_are_drawn_at_their_times(written: Written) -> None:
    """The second face is there from 3 to 6 s of 9.86, the second voice from 6 s to the end."""
    section = written.section(1)
    length_s = float(section.attributes["data-length"])
    for code, start_s, end_s in (("multiple_faces", 3, 6), ("multiple_speakers", 6, length_s)):
        lane = section.one("div", class_="track", **{"data-code": code})
        edges = [
            (float(bar.attributes["x"][:-1]), float(bar.attributes["width"][:-1]))
            for bar in lane.all("rect", class_="bar")
        ]
        first, last = edges[0][0], edges[-1][0] + edges[-1][1]
        assert first == pytest.approx(100 * start_s / length_s, abs=3)
        assert last == pytest.approx(100 * end_s / length_s, abs=3)


def test_every_medium_is_shown_as_what_it_is(written: Written) -> None:
    pictures = [len(written.section(number).all("img")) for number in (1, 2, 3, 4)]
    assert pictures[0] >= 12
    assert pictures[1:] == [1, 0, 0]
    tracks = [bool(written.section(number).all(class_="tracks")) for number in (1, 2, 3, 4)]
    assert tracks == [True, False, True, False]
    titles = {each.text for each in written.section(1).all("span", class_="title")}
    assert {"Sound", "Speech", "Second voice", "Background", "Face", "Second face"} <= titles
    assert written.section(1).all("rect", class_="second")
    assert len(written.section(2).all("rect", class_="main")) == 1


@pytest.mark.parametrize(
    "name", ["r.txt", "no/r.html", "a.mp4", "folder.html", f"{'x' * 300}.html"]
)
async def test_a_page_that_cannot_be_written_is_told_before_any_work(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"kept")
    (tmp_path / "folder.html").mkdir()
    ended = await greenroom("check", "--html", tmp_path / name, SAMPLES / "voice.flac")
    assert (ended.status, ended.out) == (2, "")
    assert "--html" in ended.err
    assert (tmp_path / "a.mp4").read_bytes() == b"kept"


def test_a_page_that_cannot_be_written_after_all_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PageError, match=r"r\.html: No such file"):
        write_page(tmp_path / "removed" / "r.html", [], [])
