"""What the fitter reports."""

from aiohttp import web

from service.api import bodies
from service.api.avatar_profiles import avatar_of
from service.api.context import context, principal
from service.api.middleware import json_answer, needs, read_json
from service.api.problem import ApiError, ErrorType, not_found
from service.db import avatars
from service.db.keys import Scope
from service.domain import Cause, Status
from service.events.outbox import unit_of_work
from service.ingest.settle import settle_fitted

DEFAULT_CODE = "fitting_failed"


@needs(Scope.FITTING_WRITE)
async def report(request: web.Request) -> web.Response:
    """An avatar was fitted, or could not be. Saying the same again changes nothing."""
    ctx = context(request)
    said = bodies.parse(bodies.FittingReport, await read_json(request))
    named = await avatar_of(request)
    now = ctx.clock()
    async with ctx.pool.acquire() as conn, unit_of_work(conn, now=now) as work:
        avatar = await avatars.lock(conn, named.id, organisation_id=principal(request).sees)
        if avatar is None:
            raise not_found("avatar")
        if not _said_before(avatar, said):
            if avatar.status is not Status.FITTING:
                message = "The avatar is not waiting for its fitter."
                raise ApiError(ErrorType.CONFLICT, "not_fitting", message)
            await settle_fitted(work, avatar, _failure(said), now=now)
    return json_answer({"id": str(named.id), "status": said.status})


def _failure(said: bodies.FittingReport) -> tuple[str, str] | None:
    if said.status == "ready":
        return None
    return said.code or DEFAULT_CODE, said.message or "The fitter could not fit the avatar."


def _said_before(avatar: avatars.Avatar, said: bodies.FittingReport) -> bool:
    if said.status == "ready":
        return avatar.status is Status.READY
    same_code = avatar.codes == (said.code or DEFAULT_CODE,)
    return avatar.status is Status.FAILED and avatar.cause is Cause.FITTING and same_code
