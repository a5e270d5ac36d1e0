"""The real detector on media made here: text laid over a take, and text that belongs to it."""

import subprocess
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.corpus import labelled
from validators.analysis.models.overlays import Overlays, Search, SeenOverlay, overlay_facts
from validators.analysis.models.text_detector import Luma, TextDetector, TextLine
from validators.analysis.wire import FrameStream
from validators.media.sandbox import tool_name
from validators.policy import STANDARD

SAMPLES = Path(__file__).parents[2] / "samples"
CLIP, PORTRAIT = SAMPLES / "one_person.mp4", SAMPLES / "portrait.jpg"
FPS = 10
CAPTION = "drawtext=text='and so it goes':fontcolor=white:borderw=2:x=(w-tw)/2:fontsize=h*0.06"
LOGO = "drawtext=text='NEWS 24':fontcolor=white:box=1:boxcolor=red:boxborderw=8:fontsize=h*0.06"
SURE, DOUBTFUL = STANDARD.overlay_confidence_fail, STANDARD.overlay_confidence_warn


@pytest.fixture(scope="module")
def overlays() -> Overlays:
    return Overlays(None)


def frames(path: Path, *filters: str) -> npt.NDArray[np.uint8]:
    """(frames, 480, 480) grey levels of *path*, ten a second."""
    chain = ",".join([*filters, f"fps={FPS}", "scale=480:480:flags=area", "format=gray"])
    command = [tool_name("ffmpeg"), "-v", "error", "-i", str(path), "-vf", chain]
    command += ["-f", "rawvideo", "-"]
    raw = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, 480, 480)


def compressed(path: Path, target: Path, *filters: str) -> Path:
    """*path* with *filters* drawn over it, as an upload would come."""
    command = [tool_name("ffmpeg"), "-v", "error", "-y", "-i", str(path), "-an", "-vf"]
    command += [
        ",".join(filters),
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-crf",
        "26",
        str(target),
    ]
    subprocess.run(command, check=True, timeout=60)
    return target


def found(overlays: Overlays, pictures: npt.NDArray[np.uint8]) -> list[SeenOverlay]:
    """What a search sees and a policy would notice."""
    height, width = pictures.shape[1:]
    search = overlays.search(FrameStream(width=width, height=height, per_s=FPS))
    for number, picture in enumerate(pictures):
        search.glance(picture, number)
    return [seen for seen in search.finish() if seen.confidence >= DOUBTFUL]


def test_a_plain_take_has_no_overlay(overlays: Overlays) -> None:
    assert found(overlays, frames(CLIP)) == []


@pytest.mark.parametrize(
    "drawn",
    [
        f"{CAPTION}:y=h*0.86",
        f"{LOGO}:x=w*0.04:y=h*0.05",
        "drawtext=text='preview':fontcolor=white@0.5:fontsize=h*0.12:x=(w-tw)/2:y=h*0.4",
    ],
    ids=["caption", "logo", "watermark"],
)
def test_what_is_drawn_over_the_whole_take_is_found(
    overlays: Overlays, drawn: str, tmp_path: Path
) -> None:
    pictures = frames(compressed(CLIP, tmp_path / "drawn.mp4", drawn))
    seen = found(overlays, pictures)
    assert max(each.confidence for each in seen) > SURE
    first, last = seen[0].shown[0]
    assert first == 0
    assert last >= len(pictures) - 4


def test_a_caption_of_a_second_and_a_half_is_found_and_timed(
    overlays: Overlays, tmp_path: Path
) -> None:
    drawn = f"{CAPTION}:y=h*0.86:enable='between(t,2.1,3.6)'"
    pictures = frames(compressed(CLIP, tmp_path / "drawn.mp4", drawn))
    seen = found(overlays, pictures)
    assert min(each.confidence for each in seen) > SURE
    times_s = [number / FPS for number in range(len(pictures))]
    facts = overlay_facts(seen, times_s, every_s=0.2, frames=len(pictures))
    assert facts.overlays
    for each in facts.overlays:
        ((start_s, end_s),) = each.shown
        assert start_s == pytest.approx(2.1, abs=0.25)
        assert end_s == pytest.approx(3.6, abs=0.25)
        assert each.top > 0.8


def test_text_in_a_scene_that_pans_is_no_overlay(overlays: Overlays) -> None:
    pictures = frames(CLIP, f"{LOGO}:x=w*0.3:y=h*0.15")
    panned = np.stack([np.roll(picture, 2 * at, axis=1) for at, picture in enumerate(pictures)])
    assert found(overlays, panned) == []


def test_text_that_sways_with_who_wears_it_is_no_overlay(overlays: Overlays) -> None:
    pictures = frames(CLIP, "gblur=2")
    worn = [
        shirt(picture, 240 + 9 * np.sin(at / 3), 400 + 4 * np.cos(at / 4))
        for at, picture in enumerate(pictures)
    ]
    assert found(overlays, np.stack(worn)) == []


def tripod(count: int = 60) -> list[Luma]:
    """A scene in which nothing moves, with a camera's noise."""
    scene = cv2.GaussianBlur(frames(CLIP)[0], (0, 0), 3)
    noise = np.random.default_rng(1)
    noisy = (scene + noise.normal(0, 1.5, scene.shape) for _ in range(count))
    return [picture.clip(0, 255).astype(np.uint8) for picture in noisy]


