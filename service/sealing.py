"""Secrets at rest: source URLs until they are fetched, tokens of local URLs."""

import json
from dataclasses import dataclass, field
from typing import Any, Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class SealBrokenError(Exception):
    """Not sealed by any of our keys, altered, or older than allowed."""


@dataclass(frozen=True, slots=True)
class Sealer:
    """Encrypts and authenticates with the newest key; opens with any of them."""

    _fernet: MultiFernet = field(repr=False)

    @classmethod
    def with_keys(cls, keys: tuple[str, ...]) -> Self:
        return cls(MultiFernet([Fernet(key) for key in keys]))

    def seal(self, text: str) -> bytes:
        return self._fernet.encrypt(text.encode())

    def open(self, sealed: bytes | str, *, max_age_s: int | None = None) -> str:
        """The text that was sealed; raise SealBrokenError for anything else."""
        try:
            return self._fernet.decrypt(sealed, ttl=max_age_s).decode()
        except (InvalidToken, ValueError) as exc:  # ValueError: not even ASCII
            raise SealBrokenError from exc

    def seal_values(self, values: dict[str, str]) -> str:
        return self.seal(json.dumps(values)).decode()

    def open_values(self, token: str, *, max_age_s: int | None = None) -> dict[str, Any]:
        opened: dict[str, Any] = json.loads(self.open(token, max_age_s=max_age_s))
        return opened
