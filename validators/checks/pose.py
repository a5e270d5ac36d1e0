"""Whether the face looks into the camera, upright.

A clip is judged by the angle that it exceeds for `lasting_share` of its time: people turn their
heads while they speak.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from validators.checks.grade import crossed, finding, too_high
from validators.checks.seen import Close, Measured, closely, exceeded, measured, seen, unsure, where
from validators.facts import FaceLook, Facts
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome

SEVERITY = (Outcome.PASS, Outcome.WARN, Outcome.UNCERTAIN, Outcome.FAIL)


def pose(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns `face_turned`: the worst of its four directions."""
    frames = seen(facts, policy)
    reasons = unsure([Code.FACE_TURNED], frames, policy)
    if reasons:
        yield from reasons
        return
    yield _turned(closely(frames, least_presence=policy.face_presence), policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Direction:
    word: str
    angle: Callable[[FaceLook], float]
    warn_deg: float
    fail_deg: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """How far the face is turned in one direction, and what that makes of it."""

    direction: _Direction
    angles: Measured
    value_deg: float
    outcome: Outcome

    @property
    def rank(self) -> tuple[int, float]:
        return SEVERITY.index(self.outcome), self.value_deg / self.direction.fail_deg


def _directions(policy: Policy) -> tuple[_Direction, ...]:
    return (
        _Direction(
            word="aside",
            angle=lambda look: abs(look.yaw_deg),
            warn_deg=policy.face_aside_warn_deg,
            fail_deg=policy.face_aside_fail_deg,
        ),
        _Direction(
            word="up",
            angle=lambda look: max(0.0, look.pitch_deg),
            warn_deg=policy.face_up_warn_deg,
            fail_deg=policy.face_up_fail_deg,
        ),
        _Direction(
            word="down",
            angle=lambda look: max(0.0, -look.pitch_deg),
            warn_deg=policy.face_down_warn_deg,
            fail_deg=policy.face_down_fail_deg,
        ),
        _Direction(
            word="to its side",
            angle=lambda look: abs(look.roll_deg),
            warn_deg=policy.face_tilted_warn_deg,
            fail_deg=policy.face_tilted_fail_deg,
        ),
    )


def _turned(frames: list[Close], policy: Policy) -> Finding:
    turns = [_turn(direction, frames, policy) for direction in _directions(policy)]
    worst = max(turns, key=lambda turn: turn.rank)
    warn, fail = worst.direction.warn_deg, worst.direction.fail_deg
    limit = crossed(worst.outcome, warn=warn, fail=fail)
    passed = worst.outcome is Outcome.PASS
    return finding(
        Code.FACE_TURNED,
        worst.outcome,
        "The face looks into the camera."
        if passed
        else f"The face is turned {worst.value_deg:.0f}° {worst.direction.word}.",
        value=worst.value_deg,
        limit=limit,
        unit="deg",
        ranges=() if passed else where(worst.angles, lambda angle: angle > warn),
        hint="Look straight into the camera, with the head upright.",
    )


def _turn(direction: _Direction, frames: list[Close], policy: Policy) -> _Turn:
    angles = measured(frames, direction.angle)
    value_deg = exceeded(angles, policy.lasting_share)
    return _Turn(
        direction=direction,
        angles=angles,
        value_deg=value_deg,
        outcome=too_high(
            value_deg,
            warn=direction.warn_deg,
            fail=direction.fail_deg,
            margin=policy.face_turned_margin_deg,
        ),
    )
