"""The documentation names what there is, and nothing else."""

import re
from pathlib import Path

import pytest
import typer

from service.__main__ import app
from service.api.middleware import scope_of
from service.api.routes import ROUTES
from service.domain import EventType
from service.errors import FAILURES, FailureCode
from service.events.data import schema
from service.telemetry import (
    ANALYSIS_RESTARTS,
    EGRESS_EXCEPTIONS,
    EGRESS_REFUSED,
    ERASURE_AGE,
    FACTS_REUSED,
    HTTP_REQUESTS,
    HTTP_SECONDS,
    JOBS,
    OBJECTS_TO_ERASE,
    POSTGRES_RESTARTS,
    QUEUE_AGE,
    QUEUE_DEPTH,
    RETENTION,
    SANDBOX_LAYER,
)
from validators.facts import Kind
from validators.policy import STANDARD
from validators.rules import KINDS
from validators.verdict import Code, PairCode

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "samples/PROVENANCE.md"])

HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
CALLED_PATH = re.compile(r"\$URL(/[^\"'?\s]*)")

# The fields of the policy whose numbers a row of the table must show, as people write them.
SHOWN_LIMITS = {
    Code.DURATION_TOO_SHORT: (STANDARD.min_duration_s,),
    Code.DURATION_TOO_LONG: (STANDARD.max_duration_s, STANDARD.lossy_audio_tolerance_s * 1000),
    Code.UNREADABLE: (STANDARD.min_decoded_share * 100, STANDARD.lost_packets),
    Code.HEADER_MISMATCH: (STANDARD.header_mismatch_s,),
    Code.IMAGE_TOO_LARGE: (STANDARD.max_image_pixels / 1e6, STANDARD.max_frame_pixels / 1e6),
    Code.LOW_RESOLUTION: (STANDARD.low_resolution_warn_px, STANDARD.low_resolution_fail_px),
    Code.LOW_FRAME_RATE: (STANDARD.low_frame_rate_warn_fps,),
    Code.TOO_LITTLE_SPEECH: (
        STANDARD.too_little_speech_warn_s,
        STANDARD.too_little_speech_fail_s,
        STANDARD.speech_margin_s,
    ),
    Code.MULTIPLE_SPEAKERS: (STANDARD.second_voice_s,),
    Code.BACKGROUND_AUDIO: (STANDARD.background_warn, STANDARD.background_fail),
    Code.NOISY_AUDIO: (
        STANDARD.noisy_audio_warn_db,
        STANDARD.noisy_audio_fail_db,
        STANDARD.noisy_audio_margin_db,
    ),
    Code.CLIPPED_AUDIO: (STANDARD.clipped_audio_warn_per_s, STANDARD.clipped_audio_fail_per_s),
    Code.QUIET_AUDIO: (STANDARD.quiet_audio_warn_dbfs,),
    Code.FACE_MISSING: (STANDARD.face_missing_warn * 100, STANDARD.face_missing_fail * 100),
    Code.MULTIPLE_FACES: (STANDARD.faint_face_frames,),
    Code.FACE_TOO_SMALL: (
        STANDARD.face_too_small_warn * 100,
        STANDARD.face_too_small_fail * 100,
        STANDARD.face_too_small_margin * 100,
    ),
    Code.FACE_CUT_OFF: (
        STANDARD.face_cut_off_warn * 100,
        STANDARD.face_cut_off_fail * 100,
        STANDARD.face_cut_off_margin * 100,
    ),
    Code.FACE_TURNED: (
        STANDARD.face_aside_warn_deg,
        STANDARD.face_up_warn_deg,
        STANDARD.face_down_warn_deg,
        STANDARD.face_tilted_warn_deg,
        STANDARD.face_aside_fail_deg,
        STANDARD.face_up_fail_deg,
        STANDARD.face_down_fail_deg,
        STANDARD.face_tilted_fail_deg,
        STANDARD.face_turned_margin_deg,
    ),
    Code.BLURRY: (STANDARD.blurry_warn,),
    Code.TOO_DARK: (STANDARD.too_dark_warn,),
    Code.TOO_BRIGHT: (STANDARD.too_bright_warn * 100,),
    Code.STILL_MOUTH: (STANDARD.still_mouth_warn, STANDARD.still_mouth_looks),
    Code.DIFFERENT_PERSON: (STANDARD.different_person, STANDARD.different_person_margin),
}


def rows(page: str) -> dict[str, list[str]]:
    """The rows of a page's tables by what stands in `code style` in their first cell."""
    found = {}
    for line in (REFERENCE / page).read_text().splitlines():
        if line.startswith("| `"):
            first, *cells = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            found[first.strip("`")] = cells
    return found


def sections() -> dict[str, str]:
    """The sections of the API page by their headings, for headings that name a path."""
    parts = re.split(r"^## ", (REFERENCE / "api.md").read_text(), flags=re.MULTILINE)
    pairs = (part.partition("\n")[::2] for part in parts[1:])
    return {head: text for head, text in pairs if "/" in head}


