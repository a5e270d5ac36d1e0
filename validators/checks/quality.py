"""Whether the face itself is sharp and well lit, whatever the picture around it is. Warns only."""

from collections.abc import Iterator

from validators.checks.grade import finding, too_high, too_low
from validators.checks.seen import Close, closely, exceeded, measured, seen, unseen, where
from validators.facts import Facts
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome

OF_QUALITY = (Code.BLURRY, Code.TOO_DARK, Code.TOO_BRIGHT)
HALF = 0.5  # of the time: medians


def quality(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns OF_QUALITY."""
    frames = seen(facts, policy)
    reasons = unseen(OF_QUALITY, frames, policy)
    if reasons:
        yield from reasons
        return
    looks = closely(frames, least_presence=0)  # what is blurred enough has no points
    yield _blurry(looks, policy)
    yield _too_dark(looks, policy)
    yield _too_bright(looks, policy)


def _blurry(frames: list[Close], policy: Policy) -> Finding:
    values = measured(frames, lambda look: look.sharpness)
    value, limit = exceeded(values, HALF), policy.blurry_warn
    outcome = too_low(value, warn=limit)
    sharp = outcome is Outcome.PASS
    return finding(
        Code.BLURRY,
        outcome,
        "The face is sharp." if sharp else "The face is blurred, or too small to be sharp.",
        value=value,
        limit=limit,
        unit="share",
        ranges=() if sharp else where(values, lambda each: each < limit),
        hint="Clean the lens, focus on the face, and use the best quality that the camera has.",
    )


def _too_dark(frames: list[Close], policy: Policy) -> Finding:
    """By the mean and not by the darkest parts: those are beards and shadows."""
    values = measured(frames, lambda look: look.luma)
    value, limit = exceeded(values, HALF), policy.too_dark_warn
    outcome = too_low(value, warn=limit)
    light = outcome is Outcome.PASS
    return finding(
        Code.TOO_DARK,
        outcome,
        "The face is light enough." if light else "The face is too dark.",
        value=value,
        limit=limit,
        unit="luma",
        ranges=() if light else where(values, lambda each: each < limit),
        hint="Turn the face to the light.",
    )


def _too_bright(frames: list[Close], policy: Policy) -> Finding:
    """By what is burnt out and not by the mean: light skin in good light is bright."""
    values = measured(frames, lambda look: look.burnt)
    value, limit = exceeded(values, HALF), policy.too_bright_warn
    outcome = too_high(value, warn=limit)
    whole = outcome is Outcome.PASS
    return finding(
        Code.TOO_BRIGHT,
        outcome,
        "The face is not overexposed." if whole else f"{value:.0%} of the face is burnt out.",
        value=value,
        limit=limit,
        unit="share",
        ranges=() if whole else where(values, lambda each: each > limit),
        hint="Use softer light, or a shorter exposure.",
    )
