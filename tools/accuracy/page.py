"""The page that publishes the errors: Markdown, from rates alone."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tools.accuracy.labels import REASONS, Expect, Label
from tools.accuracy.series import PointRow
from tools.accuracy.statistics import Rate
from tools.accuracy.tallies import Judged, by_check, by_kind, by_reason, wrong_files
from validators.facts import FACTS_VERSION, Kind
from validators.policy import STANDARD, STRICT

INTRODUCTION = """\
# How often verdicts are wrong

`make accuracy` makes this page from a folder of [labelled media](labelled-media.md). Read the
numbers with their limits:

- **The sets are small.** Every rate stands with its count and its 95 % interval (Wilson), as
  `hits/files = rate (from-to)`, in percent. Where the interval is wide, little is known.
- **Some thresholds were chosen on a part of this same set**, so the rates are kinder than those of
  media that nobody here has seen.
- **One person labelled the files**, without a second opinion. Many of the faulty ones are made: two
  clips side by side, noise added to a clean voice. Several files share a person or a recording, so
  they are less independent than the intervals assume.
- Files labelled `warn` are borderline, and wrong in neither direction.
"""

NOT_MEASURED = """\
## What is not measured

Nothing checks these, so no rate stands above for them:

- that the voice belongs to the visible face;
- that a bystander without a visible face stands in the picture: turned away, cut off, or behind
  something;
- that a picture is a photograph and not a painting or a rendering, or that a voice is nobody's;
- consent.

These are known to be missed, or not known well enough:

- a jump cut within one framing of one person: it looks like a movement;
- lookalikes and relatives, who may pass as one person;
- a second voice of less than a second, and laughter, coughs and murmured agreement;
- faces smaller than the smallest sizes of the series, and faces that show in fewer frames;
- whether errors are more frequent for some groups of people: the labels tell nobody's age, sex,
  skin or language, and the set is too small to divide;
- pairs (`face_mismatch`, `voice_mismatch`): the folder's labels are of single media;
- how far the rates hold for cameras, rooms and codecs that the set does not have.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the page is made from."""

    date: str
    ffmpeg: str
    engines: Mapping[str, str]
    labels: Sequence[Label]
    standard: Sequence[Judged]
    strict: Sequence[Judged]
    points: Sequence[PointRow] = field(default=())


def page(run: Run) -> str:
    parts = (
        INTRODUCTION,
        _versions(run),
        _verdicts(run),
        _checks(run),
        _reasons(run),
        _sizes(run),
        _series(run),
        NOT_MEASURED,
        _wrong(run),
    )
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _versions(run: Run) -> str:
    rows = [
        ("made", run.date),
        ("policies", f"`{STANDARD.label}`, `{STRICT.label}`"),
        ("facts", f"version {FACTS_VERSION}"),
        ("ffmpeg", run.ffmpeg),
        *((f"engine for {what}", f"`{name}`") for what, name in sorted(run.engines.items())),
        *((f"{kind} files", _counts(run.labels, kind)) for kind in Kind),
    ]
    return f"## What was measured with what\n\n{table(('what', 'which'), rows)}\n"


def _counts(labels: Sequence[Label], kind: Kind) -> str:
    mine = [label.expect for label in labels if label.kind is kind]
    return ", ".join(f"{mine.count(expect)} {expect}" for expect in Expect)


def _verdicts(run: Run) -> str:
    head = (
        "policy",
        "kind",
        "false rejects: labelled accept, rejected",
        "false accepts: labelled reject, accepted",
        "right code, of the rightly rejected",
        "labelled warn, rejected",
        "no verdict",
    )
    rows = [
        (
            f"`{label}`",
            row.kind,
            row.false_rejects,
            row.false_accepts,
            row.right_code,
            row.borderline,
            row.unjudged,
        )
        for label, judged in ((STANDARD.label, run.standard), (STRICT.label, run.strict))
        for row in by_kind(judged)
    ]
    return (
        "## Verdicts\n\n"
        "Both policies judged the same facts. Under `strict` what is too close to call fails. A\n"
        "right code is one that names a fault of the label: [the table](labelled-media.md#reasons)"
        ".\n\n"
        f"{table(head, rows)}\n"
    )


def _checks(run: Run) -> str:
    head = (
        "check",
        "failed on files labelled accept",
        "warned or uncertain on these",
        "failed on files rejected for this fault",
        "not passed, with the borderline ones",
    )
    rows = [
        (f"`{row.code}`", row.false_alarms, row.doubts, row.named, row.noticed)
        for row in by_check(run.standard)
    ]
    return (
        "## Checks\n\n"
        f"Under `{STANDARD.label}`. A check counts where it was not skipped. A fault belongs to\n"
        "the first check that [the table](labelled-media.md#reasons) gives for it, even where\n"
        "another names it as rightly.\n\n"
        f"{table(head, rows)}\n"
    )


def _reasons(run: Run) -> str:
    rows = [
        (f"`{row.reason}`" + ("" if row.reason in REASONS else " (unknown)"), row.rejected)
        + ((row.named,) if REASONS.get(row.reason) else ("no check promises to",))
        for row in by_reason(run.standard)
    ]
    head = ("labelled reject for", "rejected", "named by a right check")
    return f"## Faults\n\nUnder `{STANDARD.label}`.\n\n{table(head, rows)}\n"


def _sizes(run: Run) -> str:
    """By what the labels tell of a fault's size."""
    voices = _by_size(run, "second voice, s", lambda label: label.second_voice_s)
    faces = _by_size(run, "second face, share of the height", lambda label: label.second_face_share)
    rows = [*voices, *faces]
    if not rows:
        text = "The manifest has no sizes of second voices and faces. See the series below."
    else:
        text = table(("labelled", "size", "rejected", "right code"), rows)
    return f"## By the size of the fault, as labelled\n\n{text}\n"


