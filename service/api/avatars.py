"""What an avatar's sources turned out to be."""

from aiohttp import web

from service.api import bodies
from service.api.avatar_profiles import avatar_of
from service.api.context import context
from service.api.middleware import json_answer, needs
from service.db import assets
from service.db.keys import Scope


@needs(Scope.AVATARS_READ)
async def verdict(request: web.Request) -> web.Response:
    """State, cause, progress, and for every source its verdict or the error that stopped it."""
    avatar = await avatar_of(request)
    async with context(request).pool.acquire() as conn:
        sources = await assets.of_avatar(conn, avatar.id)
    return json_answer(bodies.avatar_verdict(avatar, sources))
