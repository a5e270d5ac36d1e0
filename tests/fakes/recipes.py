"""Recipes and comparisons without models or tools: they make what they were told to."""

import asyncio
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from validators.derive.derived import Derived
from validators.derive.recipes import Recipe
from validators.facts import Facts
from validators.inspect import Tools
from validators.pairs import Judged
from validators.policy import Policy
from validators.verdict import Decision, PairVerdict

NOTHING_CHECKED = PairVerdict(verdict=Decision.ACCEPTED, policy="standard-1", checks=())


@dataclass
class FakeRecipes:
    """Keeps what it was asked for; *error* is raised instead of deriving.

    While *released* is not set, whoever derives waits, and *waiting* is set.
    """

    pairs: PairVerdict = NOTHING_CHECKED
    error: Exception | None = None
    varying: bool = False  # True: no two runs make the same bytes
    asked: list[Recipe] = field(default_factory=list)
    compared: list[tuple[Judged | None, ...]] = field(default_factory=list)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.released.set()

    async def compare(
        self,
        video: Judged,
        image: Judged | None,
        audio: Judged | None,
        tools: Tools,
        policy: Policy,
    ) -> PairVerdict:
        del tools, policy
        self.compared.append((video, image, audio))
        return self.pairs

    async def derive(
        self, recipe: Recipe, path: Path, facts: Facts, out: Path, tools: Tools
    ) -> Derived:
        """The recipe's name and the SHA-256 of what it is made from, as bytes."""
        del path, tools
        self.asked.append(recipe)
        salt = len(self.asked) if self.varying else 0
        self.waiting.set()
        await self.released.wait()
        if self.error is not None:
            raise self.error
        made = f"{recipe} of {facts.sha256}, {salt}".encode()
        await asyncio.to_thread(out.write_bytes, made)
        return Derived(size_bytes=len(made), sha256=sha256(made).hexdigest(), width=8, height=8)
