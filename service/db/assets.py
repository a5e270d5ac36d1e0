"""SQL for assets and their verdicts. Every write of a run says which claim it holds."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from pydantic import TypeAdapter

from service.db import claims
from service.db.claims import ENDED, ClaimLostError, Progress, fenced
from service.db.types import Conn, Row
from service.db.uploads import Upload
from service.domain import AssetRun, AssetState, Origin, Work
from service.errors import FailureCode, IngestError
from storage.store import StoredAsset
from validators.derive.recipes import Recipe
from validators.encoding import decode_verdict, encode_facts, encode_verdict
from validators.facts import Facts, Kind
from validators.verdict import Media, Verdict

_MEDIA = TypeAdapter(Media)


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
    bytes_erased_at: datetime | None = None  # by retention; or deleted, then there is no asset
    bytes_lost: bool = False  # its store lost them; see `greenroom reconcile`
    derivation: "Derivation | None" = None
    media: Media | None = None  # known once it is judged or derived


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """How a derived asset is made again: by which recipe, and from which asset."""

    recipe: Recipe
    version: int
    derived_from: UUID


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
    expected_sha256: str | None  # 64 lower-case hex digits
    traceparent: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUploaded:
    """An asset that a caller has sent, and whose bytes are stored."""

    id: UUID
    organisation_id: str
    kind: Kind
    policy: str
    blob_id: UUID
    stored: StoredAsset
    traceparent: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDerived:
    """A derived asset, whose bytes are stored."""

    id: UUID
    organisation_id: str
    policy: str
    derivation: Derivation
    blob_id: UUID
    media: Media
    traceparent: str | None
    created_at: datetime


async def insert(conn: Conn, asset: NewAsset) -> None:
    await conn.execute(
        """
        INSERT INTO asset (id, organisation_id, kind, origin, policy, source_url, source_shown,
                           source_expires_at, expected_sha256, traceparent, created_at)
        VALUES ($1, $2, $3, 'fetch', $4, $5, $6, $7, $8, $9, $10)
        """,
        asset.id,
        asset.organisation_id,
        asset.kind.value,
        asset.policy,
        asset.source_url,
        asset.source_shown,
        asset.source_expires_at,
        asset.expected_sha256,
        asset.traceparent,
        asset.created_at,
    )


async def insert_adopted(
    conn: Conn, upload: Upload, *, traceparent: str | None, now: datetime
) -> None:
    """An asset whose bytes lie where its upload put them, and are still to be copied."""
    await conn.execute(
        """
        INSERT INTO asset (id, organisation_id, kind, origin, policy, standalone, traceparent,
                           created_at)
        VALUES ($1, $2, $3, 'upload', $4, true, $5, $6)
        """,
        upload.id,
        upload.organisation_id,
        upload.kind.value,
        upload.policy,
        traceparent,
        now,
    )


async def insert_uploaded(conn: Conn, asset: NewUploaded) -> None:
    await conn.execute(
        """
        INSERT INTO asset (id, organisation_id, kind, origin, policy, state, blob_id, sha256,
                           size_bytes, traceparent, created_at)
        VALUES ($1, $2, $3, 'upload', $4, 'stored', $5, $6, $7, $8, $9)
        """,
        asset.id,
        asset.organisation_id,
        asset.kind.value,
        asset.policy,
        asset.blob_id,
        asset.stored.sha256,
        asset.stored.size_bytes,
        asset.traceparent,
        asset.created_at,
    )


_WAITING = {
    Work.FETCH: "state = 'pending'",
    Work.INSPECT: "state = 'stored'",
    Work.REBUILD: """origin = 'derive'
            AND EXISTS (SELECT 1 FROM blob WHERE blob.id = blob_id AND blob.state = 'lost')""",
}


async def start_run(conn: Conn, asset_id: UUID, work: Work, *, now: datetime) -> AssetRun | None:
    """Claim an asset for one run of *work*; None when that work is no longer wanted."""
    row = await claims.claim(conn, AssetRun, asset_id, waiting=_WAITING[work], now=now)
    if row is None:
        return None
    return AssetRun(
        id=row["id"],
        organisation_id=row["organisation_id"],
        kind=Kind(row["kind"]),
        origin=Origin(row["origin"]),
        claim=row["claim"],
        attempts=row["attempts"],
        failures=row["failures"],
        losses=row["losses"],
        waits=row["waits"],
        traceparent=row["traceparent"],
        # stored bytes do not expire with the URL that they came from
        deadline=row["source_expires_at"] if work is Work.FETCH else None,
    )


async def keep_stored(conn: Conn, run: AssetRun, blob_id: UUID, stored: StoredAsset) -> None:
    """The bytes are durable. What the source did is over; what the asset cost us still counts."""
    change = f"""state = 'stored', blob_id = $3, sha256 = $4, size_bytes = $5,
            source_url = NULL, attempts = 0, waits = 0, {ENDED}"""
    await fenced(conn, run, change, blob_id, stored.sha256, stored.size_bytes)


async def keep_failed(conn: Conn, run: AssetRun, error: IngestError, *, now: datetime) -> None:
    await fenced(
        conn,
        run,
        f"""state = 'failed', source_url = NULL, final_at = $6,
            error_code = $3, error_message = $4, http_status = $5, {ENDED}""",
        error.code.value,
        public_message(error),
        error.status,
        now,
    )


def public_message(error: IngestError) -> str:
    """The code's sentence, and the detail where there is one. Neither holds a secret."""
    return f"{error.message} ({error.detail})" if error.detail else error.message


