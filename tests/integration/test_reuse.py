"""Facts are measured once for the same bytes, and judged as often as somebody sends them."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast
from uuid import UUID

import psutil
import pytest

from service.db import blobs, measurements
from service.db.types import Conn, Pool
from service.domain import AssetRun, Work
from service.ingest.ports import Ports
from service.settings import Settings
from service.wiring import open_tools, speaker_choice
from tests import media
from tests.facts import AUDIO, VIDEO
from tests.fakes.analyzer import FakeAnalyzer
from tests.fakes.origin import answer
from tests.integration.test_inspect import GOOD
from tests.integration.test_pipeline import Site, running, site, ten_seconds
from validators.analysis.client import Analyzer
from validators.analysis.speaker_choice import SpeakerChoice
from validators.analysis.wire import Analysis, AnalysisRequest, ComparisonRequest
from validators.facts import FACTS_VERSION, Kind, PairFacts, SpeakerFacts
from validators.inspect import Analyzes, Tools, measure
from validators.instruments import READ_WHILE_MEASURING, Instruments
from validators.media.sandbox import Completed, Limits, Sandbox
from validators.policy import STANDARD, Policy
from validators.rules import obstacle, outside_limits

SAMPLES = Path(__file__).parents[2] / "samples"
INSTRUMENTS = Instruments(parts={"ffmpeg": "5.1.6", "facts": str(FACTS_VERSION)})
STARTED = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingSandbox(Sandbox):
    """Remembers every tool that it starts."""

    started: STARTED = field(default_factory=list)

    async def run(
        self,
        argv: Sequence[str],
        *,
        reads: Sequence[Path] = (),
        pass_fds: Sequence[int] = (),
        on_stdout: Callable[[bytes], None] | None = None,
        explained: bool = False,
        cpu_s: float | None = None,
    ) -> Completed:
        self.started.append(Path(argv[0]).name)
        return await Sandbox.run(
            self,
            argv,
            reads=reads,
            pass_fds=pass_fds,
            on_stdout=on_stdout,
            explained=explained,
            cpu_s=cpu_s,
        )


@dataclass
class CountingAnalyzer:
    """Remembers every request to the child."""

    analyzer: Analyzes
    asked: list[AnalysisRequest] = field(default_factory=list)

    async def analyze(self, request: AnalysisRequest, fds: Sequence[int]) -> Analysis:
        self.asked.append(request)
        return await self.analyzer.analyze(request, fds)

    async def compare(self, request: ComparisonRequest, fds: Sequence[int]) -> PairFacts:
        return await self.analyzer.compare(request, fds)


@pytest.fixture
async def here(pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(pool, tmp_path) as opened:
        sandbox = CountingSandbox(limits=opened.ports.tools.sandbox.limits)
        tools = replace(opened.ports.tools, sandbox=sandbox)
        room = dict.fromkeys(Kind, 50 << 20)
        ports = replace(opened.ports, tools=tools, instruments=INSTRUMENTS, max_bytes=room)
        opened.analyzer.answer = Analysis(speech=AUDIO.speech, speakers=AUDIO.speakers)
        opened.origin.serves("/a", answer(ten_seconds()))
        yield replace(opened, ports=ports)


def started(here: Site) -> STARTED:
    return cast("CountingSandbox", here.ports.tools.sandbox).started


async def fetched(
    here: Site,
    path: str = "/a",
    kind: Kind = Kind.AUDIO,
    *,
    organisation: str = "acme",
    policy: str = "standard",
) -> UUID:
    """The asset of a new avatar, stored."""
    avatar = await here.create(path, kind, organisation=organisation)
    asset_id: UUID = (await here.asset(avatar))["id"]
    await here.pool.execute("UPDATE asset SET policy = $2 WHERE id = $1", asset_id, policy)
    await here.worker(Work.FETCH).handle(Work.FETCH, asset_id)
    return asset_id


async def inspected(
    here: Site,
    path: str = "/a",
    kind: Kind = Kind.AUDIO,
    *,
    organisation: str = "acme",
    ports: Ports | None = None,
    policy: str = "standard",
) -> UUID:
    """The asset of a new avatar, stored and judged."""
    asset_id = await fetched(here, path, kind, organisation=organisation, policy=policy)
    worker = replace(here, ports=ports or here.ports).worker(Work.INSPECT)
    await worker.handle(Work.INSPECT, asset_id)
    return asset_id


async def judged(here: Site, asset_id: UUID) -> tuple[str, bool, str | None, str]:
    row = await here.pool.fetchrow("SELECT * FROM verdict WHERE asset_id = $1", asset_id)
    assert row is not None
    return row["policy"], row["accepted"], row["measured_by"], row["facts"]


async def test_the_same_bytes_are_measured_once_and_judged_twice(here: Site) -> None:
    first = await inspected(here)
    assert len(here.analyzer.requests) == 1
    tools = list(started(here))
    assert tools
    second = await inspected(here)
    assert len(here.analyzer.requests) == 1
    assert started(here) == tools
    assert await judged(here, second) == await judged(here, first)
    assert (await judged(here, second))[2] == INSTRUMENTS.measured_by(STANDARD)
    assert await here.events("asset.ready") == 2


async def test_reusing_facts_needs_neither_the_object_nor_a_tool(here: Site) -> None:
    await inspected(here)
    await here.store.delete(await here.pool.fetchval("SELECT key FROM blob"))
    second = await inspected(here)
    assert (await judged(here, second))[1]


async def test_what_was_rejected_is_known_after_its_bytes_are_erased(here: Site) -> None:
    here.analyzer.answer = Analysis(speech=replace(GOOD.speech, duration_s=10, speech=()))  # type: ignore[type-var]  # it has one
    first = await inspected(here)
    async with here.pool.acquire() as conn, conn.transaction():
        lost = await conn.fetchval("SELECT blob_id FROM asset")
        await conn.execute("UPDATE asset SET blob_id = NULL, bytes_erased_at = now()")
        await blobs.release(conn, [lost])
    await here.worker().handle(Work.PURGE, lost)
    assert await here.keys() == []
    second = await inspected(here)
    assert len(here.analyzer.requests) == 1
    assert (await judged(here, second)) == (await judged(here, first))
    assert await here.pool.fetchval("SELECT state FROM asset WHERE id = $1", second) == "rejected"


async def test_a_run_that_is_overtaken_while_it_looks_facts_up_writes_nothing(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await inspected(here)
    second, look_up = await fetched(here), measurements.known_facts

    async def overtaken(
        conn: Conn, run: AssetRun, *, sha256: str, measured_by: str | None
    ) -> str | None:
        await conn.execute("UPDATE asset SET claim = claim + 1 WHERE id = $1", run.id)
        return await look_up(conn, run, sha256=sha256, measured_by=measured_by)

    monkeypatch.setattr(measurements, "known_facts", overtaken)
    await here.worker(Work.INSPECT).handle(Work.INSPECT, second)
    assert await here.pool.fetchval("SELECT state FROM asset WHERE id = $1", second) == "stored"
    assert await here.pool.fetchval("SELECT count(*) FROM verdict") == 1
    assert await here.events("asset.ready") == 1


async def test_another_policy_judges_the_same_facts_anew(here: Site) -> None:
    """Too close to call: `uncertain` fails under strict alone."""
    close = SpeakerFacts(score=STANDARD.second_voice_score, second_voice_s=2)
    here.analyzer.answer = Analysis(speech=AUDIO.speech, speakers=close)
    first = await inspected(here)
    second = await inspected(here, policy="strict")
    assert len(here.analyzer.requests) == 1
    assert (await judged(here, first))[:2] == ("standard-1", True)
    assert (await judged(here, second))[:2] == ("strict-1", False)
    codes = await here.pool.fetchval("SELECT codes FROM verdict WHERE asset_id = $1", second)
    assert codes == ["multiple_speakers"]


async def test_another_organisation_knows_nothing_of_them(here: Site) -> None:
    await inspected(here)
    await inspected(here, organisation="rival")
    assert len(here.analyzer.requests) == 2


async def test_the_same_bytes_as_another_kind_are_measured(here: Site) -> None:
    await inspected(here)
    before = len(started(here))
    video = await inspected(here, kind=Kind.VIDEO)
    assert await here.pool.fetchval("SELECT codes FROM verdict WHERE asset_id = $1", video) == [
        "unsupported_format"
    ]
    assert len(started(here)) == before  # its signature says enough


async def test_other_instruments_measure_again(here: Site) -> None:
    await inspected(here)
    newer = replace(INSTRUMENTS, parts={**INSTRUMENTS.parts, "ffmpeg": "7.1"})
    await inspected(here, ports=replace(here.ports, instruments=newer))
    assert len(here.analyzer.requests) == 2
    await inspected(here, ports=replace(here.ports, instruments=newer))
    assert len(here.analyzer.requests) == 2


async def test_instruments_without_a_name_measure_every_time(here: Site) -> None:
    nameless = replace(here.ports, instruments=replace(INSTRUMENTS, known=False))
    for _ in range(2):
        asset_id = await inspected(here, ports=nameless)
        assert (await judged(here, asset_id))[2] is None
    assert len(here.analyzer.requests) == 2


async def test_facts_that_cannot_be_read_any_more_are_measured(here: Site) -> None:
    await inspected(here)
    await here.pool.execute("UPDATE verdict SET facts = '{\"version\": 1}'")
    await inspected(here)
    assert len(here.analyzer.requests) == 2


async def test_what_a_tool_was_stopped_at_is_measured_again(here: Site, tmp_path: Path) -> None:
    """Its processor time runs out on this machine, perhaps not on the next."""
    path = media.clip(tmp_path / "a.mp4", size="1280x720", seconds=10)
    here.origin.serves("/v", answer(path.read_bytes()))
    here.analyzer.answer = GOOD
    hasty = replace(
        here.ports.tools, sandbox=replace(here.ports.tools.sandbox, limits=Limits(cpu_s=0))
    )
    strained = await inspected(here, "/v", Kind.VIDEO, ports=replace(here.ports, tools=hasty))
    name, _, measured_by, facts = await judged(here, strained)
    assert (name, measured_by) == ("standard-1", None)
    assert '"strained":true' in facts
    calm = await inspected(here, "/v", Kind.VIDEO)
    assert '"strained"' not in (await judged(here, calm))[3]
    assert (await judged(here, calm))[2] == INSTRUMENTS.measured_by(STANDARD)


async def test_two_equal_sources_inspected_at_once_are_both_measured_and_both_right(
    here: Site,
) -> None:
    """Neither waits for the other: that would hold a worker's turn for a whole inspection."""
    for _ in range(2):
        await here.create("/a")
    async with running(here.worker(Work.FETCH)):
        await here.until_asset("stored")
    ids = [row["id"] for row in await here.pool.fetch("SELECT id FROM asset")]
    worker = here.worker(Work.INSPECT)
    await asyncio.gather(*(worker.handle(Work.INSPECT, asset_id) for asset_id in ids))
    assert await judged(here, ids[0]) == await judged(here, ids[1])


