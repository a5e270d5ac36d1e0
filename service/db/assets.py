"""SQL for assets, their blobs and verdicts. Every write of a run says which claim it holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from service.db.types import Conn, Row
from service.domain import AssetState, Origin, Run, Work
from service.errors import FailureCode, IngestError
from storage.store import StoredAsset
from validators.encoding import decode_verdict, encode_facts, encode_verdict
from validators.facts import Facts, Kind
from validators.verdict import Verdict


class ClaimLostError(Exception):
    """Another run has taken this asset over, or it is gone: drop the result, write nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    stage: str
    done: float | None
    total: float | None
    unit: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """An asset as readers see it."""

    id: UUID
    organisation_id: str
    kind: Kind
    origin: Origin
    state: AssetState
    size_bytes: int | None
    sha256: str | None
    key: str | None
    source_shown: str | None
    error_code: FailureCode | None
    error_message: str | None
    http_status: int | None
    progress: Progress | None
    verdict: Verdict | None
    policy: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAsset:
    """An asset that is still to be fetched."""

    id: UUID
    organisation_id: str
    kind: Kind
    policy: str
    source_url: bytes  # encrypted
    source_shown: str  # without its query
    source_expires_at: datetime | None
    traceparent: str | None
    created_at: datetime


async def insert(conn: Conn, asset: NewAsset) -> None:
    await conn.execute(
        """
        INSERT INTO asset (id, organisation_id, kind, origin, policy, source_url, source_shown,
                           source_expires_at, traceparent, created_at)
        VALUES ($1, $2, $3, 'fetch', $4, $5, $6, $7, $8, $9)
        """,
        asset.id,
        asset.organisation_id,
        asset.kind.value,
        asset.policy,
        asset.source_url,
        asset.source_shown,
        asset.source_expires_at,
        asset.traceparent,
        asset.created_at,
    )


_STATE_BEFORE = {Work.FETCH: AssetState.PENDING, Work.INSPECT: AssetState.STORED}


async def start_run(conn: Conn, asset_id: UUID, work: Work, *, now: datetime) -> Run | None:
    """Claim an asset for one run of *work*; None when that work is no longer wanted.

    An earlier claim that was never ended is a loss: its worker died, or is late. Should it live,
    its writes no longer match the claim.
    """
    row = await conn.fetchrow(
        """
        UPDATE asset SET claim = claim + 1, claimed_at = $3,
               losses = losses + (claimed_at IS NOT NULL)::int
         WHERE id = $1 AND state = $2 AND deleted_at IS NULL
        RETURNING id, organisation_id, kind, claim, attempts, failures, losses,
                  source_expires_at, traceparent
        """,
        asset_id,
        _STATE_BEFORE[work].value,
        now,
    )
    if row is None:
        return None
    return Run(
        asset_id=row["id"],
        organisation_id=row["organisation_id"],
        kind=Kind(row["kind"]),
        claim=row["claim"],
        attempts=row["attempts"],
        failures=row["failures"],
        losses=row["losses"],
        source_expires_at=row["source_expires_at"],
        traceparent=row["traceparent"],
    )


_FENCE = "WHERE id = $1 AND claim = $2 AND deleted_at IS NULL RETURNING 1"


async def _fenced(conn: Conn, run: Run, change: str, *values: object) -> None:
    if not await conn.fetchval(f"UPDATE asset SET {change} {_FENCE}", *_mine(run), *values):  # noqa: S608 - change is a literal of this module
        raise ClaimLostError(str(run.asset_id))


def _mine(run: Run) -> tuple[UUID, int]:
    return run.asset_id, run.claim


async def hand_back(conn: Conn, run: Run) -> None:
    """End the run without a result and without a mark against the asset: we are stopping."""
    await _fenced(conn, run, "claimed_at = NULL")


async def count_attempt(conn: Conn, run: Run) -> None:
    """End the run: its source answered with an error that may pass."""
    await _fenced(conn, run, "claimed_at = NULL, attempts = attempts + 1")


async def count_failure(conn: Conn, run: Run) -> None:
    """End the run: ffmpeg or a model died under it."""
    await _fenced(conn, run, "claimed_at = NULL, failures = failures + 1")


async def keep_progress(conn: Conn, run: Run, progress: Progress) -> None:
    await _fenced(
        conn,
        run,
        "stage = $3, progress_done = $4, progress_total = $5, progress_unit = $6",
        progress.stage,
        progress.done,
        progress.total,
        progress.unit,
    )


_ENDED = """claimed_at = NULL, stage = NULL,
            progress_done = NULL, progress_total = NULL, progress_unit = NULL"""


async def keep_stored(conn: Conn, run: Run, blob_id: UUID) -> None:
    """The bytes are durable. What the source did is over; what the asset cost us still counts."""
    change = f"""state = 'stored', blob_id = $3, source_url = NULL,
            attempts = 0, {_ENDED}"""
    await _fenced(conn, run, change, blob_id)


async def keep_failed(conn: Conn, run: Run, error: IngestError) -> None:
    await _fenced(
        conn,
        run,
        f"""state = 'failed', source_url = NULL,
            error_code = $3, error_message = $4, http_status = $5, {_ENDED}""",
        error.code.value,
        public_message(error),
        error.status,
    )


def public_message(error: IngestError) -> str:
    """The code's sentence, and the detail where there is one. Neither holds a secret."""
    return f"{error.message} ({error.detail})" if error.detail else error.message


