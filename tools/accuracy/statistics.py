"""Rates of small samples, with the interval that says how little they prove."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

Z_95 = 1.959964  # of the standard normal distribution: 95 % lie within


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How many of how many."""

    hits: int
    of: int

    @classmethod
    def count(cls, outcomes: Iterable[bool]) -> Self:
        seen = list(outcomes)
        return cls(hits=sum(seen), of=len(seen))

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.hits, self.of)

    def __str__(self) -> str:
        if not self.of:
            return "-"
        low, high = (round(100 * bound) for bound in self.interval)
        return f"{self.hits}/{self.of} = {100 * self.hits / self.of:.0f} % ({low}-{high})"


def wilson(hits: int, of: int, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927); all of 0..1 where nothing was seen.

    Unlike the textbook interval it holds for rates near 0 and 1 and for a dozen of files.
    """
    if not of:
        return 0.0, 1.0
    share, weight = hits / of, 1 + z * z / of
    middle = (share + z * z / (2 * of)) / weight
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / weight
    return max(0.0, middle - half), min(1.0, middle + half)
