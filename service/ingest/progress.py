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
    """A report for *run* that a task writes down for as long as this is open."""
    report = Report(stage, unit)
    task = asyncio.create_task(_keep_reporting(run, pool, report))
    try:
        yield report
    finally:
        await end(task)


async def _keep_reporting(run: Run, pool: Pool, report: Report) -> None:
    """Write progress down. Stops quietly when that fails: what matters, the run hears itself."""
    kept = None
    with contextlib.suppress(ClaimLostError, *DATABASE_AWAY):
        while True:
            if kept != report.newest:
                kept = report.newest
                async with pool.acquire() as conn:
                    await claims.keep_progress(conn, run, kept)
            await asyncio.sleep(PROGRESS_INTERVAL_S)
