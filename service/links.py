"""Signed paths to the bytes of a store that has no server of its own: our API serves them, and
takes in what is sent to its forms.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.sealing import SealBrokenError, Sealer
from storage.store import UploadForm

BYTES_PATH = "/v1/bytes/"
FORMS_PATH = "/v1/forms/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a signed path gives to whoever has it."""

    key: str
    content_type: str
    sha256: str | None  # of the bytes that were promised


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a signed form lets whoever has it send."""

    key: str
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedLinks:
    """Makes signed paths, and opens them again. The whole of one is encrypted."""

    sealer: Sealer
    clock: Callable[[], datetime]

    def url(
        self, key: str, *, valid_for: timedelta, content_type: str, sha256: str | None = None
    ) -> str:
        named = {"key": key, "type": content_type, "sha256": sha256 or ""}
        return BYTES_PATH + self._sealed(named, valid_for)

    def form(self, key: str, *, max_bytes: int, valid_for: timedelta) -> UploadForm:
        named = {"key": key, "max_bytes": str(max_bytes)}
        return UploadForm(url=FORMS_PATH + self._sealed(named, valid_for), fields={"key": key})

    def open(self, token: str) -> Link:
        """What a path ends in; raise SealBrokenError if it is none of ours, or has expired."""
        named = self._opened(token, "type")
        return Link(
            key=named["key"], content_type=named["type"], sha256=named.get("sha256") or None
        )

    def open_form(self, token: str) -> Form:
        """What a form's path ends in; raise SealBrokenError as `open` does."""
        named = self._opened(token, "max_bytes")
        return Form(key=named["key"], max_bytes=int(named["max_bytes"]))

    def _sealed(self, named: dict[str, str], valid_for: timedelta) -> str:
        until = (self.clock() + valid_for).timestamp()
        return self.sealer.seal_values({**named, "until": str(until)})

    def _opened(self, token: str, wanted: str) -> dict[str, str]:
        """The values of a token that has *wanted*: a form's opens no bytes, and none the form."""
        named = self.sealer.open_values(token)
        if wanted not in named or self.clock().timestamp() >= float(named["until"]):
            raise SealBrokenError
        return named
