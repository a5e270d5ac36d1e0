"""Whose a new avatar will be, and by which policy it is judged."""

from dataclasses import dataclass

from aiohttp import web

from service.api.context import context, principal
from service.api.problem import invalid_field, missing_field
from service.db import keys
from validators.policy import PolicyName

ORGANISATION_HEADER = "Greenroom-Organisation"
POLICY_HEADER = "Greenroom-Policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    organisation_id: str
    policy: str  # by default


async def owner_of(request: web.Request) -> Owner:
    """The key's organisation, or the one that a platform key names; ApiError 422."""
    who = principal(request)
    if not who.is_platform:
        return Owner(organisation_id=who.organisation_id, policy=who.policy)
    named = request.headers.get(ORGANISATION_HEADER)
    if not named:
        message = f"A platform key names the organisation in the header {ORGANISATION_HEADER}."
        raise missing_field(ORGANISATION_HEADER, message)
    policy = None
    if keys.ORGANISATION_ID.fullmatch(named):
        async with context(request).pool.acquire() as conn:
            policy = await keys.default_policy_of(conn, named)
    if policy is None:
        raise invalid_field(ORGANISATION_HEADER, "There is no such organisation.")
    return Owner(organisation_id=named, policy=policy)


def policy_of(request: web.Request, owner: Owner) -> str:
    """The policy that this one request names, or its owner's; ApiError 422."""
    named = request.headers.get(POLICY_HEADER, owner.policy)
    if named not in set(PolicyName):
        raise invalid_field(POLICY_HEADER, "The policy is standard or strict.")
    return named