@dataclass
class Spy:
    """A policy that remembers what was read of it."""

    read: set[str] = field(default_factory=set)

    def __getattr__(self, name: str) -> object:
        value = getattr(STANDARD, name)
        self.read.add(name)
        return value


async def test_measuring_reads_no_limit_that_the_name_leaves_out(tmp_path: Path) -> None:
    spy = Spy()
    policy = cast("Policy", spy)
    tools = Tools(sandbox=Sandbox(), analyzer=FakeAnalyzer(answer=GOOD))
    for path, kind in (
        (media.clip(tmp_path / "good.mp4", size="640x512"), Kind.VIDEO),
        (media.clip(tmp_path / "short.mp4", seconds=2), Kind.VIDEO),
        (media.tone(tmp_path / "long.mp3", seconds=20), Kind.AUDIO),
        (media.still(tmp_path / "a.png"), Kind.IMAGE),
    ):
        await measure(path, kind, tools, policy=policy)
    lossy = AUDIO.container.streams[0]  # type: ignore[union-attr]  # it has one
    mp3 = replace(AUDIO.container, streams=(replace(lossy, codec="mp3"),))  # type: ignore[type-var]
    for facts in (VIDEO, AUDIO, replace(AUDIO, container=mp3)):
        obstacle(replace(facts, decode=None), policy)
        outside_limits(facts, policy)
    assert spy.read == set(READ_WHILE_MEASURING)


