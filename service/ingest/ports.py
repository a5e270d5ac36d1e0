"""Everything that the work touches, handed in by the composition root."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from service.db.types import Pool
from service.fetch.fetcher import Fetcher
from service.sealing import Sealer
from storage.store import AssetStore
from validators.derive.derived import Derived
from validators.derive.recipes import Recipe
from validators.facts import Facts, Kind
from validators.inspect import Tools
from validators.instruments import Instruments
from validators.pairs import Judged
from validators.policy import Policy
from validators.verdict import PairVerdict


class Compare(Protocol):
    """Holds the sources of one avatar against each other."""

    async def __call__(
        self,
        video: Judged,
        image: Judged | None,
        audio: Judged | None,
        tools: Tools,
        policy: Policy,
    ) -> PairVerdict: ...


class Derive(Protocol):
    """Makes one derived medium, at a path of ours."""

    async def __call__(
        self, recipe: Recipe, path: Path, facts: Facts, out: Path, tools: Tools
    ) -> Derived: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    pool: Pool
    store: AssetStore
    fetcher: Fetcher
    sealer: Sealer
    tools: Tools
    compare: Compare
    derive: Derive
    max_bytes: Mapping[Kind, int]
    clock: Callable[[], datetime]
    instruments: Instruments | None = None  # None: what was measured is not used again

    def measured_by(self, policy: Policy) -> str | None:
        return self.instruments.measured_by(policy) if self.instruments else None
