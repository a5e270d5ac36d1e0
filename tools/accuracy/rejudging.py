"""Do stored facts and a fresh run give the same verdict, for every file?"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tools.accuracy.labels import Label
from tools.accuracy.measuring import Measured, Wanted, measure_fresh
from tools.accuracy.tallies import judge_one
from validators.encoding import encode_facts, verdict_document
from validators.errors import InspectionError
from validators.inspect import Tools
from validators.policy import Policy
from validators.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that is not the same the second time."""

    name: str  # of the file
    said: str
    of_verdict: bool = True  # False: of the facts alone, as of damaged frames that were guessed

    def __str__(self) -> str:
        return f"{self.name}: {self.said}"


async def differences(
    labels: Sequence[Label],
    wanted: Sequence[Wanted],
    stored: Sequence[Measured],
    policy: Policy,
    tools: Tools,
    *,
    width: int,
    on_done: Callable[[], None],
) -> list[Difference]:
    """Every file whose stored facts are judged unlike a fresh measurement under *policy*."""
    turns = asyncio.Semaphore(width)

    async def one(label: Label, item: Wanted, kept: Measured) -> list[Difference]:
        async with turns:
            try:
                fresh: Measured = await measure_fresh(item, tools, policy)
            except (InspectionError, OSError) as exc:
                fresh = f"{type(exc).__name__}: {exc}"
        on_done()
        return list(_unlike(label, kept, fresh, policy))

    found = await asyncio.gather(*map(one, labels, wanted, stored))
    return [each for some in found for each in some]


def _unlike(label: Label, kept: Measured, fresh: Measured, policy: Policy) -> Iterator[Difference]:
    ours, theirs = (judge_one(label, facts, policy) for facts in (kept, fresh))
    if ours.verdict is None or theirs.verdict is None:
        if ours.trouble != theirs.trouble:
            stored, again = (each.trouble or "judged" for each in (ours, theirs))
            yield Difference(name=label.name, said=f"stored {stored}, fresh {again}")
        return
    for said in _unlike_verdicts(ours.verdict, theirs.verdict):
        yield Difference(name=label.name, said=said)
    if isinstance(kept, str) or isinstance(fresh, str):
        return
    if encode_facts(kept) != encode_facts(fresh):
        yield Difference(name=label.name, said="the facts differ", of_verdict=False)


def _unlike_verdicts(ours: Verdict, theirs: Verdict) -> Iterator[str]:
    one, other = verdict_document(ours), verdict_document(theirs)
    for name in ("verdict", "policy", "engines", "media"):
        if one[name] != other[name]:
            yield f"{name}: stored {one[name]}, fresh {other[name]}"
    for check, again in zip(one["checks"], other["checks"], strict=True):
        if check != again:
            yield f"{check['code']}: stored {check}, fresh {again}"
