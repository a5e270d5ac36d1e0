"""Verdicts counted against labels. Pure: what was measured comes in, rates come out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tools.accuracy.labels import REASONS, Expect, Label, right_codes
from tools.accuracy.measuring import Measured
from tools.accuracy.statistics import Rate
from validators.errors import UnmeasuredError
from validators.facts import Kind
from validators.policy import Policy
from validators.rules import AFTER_OBSTACLES, KINDS, OBSTACLES, judge
from validators.verdict import Code, Outcome, Verdict

NOTICED = frozenset({Outcome.FAIL, Outcome.WARN, Outcome.UNCERTAIN})
DOUBTED = frozenset({Outcome.WARN, Outcome.UNCERTAIN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A label and the verdict under one policy; without a verdict, why there is none."""

    label: Label
    verdict: Verdict | None
    trouble: str | None = None

    def outcome(self, code: Code) -> Outcome | None:
        checks = self.verdict.checks if self.verdict else ()
        return next((check.outcome for check in checks if check.code is code), None)

    @property
    def failed(self) -> frozenset[Code]:
        return frozenset(self.verdict.failed if self.verdict else ())

    @property
    def rejected(self) -> bool:
        return self.verdict is not None and not self.verdict.accepted

    @property
    def named(self) -> bool:
        """Whether a failed check names a fault that the label tells."""
        return bool(self.failed & right_codes(self.label))


def judge_all(
    labels: Sequence[Label], measured: Sequence[Measured], policy: Policy
) -> list[Judged]:
    return [judge_one(label, facts, policy) for label, facts in zip(labels, measured, strict=True)]


def judge_one(label: Label, measured: Measured, policy: Policy) -> Judged:
    if isinstance(measured, str):
        return Judged(label=label, verdict=None, trouble=measured)
    try:
        return Judged(label=label, verdict=judge(measured, policy))
    except UnmeasuredError as exc:
        return Judged(label=label, verdict=None, trouble=f"{type(exc).__name__}: {exc}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRow:
    """One kind of medium. A file without a verdict is neither accepted nor rejected."""

    kind: Kind
    false_rejects: Rate  # of the files labelled accept
    false_accepts: Rate  # of the files labelled reject
    right_code: Rate  # of the files rightly rejected
    borderline: Rate  # rejected, of the files labelled warn
    unjudged: int


def by_kind(judged: Iterable[Judged]) -> list[KindRow]:
    every = list(judged)
    return [_kind_row(kind, [each for each in every if each.label.kind is kind]) for kind in Kind]


def _kind_row(kind: Kind, judged: Sequence[Judged]) -> KindRow:
    sound = [each for each in judged if each.verdict is not None]
    good, borderline, bad = (
        [each for each in sound if each.label.expect is expect] for expect in Expect
    )
    return KindRow(
        kind=kind,
        false_rejects=Rate.count(each.rejected for each in good),
        false_accepts=Rate.count(not each.rejected for each in bad),
        right_code=Rate.count(each.named for each in bad if each.rejected),
        borderline=Rate.count(each.rejected for each in borderline),
        unjudged=len(judged) - len(sound),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """One check. Files on which it was skipped do not count."""

    code: Code
    false_alarms: Rate  # failed, of the files labelled accept
    doubts: Rate  # warned or uncertain, of the same files
    named: Rate  # failed, of the files labelled reject with a reason that is this check's
    noticed: Rate  # not passed, of the files labelled warn or reject with such a reason


def by_check(judged: Iterable[Judged]) -> Iterator[CheckRow]:
    every = list(judged)
    for code in Code:
        good = [each.outcome(code) for each in every if each.label.expect is Expect.ACCEPT]
        looked = [outcome for outcome in good if outcome not in {None, Outcome.SKIPPED}]
        faulty = [each for each in every if _owes(each, code)]
        bad = [each for each in faulty if each.label.expect is Expect.REJECT]
        yield CheckRow(
            code=code,
            false_alarms=Rate.count(outcome is Outcome.FAIL for outcome in looked),
            doubts=Rate.count(outcome in DOUBTED for outcome in looked),
            named=Rate.count(each.outcome(code) is Outcome.FAIL for each in bad),
            noticed=Rate.count(each.outcome(code) in NOTICED for each in faulty),
        )


def _owes(judged: Judged, code: Code) -> bool:
    """Whether a fault of this check is labelled, and nothing that ends a verdict came first."""
    label = judged.label
    if judged.verdict is None or label.expect is Expect.ACCEPT or label.kind not in KINDS[code]:
        return False
    ended = judged.failed & set(OBSTACLES) and code not in AFTER_OBSTACLES
    return not ended and any(REASONS.get(reason, ())[:1] == (code,) for reason in label.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonRow:
    """One word of the labels, over the files labelled reject."""

    reason: str
    rejected: Rate
    named: Rate  # rejected, and by a check that names this fault


def by_reason(judged: Iterable[Judged]) -> list[ReasonRow]:
    bad = [each for each in judged if each.label.expect is Expect.REJECT and each.verdict]
    counted = Counter(reason for each in bad for reason in each.label.reasons)
    return [_reason_row(reason, bad) for reason, _count in counted.most_common()]


def _reason_row(reason: str, bad: Sequence[Judged]) -> ReasonRow:
    mine = [each for each in bad if reason in each.label.reasons]
    codes = frozenset(REASONS.get(reason, ()))
    return ReasonRow(
        reason=reason,
        rejected=Rate.count(each.rejected for each in mine),
        named=Rate.count(bool(each.failed & codes) for each in mine),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongFile:
    name: str
    label: str
    verdict: str
    codes: tuple[str, ...] = field(default=())


def wrong_files(judged: Iterable[Judged]) -> list[WrongFile]:
    """False rejects, false accepts, files without a verdict, and rejects for another reason."""
    return [wrong for each in judged if (wrong := _wrong(each)) is not None]


def _wrong(judged: Judged) -> WrongFile | None:
    label, verdict = judged.label, judged.verdict
    said = " ".join([label.expect.value, *label.reasons])
    if verdict is None:
        trouble = (judged.trouble or "",)
        return WrongFile(name=label.name, label=said, verdict="no verdict", codes=trouble)
    failed = tuple(code.value for code in verdict.failed)
    if label.expect is Expect.ACCEPT and judged.rejected:
        return WrongFile(name=label.name, label=said, verdict="rejected", codes=failed)
    if label.expect is not Expect.REJECT:
        return None
    if not judged.rejected:
        doubts = tuple(check.code.value for check in verdict.checks if check.outcome in DOUBTED)
        return WrongFile(name=label.name, label=said, verdict="accepted", codes=doubts)
    if not judged.named:
        return WrongFile(name=label.name, label=said, verdict="another reason", codes=failed)
    return None
