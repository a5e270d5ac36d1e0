"""Some dozens of broken media through the real inspection: a verdict each, and nothing left over.

`make fuzz` sends thousands through the whole service.
"""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.facts import MOTION
from tests.fakes.analyzer import FakeAnalyzer
from tests.fuzz.layout import SEALS, layout_of, seal
from tests.fuzz.mutate import Mutant, mutant
from tests.fuzz.parents import SAMPLES, Parent, make_parents
from validators.analysis.client import Analyzer
from validators.analysis.wire import Analysis
from validators.facts import FaceFacts, FrameFacts, Kind, OverlayFacts, SpeechFacts
from validators.inspect import Tools, inspect
from validators.media.sandbox import Limits, Sandbox
from validators.media.signature import ALLOWED
from validators.policy import STANDARD

SEED = 20_260_701
FILES = 60
DEADLINE_S = 30.0  # of one tool; a mutant takes less than half a second of it
NOTHING_SEEN = Analysis(
    speech=SpeechFacts(duration_s=4, speech=()),
    faces=FaceFacts(frames=(FrameFacts(time_s=0, faces=()),), interval_s=0.4),
    motion=MOTION,
    overlays=OverlayFacts(overlays=(), frames=1),
)


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> tuple[Parent, ...]:
    return make_parents(tmp_path_factory.mktemp("parents"))


@pytest.fixture
async def analyzer() -> AsyncIterator[Analyzer]:
    async with Analyzer(timeout_s=DEADLINE_S) as opened:
        await opened.warm_up()
        yield opened


def tools(analyzer: Analyzer | FakeAnalyzer) -> Tools:
    return Tools(sandbox=Sandbox(limits=Limits(wall_s=DEADLINE_S)), analyzer=analyzer)


async def outcome(made: Mutant, path: Path, using: Tools) -> str | None:
    """What kept *made* from a verdict, or None."""
    await asyncio.to_thread(path.write_bytes, made.data)
    try:
        async with asyncio.timeout(3 * DEADLINE_S):  # a probe, a second one, a decode
            found = await inspect(path, made.kind, STANDARD, using)
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is what this test looks for
        return f"{type(exc).__name__}: {exc}"
    assert found.verdict.checks
    return None


def descriptors() -> int:
    gc.collect()  # transports of tools that have ended
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - each path costs a descriptor


def tools_running() -> list[str]:
    running = psutil.Process().children(recursive=True)
    return [child.name() for child in running if child.name() in {"ffmpeg", "ffprobe"}]


@pytest.mark.timeout(600)
async def test_every_mutant_ends_in_a_verdict_and_leaves_nothing(
    parents: tuple[Parent, ...], tmp_path: Path
) -> None:
    using, path = tools(FakeAnalyzer(answer=NOTHING_SEEN)), tmp_path / "mutant"
    await outcome(mutant(SEED, 0, parents), path, using)
    before = descriptors()
    without = {}
    for number in range(FILES):
        made = mutant(SEED, number, parents)
        if (why := await outcome(made, path, using)) is not None:
            without[number] = (why, made)
    assert not without
    assert descriptors() == before
    assert not tools_running()


@pytest.mark.timeout(600)
async def test_models_survive_what_mutants_decode_to(
    parents: tuple[Parent, ...], analyzer: Analyzer, tmp_path: Path
) -> None:
    using, path = tools(analyzer), tmp_path / "mutant"
    long = [number for number in range(3 * len(parents)) if has_models_run(parents, number)]
    without = {}
    for number in long[:12]:
        made = mutant(SEED, number, parents)
        if (why := await outcome(made, path, using)) is not None:
            without[number] = (why, made)
    assert not without
    assert analyzer.restarts == 0
    clean = await inspect(SAMPLES / "one_person.mp4", Kind.VIDEO, STANDARD, using)
    assert clean.verdict.accepted, clean.verdict.failed


def has_models_run(parents: tuple[Parent, ...], number: int) -> bool:
    """Whether the parent is long enough for models, and no still: those are cheap."""
    parent = parents[number % len(parents)]
    return parent.name in {"video-h264.mp4", "video-h264.ts", "audio-s16.wav", "image-baseline.jpg"}


def test_a_mutant_is_told_by_its_numbers_alone(parents: tuple[Parent, ...]) -> None:
    first, again = mutant(7, 11, parents), mutant(7, 11, parents)
    assert first == again
    assert first.data not in {mutant(7, 11 + len(parents), parents).data, parents[11].data}


def test_there_is_a_parent_of_every_container_that_is_taken(parents: tuple[Parent, ...]) -> None:
    made = {(parent.kind, parent.container) for parent in parents}
    video = {(Kind.VIDEO, name) for name in ALLOWED[Kind.VIDEO] if name != "m4a"}  # has no picture
    sound = {"mp3", "wav", "flac", "ogg", "m4a", "aac", "aiff", "webm", "matroska"}
    image = {(Kind.IMAGE, name) for name in ALLOWED[Kind.IMAGE]}
    assert made >= video | {(Kind.AUDIO, name) for name in sound} | image


def test_sealing_a_clean_medium_changes_nothing(parents: tuple[Parent, ...]) -> None:
    """So the check-sums that it writes are those that readers expect."""
    sealed = [parent for parent in parents if parent.container in SEALS]
    assert {parent.container for parent in sealed} == set(SEALS)
    for parent in sealed:
        data, layout = bytearray(parent.data), layout_of(parent.data, parent.container)
        seal(data, layout, parent.container)
        assert bytes(data) == parent.data, parent.name


def test_numbers_are_found_in_every_parent(parents: tuple[Parent, ...]) -> None:
    few = {
        parent.name: len(layout_of(parent.data, parent.container).numbers)
        for parent in parents
        if len(layout_of(parent.data, parent.container).numbers) < 20
    }
    assert not few
