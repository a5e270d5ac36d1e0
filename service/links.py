"""Signed paths to the bytes of a store that has no server of its own: our API serves them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.sealing import SealBrokenError, Sealer

BYTES_PATH = "/v1/bytes/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a signed path gives to whoever has it."""

    key: str
    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedLinks:
    """Makes signed paths, and opens them again. The whole of one is encrypted."""

    sealer: Sealer
    clock: Callable[[], datetime]

    def __call__(self, key: str, *, valid_for: timedelta, content_type: str) -> str:
        until = (self.clock() + valid_for).timestamp()
        named = {"key": key, "type": content_type, "until": str(until)}
        return BYTES_PATH + self.sealer.seal_values(named)

    def open(self, token: str) -> Link:
        """What a path ends in; raise SealBrokenError if it is none of ours, or has expired."""
        named = self.sealer.open_values(token)
        if self.clock().timestamp() >= float(named["until"]):
            raise SealBrokenError
        return Link(key=named["key"], content_type=named["type"])
