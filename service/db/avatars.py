"""SQL for avatars and their sources. Callers own the connection and its transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from service.db import claims
from service.db.claims import ENDED, Progress, fenced
from service.db.types import Conn, Row
from service.domain import (
    AssetState,
    AvatarRun,
    Cause,
    Settlement,
    SourceOutcome,
    Status,
    is_ours,
)
from service.errors import FailureCode
from validators.derive.recipes import Recipe
from validators.encoding import decode_pair_verdict, encode_pair_verdict, encode_verdict
from validators.verdict import PairVerdict, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Avatar:
    id: UUID
    organisation_id: str
    name: str
    runtime_type: str
    policy: str
    status: Status
    cause: Cause | None
    codes: tuple[str, ...]
    message: str | None
    traceparent: str | None
    created_at: datetime
    fitting_since: datetime | None
    progress: Progress | None = None  # of a derivation
    pairs: PairVerdict | None = None  # its sources beside each other, once compared


async def insert(conn: Conn, avatar: Avatar, sources: Mapping[str, UUID]) -> None:
    """Record a new avatar and which asset it uses in each role."""
    await conn.execute(
        """
        INSERT INTO avatar (id, organisation_id, name, runtime_type, policy,
                            traceparent, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        """,
        avatar.id,
        avatar.organisation_id,
        avatar.name,
        avatar.runtime_type,
        avatar.policy,
        avatar.traceparent,
        avatar.created_at,
    )
    await conn.executemany(
        "INSERT INTO source (avatar_id, role, asset_id) VALUES ($1, $2, $3)",
        [(avatar.id, role, asset_id) for role, asset_id in sources.items()],
    )


_LOCK_AVATARS_OF_ASSET = """
    SELECT * FROM avatar
     WHERE id IN (SELECT avatar_id FROM source WHERE asset_id = $1)
     ORDER BY id FOR UPDATE
"""


async def lock_those_using(conn: Conn, asset_id: UUID) -> list[Avatar]:
    """Lock the avatars that use an asset, in id order, before anything else is written.

    Two sources that finish together must not each see the other unfinished.
    """
    return [_avatar(row) for row in await conn.fetch(_LOCK_AVATARS_OF_ASSET, asset_id)]


async def ids_using(conn: Conn, asset_id: UUID) -> set[UUID]:
    rows = await conn.fetch("SELECT avatar_id FROM source WHERE asset_id = $1", asset_id)
    return {row["avatar_id"] for row in rows}


async def lock(conn: Conn, avatar_id: UUID, *, organisation_id: str | None) -> Avatar | None:
    row = await conn.fetchrow(
        """
        SELECT * FROM avatar WHERE id = $1
           AND ($2::text IS NULL OR organisation_id = $2) FOR UPDATE
        """,
        avatar_id,
        organisation_id,
    )
    return _avatar(row) if row else None


async def get(conn: Conn, avatar_id: UUID, *, organisation_id: str | None) -> Avatar | None:
    """One avatar; None when there is none, or it is another organisation's."""
    row = await conn.fetchrow(
        """
        SELECT * FROM avatar WHERE id = $1
           AND ($2::text IS NULL OR organisation_id = $2)
        """,
        avatar_id,
        organisation_id,
    )
    return _avatar(row) if row else None


async def page(
    conn: Conn, *, organisation_id: str | None, before: UUID | None, limit: int | None
) -> list[Avatar]:
    """Avatars, newest first, older than *before*; all of them without a limit."""
    rows = await conn.fetch(
        """
        SELECT * FROM avatar
         WHERE ($1::text IS NULL OR organisation_id = $1)
           AND ($2::uuid IS NULL OR id < $2)
         ORDER BY id DESC LIMIT $3
        """,
        organisation_id,
        before,
        limit,
    )
    return [_avatar(row) for row in rows]


async def begin_fetching(conn: Conn, asset_id: UUID) -> None:
    """The first fetch for the avatars that use an asset has begun. Never moves one back."""
    await conn.execute(
        """
        WITH waiting AS (
            SELECT id FROM avatar
             WHERE status = 'accepted'
               AND id IN (SELECT avatar_id FROM source WHERE asset_id = $1)
             ORDER BY id FOR UPDATE)
        UPDATE avatar SET status = 'fetching' WHERE id IN (SELECT id FROM waiting)
        """,
        asset_id,
    )


async def outcomes(conn: Conn, avatar_id: UUID) -> list[SourceOutcome]:
    """Where every source of an avatar stands, under the avatar's own policy where it has that."""
    rows = await conn.fetch(
        """
        SELECT CASE WHEN s.codes <> '{}' THEN 'rejected' ELSE a.state END AS state,
               a.error_code, coalesce(s.codes, v.codes) AS codes
          FROM source s JOIN asset a ON a.id = s.asset_id
          LEFT JOIN verdict v ON v.asset_id = a.id
         WHERE s.avatar_id = $1 ORDER BY s.role DESC
        """,
        avatar_id,
    )
    return [_outcome(row) for row in rows]


async def accepted_otherwise(conn: Conn, avatar_id: UUID) -> dict[UUID, str]:
    """Encoded facts of sources that passed under another policy, and not yet under the avatar's."""
    rows = await conn.fetch(
        """
        SELECT a.id, v.facts
          FROM source s JOIN avatar t ON t.id = s.avatar_id JOIN asset a ON a.id = s.asset_id
          JOIN verdict v ON v.asset_id = a.id
         WHERE t.id = $1 AND a.policy <> t.policy AND a.state = 'ready' AND s.document IS NULL
        """,
        avatar_id,
    )
    return {row["id"]: row["facts"] for row in rows}


async def keep_own_verdict(conn: Conn, avatar_id: UUID, asset_id: UUID, verdict: Verdict) -> None:
    """What a source is under the policy of a locked avatar; the asset keeps its own verdict."""
    await conn.execute(
        "UPDATE source SET codes = $3, document = $4 WHERE avatar_id = $1 AND asset_id = $2",
        avatar_id,
        asset_id,
        [code.value for code in verdict.failed],
        encode_verdict(verdict),
    )


def _outcome(row: Row) -> SourceOutcome:
    state = AssetState(row["state"])
    if state is AssetState.FAILED:
        code = FailureCode(row["error_code"])
        return SourceOutcome(state=state, codes=(code.value,), internal=is_ours(code))
    return SourceOutcome(state=state, codes=tuple(row["codes"] or ()))


async def move(
    conn: Conn, avatar: Avatar, to: Settlement, *, message: str | None, now: datetime
) -> bool:
    """Give a locked avatar its next status; False when it is final already."""
    moved = await conn.fetchval(
        """
        UPDATE avatar SET status = $2, cause = $3, codes = $4, message = $5,
               fitting_since = CASE WHEN $2 = 'fitting' THEN $6 ELSE fitting_since END
         WHERE id = $1 AND status NOT IN ('ready', 'failed') RETURNING true
        """,
        avatar.id,
        to.status.value,
        to.cause.value if to.cause else None,
        list(to.codes),
        message,
        now,
    )
    return bool(moved)


async def start_run(conn: Conn, avatar_id: UUID, *, now: datetime) -> AvatarRun | None:
    """Claim an avatar for one derivation; None when it does not wait for one."""
    row = await claims.claim(conn, AvatarRun, avatar_id, waiting="status = 'deriving'", now=now)
    if row is None:
        return None
    return AvatarRun(
        id=row["id"],
        organisation_id=row["organisation_id"],
        policy=row["policy"],
        claim=row["claim"],
        attempts=row["attempts"],
        failures=row["failures"],
        losses=row["losses"],
        waits=row["waits"],
        traceparent=row["traceparent"],
    )


async def end_run(conn: Conn, run: AvatarRun, pairs: PairVerdict | None) -> Avatar:
    """Lock the avatar of a run that is through, to be moved; ClaimLostError if it was overtaken."""
    kept = None if pairs is None else encode_pair_verdict(pairs)
    return _avatar(await fenced(conn, run, f"pairs = $3, {ENDED}", kept))


async def add_derived(conn: Conn, avatar_id: UUID, recipe: Recipe, asset_id: UUID) -> None:
    await conn.execute(
        "INSERT INTO derived (avatar_id, recipe, asset_id) VALUES ($1, $2, $3)",
        avatar_id,
        recipe.value,
        asset_id,
    )


async def unanswered_by_fitter(conn: Conn, *, since: datetime) -> list[UUID]:
    """Avatars that have waited for their fitter since before *since*."""
    rows = await conn.fetch(
        """
        SELECT id FROM avatar
         WHERE status = 'fitting' AND fitting_since < $1
        """,
        since,
    )
    return [row["id"] for row in rows]


def _avatar(row: Row) -> Avatar:
    cause: str | None = row["cause"]
    codes: Sequence[str] = row["codes"]
    pairs: str | None = row["pairs"]
    return Avatar(
        id=row["id"],
        organisation_id=row["organisation_id"],
        name=row["name"],
        runtime_type=row["runtime_type"],
        policy=row["policy"],
        status=Status(row["status"]),
        cause=Cause(cause) if cause else None,
        codes=tuple(codes),
        message=row["message"],
        traceparent=row["traceparent"],
        created_at=row["created_at"],
        fitting_since=row["fitting_since"],
        progress=claims.progress_of(row),
        pairs=decode_pair_verdict(pairs) if pairs else None,
    )
