"""What a clip does over time as a picture: cuts, standing still, and darkness."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from validators.checks.grade import crossed, finding, skip, too_high
from validators.facts import Facts, MotionFacts, Range
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome

NO_MOTION = "Skipped, because no frames were compared."
CODES = (Code.SCENE_CUT, Code.FROZEN_VIDEO, Code.BLACK_FRAMES)


def motion(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns all of CODES."""
    measured = facts.motion
    if measured is None or not measured.times_s:
        yield from (skip(code, NO_MOTION) for code in CODES)
        return
    yield _scene_cut(measured, policy)
    end_s = _end_s(facts, measured)
    yield _frozen(measured, end_s, policy)
    yield _black(measured, end_s, policy)


def _end_s(facts: Facts, measured: MotionFacts) -> float:
    """When the last frame ends."""
    decode = facts.decode
    if decode is None or decode.video is None:
        return measured.times_s[-1]
    return max(measured.times_s[-1], decode.video.end_s - decode.start_s)


def _scene_cut(measured: MotionFacts, policy: Policy) -> Finding:
    """The limit is one for warnings too: a cut that is too small to fail is no cut."""
    limit, margin = policy.scene_cut_fail, policy.scene_cut_margin
    score = max((cut.score for cut in measured.cuts), default=0.0)
    outcome = too_high(score, warn=limit + margin, fail=limit, margin=margin)
    cuts = [cut for cut in measured.cuts if cut.score > limit - margin]
    ranges = tuple((measured.times_s[cut.number - 1], cut.time_s) for cut in cuts)
    found = "The picture cuts" if outcome is Outcome.FAIL else "The picture perhaps cuts"
    where = ", ".join(f"{cut.time_s:.1f}" for cut in cuts)
    return finding(
        Code.SCENE_CUT,
        outcome,
        "The picture runs without a cut."
        if outcome is Outcome.PASS
        else f"{found} to something else at {where} s.",
        value=score,
        limit=limit,
        unit="grey levels",
        ranges=ranges,
        hint="Send one take, without cuts, zooms or inserted pictures.",
    )


def _frozen(measured: MotionFacts, end_s: float, policy: Policy) -> Finding:
    still = _still(measured, end_s, policy)
    return _lasting(
        Code.FROZEN_VIDEO,
        _runs(measured.times_s, end_s, still, least_s=policy.frozen_run_s),
        limits=(policy.frozen_warn_s, policy.frozen_fail_s),
        said=("The picture stands still", "The picture moves all the time."),
        hint="Record the person live; a picture that stands still shows nothing of them.",
    )


def _still(measured: MotionFacts, end_s: float, policy: Policy) -> list[bool]:
    """Which frames are like the one before, or shown for so long that they are a standstill."""
    like = [False, *(step <= policy.still_block for step in measured.block_change[1:])]
    ends_s = [*measured.times_s[1:], end_s]
    shown_s = [end - start for start, end in zip(measured.times_s, ends_s, strict=True)]
    return [a or s >= policy.frozen_run_s for a, s in zip(like, shown_s, strict=True)]


def _black(measured: MotionFacts, end_s: float, policy: Policy) -> Finding:
    black = [share >= policy.black_share for share in measured.dark]
    return _lasting(
        Code.BLACK_FRAMES,
        _runs(measured.times_s, end_s, black, least_s=0),
        limits=(policy.black_warn_s, policy.black_fail_s),
        said=("The picture is black", "The picture is never black."),
        hint="Cut the black part off.",
    )


def _lasting(
    code: Code,
    ranges: tuple[Range, ...],
    *,
    limits: tuple[float, float],
    said: tuple[str, str],
    hint: str,
) -> Finding:
    """Graded by how long it lasts in all. Both limits are such times."""
    lasting_s = sum(end - start for start, end in ranges)
    warn, fail = limits
    outcome = too_high(round(lasting_s, 3), warn=warn, fail=fail)
    return finding(
        code,
        outcome,
        said[1] if outcome is Outcome.PASS else f"{said[0]} for {lasting_s:.1f} s.",
        value=lasting_s,
        limit=crossed(outcome, warn=warn, fail=fail),
        unit="s",
        ranges=ranges if outcome is not Outcome.PASS else (),
        hint=hint,
    )


def _runs(
    times_s: Sequence[float], end_s: float, marked: Sequence[bool], *, least_s: float
) -> tuple[Range, ...]:
    """Times of consecutive marked frames, each shown until the next one, if they last *least_s*."""
    ends_s = [*times_s[1:], end_s]
    shown = zip(marked, times_s, ends_s, strict=True)
    found = []
    for is_marked, frames in groupby(shown, key=lambda frame: frame[0]):
        run = list(frames)
        if is_marked and run[-1][2] - run[0][1] >= least_s:
            found.append((run[0][1], run[-1][2]))
    return tuple(found)
