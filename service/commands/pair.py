"""`greenroom check --pair`: what a video, an image and a recording say of one another."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from validators.encoding import pair_document
from validators.errors import InspectionError
from validators.facts import Facts, Kind
from validators.inspect import Tools
from validators.pairs import Judged, compare
from validators.policy import Policy
from validators.verdict import PairVerdict, Verdict

ABSENT = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What stands beside every video. Either may be absent, but not both."""

    image: Path | None
    audio: Path | None

    @property
    def files(self) -> tuple[tuple[Path, Kind], ...]:
        """The files that are judged because of it, each as what it stands for."""
        both = ((self.image, Kind.IMAGE), (self.audio, Kind.AUDIO))
        return tuple((path, kind) for path, kind in both if path is not None)


def pair_of(image: str, audio: str) -> Pair | None:
    """What the two words of the option name; None where they name nothing."""
    given = [None if word == ABSENT else Path(word) for word in (image, audio)]
    return Pair(image=given[0], audio=given[1]) if any(given) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """A file that was judged. Without facts it could not be."""

    path: Path
    facts: Facts | None
    verdict: Verdict | None

    @property
    def accepted(self) -> bool:
        return self.verdict is not None and self.verdict.accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One video and what stands beside it: a verdict, or why there is none."""

    names: dict[Kind, str]
    verdict: PairVerdict | None = None
    error: tuple[str, str] | None = None  # code and sentence
    ours: bool = False  # whether the error is one of ours, and says nothing of the media

    def document(self) -> dict[str, Any]:
        named = {"pair": {kind.value: name for kind, name in self.names.items()}}
        if self.verdict is not None:
            return {**named, **pair_document(self.verdict)}
        code, message = self.error or ("internal", "")
        return {**named, "error": {"code": code, "message": message}}


async def compare_files(media: dict[Kind, Medium], policy: Policy, tools: Tools) -> Compared:
    """*media*: a video and what stands beside it. Only what is accepted is compared."""
    names = {kind: str(medium.path) for kind, medium in media.items()}
    for medium in media.values():
        if not medium.accepted:
            return Compared(names=names, error=("not_compared", f"{medium.path} was not accepted."))
    judged = {kind: await _judged(medium) for kind, medium in media.items()}
    try:
        verdict = await compare(
            judged[Kind.VIDEO], judged.get(Kind.IMAGE), judged.get(Kind.AUDIO), tools, policy
        )
    except (InspectionError, OSError) as exc:
        return Compared(names=names, error=("internal", str(exc)), ours=True)
    return Compared(names=names, verdict=verdict)


async def _judged(medium: Medium) -> Judged:
    if medium.facts is None:
        raise TypeError("an accepted medium has facts")
    return Judged(path=await asyncio.to_thread(medium.path.absolute), facts=medium.facts)
