"""One page that shows why media were accepted or rejected: `render(reports) -> str`.

Pure: pictures, samples and verdicts are given. The page holds all that it needs and may load
nothing, so it can be mailed, printed and kept.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from service.console import readout
from service.console.axis import Axis
from service.console.gauge import Gauge, gauge
from service.console.lanes import axis_of, shown_of
from validators.checks.seen import Seen, seen
from validators.facts import FACTS_VERSION, Face, Facts, Kind, Range
from validators.media.contact_sheet import ContactSheet, Shot
from validators.policy import STANDARD
from validators.verdict import AnyFinding, Code, Outcome, PairVerdict, Verdict

TEMPLATES = Path(__file__).with_name("templates")
LABELS = {
    Outcome.FAIL: "Failed",
    Outcome.UNCERTAIN: "Too close to call",
    Outcome.WARN: "Warned",
    Outcome.PASS: "Passed",
    Outcome.SKIPPED: "Skipped",
}
TONES = {
    "main": "face",
    "second": "second face",
    "faint": "perhaps a face",
    "overlay": "overlay",
}
SPOKEN = (Outcome.FAIL, Outcome.UNCERTAIN, Outcome.WARN)  # shown large, worst first


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One medium: its name, and its verdict with what it was reached from, or why there is none."""

    name: str
    verdict: Verdict | None = None
    facts: Facts | None = None
    sheet: ContactSheet = field(default_factory=ContactSheet)
    unseen: str | None = None  # why there are no pictures although the medium has some
    error: tuple[str, str] | None = None  # code and sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReport:
    """The media of one avatar beside each other."""

    names: Sequence[str]
    verdict: PairVerdict | None = None
    error: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle over a picture, in percent of it."""

    left: float
    top: float
    width: float
    height: float
    tone: str  # "main", "second", "faint" or "overlay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plate:
    """One picture of the contact sheet."""

    time_s: float
    width: int
    height: int
    source: str
    boxes: tuple[Box, ...]
    failing: tuple[str, ...]  # codes
    alt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finding as it is shown."""

    finding: AnyFinding
    gauge: Gauge | None
    anchor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Everything that the page shows of one medium."""

    number: int
    name: str
    report: Report
    rows: tuple[Row, ...]
    plates: tuple[Plate, ...]
    axis: Axis | None
    medium: tuple[tuple[str, str], ...]

    @property
    def decision(self) -> str:
        return self.report.verdict.verdict if self.report.verdict is not None else "not judged"

    @property
    def still(self) -> bool:
        return self.report.facts is not None and self.report.facts.kind is Kind.IMAGE

    def of(self, outcome: Outcome) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.finding.outcome is outcome)

    @property
    def spoken(self) -> tuple[Row, ...]:
        return tuple(row for outcome in SPOKEN for row in self.of(outcome))

    @property
    def tally(self) -> str:
        """How many checks came out how, worst first."""
        parts = (f"{len(self.of(each))} {LABELS[each].lower()}" for each in LABELS if self.of(each))
        return ", ".join(parts)

    @property
    def tones(self) -> tuple[tuple[str, str], ...]:
        """What the boxes over the pictures mean, of those that there are."""
        drawn = {box.tone for plate in self.plates for box in plate.boxes}
        return tuple((tone, words) for tone, words in TONES.items() if tone in drawn)

    @property
    def skipped(self) -> tuple[tuple[str, tuple[Row, ...]], ...]:
        """What was skipped, by the reason why."""
        reasons = dict.fromkeys(row.finding.message for row in self.of(Outcome.SKIPPED))
        rows = self.of(Outcome.SKIPPED)
        return tuple(
            (why, tuple(row for row in rows if row.finding.message == why)) for why in reasons
        )


def render(reports: Sequence[Report], pairs: Sequence[PairReport] = ()) -> str:
    """The whole page. Strings that come from files are escaped wherever they stand."""
    sections = [_section(number, report) for number, report in enumerate(reports, 1)]
    page = _environment().get_template("report.html")
    return page.render(
        sections=sections,
        pairs=[_pair(number, pair) for number, pair in enumerate(pairs, 1)],
        title=_title(sections),
        policy=content_security_policy(),
        style=Markup(_text("report.css")),  # noqa: S704 - ours, and its hash is in the policy
        script=Markup(_text("report.js")),  # noqa: S704 - likewise
        facts_version=FACTS_VERSION,
    )


def content_security_policy() -> str:
    """What the page may do: show its own pictures, be styled and scripted by its own two blocks."""
    return (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest('report.css')}'; script-src '{_digest('report.js')}'"
    )


@cache
def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _digest(name: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(_text(name).encode()).digest()).decode()}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("service.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": readout.amount,
        "moment": readout.moment,
        "spans": readout.spans,
        "plain": readout.plain,
        "sentence": readout.sentence,
    }
    environment.globals |= {"LABELS": LABELS, "Outcome": Outcome, "count": readout.count}
    return environment


def _title(sections: Sequence[Section]) -> str:
    if len(sections) == 1:
        return f"{sections[0].decision}: {sections[0].name}"
    return f"{len(sections)} media judged"


def _section(number: int, report: Report) -> Section:
    facts, verdict = report.facts, report.verdict
    axis = None
    if facts is not None and verdict is not None:
        axis = axis_of(facts, verdict, report.sheet.envelope)
    return Section(
        number=number,
        name=readout.plain(report.name),
        report=report,
        rows=_rows(f"m{number}", verdict.checks if verdict is not None else ()),
        plates=tuple(_plate(shot, report) for shot in report.sheet.shots),
        axis=axis,
        medium=tuple(_medium(verdict)) if verdict is not None else (),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSection:
    """Everything that the page shows of media beside each other."""

    decision: str
    names: str
    why: str  # why they were not compared
    rows: tuple[Row, ...]


def _pair(number: int, pair: PairReport) -> PairSection:
    verdict = pair.verdict
    return PairSection(
        decision=verdict.verdict if verdict is not None else "not compared",
        names=", ".join(readout.plain(name) for name in pair.names),
        why=pair.error[1] if pair.error is not None else "",
        rows=_rows(f"p{number}", verdict.checks if verdict is not None else ()),
    )


def _rows(prefix: str, findings: Sequence[AnyFinding]) -> tuple[Row, ...]:
    return tuple(
        Row(finding=each, gauge=gauge(each), anchor=f"{prefix}-{each.code}") for each in findings
    )


def _medium(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """What the medium is, as name and value."""
    media = verdict.media
    yield "kind", media.kind
    if media.duration_s is not None:
        yield "duration", readout.amount(media.duration_s, "s")
    if media.width is not None:
        turned = f", turned {media.rotation_deg}\u00b0" if media.rotation_deg else ""
        yield "picture", f"{media.width} {readout.BY} {media.height}{readout.THIN}px{turned}"
    if media.fps is not None:
        yield "frame rate", readout.amount(media.fps, "fps")
    codecs = [codec for codec in (media.video_codec, media.audio_codec) if codec is not None]
    if codecs:
        yield "codecs", ", ".join(readout.plain(codec) for codec in codecs)
    yield "size", readout.size(media.size_bytes)


def _plate(shot: Shot, report: Report) -> Plate:
    failing = _failing_at(shot.time_s, report)
    boxes = tuple(_boxes(shot.time_s, report))
    return Plate(
        time_s=shot.time_s,
        width=shot.width,
        height=shot.height,
        source=f"data:image/jpeg;base64,{base64.b64encode(shot.jpeg).decode()}",
        boxes=boxes,
        failing=failing,
        alt=_said(shot, report, boxes, failing),
    )


def _failing_at(time_s: float, report: Report) -> tuple[str, ...]:
    checks = report.verdict.checks if report.verdict is not None else ()
    failed = (check for check in checks if check.outcome is Outcome.FAIL)
    return tuple(check.code for check in failed if _within(time_s, check.ranges))


def _within(time_s: float, ranges: Sequence[Range]) -> bool:
    """A frame at the end of a range is the first one after it."""
    return any(start <= time_s < end or time_s == start for start, end in ranges)


def _boxes(time_s: float, report: Report) -> Iterator[Box]:
    """Faces as the rules see them; others count where `multiple_faces` says so."""
    if report.facts is None:
        return
    frame = _seen_at(time_s, report.facts)
    if frame is not None and frame.main is not None:
        yield _box(frame.main, "main")
    for face in frame.others if frame is not None else ():
        yield _box(face, "second" if _several_at(time_s, report) else "faint")
    overlays = report.facts.overlays.overlays if report.facts.overlays is not None else ()
    length_s = report.facts.decode.duration_s if report.facts.decode is not None else 0.0
    for overlay in overlays:
        if _within(time_s, shown_of(overlay, length_s)):
            yield Box(
                left=_percent(overlay.left),
                top=_percent(overlay.top),
                width=_percent(overlay.width),
                height=_percent(overlay.height),
                tone="overlay",
            )


def _seen_at(time_s: float, facts: Facts) -> Seen | None:
    """The frame that was looked at last: it stands until the next."""
    passed = [frame for frame in seen(facts, STANDARD) if frame.shown[0] <= time_s + 0.01]
    return passed[-1] if passed else None


def _several_at(time_s: float, report: Report) -> bool:
    checks = report.verdict.checks if report.verdict is not None else ()
    return any(
        check.code is Code.MULTIPLE_FACES
        and check.outcome is Outcome.FAIL
        and (not check.ranges or _within(time_s, check.ranges))
        for check in checks
    )


def _box(face: Face, tone: str) -> Box:
    return Box(
        left=_percent(face.left),
        top=_percent(face.top),
        width=_percent(face.width),
        height=_percent(face.height),
        tone=tone,
    )


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _said(shot: Shot, report: Report, boxes: Sequence[Box], failing: Sequence[str]) -> str:
    faces = sum(box.tone != "overlay" for box in boxes)
    still = report.facts is not None and report.facts.kind is Kind.IMAGE
    what = "The picture" if still else f"Frame at {shot.time_s:.1f} s"
    seen = f"{readout.count(faces, 'face')} marked" if faces else "no face marked"
    bad = f"; fails {', '.join(failing)}" if failing else ""
    return f"{what}: {seen}{bad}."
