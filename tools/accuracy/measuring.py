"""Facts for many media: from the store where it has them, else measured now, a few at a time."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.accuracy.facts_store import FactsStore
from tools.accuracy.labels import Label
from validators.errors import InspectionError
from validators.facts import Facts, Kind
from validators.inspect import Tools, measure
from validators.policy import STANDARD, Policy

Build = Callable[[Path], Path]  # makes the medium in a folder that is deleted afterwards


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A medium to measure. *key* names its content: equal keys have equal facts."""

    key: str
    kind: Kind
    build: Build


Measured = Facts | str  # or why there are no facts


def labelled(label: Label) -> Wanted:
    digest = hashlib.sha256(label.path.read_bytes()).hexdigest()
    return Wanted(key=f"{label.kind}:{digest}", kind=label.kind, build=lambda _folder: label.path)


async def measure_all(
    wanted: Sequence[Wanted],
    store: FactsStore,
    tools: Tools,
    *,
    width: int,
    on_done: Callable[[], None],
) -> list[Measured]:
    """In the order of *wanted*. What cannot be measured is not kept, so it is tried again."""
    turns = asyncio.Semaphore(width)

    async def one(item: Wanted) -> Measured:
        async with turns:
            facts = store.get(item.key)
            measured = facts or await _keep(item, store, tools)
        on_done()
        return measured

    return await asyncio.gather(*map(one, wanted))


async def _keep(item: Wanted, store: FactsStore, tools: Tools) -> Measured:
    try:
        return store.put(item.key, await measure_fresh(item, tools))
    except (InspectionError, OSError) as exc:
        return f"{type(exc).__name__}: {exc}"


async def measure_fresh(item: Wanted, tools: Tools, policy: Policy = STANDARD) -> Facts:
    """Raises what `measure` raises."""
    with TemporaryDirectory(prefix="greenroom-accuracy-") as folder:
        path = await asyncio.to_thread(item.build, Path(folder))
        return await measure(path, item.kind, tools, policy=policy)