def test_every_path_of_the_api_has_a_section_and_every_section_a_path() -> None:
    assert set(sections()) == {f"{route.method} {route.path}" for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_a_section_names_the_scope_that_its_path_needs(route: object) -> None:
    text = sections()[f"{route.method} {route.path}"]  # type: ignore[attr-defined]  # a RouteDef
    scope = scope_of(route.handler)  # type: ignore[attr-defined]  # likewise
    if scope is None:
        assert "Scope `" not in text
        assert "o key" in text
    else:
        assert text.lstrip().startswith(f"Scope `{scope}`.")


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_curl_only_calls_paths_that_exist(page: str) -> None:
    known = [re.sub(r"\{\w+\}", "[^/]+", route.path) for route in ROUTES]
    called = CALLED_PATH.findall((ROOT / page).read_text())
    assert len(called) >= 4
    assert not [path for path in called if not any(re.fullmatch(each, path) for each in known)]


def test_the_table_of_verdicts_has_every_code_in_public_order() -> None:
    table = rows("verdicts.md")
    assert [code for code in table if code in set(Code)] == [code.value for code in Code]


@pytest.mark.parametrize("code", Code)
def test_a_row_tells_the_kinds_of_its_check_and_whether_it_is_measured(code: Code) -> None:
    kinds, measured, *_ = rows("verdicts.md")[code]
    named = set(Kind) if kinds == "all" else set(kinds.split(", "))
    assert named == set(KINDS[code])
    assert measured


@pytest.mark.parametrize("code", SHOWN_LIMITS)
def test_a_row_shows_the_limits_of_the_policy(code: Code) -> None:
    numbers = [
        float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", " ".join(rows("verdicts.md")[code]))
    ]
    missing = [limit for limit in SHOWN_LIMITS[code] if pytest.approx(limit) not in numbers]
    assert not missing


def test_pair_codes_are_named() -> None:
    text = (REFERENCE / "verdicts.md").read_text()
    assert all(f"`{code}`" in text for code in PairCode)


def test_every_failure_is_listed_with_who_must_act() -> None:
    table = rows("failures.md")
    assert list(table) == list(FailureCode)
    for code, (who, again, *_) in table.items():
        failure = FAILURES[FailureCode(code)]
        assert who.replace(" ", "_") == failure.who
        if code not in {FailureCode.SOURCE_HTTP_ERROR, FailureCode.INTERNAL}:  # it depends
            assert (again == "yes") == failure.retryable


@pytest.mark.parametrize("type_", EventType)
def test_every_event_is_listed_with_all_of_its_fields(type_: EventType) -> None:
    _, fields = rows("events.md")[type_]
    assert set(re.findall(r"`(\w+)`", fields.partition(" by role")[0])) == set(
        schema(type_)["properties"]
    )


def test_every_command_is_listed() -> None:
    group = typer.main.get_command(app)
    names = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]  # it is a group
        parts = getattr(command, "commands", None)
        names += [f"{name} {part}" for part in parts] if parts else [name]
    listed = {" ".join(words.split()[1:]) for words in rows("commands.md")}
    for name in names:
        assert any(f"{words} ".startswith(f"{name} ") for words in listed), name
    assert len(listed) == len(names)


def test_every_metric_is_explained() -> None:
    http = (HTTP_REQUESTS, HTTP_SECONDS)
    metrics = (*http, JOBS, FACTS_REUSED, RETENTION, EGRESS_REFUSED, EGRESS_EXCEPTIONS)
    queue = (QUEUE_DEPTH, QUEUE_AGE, OBJECTS_TO_ERASE, ERASURE_AGE)
    gauges = (*queue, ANALYSIS_RESTARTS, POSTGRES_RESTARTS, SANDBOX_LAYER)
    there = {family.name for metric in (*metrics, *gauges) for family in metric.describe()}
    text = (ROOT / "docs/howto/operate.md").read_text()
    named = {name.removesuffix("_total") for name in re.findall(r"`(greenroom_\w+)", text)}
    assert named == there


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCED.sub("", page.read_text())
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(text)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCED.sub("", page.read_text())
    for link in (a or b for a, b in LINK.findall(text)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, found = set(), {ROOT / "README.md"}
    while found:
        page = found.pop()
        seen.add(page)
        links = (a or b for a, b in LINK.findall(FENCED.sub("", page.read_text())))
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links}
        pages = {part for target in targets if target.is_dir() for part in target.glob("*.md")}
        pages |= {target for target in targets if target.suffix == ".md" and target.exists()}
        found |= pages - seen
    assert not {page for page in PAGES if page.name != "CHANGELOG.md"} - seen


def test_the_example_is_as_short_as_the_readme_says() -> None:
    assert len((ROOT / "examples" / "fitter.py").read_text().splitlines()) < 80
