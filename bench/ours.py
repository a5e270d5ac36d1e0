"""Greenroom's measurement and its recipes, and the plain decoding that nobody can avoid."""

import statistics
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.cpu import Spent, forget_peak, peak_mib
from service.commands.check import likely_kind
from validators.derive.recipes import Recipe, derive, recipes_for
from validators.facts import Kind
from validators.inspect import Tools, measure
from validators.media.sandbox import tool_name
from validators.media.signature import read_signature
from validators.policy import STANDARD
from validators.rules import judge
from validators.verdict import Verdict

ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One file, in CPU seconds: medians of the rounds."""

    path: Path
    kind: Kind
    decoding_s: float
    measuring: Spent
    peak_mib: float  # of the analysis child
    verdict: Verdict
    recipes: dict[Recipe, float] = field(default_factory=dict)


def kind_of(path: Path) -> Kind:
    return likely_kind(read_signature(path))


def decoding_s(path: Path) -> float:
    """Everything in the file, decoded by one thread of ffmpeg and thrown away."""
    argv = [tool_name("ffmpeg"), "-v", "error", "-nostdin", "-threads", "1", "-i", str(path)]

    def once() -> float:
        before = Spent.until_now()
        subprocess.run([*argv, "-f", "null", "-"], check=True)
        return (Spent.until_now() - before).tools

    return statistics.median(once() for _ in range(ROUNDS))


async def cost(path: Path, tools: Tools, child: int) -> Cost:
    """*child*: the process id of the one analysis child, whose models are loaded."""
    kind = kind_of(path)
    facts = await measure(path, kind, tools)
    forget_peak(child)
    measuring = await _median(lambda: measure(path, kind, tools))
    verdict = judge(facts, STANDARD)
    peak = peak_mib(child)
    recipes = {}
    if verdict.accepted:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "derived"
            for recipe in recipes_for(kind):
                spent = await _median(
                    lambda wanted=recipe: derive(wanted, path, facts, out, tools)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                )
                recipes[recipe] = spent.total
    return Cost(
        path=path,
        kind=kind,
        decoding_s=decoding_s(path),
        measuring=measuring,
        peak_mib=peak,
        verdict=verdict,
        recipes=recipes,
    )


async def _median(work: Callable[[], Awaitable[object]]) -> Spent:
    """The round in the middle by its total."""
    rounds = []
    for _ in range(ROUNDS):
        before = Spent.until_now()
        await work()
        rounds.append(Spent.until_now() - before)
    return sorted(rounds, key=lambda spent: spent.total)[len(rounds) // 2]


def only_child() -> int:
    """The process id of the one child of ours that runs."""
    (child,) = psutil.Process().children()
    return child.pid
