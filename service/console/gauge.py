"""A measured value beside its limit on a small bar. Places are percent of its width."""

import math
from dataclasses import dataclass

from validators.verdict import AnyFinding, Outcome

ROOM = 1.25  # past the larger of value and limit
SHARES = frozenset({"share", "probability"})
QUIETEST_DBFS = -60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """Where the bar ends, where the limit stands, and the side that fails, as left and width."""

    value: float
    limit: float
    failing: tuple[float, float] | None = None


def gauge(finding: AnyFinding) -> Gauge | None:
    """None where there is nothing to compare."""
    value, limit = finding.value, finding.limit
    if value is None or limit is None or not (math.isfinite(value) and math.isfinite(limit)):
        return None
    low, high = scale(value, limit, finding.unit)
    value_at, limit_at = (_place(each, low, high) for each in (value, limit))
    failing = None
    if finding.outcome is Outcome.FAIL and value != limit:  # the value shows which side is bad
        failing = (limit_at, 100 - limit_at) if value > limit else (0.0, limit_at)
    return Gauge(value=value_at, limit=limit_at, failing=failing)


def scale(value: float, limit: float, unit: str | None) -> tuple[float, float]:
    """The ends of the bar: from nothing to a little more than what it must show."""
    smaller, larger = min(value, limit), max(value, limit)
    if unit == "dBFS":
        return min(QUIETEST_DBFS, smaller), max(0.0, larger)
    high = larger * ROOM if larger > 0 else 1.0
    if unit in SHARES and larger <= 1:
        high = min(1.0, high)
    return min(0.0, smaller * ROOM), high


def _place(value: float, low: float, high: float) -> float:
    return round(100 * (value - low) / (high - low), 2)
