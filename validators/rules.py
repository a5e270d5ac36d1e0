"""Rules judge facts under a policy. They are pure: no file, clock or model."""

from collections.abc import Iterator
from typing import Protocol

from validators.facts import Facts
from validators.policy import Policy
from validators.verdict import Finding


class Rule(Protocol):
    """One group of checks: facts and a policy give one finding for each code that it owns."""

    def __call__(self, facts: Facts, policy: Policy, /) -> Iterator[Finding]: ...
