"""SQL that assets and avatars share as rows that are worked on. Every write says its claim."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from service.db.types import Conn, Row
from service.domain import AssetRun, AvatarRun, Run


class ClaimLostError(Exception):
    """Another run has taken this row over, or it is gone: drop the result, write nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    stage: str
    done: float | None
    total: float | None
    unit: str | None


_TABLE: Mapping[type[Run], str] = {AssetRun: "asset", AvatarRun: "avatar"}

ENDED = """claimed_at = NULL, stage = NULL,
            progress_done = NULL, progress_total = NULL, progress_unit = NULL"""


async def claim(
    conn: Conn, of: type[Run], subject_id: UUID, *, waiting: str, now: datetime
) -> "Row | None":
    """Claim a row for one run of work; None when it does not wait for it (any more).

    *waiting* is the SQL condition under which it does, a literal of the calling module. An
    earlier claim that was never ended is a loss: its worker died, or is late. Should it live,
    its writes no longer match the claim.
    """
    return await conn.fetchrow(
        f"""
        UPDATE {_TABLE[of]} SET claim = claim + 1, claimed_at = $2,
               losses = losses + (claimed_at IS NOT NULL)::int
         WHERE id = $1 AND {waiting} RETURNING *
        """,  # noqa: S608 - a table of ours and a literal
        subject_id,
        now,
    )


async def fenced(conn: Conn, run: Run, change: str, *values: object) -> Row:
    """Change the run's row, and give it; raise ClaimLostError if the run was overtaken.

    *change* is a literal of the calling module, whose values are numbered from $3.
    """
    row = await conn.fetchrow(
        f"UPDATE {_TABLE[type(run)]} SET {change}"  # noqa: S608 - a table of ours and a literal
        " WHERE id = $1 AND claim = $2 RETURNING *",
        run.id,
        run.claim,
        *values,
    )
    if row is None:
        raise ClaimLostError(str(run.id))
    return row


async def hand_back(conn: Conn, run: Run) -> None:
    """End the run without a result and without a mark against its row: we are stopping."""
    await fenced(conn, run, "claimed_at = NULL")


async def count_attempt(conn: Conn, run: Run) -> None:
    """End the run: its source answered with an error that may pass."""
    await fenced(conn, run, "claimed_at = NULL, attempts = attempts + 1")


async def count_wait(conn: Conn, run: Run) -> None:
    """End the run: a part of ours was away, which says nothing of the source."""
    await fenced(conn, run, "claimed_at = NULL, waits = waits + 1")


async def count_failure(conn: Conn, run: Run) -> None:
    """End the run: ffmpeg or a model died under it."""
    await fenced(conn, run, "claimed_at = NULL, failures = failures + 1")


async def keep_progress(conn: Conn, run: Run, progress: Progress) -> None:
    await fenced(
        conn,
        run,
        "stage = $3, progress_done = $4, progress_total = $5, progress_unit = $6",
        progress.stage,
        progress.done,
        progress.total,
        progress.unit,
    )


def progress_of(row: Row) -> Progress | None:
    if row["stage"] is None:
        return None
    return Progress(
        stage=row["stage"],
        done=row["progress_done"],
        total=row["progress_total"],
        unit=row["progress_unit"],
    )
