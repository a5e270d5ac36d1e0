"""Every row of tests/cases/media.toml, built here and inspected with real tools and models."""

import json
import os
import tomllib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from tests.fakes.analyzer import FakeAnalyzer
from tests.integration.test_inspect import GOOD
from tests.makers import MAKERS, Bench, coding, containers, people, pictures, references, sounds
from validators.analysis import weights
from validators.analysis.client import Analyzer
from validators.analysis.wire import Analysis
from validators.derive.recipes import Recipe, derive
from validators.facts import Kind
from validators.inspect import Tools, inspect, measure
from validators.media.sandbox import Limits, Sandbox
from validators.policy import STANDARD
from validators.verdict import Code, Outcome, Verdict

TABLE = Path(__file__).parents[1] / "cases" / "media.toml"
MODULES = (coding, containers, people, pictures, references, sounds)  # they fill MAKERS
DOUBTFUL = frozenset({Outcome.WARN, Outcome.UNCERTAIN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table."""

    make: str
    kind: str
    id: str | None = None
    fails: tuple[Code, ...] = ()
    warns: tuple[Code, ...] = ()
    may: tuple[Code, ...] = ()
    says: str = ""
    models: bool = True
    otherwise: str | None = None

    @property
    def name(self) -> str:
        return f"{self.id or 'ours'}-{self.make}-{self.kind}"


def read_table() -> tuple[list[Case], dict[str, str]]:
    """The rows, and the ids that have none with the reason why."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    codes = ("fails", "warns", "may")
    cases = [
        Case(**row | {name: tuple(map(Code, row.get(name, ()))) for name in codes})
        for row in table["case"]
    ]
    return cases, table["not_spoken_about"] | table["needs_other_people"]


CASES, WITHOUT = read_table()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def analyzer() -> AsyncIterator[Analyzer]:
    """One warm child for all of them."""
    missing = weights.missing()
    if missing:
        pytest.skip(f"{weights.WeightsMissingError(missing)}: media cases were NOT checked")
    async with Analyzer() as opened:
        yield opened


def hears_and_sees_nothing_wrong(kind: Kind) -> FakeAnalyzer:
    if kind is Kind.IMAGE:
        return FakeAnalyzer(answer=Analysis(faces=GOOD.faces, overlays=GOOD.overlays))
    return FakeAnalyzer(answer=GOOD)


async def judged(case: Case, bench: Bench, tools: Tools) -> Verdict:
    path = MAKERS[case.make](bench)
    return (await inspect(path, Kind(case.kind), STANDARD, tools)).verdict


def expect(case: Case, verdict: Verdict) -> None:
    failed = set(verdict.failed)
    assert set(case.fails) <= failed <= {*case.fails, *case.may}, verdict.failed
    doubtful = {check.code for check in verdict.checks if check.outcome in DOUBTFUL}
    assert set(case.warns) <= doubtful
    said = " ".join(check.message for check in verdict.checks if check.outcome is Outcome.FAIL)
    assert case.says in said


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", [c for c in CASES if not c.models], ids=lambda case: case.name)
async def test_what_a_container_holds_has_its_verdict(case: Case, bench: Bench) -> None:
    kind = Kind(case.kind)
    tools = Tools(sandbox=Sandbox(), analyzer=hears_and_sees_nothing_wrong(kind))
    expect(case, await judged(case, bench, tools))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", [c for c in CASES if c.models], ids=lambda case: case.name)
async def test_what_is_seen_and_heard_has_its_verdict(
    case: Case, bench: Bench, analyzer: Analyzer
) -> None:
    tools = Tools(sandbox=Sandbox(limits=Limits(wall_s=60)), analyzer=analyzer)
    expect(case, await judged(case, bench, tools))


async def test_a_portrait_keeps_neither_position_nor_serial_number(
    bench: Bench, tmp_path: Path
) -> None:
    source = MAKERS["position_and_serial_number"](bench)
    assert b"SERIAL-4711" in source.read_bytes()
    tools = Tools(sandbox=Sandbox(), analyzer=hears_and_sees_nothing_wrong(Kind.IMAGE))
    facts = await measure(source, Kind.IMAGE, tools)
    out = tmp_path / "portrait.png"
    await derive(Recipe.PORTRAIT, source, facts, out, tools)
    assert b"SERIAL" not in out.read_bytes()
    with Image.open(out) as portrait:
        assert dict(portrait.getexif()) == {}
        assert portrait.info.keys().isdisjoint({"exif", "xmp", "icc_profile"})


def test_every_maker_stands_in_the_table() -> None:
    assert {case.make for case in CASES} == MAKERS.keys()


def test_no_two_rows_are_one() -> None:
    names = Counter(case.name for case in CASES)
    assert [name for name, times in names.items() if times > 1] == []
    assert not {case.id for case in CASES} & WITHOUT.keys()


def shared_ids() -> set[str]:
    corpus = os.environ.get("GREENROOM_CORPUS")
    path = Path(corpus).parent / "cases" / "media_cases.json" if corpus else None
    if path is None or not path.is_file():
        pytest.skip("GREENROOM_CORPUS names no folder beside cases/: the shared list was NOT read")
    return {case["id"] for case in json.loads(path.read_text(encoding="utf-8"))}


def test_every_shared_case_has_a_row_or_a_reason() -> None:
    assert shared_ids() == {case.id for case in CASES if case.id} | WITHOUT.keys()