def test_a_print_that_moves_once_is_no_overlay(overlays: Overlays) -> None:
    pictures = [shirt(picture, 240 if at < 36 else 248, 400) for at, picture in enumerate(tripod())]
    assert found(overlays, np.stack(pictures)) == []


def test_a_print_that_comes_and_goes_is_surer_than_one_that_stays(overlays: Overlays) -> None:
    pictures = tripod()
    prints = [shirt(picture, 240, 400) for picture in pictures]
    mixed = [prints[at] if 28 <= at < 48 else pictures[at] for at in range(len(pictures))]
    always, at_times = found(overlays, np.stack(prints)), found(overlays, np.stack(mixed))
    assert max(seen.confidence for seen in always) <= 0.8
    assert max(seen.confidence for seen in at_times) == pytest.approx(0.9)
    assert {seen.shown for seen in at_times} == {((28, 46),)}


def test_small_print_at_the_foot_is_found(overlays: Overlays, tmp_path: Path) -> None:
    drawn = "drawtext=text='@some_handle':fontcolor=white:fontsize=h*0.027:x=w*0.03:y=h*0.95"
    pictures = frames(compressed(CLIP, tmp_path / "drawn.mp4", drawn, "format=yuv420p"))
    assert max(seen.confidence for seen in found(overlays, pictures)) > SURE


def shirt(picture: Luma, x: float, y: float) -> Luma:
    """*picture* with a print around (*x*, *y*)."""
    worn = picture.copy()
    at = (round(x) - 70, round(y))
    cv2.putText(worn, "OXFORD", at, cv2.FONT_HERSHEY_DUPLEX, 1.2, 235, 2, cv2.LINE_AA)
    return worn


def test_outlined_text_over_a_moving_scene_is_as_sure_as_can_be(overlays: Overlays) -> None:
    pictures = frames(CLIP)
    panned = [np.roll(picture, 3 * at, axis=1) for at, picture in enumerate(pictures)]
    still = np.stack([outlined(picture) for picture in panned])
    assert max(seen.confidence for seen in found(overlays, still)) == pytest.approx(0.95)


def outlined(picture: Luma) -> Luma:
    """*picture* with a print in white, edged in black as captions are."""
    drawn = picture.copy()
    for level, thickness in ((0, 8), (255, 2)):
        font = cv2.FONT_HERSHEY_DUPLEX
        cv2.putText(drawn, "so it goes", (140, 300), font, 1.2, level, thickness, cv2.LINE_AA)
    return drawn


def test_a_banner_on_a_still_is_noticed_and_a_portrait_has_none(
    overlays: Overlays, tmp_path: Path
) -> None:
    drawn = compressed(
        PORTRAIT, tmp_path / "drawn.mp4", f"scale=640:-2,{CAPTION}:y=h*0.88", "format=yuv420p"
    )
    (banner,) = [seen for seen in overlays.in_still(grey(drawn)) if seen.confidence >= DOUBTFUL]
    assert banner.top > 0.8
    assert banner.confidence <= 0.6
    assert banner.shown == ()
    plain = cv2.imread(str(PORTRAIT), cv2.IMREAD_GRAYSCALE)
    assert plain is not None
    seen = overlays.in_still(plain.astype(np.uint8, copy=False))
    assert [each for each in seen if each.confidence >= DOUBTFUL] == []


def grey(path: Path) -> Luma:
    command = [tool_name("ffmpeg"), "-v", "error", "-i", str(path), "-frames:v", "1"]
    command += ["-f", "image2pipe", "-c:v", "png", "-pix_fmt", "gray", "-"]
    png = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    return picture.astype(np.uint8, copy=False)


@pytest.mark.parametrize("size", [(2, 2), (16, 640), (640, 16)])
def test_the_smallest_pictures_are_searched_without_harm(
    overlays: Overlays, size: tuple[int, int]
) -> None:
    height, width = size
    assert found(overlays, np.zeros((20, height, width), np.uint8)) == []
    assert overlays.in_still(np.zeros(size, np.uint8)) == ()


class GapReader(TextDetector):
    """Finds a line between the two strips of small print, where there is no picture."""

    def __init__(self) -> None:
        """It needs no weights."""

    def lines(self, luma: Luma, *, pixels: int) -> list[TextLine]:
        del pixels
        rows = len(luma)
        if rows == 20:
            return []
        line = TextLine(left=0.2, top=3 / rows, right=0.8, bottom=9 / rows, confidence=0.9)
        return [line, line]


def test_a_line_where_there_is_no_picture_is_none() -> None:
    search = Search(text=GapReader(), every=1)
    for number in range(10):
        search.glance(np.full((20, 640), 90, np.uint8), number)
    assert search.finish() == ()


def test_a_search_that_was_shown_nothing_finds_nothing(overlays: Overlays) -> None:
    assert overlays.search(FrameStream(width=64, height=64, per_s=25)).finish() == ()


def test_accepted_takes_have_no_sure_overlay(overlays: Overlays) -> None:
    takes = labelled("video", expect="accept")
    alarms = [
        take.path.name
        for take in takes
        if take.path.name.startswith("acc_")
        for seen in found(overlays, frames(take.path))
        if seen.confidence >= SURE
    ]
    assert alarms == []