async def keep_verdict(
    conn: Conn,
    run: AssetRun,
    verdict: Verdict,
    facts: Facts,
    *,
    measured_by: str | None,
    now: datetime,
) -> None:
    """Keep *verdict* and what it was judged from; raise ClaimLostError if the run was overtaken."""
    state = AssetState.READY if verdict.accepted else AssetState.REJECTED
    await fenced(conn, run, f"state = $3, final_at = $4, {ENDED}", state.value, now)
    await conn.execute(
        """
        INSERT INTO verdict (asset_id, policy, accepted, codes, facts, measured_by, document,
                             judged_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        run.id,
        verdict.policy,
        verdict.accepted,
        [code.value for code in verdict.failed],
        encode_facts(facts),
        measured_by,
        encode_verdict(verdict),
        now,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSource:
    """What a run has to fetch."""

    url: bytes  # encrypted
    expected_sha256: str | None


async def sealed_source_of(conn: Conn, run: AssetRun) -> SealedSource:
    """What the run has to fetch; raise ClaimLostError if it was overtaken."""
    row = await conn.fetchrow(
        "SELECT source_url, expected_sha256 FROM asset WHERE id = $1 AND claim = $2",
        run.id,
        run.claim,
    )
    if row is None or row["source_url"] is None:
        raise ClaimLostError(str(run.id))
    return SealedSource(url=row["source_url"], expected_sha256=row["expected_sha256"])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBytes:
    key: str
    sha256: str
    policy: str


async def bytes_of(conn: Conn, run: AssetRun) -> StoredBytes:
    row = await conn.fetchrow(
        """
        SELECT b.key, b.sha256, a.policy FROM asset a JOIN blob b ON b.id = a.blob_id
         WHERE a.id = $1 AND a.claim = $2
        """,
        run.id,
        run.claim,
    )
    if row is None:
        raise ClaimLostError(str(run.id))
    return StoredBytes(key=row["key"], sha256=row["sha256"], policy=row["policy"])


async def lock(conn: Conn, asset_ids: Collection[UUID]) -> None:
    """Lock assets, in id order: of two runs that derive from one, the second sees the first's.

    Raises LookupError when one of them was deleted.
    """
    sql = """
        SELECT id FROM asset WHERE id = ANY($1)
         ORDER BY id FOR NO KEY UPDATE
    """
    if len(await conn.fetch(sql, list(asset_ids))) < len(asset_ids):
        raise LookupError("a source of the avatar is gone")


async def share(conn: Conn, asset_ids: Iterable[UUID]) -> None:
    """Keep assets as they are until the transaction ends, in id order; others may share them."""
    sql = "SELECT 1 FROM asset WHERE id = ANY($1) ORDER BY id FOR SHARE"
    await conn.execute(sql, list(asset_ids))


async def was_uploaded(
    conn: Conn, asset_id: UUID, kind: Kind, *, organisation_id: str | None
) -> bool:
    """Whether the asset of a finalised upload is there, whatever became of its bytes."""
    sql = """
        SELECT EXISTS (
            SELECT 1 FROM asset
             WHERE id = $1 AND kind = $2 AND ($3::text IS NULL OR organisation_id = $3)
               AND standalone)
    """
    return bool(await conn.fetchval(sql, asset_id, kind.value, organisation_id))


async def is_reusable(conn: Conn, asset_id: UUID, kind: Kind, organisation_id: str) -> bool:
    """Whether a new avatar can be made from it: uploaded by itself, and its bytes not erased."""
    sql = """
        SELECT EXISTS (
            SELECT 1 FROM asset a LEFT JOIN blob b ON b.id = a.blob_id
             WHERE a.id = $1 AND a.kind = $2 AND a.organisation_id = $3 AND a.standalone
               AND a.bytes_erased_at IS NULL AND (b.id IS NULL OR b.state = 'stored'))
    """
    return bool(await conn.fetchval(sql, asset_id, kind.value, organisation_id))


async def find_derived(conn: Conn, derivation: Derivation) -> UUID | None:
    """The asset that was made so already."""
    found: UUID | None = await conn.fetchval(
        """
        SELECT id FROM asset WHERE derived_from = $1 AND recipe = $2 AND recipe_version = $3
        """,
        derivation.derived_from,
        derivation.recipe.value,
        derivation.version,
    )
    return found


async def insert_derived(conn: Conn, asset: NewDerived) -> None:
    await conn.execute(
        """
        INSERT INTO asset (id, organisation_id, kind, origin, policy, state, blob_id, sha256,
                           size_bytes, derived_from, recipe, recipe_version, media, traceparent,
                           created_at)
        VALUES ($1, $2, $3, 'derive', $4, 'ready', $5, $6, $7, $8, $9, $10, $11, $12, $13)
        """,
        asset.id,
        asset.organisation_id,
        asset.media.kind.value,
        asset.policy,
        asset.blob_id,
        asset.media.sha256,
        asset.media.size_bytes,
        asset.derivation.derived_from,
        asset.derivation.recipe.value,
        asset.derivation.version,
        _MEDIA.dump_json(asset.media, exclude_none=True).decode(),
        asset.traceparent,
        asset.created_at,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LostDerived:
    """A derived asset whose bytes are lost, and what they can be made from again."""

    derivation: Derivation
    sha256: str
    origin_kind: Kind
    origin_policy: str
    origin_key: str
    origin_sha256: str
    origin_lost: bool
    origin_facts: str


async def lost_derived(conn: Conn, run: AssetRun) -> LostDerived:
    """What a run has to make again; raise ClaimLostError if it was overtaken."""
    row = await conn.fetchrow(
        """
        SELECT a.recipe, a.recipe_version, a.derived_from, a.sha256, o.kind, o.policy,
               b.key, b.sha256 AS origin_sha256, b.state = 'lost' AS origin_lost, v.facts
          FROM asset a JOIN asset o ON o.id = a.derived_from JOIN blob b ON b.id = o.blob_id
          JOIN verdict v ON v.asset_id = o.id
         WHERE a.id = $1 AND a.claim = $2
        """,
        run.id,
        run.claim,
    )
    if row is None:
        raise ClaimLostError(str(run.id))
    return LostDerived(
        derivation=Derivation(
            recipe=Recipe(row["recipe"]),
            version=row["recipe_version"],
            derived_from=row["derived_from"],
        ),
        sha256=row["sha256"],
        origin_kind=Kind(row["kind"]),
        origin_policy=row["policy"],
        origin_key=row["key"],
        origin_sha256=row["origin_sha256"],
        origin_lost=row["origin_lost"],
        origin_facts=row["facts"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBlob:
    """Where the bytes of a locked asset are."""

    id: UUID
    lost: bool


async def hold_blob(conn: Conn, run: AssetRun) -> HeldBlob:
    """Lock the run's asset and see where its bytes are; raise ClaimLostError if overtaken."""
    # alone: whoever waited here for another blob would not find the row that joins the new one
    blob_id = await conn.fetchval(
        "SELECT blob_id FROM asset WHERE id = $1 AND claim = $2 FOR NO KEY UPDATE",
        run.id,
        run.claim,
    )
    if blob_id is None:
        raise ClaimLostError(str(run.id))
    lost = await conn.fetchval("SELECT state = 'lost' FROM blob WHERE id = $1", blob_id)
    return HeldBlob(id=blob_id, lost=lost)


_UNCOUNTED = "attempts = 0, waits = 0, failures = 0, losses = 0"


async def keep_rebuilt(conn: Conn, run: AssetRun, blob_id: UUID, media: Media) -> None:
    """The bytes of a derived asset are there again: the same, or others of the same recipe."""
    change = f"blob_id = $3, sha256 = $4, size_bytes = $5, media = $6, {_UNCOUNTED}, {ENDED}"
    document = _MEDIA.dump_json(media, exclude_none=True).decode()
    await fenced(conn, run, change, blob_id, media.sha256, media.size_bytes, document)


async def end_rebuild(conn: Conn, run: AssetRun) -> None:
    """Nothing came of it, and what it cost does not count against the next try."""
    await fenced(conn, run, f"{_UNCOUNTED}, {ENDED}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSource:
    """A source of an avatar that passed its checks: where it lies, and what was measured of it."""

    asset_id: UUID
    kind: Kind
    key: str
    sha256: str
    facts: str


async def judged_sources(conn: Conn, avatar_id: UUID) -> list[JudgedSource]:
    rows = await conn.fetch(
        """
        SELECT a.id, a.kind, b.key, b.sha256, v.facts
          FROM source s JOIN asset a ON a.id = s.asset_id JOIN blob b ON b.id = a.blob_id
          JOIN verdict v ON v.asset_id = a.id
         WHERE s.avatar_id = $1 AND a.state = 'ready'
        """,
        avatar_id,
    )
    return [
        JudgedSource(
            asset_id=row["id"],
            kind=Kind(row["kind"]),
            key=row["key"],
            sha256=row["sha256"],
            facts=row["facts"],
        )
        for row in rows
    ]


_SELECT = """
    SELECT a.*, b.key, b.state = 'lost' AS bytes_lost, v.document
      FROM asset a LEFT JOIN blob b ON b.id = a.blob_id
      LEFT JOIN verdict v ON v.asset_id = a.id
"""


async def get(conn: Conn, asset_id: UUID, *, organisation_id: str | None) -> Asset | None:
    """One asset; None when there is none, or it is another organisation's."""
    row = await conn.fetchrow(
        f"{_SELECT} WHERE a.id = $1 AND ($2::text IS NULL OR a.organisation_id = $2)",
        asset_id,
        organisation_id,
    )
    return _asset(row) if row else None


async def of_avatar(conn: Conn, avatar_id: UUID) -> dict[str, Asset]:
    """The assets of an avatar by role, in the order video, image, audio, as it judges them."""
    rows: Sequence[Row] = await conn.fetch(
        f"""
        SELECT asset.*, s.document AS own_document FROM ({_SELECT}) asset
          JOIN source s ON s.asset_id = asset.id WHERE s.avatar_id = $1
        """,  # noqa: S608 - a literal of ours
        avatar_id,
    )
    by_kind = {row["kind"]: _as_judged_by_avatar(_asset(row), row["own_document"]) for row in rows}
    return {kind.value: by_kind[kind.value] for kind in Kind if kind.value in by_kind}


def _as_judged_by_avatar(asset: Asset, document: str | None) -> Asset:
    if document is None:
        return asset
    verdict = decode_verdict(document)
    state = AssetState.READY if verdict.accepted else AssetState.REJECTED
    return replace(asset, verdict=verdict, state=state)


async def derived_of(conn: Conn, avatar_id: UUID) -> dict[Recipe, Asset]:
    """What was derived for an avatar."""
    rows: Sequence[Row] = await conn.fetch(
        f"{_SELECT} JOIN derived d ON d.asset_id = a.id WHERE d.avatar_id = $1",
        avatar_id,
    )
    return {Recipe(row["recipe"]): _asset(row) for row in rows}


async def previews_of(conn: Conn, avatar_ids: Sequence[UUID]) -> dict[UUID, tuple[str, str]]:
    """Key and SHA-256 of the previews that avatars have and whose bytes are there, by avatar."""
    rows = await conn.fetch(
        """
        SELECT d.avatar_id, b.key, b.sha256
          FROM derived d JOIN asset a ON a.id = d.asset_id JOIN blob b ON b.id = a.blob_id
         WHERE d.avatar_id = ANY($1) AND d.recipe = $2 AND b.state <> 'lost'
        """,
        list(avatar_ids),
        Recipe.PREVIEW.value,
    )
    return {row["avatar_id"]: (row["key"], row["sha256"]) for row in rows}


def _asset(row: Row) -> Asset:
    code: str | None = row["error_code"]
    document: str | None = row["document"]
    verdict = decode_verdict(document) if document else None
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
        progress=claims.progress_of(row),
        verdict=verdict,
        derivation=_derivation(row),
        media=verdict.media if verdict else _media(row),
        policy=row["policy"],
        created_at=row["created_at"],
        bytes_erased_at=row["bytes_erased_at"],
        bytes_lost=bool(row["bytes_lost"]),
    )


def _derivation(row: Row) -> Derivation | None:
    if row["recipe"] is None:
        return None
    return Derivation(
        recipe=Recipe(row["recipe"]),
        version=row["recipe_version"],
        derived_from=row["derived_from"],
    )


def _media(row: Row) -> Media | None:
    return _MEDIA.validate_json(row["media"]) if row["media"] else None
