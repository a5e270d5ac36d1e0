"""How far a run has come, written down now and then while it goes on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from service.db import claims
from service.db.claims import ClaimLostError, Progress
from service.db.types import DATABASE_AWAY, Pool
from service.domain import Run
from service.tasks import end

PROGRESS_INTERVAL_S = 0.5
ASKED_EVERY = 4  # intervals without progress: whether the row is still there, and ours


class Report:
    """The newest progress of a run."""

    def __init__(self, stage: str, unit: str) -> None:
        self.newest = Progress(stage=stage, done=None, total=None, unit=unit)

    def __call__(self, done: float, total: float | None) -> None:
        stage, unit = self.newest.stage, self.newest.unit
        self.newest = Progress(stage=stage, done=done, total=total, unit=unit)

    def stage(self, stage: str, done: float, total: float | None, unit: str) -> None:
        self.newest = Progress(stage=stage, done=done, total=total, unit=unit)


@contextlib.asynccontextmanager
async def reporting(run: Run, pool: Pool, stage: str, unit: str) -> AsyncIterator[Report]:
    """A report for *run* that a task writes down for as long as this is open.

    Raises ClaimLostError, in the middle of whatever the run does, when its row was deleted or
    taken over: nobody wants the rest.
    """
    report, wanted = Report(stage, unit), asyncio.timeout(None)
    try:
        async with wanted:
            task = asyncio.create_task(_keep_reporting(run, pool, report, wanted))
            try:
                yield report
            finally:
                await end(task)
    except TimeoutError as exc:
        if wanted.expired():
            raise ClaimLostError(str(run.id)) from exc
        raise


async def _keep_reporting(run: Run, pool: Pool, report: Report, wanted: asyncio.Timeout) -> None:
    """Write progress down. While the database is away that is left out, quietly."""
    kept, unchanged = None, 0
    while True:
        unchanged = 0 if kept != report.newest else unchanged + 1
        if unchanged % ASKED_EVERY == 0:
            kept = report.newest
            try:
                with contextlib.suppress(*DATABASE_AWAY):
                    async with pool.acquire() as conn:
                        await claims.keep_progress(conn, run, kept)
            except ClaimLostError:
                wanted.reschedule(asyncio.get_running_loop().time())
                return
        await asyncio.sleep(PROGRESS_INTERVAL_S)
