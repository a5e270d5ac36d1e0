"""Jobs: PgQueuer wakes workers, our rows are the truth. A job's payload is an id, nothing else."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from service.db.types import Conn
from service.domain import Work


def dedupe_key(work: Work, subject_id: UUID) -> str | None:
    """One live job per row and kind of work; a second enqueue is no error and no second job.

    But one for every purge: a job at work may have looked before the last reference went away,
    and no state of a row would tell the sweeper that it looked too early.
    """
    return None if work is Work.PURGE else f"{work}:{subject_id}"


async def enqueue(
    conn: Conn, work: Work, subject_ids: Sequence[UUID], *, delay: timedelta = timedelta(0)
) -> None:
    """Enqueue within the caller's transaction: the work is due exactly when it is committed.

    In id order: who enqueues the same job waits for us, and must not have one that we wait for.
    """
    if not subject_ids:
        return
    ordered = sorted(subject_ids)
    # PgQueuer types its driver for a bare connection; a pool's proxy has the same methods
    queries = Queries(AsyncpgDriver(conn))  # type: ignore[arg-type]
    await queries.enqueue(
        [work.value] * len(ordered),
        [str(subject_id).encode() for subject_id in ordered],
        priority=[0] * len(ordered),
        execute_after=[delay] * len(ordered),
        dedupe_key=[dedupe_key(work, subject_id) for subject_id in ordered],
        on_conflict="skip",
    )


async def without_live_job(
    conn: Conn, *, older_than: timedelta, claimed_before: timedelta
) -> dict[Work, list[UUID]]:
    """Assets and avatars that wait for work which no live job will do: the sweeper enqueues them.

    A claim younger than *claimed_before* may belong to a run that lives although its job is gone:
    PgQueuer completes by id, so a late twin that ends takes its successor's job with it.
    """
    rows = await conn.fetch(
        """
        WITH waiting AS (
            SELECT id, CASE state WHEN 'pending' THEN 'fetch' ELSE 'inspect' END AS work,
                   created_at, claimed_at
              FROM asset
             WHERE state IN ('pending', 'stored')
             UNION ALL
            SELECT id, 'derive', created_at, claimed_at
              FROM avatar WHERE status = 'deriving')
        SELECT id, work
          FROM waiting w
         WHERE created_at < now() - $1::interval
           AND (claimed_at IS NULL OR claimed_at < now() - $2::interval)
           AND NOT EXISTS (SELECT 1 FROM pgqueuer q
                            WHERE q.dedupe_key = w.work || ':' || w.id
                              AND q.status IN ('queued', 'picked'))
        """,
        older_than,
        claimed_before,
    )
    found: dict[Work, list[UUID]] = {}
    for row in rows:
        found.setdefault(Work(row["work"]), []).append(row["id"])
    return found


async def queue_ages(conn: Conn) -> dict[str, tuple[int, float]]:
    """For each kind of work: how many jobs wait, and for how many seconds the oldest does."""
    rows = await conn.fetch(
        """
        SELECT entrypoint, count(*) AS waiting,
               extract(epoch FROM max(now() - greatest(created, execute_after)))::float8 AS age_s
          FROM pgqueuer WHERE status = 'queued' AND execute_after <= now() GROUP BY entrypoint
        """
    )
    return {row["entrypoint"]: (row["waiting"], row["age_s"]) for row in rows}
