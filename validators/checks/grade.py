"""How a measured value becomes a finding: the few shapes that checks share."""

from dataclasses import replace
from typing import TypeVar

from validators.facts import Range
from validators.policy import Policy
from validators.verdict import AnyFinding, Code, Finding, Outcome

F = TypeVar("F", bound=AnyFinding)


def skip(code: Code, why: str) -> Finding:
    return Finding(code=code, outcome=Outcome.SKIPPED, message=why)


def skip_after(code: Code, cause: Code) -> Finding:
    """An earlier failure makes *code* meaningless."""
    return skip(code, f"Skipped, because {cause} failed.")


def too_low(value: float, *, warn: float, fail: float | None = None, margin: float = 0) -> Outcome:
    """The outcome of a value that should be high. Within *margin* of *fail* is uncertain."""
    if fail is not None and value < fail + margin:
        return Outcome.FAIL if value < fail - margin or margin == 0 else Outcome.UNCERTAIN
    return Outcome.WARN if value < warn else Outcome.PASS


def too_high(value: float, *, warn: float, fail: float | None = None, margin: float = 0) -> Outcome:
    """The outcome of a value that should be low. Within *margin* of *fail* is uncertain."""
    return too_low(-value, warn=-warn, fail=None if fail is None else -fail, margin=margin)


def crossed(outcome: Outcome, *, warn: float, fail: float | None = None) -> float:
    """The limit that a finding names: the one crossed, or the first that would be."""
    return fail if fail is not None and outcome in {Outcome.FAIL, Outcome.UNCERTAIN} else warn


def finding(
    code: Code,
    outcome: Outcome,
    message: str,
    *,
    value: float | None = None,
    limit: float | None = None,
    unit: str | None = None,
    ranges: tuple[Range, ...] = (),
    hint: str | None = None,
) -> Finding:
    """A finding as callers see it: values rounded, a hint only where something is to be done."""
    return Finding(
        code=code,
        outcome=outcome,
        value=None if value is None else round(value, 3),
        limit=limit,
        unit=unit,
        ranges=tuple((round(start, 2), round(end, 2)) for start, end in ranges),
        message=message,
        hint=None if outcome is Outcome.PASS else hint,
    )


def strictly(found: F, policy: Policy) -> F:
    """*found*, failed where it is too close to call and the policy accepts no such thing."""
    if found.outcome is not Outcome.UNCERTAIN or not policy.uncertain_fails:
        return found
    message = f"{found.message} This policy does not accept what is too close to call."
    return replace(found, outcome=Outcome.FAIL, message=message)
