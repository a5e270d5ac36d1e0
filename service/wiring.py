"""The composition root: the one module that names concrete classes."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import asyncpg
import structlog
from aiohttp import web

from service.api.context import CONTEXT, Context, Decoders
from service.api.middleware import MIDDLEWARES, stamp
from service.api.routes import ROUTES
from service.db.direct import is_direct
from service.db.migrate import migrations, pending
from service.db.types import Pool
from service.domain import Work
from service.events.feed import FeedWaker
from service.fetch.address import AddressGuard
from service.fetch.egress import Egress
from service.fetch.fetcher import Fetcher
from service.fetch.limits import FetchLimits
from service.ingest.jobs import Worker, WorkerLimits
from service.ingest.ports import Ports
from service.ingest.retention import Keep
from service.links import SignedLinks
from service.sealing import Sealer
from service.settings import Settings, SettingsError
from service.telemetry import ANALYSIS_RESTARTS, SANDBOX_LAYER
from service.times import now_utc
from storage.local import LocalStore
from storage.s3 import S3Options, S3Store
from storage.store import AssetStore, StoreError
from storage.timed import TimedStore
from validators.analysis.client import Analyzer
from validators.analysis.speaker_choice import Device, EngineName, SpeakerChoice
from validators.derive.recipes import derive
from validators.errors import InspectionError, ToolCrashedError
from validators.facts import Kind
from validators.inspect import Tools
from validators.instruments import Instruments
from validators.media.layers import Layer, Layers
from validators.media.sandbox import Limits, Sandbox, find_tool
from validators.pairs import compare
from validators.policy import STANDARD
from validators.self_check import layers_of, self_check

log = structlog.get_logger()

API_CONNECTIONS = 20
WORKER_CONNECTIONS = 30
PURGE_CONCURRENCY = 8
COMMAND_TIMEOUT_S = 60.0  # no statement of ours waits this long for anything but a dead server


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What the API and the workers of one process share."""

    settings: Settings
    dsn: str = field(repr=False)
    pool: Pool
    store: AssetStore
    sealer: Sealer
    links: SignedLinks
    guard: AddressGuard  # of sources
    webhook_guard: AddressGuard
    decoders: Decoders = field(default_factory=Decoders)


@asynccontextmanager
async def open_base(settings: Settings, *, connections: int) -> AsyncIterator[Base]:
    """Connect to the database and the store; raise SettingsError when the database lags behind."""
    if settings.database_url is None:
        raise SettingsError("GREENROOM_DATABASE_URL: not set; `greenroom dev` brings its own")
    if not settings.secret_keys:
        raise SettingsError("GREENROOM_SECRET_KEYS: not set; `greenroom keys secret` makes one")
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            asyncpg.create_pool(
                settings.database_url,
                min_size=1,
                max_size=connections,
                command_timeout=COMMAND_TIMEOUT_S,
            )
        )
        async with pool.acquire() as conn:
            if lacking := await pending(conn, await asyncio.to_thread(migrations)):
                raise SettingsError(f"run `greenroom migrate` first: {', '.join(lacking)}")
        if not await is_direct(pool):
            raise SettingsError(
                "GREENROOM_DATABASE_URL: leads to a transaction pooler, where LISTEN is lost;"
                " give the address of Postgres itself"
            )
        sealer = Sealer.with_keys(settings.secret_keys)
        links = SignedLinks(sealer=sealer, clock=now_utc)
        yield Base(
            settings=settings,
            dsn=settings.database_url,
            pool=pool,
            store=await stack.enter_async_context(open_store(settings, links)),
            sealer=sealer,
            links=links,
            guard=AddressGuard(
                blocks=settings.fetch_allow,
                more_ports=frozenset(settings.fetch_ports),
                own=settings.own,
            ),
            webhook_guard=AddressGuard(blocks=settings.webhook_allow, own=settings.own),
        )


@asynccontextmanager
async def open_store(settings: Settings, links: SignedLinks) -> AsyncIterator[AssetStore]:
    """The store that the settings choose; raise SettingsError when it cannot be used."""
    store = (
        LocalStore(settings.data_dir / "assets", links=links)
        if settings.s3_bucket is None
        else S3Store(_s3_options(settings, settings.s3_bucket))
    )
    async with AsyncExitStack() as stack:
        try:
            opened = await stack.enter_async_context(TimedStore(store))
        except StoreError as exc:
            chosen = "GREENROOM_DATA_DIR" if settings.s3_bucket is None else "GREENROOM_S3_BUCKET"
            raise SettingsError(f"{chosen}: {exc}") from exc
        yield opened


def _s3_options(settings: Settings, bucket: str) -> S3Options:
    return S3Options(
        bucket=bucket,
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_public_endpoint,
        region=settings.s3_region,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key,
        prefix=settings.s3_prefix,
        path_style=settings.s3_path_style,
        encryption=settings.s3_encryption,
        kms_key_id=settings.s3_kms_key_id,
        storage_class=settings.s3_storage_class,
    )


@asynccontextmanager
async def open_api(
    base: Base, *, public_url: str, draining: asyncio.Event
) -> AsyncIterator[web.Application]:
    """The HTTP application, ready to be served."""
    async with FeedWaker(base.dsn) as waker:
        app = web.Application(middlewares=MIDDLEWARES)
        app[CONTEXT] = Context(
            settings=base.settings,
            pool=base.pool,
            store=base.store,
            sealer=base.sealer,
            links=base.links,
            waker=waker,
            guard=base.guard,
            public_url=public_url,
            clock=now_utc,
            draining=draining,
            decoders=base.decoders,
        )
        app.add_routes(ROUTES)
        app.on_response_prepare.append(stamp)
        yield app


