"""SQL for what was measured before. Never across organisations, not even for equal bytes."""

from service.db.types import Conn
from service.domain import AssetRun


async def known_facts(
    conn: Conn, run: AssetRun, *, sha256: str, measured_by: str | None
) -> str | None:
    """Encoded facts of the same bytes as the same kind, as the same instruments measured them.

    Also of an asset whose bytes are erased by now: its verdict stays. None: there are none.
    """
    facts: str | None = await conn.fetchval(
        """
        SELECT v.facts FROM asset a JOIN verdict v ON v.asset_id = a.id
         WHERE a.organisation_id = $1 AND a.sha256 = $2 AND a.kind = $3 AND v.measured_by = $4
         ORDER BY v.judged_at DESC LIMIT 1
        """,
        run.organisation_id,
        sha256,
        run.kind.value,
        measured_by,
    )
    return facts
