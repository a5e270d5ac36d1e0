"""The statistics of tools/accuracy, and the pages that it and people write."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.facts import AUDIO, IMAGE, VIDEO, lasting
from tools.accuracy.facts_store import FactsStore, store_path
from tools.accuracy.labels import REASONS, Expect, Label, ManifestError, read_labels
from tools.accuracy.measuring import Measured
from tools.accuracy.page import Run, page, table
from tools.accuracy.statistics import Rate, wilson
from tools.accuracy.tallies import by_check, by_kind, by_reason, judge_all, wrong_files
from validators.facts import FACTS_VERSION, FaceFacts, FrameFacts, Kind, SpeakerFacts
from validators.policy import STANDARD, STRICT
from validators.verdict import Code

REFERENCE = Path(__file__).parents[2] / "docs/reference"

TWO_VOICES = replace(AUDIO, speakers=SpeakerFacts(score=3, second_voice_s=2))
HARDLY_TWO = replace(AUDIO, speakers=SpeakerFacts(score=0.1, second_voice_s=2))
UNCOMPARED = replace(AUDIO, speakers=SpeakerFacts(score=None, second_voice_s=0))
FACELESS = replace(IMAGE, faces=FaceFacts(frames=(FrameFacts(time_s=0, faces=()),), interval_s=0))


def label(name: str, kind: Kind, expect: Expect, *reasons: str) -> Label:
    return Label(name=name, path=Path(name), kind=kind, expect=expect, reasons=reasons)


ROWS: list[tuple[Label, Measured]] = [
    (label("good.flac", Kind.AUDIO, Expect.ACCEPT), AUDIO),
    (label("refused.flac", Kind.AUDIO, Expect.ACCEPT), TWO_VOICES),
    (label("close.flac", Kind.AUDIO, Expect.ACCEPT), HARDLY_TWO),
    (label("mumbled.flac", Kind.AUDIO, Expect.ACCEPT), UNCOMPARED),
    (label("two.flac", Kind.AUDIO, Expect.REJECT, "multiple_speakers"), TWO_VOICES),
    (label("missed.flac", Kind.AUDIO, Expect.REJECT, "multiple_speakers"), HARDLY_TWO),
    (label("other.flac", Kind.AUDIO, Expect.REJECT, "noisy"), TWO_VOICES),
    (label("short.flac", Kind.AUDIO, Expect.REJECT, "multiple_speakers"), lasting(AUDIO, 1)),
    (label("edge.flac", Kind.AUDIO, Expect.WARN, "multiple_speakers"), HARDLY_TWO),
    (label("lost.flac", Kind.AUDIO, Expect.ACCEPT), "ToolCrashedError: gone"),
    (label("no.jpg", Kind.IMAGE, Expect.REJECT, "no_face", "smell"), FACELESS),
    (label("good.mp4", Kind.VIDEO, Expect.ACCEPT), VIDEO),
]
LABELS = [each for each, _ in ROWS]
MEASURED = [measured for _, measured in ROWS]
JUDGED = judge_all(LABELS, MEASURED, STANDARD)
STRICTLY = judge_all(LABELS, MEASURED, STRICT)


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        # R. Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(hits: int, of: int, low: float, high: float) -> None:
    assert wilson(hits, of) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson(of - hits, of)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_nothing_seen_proves_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert str(Rate(hits=0, of=0)) == "-"


def test_a_rate_is_written_with_its_count_and_interval() -> None:
    assert str(Rate(hits=81, of=263)) == "81/263 = 31 % (26-37)"


def test_verdicts_are_counted_by_kind() -> None:
    rows = {row.kind: row for row in by_kind(JUDGED)}
    audio = rows[Kind.AUDIO]
    assert audio.false_rejects == Rate(hits=1, of=4)
    assert audio.false_accepts == Rate(hits=1, of=4)
    assert audio.right_code == Rate(hits=1, of=3)
    assert audio.borderline == Rate(hits=0, of=1)
    assert audio.unjudged == 1
    assert rows[Kind.IMAGE].right_code == Rate(hits=1, of=1)
    assert rows[Kind.VIDEO].false_rejects == Rate(hits=0, of=1)


def test_strict_rejects_what_is_too_close_to_call() -> None:
    (audio,) = [row for row in by_kind(STRICTLY) if row.kind is Kind.AUDIO]
    assert audio.false_rejects == Rate(hits=2, of=4)
    assert audio.false_accepts == Rate(hits=0, of=4)
    assert audio.borderline == Rate(hits=1, of=1)


def test_a_check_is_counted_where_it_looked() -> None:
    rows = {row.code: row for row in by_check(JUDGED)}
    voices = rows[Code.MULTIPLE_SPEAKERS]
    assert voices.false_alarms == Rate(hits=1, of=4)  # of four recordings and a video, one skipped
    assert voices.doubts == Rate(hits=1, of=4)
    assert voices.named == Rate(hits=1, of=2)  # it never looked at the one that is too short
    assert voices.noticed == Rate(hits=3, of=3)
    assert rows[Code.NO_FACE].named == Rate(hits=1, of=1)
    assert rows[Code.NO_FACE].false_alarms == Rate(hits=0, of=1)


def test_faults_are_counted_by_the_word_for_them() -> None:
    rows = {row.reason: row for row in by_reason(JUDGED)}
    assert rows["multiple_speakers"].rejected == Rate(hits=2, of=3)
    assert rows["multiple_speakers"].named == Rate(hits=1, of=3)
    assert rows["noisy"].rejected == Rate(hits=1, of=1)
    assert rows["noisy"].named == Rate(hits=0, of=1)
    assert rows["smell"].named == Rate(hits=0, of=1)


def test_every_wrong_file_is_named_with_what_went_wrong() -> None:
    assert {wrong.name: (wrong.verdict, wrong.codes) for wrong in wrong_files(JUDGED)} == {
        "refused.flac": ("rejected", ("multiple_speakers",)),
        "missed.flac": ("accepted", ("multiple_speakers",)),
        "other.flac": ("another reason", ("multiple_speakers",)),
        "short.flac": ("another reason", ("duration_too_short",)),
        "lost.flac": ("no verdict", ("ToolCrashedError: gone",)),
    }


def test_the_page_tells_the_rates_the_versions_and_the_files() -> None:
    run = Run(
        date="2026-01-02",
        ffmpeg="5.1",
        engines={"faces": "some@1"},
        labels=LABELS,
        standard=JUDGED,
        strict=STRICTLY,
    )
    text = page(run)
    assert "| `standard-1` | audio | 1/4 = 25 % (5-70) | 1/4 = 25 % (5-70) |" in text
    assert "| `missed.flac` | reject multiple_speakers | accepted | multiple_speakers |" in text
    assert "rejected by `strict-1` alone: `close.flac`." in text
    assert "| engine for faces | `some@1` |" in text
    assert "`smell` (unknown)" in text
    assert "## What is not measured" in text


def test_a_table_has_a_cell_for_each_column() -> None:
    assert table(("a", "b"), [(1, 2)]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_manifest_tells_every_row_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    rows = (
        "file,media,expect,reasons\na.jpg,image,accept,\nb.jpg,image,accept,\na.jpg,smell,accept,"
    )
    (tmp_path / "manifest.csv").write_text(rows)
    with pytest.raises(ManifestError, match=r"row 3: there is no file b\.jpg; row 4: .*smell"):
        read_labels(tmp_path)


def test_a_manifest_without_a_needed_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("file,media\n")
    with pytest.raises(ManifestError, match="no column expect, reasons"):
        read_labels(tmp_path)


def test_a_row_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    head = "file,media,expect,reasons,source,second_face_share"
    (tmp_path / "manifest.csv").write_text(f"{head}\na.jpg,image,reject,blurry;pose,x/y@1:z,0.05\n")
    (row,) = read_labels(tmp_path)
    assert (row.kind, row.expect, row.reasons) == (Kind.IMAGE, Expect.REJECT, ("blurry", "pose"))
    assert (row.origin, row.second_face_share, row.second_voice_s) == ("x/y", 0.05, None)


def test_kept_facts_survive_a_run_that_was_cut_short(tmp_path: Path) -> None:
    path = store_path(tmp_path, {"faces": "some@1"}, "5.1")
    store = FactsStore(path)
    store.put("one", VIDEO)
    store.put("two", AUDIO)
    path.write_bytes(path.read_bytes()[:-40])
    kept = FactsStore(path)
    assert (kept.get("one"), kept.get("two")) == (VIDEO, None)
    kept.put("two", AUDIO)
    assert FactsStore(path).get("two") == AUDIO


def test_other_engines_or_another_ffmpeg_have_facts_of_their_own(tmp_path: Path) -> None:
    paths = {
        store_path(tmp_path, {"faces": engine}, ffmpeg)
        for engine in ("some@1", "some@2")
        for ffmpeg in ("5.1", "7.0")
    }
    assert len(paths) == 4


def test_the_page_on_labels_has_every_reason_with_its_checks() -> None:
    text = (REFERENCE / "labelled-media.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| ([^|]*)\|$", text, re.MULTILINE)
    told = {
        reason: tuple(Code(word) for word in re.findall(r"`(\w+)`", first + rest))
        for reason, first, rest in rows
    }
    assert told == REASONS


def test_the_published_page_is_of_these_policies_and_facts() -> None:
    text = (REFERENCE / "accuracy.md").read_text()
    assert f"| policies | `{STANDARD.label}`, `{STRICT.label}` |" in text
    assert f"| facts | version {FACTS_VERSION} |" in text
    assert all(f"| `{code}` |" in text for code in Code)