@asynccontextmanager
async def open_tools(
    settings: Settings,
    *,
    used: bool = True,
    on_layers: Callable[[Layers], None] = lambda _: None,
) -> AsyncIterator[Tools]:
    """What `validators` needs to inspect: a sandbox and supervised analysis children.

    Raises SettingsError when they are to be *used* and ffmpeg, model weights, or layers of the
    sandbox that are required are missing. *on_layers* hears what confines the tools.
    """
    async with Analyzer(
        timeout_s=settings.inspect_timeout_s,
        memory_bytes=settings.analysis_memory_bytes,
        children=inspect_concurrency(settings),
        models_dir=settings.models_dir,
        speakers=speaker_choice(settings),
    ) as analyzer:
        ANALYSIS_RESTARTS.set_function(lambda: analyzer.restarts)
        limits = Limits(
            wall_s=settings.inspect_timeout_s, address_space_bytes=settings.decoder_memory_bytes
        )
        wanted = frozenset[Layer]() if settings.sandbox == "off" else None
        sandbox = Sandbox(limits=limits, layers=wanted)
        tools = Tools(sandbox=sandbox, analyzer=analyzer)
        if used:
            layers = await _layers(sandbox, settings)
            on_layers(layers)
            tools = replace(tools, sandbox=replace(sandbox, layers=layers.active))
            await _must_work(tools, analyzer)
        yield tools


async def _layers(sandbox: Sandbox, settings: Settings) -> Layers:
    try:
        layers = await layers_of(sandbox)
    except InspectionError as exc:
        raise SettingsError(str(exc)) from exc
    if settings.sandbox == "required" and (lacking := layers.lacking()):
        raise SettingsError(f"GREENROOM_SANDBOX: required, but {lacking}")
    return layers


async def _must_work(tools: Tools, analyzer: Analyzer) -> None:
    """Missing tools would call every medium bad, and verdicts are for ever: better not to start."""
    if trouble := await analyzer.trouble() or await _tools_missing() or await self_check(tools):
        raise SettingsError(trouble)


async def _tools_missing() -> str | None:
    try:
        for tool in ("ffmpeg", "ffprobe"):
            await asyncio.to_thread(find_tool, tool)
    except ToolCrashedError as exc:
        return str(exc)
    return None


@asynccontextmanager
async def open_worker(base: Base, kinds: frozenset[Work]) -> AsyncIterator[Worker]:
    """A worker for the chosen kinds of work; it runs when told to."""
    settings = base.settings
    async with (
        Egress(
            guard=base.guard,
            connect_s=settings.fetch_connect_timeout_s,
            proxy=settings.egress_proxy,
        ) as egress,
        open_tools(
            settings,
            used=bool(kinds & {Work.INSPECT, Work.DERIVE, Work.REBUILD}),
            on_layers=lambda layers: _publish(layers, base.decoders),
        ) as tools,
    ):
        ports = Ports(
            pool=base.pool,
            store=base.store,
            fetcher=Fetcher(egress, _fetch_limits(settings)),
            sealer=base.sealer,
            tools=tools,
            compare=compare,
            derive=derive,
            max_bytes={
                Kind.VIDEO: settings.max_video_bytes,
                Kind.AUDIO: settings.max_audio_bytes,
                Kind.IMAGE: settings.max_image_bytes,
            },
            clock=now_utc,
            instruments=await _instruments(tools, settings) if Work.INSPECT in kinds else None,
        )
        yield Worker(ports=ports, limits=_worker_limits(settings), kinds=kinds)


async def _instruments(tools: Tools, settings: Settings) -> Instruments:
    instruments = await Instruments.of(tools, speaker_choice(settings))
    log.info("instruments", **instruments.parts, measured_by=instruments.measured_by(STANDARD))
    return instruments


def _publish(layers: Layers, decoders: Decoders) -> None:
    decoders.layers = layers
    for layer in layers.rows:
        SANDBOX_LAYER.labels(layer).set(layer in layers.active)
    log.info("sandbox_active", layers=sorted(layers.active), missing=layers.missing)


def speaker_choice(settings: Settings) -> SpeakerChoice:
    return SpeakerChoice(
        engine=EngineName(settings.speaker_engine),
        device=Device(settings.device),
        pipeline=settings.pyannote_pipeline,
        token=settings.huggingface_token,
    )


def inspect_concurrency(settings: Settings) -> int:
    return settings.inspect_concurrency or len(os.sched_getaffinity(0))


def _fetch_limits(settings: Settings) -> FetchLimits:
    return FetchLimits(
        connect_s=settings.fetch_connect_timeout_s,
        idle_s=settings.fetch_idle_timeout_s,
        total_s=settings.fetch_total_timeout_s,
        per_process=settings.fetch_concurrency,
        per_host=settings.fetch_concurrency_per_host,
    )


def _worker_limits(settings: Settings) -> WorkerLimits:
    return WorkerLimits(
        concurrency={
            Work.FETCH: settings.fetch_concurrency,
            Work.INSPECT: inspect_concurrency(settings),
            Work.DERIVE: inspect_concurrency(settings),
            Work.PURGE: PURGE_CONCURRENCY,
            Work.REBUILD: inspect_concurrency(settings),
        },
        heartbeat_timeout=timedelta(seconds=settings.heartbeat_timeout_s),
        sweep_interval_s=settings.sweep_interval_s,
        drain_timeout_s=settings.drain_timeout_s,
        fitting_timeout=timedelta(seconds=settings.fitting_timeout_s),
        keep=Keep(
            events=timedelta(seconds=settings.keep_events_s),
            job_log=timedelta(seconds=settings.keep_job_log_s),
            answers=timedelta(seconds=settings.keep_answers_s),
            uploads=timedelta(seconds=settings.keep_uploads_s),
            refused=timedelta(seconds=settings.keep_refused_s),
        ),
    )