async def keep_verdict(
    conn: Conn, run: Run, verdict: Verdict, facts: Facts, *, now: datetime
) -> None:
    """Keep *verdict* and what it was judged from; raise ClaimLostError if the run was overtaken."""
    state = AssetState.READY if verdict.accepted else AssetState.REJECTED
    await _fenced(conn, run, f"state = $3, {_ENDED}", state.value)
    await conn.execute(
        """
        INSERT INTO verdict (asset_id, policy, accepted, codes, facts, document, judged_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        """,
        run.asset_id,
        verdict.policy,
        verdict.accepted,
        [code.value for code in verdict.failed],
        encode_facts(facts),
        encode_verdict(verdict),
        now,
    )


async def sealed_source_of(conn: Conn, run: Run) -> bytes:
    """The encrypted URL that the run has to fetch."""
    sql = "SELECT source_url FROM asset WHERE id = $1 AND claim = $2"
    sealed: bytes | None = await conn.fetchval(sql, *_mine(run))
    if sealed is None:
        raise ClaimLostError(str(run.asset_id))
    return sealed


async def begin_blob(conn: Conn, run: Run, *, blob_id: UUID, key: str) -> None:
    """Commit the key before its first byte, so that the object can always be found."""
    await conn.execute(
        "INSERT INTO blob (id, organisation_id, key, written_for) VALUES ($1, $2, $3, $4)",
        blob_id,
        run.organisation_id,
        key,
        run.asset_id,
    )


async def finish_blob(conn: Conn, run: Run, blob_id: UUID, stored: StoredAsset) -> UUID:
    """The blob that holds these bytes for the organisation: this one, or one that already did.

    When another holds them, ours is marked `discarded` for its object to be deleted.
    """
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", stored.sha256)
    existing: UUID | None = await conn.fetchval(
        "SELECT id FROM blob WHERE organisation_id = $1 AND sha256 = $2 AND state = 'stored'",
        run.organisation_id,
        stored.sha256,
    )
    await conn.execute(
        "UPDATE blob SET state = $2, sha256 = $3, size_bytes = $4 WHERE id = $1",
        blob_id,
        "stored" if existing is None else "discarded",
        stored.sha256,
        stored.size_bytes,
    )
    return existing or blob_id


async def abandoned_blobs(conn: Conn, asset_id: UUID) -> list[tuple[UUID, str]]:
    """Blobs that earlier runs of this asset began or discarded: their objects may go."""
    rows = await conn.fetch(
        "SELECT id, key FROM blob WHERE written_for = $1 AND state <> 'stored'", asset_id
    )
    return [(row["id"], row["key"]) for row in rows]


async def forget_blob(conn: Conn, blob_id: UUID) -> None:
    await conn.execute("DELETE FROM blob WHERE id = $1 AND state <> 'stored'", blob_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBytes:
    key: str
    sha256: str
    policy: str


async def bytes_of(conn: Conn, run: Run) -> StoredBytes:
    row = await conn.fetchrow(
        """
        SELECT b.key, b.sha256, a.policy FROM asset a JOIN blob b ON b.id = a.blob_id
         WHERE a.id = $1 AND a.claim = $2
        """,
        *_mine(run),
    )
    if row is None:
        raise ClaimLostError(str(run.asset_id))
    return StoredBytes(key=row["key"], sha256=row["sha256"], policy=row["policy"])


_SELECT = """
    SELECT a.*, b.key, b.sha256, b.size_bytes, v.document
      FROM asset a LEFT JOIN blob b ON b.id = a.blob_id
      LEFT JOIN verdict v ON v.asset_id = a.id
"""


async def get(conn: Conn, asset_id: UUID, *, organisation_id: str | None) -> Asset | None:
    """One asset; None when there is none, or it is another organisation's."""
    row = await conn.fetchrow(
        f"{_SELECT} WHERE a.id = $1 AND a.deleted_at IS NULL"
        " AND ($2::text IS NULL OR a.organisation_id = $2)",
        asset_id,
        organisation_id,
    )
    return _asset(row) if row else None


async def of_avatar(conn: Conn, avatar_id: UUID) -> dict[str, Asset]:
    """The assets of an avatar by role, in the order video, image, audio."""
    rows: Sequence[Row] = await conn.fetch(
        f"{_SELECT} JOIN source s ON s.asset_id = a.id WHERE s.avatar_id = $1",
        avatar_id,
    )
    by_kind = {row["kind"]: _asset(row) for row in rows}
    return {kind.value: by_kind[kind.value] for kind in Kind if kind.value in by_kind}


def _asset(row: Row) -> Asset:
    code: str | None = row["error_code"]
    document: str | None = row["document"]
    return Asset(
        id=row["id"],
        organisation_id=row["organisation_id"],
        kind=Kind(row["kind"]),
        origin=Origin(row["origin"]),
        state=AssetState(row["state"]),
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        key=row["key"],
        source_shown=row["source_shown"],
        error_code=FailureCode(code) if code else None,
        error_message=row["error_message"],
        http_status=row["http_status"],
        progress=_progress(row),
        verdict=decode_verdict(document) if document else None,
        policy=row["policy"],
        created_at=row["created_at"],
    )


def _progress(row: Row) -> Progress | None:
    if row["stage"] is None:
        return None
    return Progress(
        stage=row["stage"],
        done=row["progress_done"],
        total=row["progress_total"],
        unit=row["progress_unit"],
    )