async def test_instruments_are_named_by_what_is_installed() -> None:
    sandbox = CountingSandbox()
    tools = Tools(sandbox=sandbox, analyzer=FakeAnalyzer())
    found = await Instruments.of(tools, SpeakerChoice())
    assert found.parts["ffmpeg"].startswith("ffmpeg version ")
    assert found.parts["speakers"] == "onnx cpu"
    assert "onnxruntime==" in found.parts["packages"]
    assert sandbox.started == ["ffmpeg", "ffprobe"]
    assert (await Instruments.of(tools, SpeakerChoice())).measured_by(STANDARD) == (
        found.measured_by(STANDARD)
    )


async def test_another_ffmpeg_has_another_name(tmp_path: Path) -> None:
    """As a distribution's update does it: the same path, and other words about itself."""
    tool = tmp_path / "ffmpeg"
    tools = Tools(sandbox=Sandbox(layers=frozenset()), analyzer=FakeAnalyzer(), ffmpeg=str(tool))
    names = []
    for version in ("5.1.6-0+deb12u1", "5.1.7-0+deb12u1"):
        tool.write_text(f"#!/bin/sh\necho ffmpeg version {version} Copyright\n")
        tool.chmod(0o755)
        found = await Instruments.of(tools, SpeakerChoice())
        assert found.parts["ffmpeg"].startswith(f"ffmpeg version {version}")
        names.append(found.measured_by(STANDARD))
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("file", "kind"),
    [("two_people.mp4", Kind.VIDEO), ("portrait.jpg", Kind.IMAGE), ("voice.flac", Kind.AUDIO)],
)
async def test_with_real_tools_and_models_a_second_time_starts_nothing(
    pool: Pool, tmp_path: Path, file: str, kind: Kind
) -> None:
    """And costs next to nothing: docs/reference/cost.md has what this prints."""
    settings = Settings(inspect_concurrency=1)
    async with site(pool, tmp_path) as plain, open_tools(settings) as real:
        sandbox = CountingSandbox(limits=real.sandbox.limits, layers=real.sandbox.layers)
        analyzer = CountingAnalyzer(analyzer=real.analyzer)
        tools = replace(real, sandbox=sandbox, analyzer=analyzer)
        instruments = await Instruments.of(tools, speaker_choice(settings))
        content = (SAMPLES / file).read_bytes()
        room = dict.fromkeys(Kind, len(content))
        ports = replace(plain.ports, tools=tools, instruments=instruments, max_bytes=room)
        here = replace(plain, ports=ports)
        here.origin.serves("/s", answer(content))
        await loaded(real.analyzer)
        sandbox.started.clear()
        first = await fetched(here, "/s", kind)
        measuring_s = await cpu_s_of(here, first)
        counts = len(sandbox.started), len(analyzer.asked)
        assert min(counts) >= 1
        second = await fetched(here, "/s", kind, policy="strict")
        reusing_s = await cpu_s_of(here, second)
        assert (len(sandbox.started), len(analyzer.asked)) == counts
        assert (await judged(here, second))[3] == (await judged(here, first))[3]
        assert (await judged(here, second))[0] == "strict-1"
    assert reusing_s < measuring_s / 2
    print(f"{file}: {measuring_s:.3f} CPU s, then {reusing_s:.3f}")  # noqa: T201 - for pytest -rP


async def loaded(analyzer: Analyzes) -> None:
    assert isinstance(analyzer, Analyzer)
    await analyzer.warm_up()


async def cpu_s_of(here: Site, asset_id: UUID) -> float:
    """What its inspection costs this process, its tools and its models."""
    before = computed_s()
    await here.worker(Work.INSPECT).handle(Work.INSPECT, asset_id)
    return computed_s() - before


def computed_s() -> float:
    children = [
        child.cpu_times()
        for child in psutil.Process().children()
        if "validators.analysis" in child.cmdline()
    ]
    ended = os.times()
    used = (ended.user, ended.system, ended.children_user, ended.children_system)
    return sum(used) + sum(times.user + times.system for times in children)
