"""Is the process alive, can it take traffic, and what does it measure."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.api.context import Context, context
from service.db import erasure, jobs
from service.db.migrate import migrations, pending
from service.db.types import DATABASE_AWAY, Pool
from service.telemetry import ERASURE_AGE, OBJECTS_TO_ERASE, QUEUE_AGE, QUEUE_DEPTH
from service.times import rfc3339
from storage.store import StoreError

CHECK_TIMEOUT_S = 5.0


class NotReadyError(Exception):
    """A dependency answered, but not as it must. The text is fit for the public."""


async def live(_request: web.Request) -> web.Response:
    """The event loop turns. No dependency is touched: restarting us would not mend one."""
    return web.json_response({"status": "pass"})


async def ready(request: web.Request) -> web.Response:
    """Each dependency with its latency; 503 when one fails, or while draining."""
    ctx = context(request)
    names = tuple(CHECKS)
    results = await asyncio.gather(*(_timed(CHECKS[name], ctx) for name in names))
    passed = all(result["status"] != "fail" for result in results)
    draining = ctx.draining.is_set()
    body = {
        "status": "pass" if passed and not draining else "fail",
        "draining": draining,
        "checks": dict(zip(names, results, strict=True)),
        "time": rfc3339(ctx.clock()),
    }
    status = HTTPStatus.OK if body["status"] == "pass" else HTTPStatus.SERVICE_UNAVAILABLE
    headers = {"Cache-Control": "no-store"} | (
        {} if passed and not draining else {"Retry-After": "5"}
    )
    return web.json_response(
        body, status=status, headers=headers, content_type="application/health+json"
    )


async def _timed(
    check: Callable[[Context], Awaitable[dict[str, Any]]], ctx: Context
) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            details = await check(ctx)
    except NotReadyError as exc:
        details = {"status": "fail", "output": str(exc)}
    except TimeoutError:
        details = {"status": "fail", "output": "no answer in time"}
    except (*DATABASE_AWAY, StoreError) as exc:
        details = {"status": "fail", "output": type(exc).__name__}
    return {
        "status": "pass",
        "latency_ms": round((time.perf_counter() - started) * 1000, 1),
        **details,
    }


async def _database(ctx: Context) -> dict[str, Any]:
    async with ctx.pool.acquire() as conn:
        if lacking := await pending(conn, await asyncio.to_thread(migrations)):
            raise NotReadyError(f"migrations to apply: {', '.join(lacking)}")
    return {}


async def _store(ctx: Context) -> dict[str, Any]:
    await ctx.store.check()
    return {}


async def _queue(ctx: Context) -> dict[str, Any]:
    """How far behind the workers are: a fact for the people on call, never a reason to fail."""
    ages = await queue_ages(ctx.pool)
    return {
        "waiting": {work: {"jobs": n, "oldest_s": round(age, 1)} for work, (n, age) in ages.items()}
    }


async def _sandbox(ctx: Context) -> dict[str, Any]:
    """What confines decoders here. A worker that must not run without it does not even start."""
    layers = ctx.decoders.layers
    if layers is None:
        return {"output": "this process decodes nothing"}
    rows = {layer: why or "active" for layer, why in layers.rows.items()}
    return {"status": "warn" if layers.missing else "pass", "layers": rows}


CHECKS: dict[str, Callable[[Context], Awaitable[dict[str, Any]]]] = {
    "database": _database,
    "store": _store,
    "queue": _queue,
    "sandbox": _sandbox,
}


async def queue_ages(pool: Pool) -> dict[str, tuple[int, float]]:
    async with pool.acquire() as conn:
        return await jobs.queue_ages(conn)


async def _unerased(pool: Pool) -> tuple[float, float]:
    async with pool.acquire() as conn:
        return await erasure.backlog(conn)


async def metrics(request: web.Request) -> web.Response:
    """Everything measured, in Prometheus' text format. Without a database the rest still comes."""
    QUEUE_DEPTH.clear()
    QUEUE_AGE.clear()
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            ages = await queue_ages(context(request).pool)
            waiting_objects, erasure_age_s = await _unerased(context(request).pool)
    except (*DATABASE_AWAY, TimeoutError):
        ages, (waiting_objects, erasure_age_s) = {}, (math.nan, math.nan)
    for work, (waiting, age) in ages.items():
        QUEUE_DEPTH.labels(work).set(waiting)
        QUEUE_AGE.labels(work).set(age)
    OBJECTS_TO_ERASE.set(waiting_objects)
    ERASURE_AGE.set(erasure_age_s)
    body = await asyncio.to_thread(generate_latest)  # reads /proc
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