def _by_size(
    run: Run, what: str, size: Callable[[Label], float | None]
) -> Iterator[tuple[object, ...]]:
    sized = [(size(each.label), each) for each in run.standard]
    for value in sorted({value for value, _ in sized if value is not None}):
        mine = [each for other, each in sized if other == value and each.verdict]
        rejected = Rate.count(each.rejected for each in mine)
        yield what, f"{value:g}", rejected, Rate.count(each.named for each in mine)


def _series(run: Run) -> str:
    head = (
        "fault",
        "size",
        f"named by `{STANDARD.label}`",
        "named, warned or uncertain",
        "rejected for whatever reason",
        f"rejected by `{STRICT.label}`",
    )
    rows = [
        (row.series, row.size, row.named, row.noticed, row.rejected, row.rejected_by_strict)
        for row in run.points
    ]
    made = table(head, rows) if rows else "Not run: `make accuracy SERIES=1` makes them."
    lost = sum(row.unjudged for row in run.points)
    note = f"\n\n{lost} made files got no verdict." if lost else ""
    return (
        "## Series: made faults of a known size\n\n"
        "ffmpeg puts one fault into accepted files of the folder, from small to large, the same\n"
        "files for each size. Second voices are as loud as the first and of another source.\n"
        "Second faces are still pictures in an upper corner; sizes are shares of the frame's\n"
        "height. So a series shows where a check begins to see, not how often real media are\n"
        "caught.\n\n"
        f"{made}{note}\n"
    )


def _wrong(run: Run) -> str:
    rows = [
        (f"`{wrong.name}`", wrong.label, wrong.verdict, " ".join(wrong.codes).replace("|", "/"))
        for wrong in wrong_files(run.standard)
    ]
    wrong_now = {wrong.name for wrong in wrong_files(run.standard)}
    more = [
        f"`{each.label.name}`"
        for each in run.strict
        if each.label.expect is Expect.ACCEPT and each.rejected and each.label.name not in wrong_now
    ]
    head = ("file", "label", "verdict", "checks: failed, or where accepted in doubt")
    listed = table(head, rows) if rows else "None."
    return (
        f"## The files that are judged wrongly\n\nUnder `{STANDARD.label}`:\n\n{listed}\n\n"
        f"Labelled accept and rejected by `{STRICT.label}` alone: {', '.join(more) or 'none'}.\n"
    )
