"""Times as callers read them."""

from datetime import UTC, datetime


def now_utc() -> datetime:
    """The clock of the process; rules and state functions are handed its value."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with `Z`, to the microsecond."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
