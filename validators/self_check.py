"""Can this machine inspect at all? Asked before work begins.

A tool that is missing, too old or short of memory calls every medium bad, and verdicts are for
ever. So the very lines of an inspection first run on a clip and a picture that are known good.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from validators.analysis.wire import Analysis, AnalysisRequest, ComparisonRequest
from validators.errors import InspectionError, ToolCrashedError
from validators.facts import Facts, Kind, PairFacts
from validators.inspect import Tools, measure
from validators.media.layers import Layer, Layers, Trial, found
from validators.media.sandbox import Sandbox

SAMPLES = Path(__file__).with_name("media") / "sample"
CLIP, PICTURE = SAMPLES / "clip.mp4", SAMPLES / "picture.png"
FRAMES = 20  # in the clip of 64 x 64 pixels: 4 s, five a second, with a tone
NEEDS = "An inspection needs Linux, ffmpeg 5.1 or newer with its decoders, and memory for it."
CHUNK_BYTES = 1 << 16
TRIAL = Path(__file__).with_name("media") / "trial.py"
NETWORK = Path("/proc/self/ns/net")  # a link to the name of the namespace
REFUSED = "confine: without "


async def self_check(tools: Tools) -> str | None:
    """A sentence naming what is wrong, or None. Runs every tool once; no model looks on."""
    drain = _Drain()
    try:
        clip = await measure(CLIP, Kind.VIDEO, replace(tools, analyzer=drain))
        picture = await measure(PICTURE, Kind.IMAGE, replace(tools, analyzer=drain))
    except (InspectionError, OSError) as exc:
        return f"{_sentence(str(exc))} {NEEDS}"
    wrong = _wrong_with_clip(clip) or _wrong_with_picture(picture) or drain.wrong
    return None if wrong is None else f"{wrong} {NEEDS}"


async def layers_of(sandbox: Sandbox) -> Layers:
    """What confines the tools of *sandbox* here, found out by one run that tries to get out.

    Neither a version nor a success of the kernel's says that a layer holds. Raises
    InspectionError where not even that run can be started.
    """
    too_much = str(2 * sandbox.limits.address_space_bytes)
    argv = [sys.executable, "-I", "-S", str(TRIAL), too_much]
    completed = await sandbox.run(argv, explained=True)
    said = [line.removeprefix(REFUSED) for line in completed.stderr.splitlines()]
    refused = dict(line.split(": ", 1) for line in said if ": " in line)
    if sandbox.layers is not None:
        refused |= {layer: "switched off" for layer in Layer if layer not in sandbox.layers}
    try:
        trial = Trial.model_validate_json(completed.stdout)
        ours = await asyncio.to_thread(NETWORK.readlink)
        return found(trial, refused, our_network=str(ours))
    except (ValidationError, OSError) as exc:
        last = completed.stderr.strip().rpartition("\n")[2]
        raise ToolCrashedError(f"the sandbox cannot be tried out: {last or exc}") from exc


def _sentence(words: str) -> str:
    return f"{words.rstrip('.')}."


def _wrong_with_clip(facts: Facts) -> str | None:
    decode = facts.decode
    if facts.unreadable is not None or decode is None:
        return f"ffprobe cannot read a good clip: {_sentence(facts.unreadable or 'no streams')}"
    if not decode.complete or decode.video is None or decode.audio is None:
        return "ffmpeg does not decode a good clip to its end."
    return None if decode.video.units == FRAMES else "ffmpeg drops frames of a good clip."


def _wrong_with_picture(facts: Facts) -> str | None:
    good = facts.unreadable is None and facts.picture is not None
    return None if good else "A good picture cannot be decoded."


@dataclass(slots=True)
class _Drain:
    """Stands where the models do, and only counts what they would get."""

    wrong: str | None = None

    async def analyze(self, request: AnalysisRequest, fds: Sequence[int]) -> Analysis:
        sizes = await asyncio.gather(*(asyncio.to_thread(_drained, fd) for fd in fds))
        if not all(sizes):
            self.wrong = f"Nothing comes out of the decoder of a good {request.kind}."
        return Analysis()

    async def compare(self, request: ComparisonRequest, fds: Sequence[int]) -> PairFacts:
        del request
        await asyncio.gather(*(asyncio.to_thread(_drained, fd) for fd in fds))
        return PairFacts()


def _drained(fd: int) -> int:
    with os.fdopen(fd, "rb") as pipe:
        return sum(len(chunk) for chunk in iter(lambda: pipe.read(CHUNK_BYTES), b""))
