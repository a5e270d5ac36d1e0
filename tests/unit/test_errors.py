"""The failure codes are public API: every one is defined, and the list only grows."""

import pytest

from service.errors import (
    FAILURES,
    FailureCode,
    HostBusyError,
    IngestError,
    InternalError,
    SourceError,
    UnavailableError,
    Who,
)


def test_every_code_is_defined_and_no_other() -> None:
    assert set(FAILURES) == set(FailureCode)


@pytest.mark.parametrize("code", FailureCode)
def test_every_code_has_a_public_sentence(code: FailureCode) -> None:
    message = IngestError(code).message
    assert message.endswith(".")
    assert message[0].isupper()


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (404, False),
        (403, False),
        (401, False),
        (None, False),
        (200, False),
        (408, True),
        (425, True),
        (429, True),
        (500, True),
        (503, True),
    ],
)
def test_an_http_error_is_tried_again_by_its_status(status: int | None, retryable: bool) -> None:
    error = SourceError(FailureCode.SOURCE_HTTP_ERROR, status=status)
    assert error.retryable is retryable


PASSING = {
    FailureCode.SOURCE_UNREACHABLE,
    FailureCode.SOURCE_TIMEOUT,
    FailureCode.SOURCE_TRUNCATED,
}


@pytest.mark.parametrize(
    "code", [code for code in FailureCode if code is not FailureCode.SOURCE_HTTP_ERROR]
)
def test_trying_again_helps_where_the_source_may_do_better(code: FailureCode) -> None:
    assert SourceError(code).retryable is (code in PASSING)


def test_what_is_away_is_tried_again_and_what_is_broken_is_not() -> None:
    assert UnavailableError(FailureCode.INTERNAL).retryable
    assert HostBusyError().retryable
    assert not InternalError(FailureCode.INTERNAL).retryable
    assert InternalError(FailureCode.INTERNAL).who is Who.US
