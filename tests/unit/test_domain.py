"""The state machine without a database."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import (
    MAX_ATTEMPTS,
    MAX_FAILURES,
    MAX_LOSSES,
    MAX_WAITS,
    AssetRun,
    AssetState,
    Cause,
    Origin,
    SourceOutcome,
    Status,
    is_ours,
    next_attempt_at,
    sentence,
    settle,
    worn_out,
)
from service.errors import FailureCode
from validators.facts import Kind

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

PENDING = SourceOutcome(state=AssetState.PENDING)
STORED = SourceOutcome(state=AssetState.STORED)
READY = SourceOutcome(state=AssetState.READY)
REFUSED = SourceOutcome(state=AssetState.REJECTED, codes=("no_face",))
UNFETCHED = SourceOutcome(state=AssetState.FAILED, codes=("source_timeout",))
OURS = SourceOutcome(state=AssetState.FAILED, codes=("internal",), internal=True)

some_sources = st.lists(
    st.sampled_from([PENDING, STORED, READY, REFUSED, UNFETCHED, OURS]), min_size=1, max_size=3
)


@given(some_sources)
def test_an_avatar_is_derived_from_exactly_when_every_source_is_ready(
    sources: list[SourceOutcome],
) -> None:
    every_one_ready = all(source.state is AssetState.READY for source in sources)
    assert (settle(sources).status is Status.DERIVING) == every_one_ready


@given(some_sources)
def test_an_avatar_fails_exactly_when_every_source_is_final_and_one_is_not_ready(
    sources: list[SourceOutcome],
) -> None:
    final = all(source.state.final for source in sources)
    bad = any(source.state in {AssetState.REJECTED, AssetState.FAILED} for source in sources)
    assert (settle(sources).status is Status.FAILED) == (final and bad)


@given(some_sources)
def test_the_order_of_sources_changes_neither_status_nor_cause(
    sources: list[SourceOutcome],
) -> None:
    forth, back = settle(sources), settle(sources[::-1])
    assert (forth.status, forth.cause) == (back.status, back.cause)
    assert sorted(forth.codes) == sorted(back.codes)


@given(some_sources)
def test_only_a_failure_has_a_cause_and_codes(sources: list[SourceOutcome]) -> None:
    settled = settle(sources)
    failed = settled.status is Status.FAILED
    assert (settled.cause is not None) == failed == bool(settled.codes)


@pytest.mark.parametrize(
    ("sources", "status"),
    [
        ([PENDING], Status.FETCHING),
        ([PENDING, STORED], Status.FETCHING),
        ([PENDING, REFUSED], Status.FETCHING),
        ([STORED], Status.INSPECTING),
        ([STORED, READY], Status.INSPECTING),
        ([STORED, OURS], Status.INSPECTING),
        ([READY, READY], Status.DERIVING),
    ],
)
def test_the_least_advanced_source_decides(sources: list[SourceOutcome], status: Status) -> None:
    assert settle(sources).status is status


@pytest.mark.parametrize(
    ("sources", "cause"),
    [
        ([REFUSED, UNFETCHED, OURS], Cause.REJECTED),
        ([OURS, REFUSED], Cause.REJECTED),
        ([UNFETCHED, OURS], Cause.SOURCE),
        ([READY, UNFETCHED], Cause.SOURCE),
        ([READY, OURS], Cause.INTERNAL),
    ],
)
def test_a_refusal_outranks_a_lost_source_and_both_outrank_a_fault_of_ours(
    sources: list[SourceOutcome], cause: Cause
) -> None:
    assert settle(sources).cause is cause


def test_a_failure_names_the_codes_of_every_source_in_their_order() -> None:
    settled = settle([REFUSED, READY, UNFETCHED])
    assert settled.codes == ("no_face", "source_timeout")


def run(*, failures: int = 0, losses: int = 0) -> AssetRun:
    return AssetRun(
        id=UUID(int=1),
        organisation_id="acme",
        kind=Kind.VIDEO,
        origin=Origin.FETCH,
        claim=1,
        attempts=0,
        failures=failures,
        losses=losses,
        traceparent=None,
    )


def test_an_asset_is_given_up_at_its_limits_and_not_before() -> None:
    assert (MAX_FAILURES, MAX_LOSSES, MAX_ATTEMPTS) == (3, 20, 6)
    assert not worn_out(run(failures=2, losses=19))
    assert worn_out(run(failures=3))
    assert worn_out(run(losses=20))


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16)])
def test_pauses_between_attempts_double(attempts: int, seconds: int) -> None:
    at = next_attempt_at(attempts, NOW, jitter=0, deadline=None)
    assert at == NOW + timedelta(seconds=seconds)
    at = next_attempt_at(attempts, NOW, jitter=1, deadline=None)
    assert at == NOW + timedelta(seconds=seconds * 1.5)


@given(st.integers(1, MAX_ATTEMPTS - 1), st.floats(0, 1))
def test_jitter_stretches_a_pause_by_at_most_half(attempts: int, jitter: float) -> None:
    at = next_attempt_at(attempts, NOW, jitter=jitter, deadline=None)
    assert at is not None
    shortest = timedelta(seconds=2 ** (attempts - 1))
    assert shortest <= at - NOW <= shortest * 1.5


@given(st.integers(MAX_ATTEMPTS, 1000))
def test_attempts_run_out(attempts: int) -> None:
    assert next_attempt_at(attempts, NOW, jitter=0, deadline=None) is None


def test_pauses_for_a_part_of_ours_grow_to_a_minute_and_make_a_quarter_of_an_hour() -> None:
    def pause_s(waits: int) -> float | None:
        at = next_attempt_at(waits, NOW, jitter=0, deadline=None, most=MAX_WAITS)
        return None if at is None else (at - NOW).total_seconds()

    pauses = [pause_s(waits) for waits in range(1, MAX_WAITS)]
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert max(pause or 0 for pause in pauses) == 60
    assert 14 * 60 <= sum(pause or 0 for pause in pauses) <= 15 * 60
    assert pause_s(MAX_WAITS) is None


def test_no_attempt_is_made_at_or_after_the_deadline() -> None:
    soon = NOW + timedelta(seconds=4)
    assert next_attempt_at(3, NOW, jitter=0, deadline=soon) is None
    later = soon + timedelta(microseconds=1)
    assert next_attempt_at(3, NOW, jitter=0, deadline=later) == soon


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_a_sentence_that_names_each_code_once(cause: Cause) -> None:
    said = sentence(cause, ["no_face", "too_dark", "no_face"])
    assert said.endswith(".")
    assert cause is Cause.INTERNAL or said.endswith(": no_face, too_dark.")


def test_only_the_internal_code_is_our_fault() -> None:
    assert [code for code in FailureCode if is_ours(code)] == [FailureCode.INTERNAL]


def test_final_is_what_nothing_moves_any_more() -> None:
    assert {status for status in Status if status.final} == {Status.READY, Status.FAILED}
    open_states = {state for state in AssetState if not state.final}
    assert open_states == {AssetState.PENDING, AssetState.STORED}
