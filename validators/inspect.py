"""From a local file to facts and a verdict: probe, then decode once while models look on.

A hostile or broken medium ends in a verdict. InspectionError means that something of ours
failed: a tool or the analysis child died, or ran past its deadline.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from validators.analysis.wire import (
    MAX_VIDEO_FRAMES,
    Analysis,
    AnalysisRequest,
    ComparisonRequest,
    FrameStream,
)
from validators.errors import AnalysisCrashedError, one_failure
from validators.facts import (
    FACTS_VERSION,
    Facts,
    FrameFacts,
    Kind,
    OverlayFacts,
    PairFacts,
    StreamFacts,
)
from validators.media.decode import Decoded, Plan, decode, frame_size
from validators.media.picture import Picture, decode_picture
from validators.media.pipes import Pipe, open_pipes
from validators.media.probe import UnreadableError, probe
from validators.media.sandbox import Sandbox, tool_name
from validators.media.signature import (
    ALLOWED,
    MAX_TAG_BYTES,
    expect_regular,
    read_signature,
    tag_bytes,
)
from validators.policy import STANDARD, Policy
from validators.rules import judge, obstacle, outside_limits
from validators.verdict import Verdict

BEYOND_LIMIT_S = 1.0  # decoding goes on so far past the longest duration, to see that it is past
PROBE_BEYOND_S = 5.0  # packets of one stream may run ahead of the other's
HOPELESS_S = 0.5  # packets this far outside the limits cannot decode to a duration inside
HASH_CHUNK_BYTES = 1 << 20
STEREO = 2
USUAL_PACE = 25.0  # frames per second, where packets tell nothing


class Progress(Protocol):
    """Hears how far a stage has come; a total of None is not known."""

    def __call__(self, stage: str, done: float, total: float | None, unit: str, /) -> None: ...


class Analyzes(Protocol):
    """Measures frames and samples. Takes over *fds* and closes them once the child has them."""

    async def analyze(self, request: AnalysisRequest, fds: Sequence[int]) -> Analysis: ...

    async def compare(self, request: ComparisonRequest, fds: Sequence[int]) -> PairFacts: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What an inspection works with. Shared by all inspections of a process."""

    sandbox: Sandbox
    analyzer: Analyzes
    ffmpeg: str = field(default_factory=partial(tool_name, "ffmpeg"))
    ffprobe: str = field(default_factory=partial(tool_name, "ffprobe"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was measured, and what a policy makes of it."""

    facts: Facts
    verdict: Verdict


def silent(stage: str, done: float, total: float | None, unit: str, /) -> None:
    """Progress for nobody."""


async def inspect(
    path: Path, kind: Kind, policy: Policy, tools: Tools, *, on_progress: Progress = silent
) -> Inspection:
    """Measure and judge. Raises InspectionError where no verdict can be reached."""
    facts = await measure(path, kind, tools, policy=policy, on_progress=on_progress)
    return Inspection(facts=facts, verdict=judge(facts, policy))


async def measure(
    path: Path,
    kind: Kind,
    tools: Tools,
    *,
    policy: Policy = STANDARD,
    on_progress: Progress = silent,
) -> Facts:
    """Everything there is to know of *path* as a *kind*. The policy only says where to stop.

    Raises InspectionError, and OSError where *path* itself cannot be read.
    """
    here = await asyncio.to_thread(path.absolute)  # tools run in a directory of their own
    order = _Order(path=here, tools=tools, policy=policy, on_progress=on_progress)
    facts = await _identify(order, kind)
    if facts.signature not in ALLOWED[kind]:
        return facts
    if kind is Kind.IMAGE:
        return await _measure_picture(order, facts)
    return await _measure_recording(order, facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What one measurement is asked for."""

    path: Path
    tools: Tools
    policy: Policy
    on_progress: Progress

    @property
    def last_s(self) -> float:
        """Where decoding stops."""
        return self.policy.max_duration_s + BEYOND_LIMIT_S


async def _identify(order: _Order, kind: Kind) -> Facts:
    order.on_progress("identify", 0, None, "bytes")
    size_bytes, sha256 = await asyncio.to_thread(_digest, order.path)
    signature = await asyncio.to_thread(read_signature, order.path)
    order.on_progress("identify", size_bytes, size_bytes, "bytes")
    return Facts(
        version=FACTS_VERSION, kind=kind, size_bytes=size_bytes, sha256=sha256, signature=signature
    )


def _digest(path: Path) -> tuple[int, str]:
    expect_regular(path)
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
    return size_bytes, digest.hexdigest()


async def _measure_recording(order: _Order, facts: Facts) -> Facts:
    order.on_progress("probe", 0, None, "packets")
    if await asyncio.to_thread(tag_bytes, order.path) > MAX_TAG_BYTES:
        return replace(facts, unreadable="The tag in front of the sound is no tag: it is too long.")
    try:
        probed = await probe(
            order.path,
            facts.signature or "",
            order.tools.sandbox,
            ffprobe=order.tools.ffprobe,
            up_to_s=order.last_s + PROBE_BEYOND_S,
        )
    except UnreadableError as exc:
        return replace(facts, unreadable=str(exc), strained=exc.strained)
    facts = replace(facts, container=probed.container)
    if obstacle(facts, order.policy) is not None:
        return facts
    length_s = probed.length_s([stream for stream in _judged_streams(facts) if stream])
    if _hopeless(length_s, order.policy):
        decoded = await _decode(order, facts, [], length_s)
        measured = replace(facts, decode=decoded.facts, strained=decoded.strained)
        if outside_limits(measured, order.policy):  # packets may promise what does not decode so
            return measured
    return await _decode_and_analyze(order, facts, length_s)


def _hopeless(length_s: float | None, policy: Policy) -> bool:
    """Whether the packets alone show a duration outside the limits: then no model need run."""
    shortest_s, longest_s = policy.min_duration_s - HOPELESS_S, policy.max_duration_s + HOPELESS_S
    return length_s is not None and not shortest_s <= length_s <= longest_s


async def _decode_and_analyze(order: _Order, facts: Facts, length_s: float | None) -> Facts:
    """Decode once; the models read the pipes meanwhile. If either dies, the other is stopped."""
    request = _request(facts, length_s)
    decoded, analysis = await _look_and_listen(order, facts, request, length_s)
    seen = replace(facts, decode=decoded.facts, strained=decoded.strained)
    measured = _with_analysis(seen, analysis)
    if request.frames is not None:
        times_s = [s - decoded.facts.start_s for s in decoded.frames_s]
        measured = _timed(measured, times_s, request.frames.per_s)
    if _may_cancel(measured):
        return await _listen_to_the_left(order, measured, length_s)
    return measured


async def _look_and_listen(
    order: _Order,
    facts: Facts,
    request: AnalysisRequest,
    length_s: float | None,
    *,
    left_alone: bool = False,
) -> tuple[Decoded, Analysis]:
    with open_pipes((request.frames is not None) + request.samples) as pipes, one_failure():
        async with asyncio.TaskGroup() as group:
            analyzing = group.create_task(_analyze(order.tools, request, pipes))
            decoding = group.create_task(
                _decode(order, facts, pipes, length_s, left_alone=left_alone)
            )
    decoded, analysis = decoding.result(), analyzing.result()
    if decoded.abandoned:
        raise AnalysisCrashedError("the analysis child stopped reading before the end")
    return decoded, analysis


def _timed(facts: Facts, times_s: Sequence[float], per_s: float) -> Facts:
    """Every frame at the time that it was shown. One that nobody saw shows no face.

    ffmpeg hands over no more frames than the child takes, so only their times tell of a surplus.
    """
    if facts.faces is None or facts.motion is None:
        return facts
    seen = len(facts.motion.times_s)
    looks = [
        replace(look, time_s=times_s[look.number])
        for look in facts.faces.frames
        if look.number < len(times_s)
    ]
    looks += [FrameFacts(time_s=s, faces=(), number=n) for n, s in enumerate(times_s) if n >= seen]
    faces = replace(facts.faces, frames=tuple(looks))
    overlays = _overlays_timed(facts.overlays, times_s, per_s)
    return replace(
        facts,
        faces=faces,
        motion=facts.motion.timed(times_s),
        overlays=overlays,
        truncated=facts.truncated or len(times_s) > MAX_VIDEO_FRAMES,
    )


def _overlays_timed(
    measured: OverlayFacts | None, times_s: Sequence[float], per_s: float
) -> OverlayFacts | None:
    """The child tells times of frames at an even pace, so they tell their numbers."""
    if measured is None or not times_s:
        return measured

    def shown(at_s: float) -> float:
        return times_s[min(round(at_s * per_s), len(times_s) - 1)]

    overlays = (
        replace(each, shown=tuple((shown(start), shown(end)) for start, end in each.shown))
        for each in measured.overlays
    )
    return replace(measured, overlays=tuple(overlays))


def _may_cancel(facts: Facts) -> bool:
    """Whether nothing is heard of two channels: their mean is silent where they are opposites."""
    _, audio = _judged_streams(facts)
    stereo = audio is not None and audio.channels == STEREO
    return stereo and facts.speech is not None and not facts.speech.speech


async def _listen_to_the_left(order: _Order, facts: Facts, length_s: float | None) -> Facts:
    request = AnalysisRequest(kind=facts.kind, frames=None, samples=True)
    decoded, analysis = await _look_and_listen(order, facts, request, length_s, left_alone=True)
    facts = replace(facts, strained=facts.strained or decoded.strained)
    if analysis.speech is None or not analysis.speech.speech:
        return facts
    return replace(facts, speech=analysis.speech, speakers=analysis.speakers)


async def _analyze(tools: Tools, request: AnalysisRequest, pipes: Sequence[Pipe]) -> Analysis:
    readers = [pipe.hand_over_reader() for pipe in pipes]
    return await tools.analyzer.analyze(request, readers)


async def _decode(
    order: _Order,
    facts: Facts,
    pipes: Sequence[Pipe],
    length_s: float | None,
    *,
    left_alone: bool = False,
) -> Decoded:
    """Decode into *pipes*, frames before samples; into none where no model looks on."""
    video, audio = _judged_streams(facts)
    video = None if left_alone else video  # the picture has been looked at by then
    writers = [pipe.hand_over_writer() for pipe in pipes]
    plan = Plan(
        signature=facts.signature or "",
        size_bytes=facts.size_bytes,
        video=video,
        audio=audio,
        up_to_s=order.last_s,
        max_pixels=order.policy.max_frame_pixels,
        frames_fd=writers.pop(0) if writers and video else None,
        samples_fd=writers.pop(0) if writers else None,
        left_alone=left_alone,
    )
    tools = order.tools
    return await decode(
        order.path,
        plan,
        tools.sandbox,
        ffmpeg_name=tools.ffmpeg,
        on_time=lambda done_s: order.on_progress("decode", done_s, length_s, "s"),
    )


def _judged_streams(facts: Facts) -> tuple[StreamFacts | None, StreamFacts | None]:
    """The first of each type; the picture beside a voice recording is not looked at."""
    if facts.container is None:
        return None, None
    video = facts.container.video if facts.kind is Kind.VIDEO else ()
    return next(iter(video), None), next(iter(facts.container.audio), None)


def _request(facts: Facts, length_s: float | None) -> AnalysisRequest:
    video, audio = _judged_streams(facts)
    frames = None
    if video is not None:
        width, height = frame_size(video)
        frames = FrameStream(width=width, height=height, per_s=_pace(video, length_s))
    return AnalysisRequest(kind=facts.kind, frames=frames, samples=audio is not None)


def _pace(video: StreamFacts, length_s: float | None) -> float:
    """About how many frames there are in a second: by their packets, not by the header."""
    return max(1.0, video.packets / length_s) if length_s and video.packets else USUAL_PACE


async def _measure_picture(order: _Order, facts: Facts) -> Facts:
    order.on_progress("decode", 0, 1, "pictures")
    with open_pipes(1) as (pipe,), one_failure():
        async with asyncio.TaskGroup() as group:
            opened: asyncio.Future[Picture] = asyncio.get_running_loop().create_future()
            group.create_task(_decode_picture(order, facts, pipe, opened))
            picture = await opened
            facts = replace(
                facts,
                picture=picture.facts,
                unreadable=picture.unreadable,
                strained=picture.strained,
            )
            if picture.frame is not None:
                analysis = await _analyze(order.tools, _picture_request(picture.frame), [pipe])
                facts = _with_analysis(facts, analysis)
    order.on_progress("decode", 1, 1, "pictures")
    return facts


def _picture_request(size: tuple[int, int]) -> AnalysisRequest:
    frames = FrameStream(width=size[0], height=size[1], per_s=0)
    return AnalysisRequest(kind=Kind.IMAGE, frames=frames, samples=False)


async def _decode_picture(
    order: _Order, facts: Facts, pipe: Pipe, opened: asyncio.Future[Picture]
) -> None:
    await decode_picture(
        order.path,
        facts.signature or "",
        order.tools.sandbox,
        max_pixels=order.policy.max_image_pixels,
        frame_fd=pipe.hand_over_writer(),
        opened=opened,
    )


def _with_analysis(facts: Facts, analysis: Analysis) -> Facts:
    return replace(
        facts,
        engines=analysis.engines,
        speech=analysis.speech,
        speakers=analysis.speakers,
        faces=analysis.faces,
        motion=analysis.motion,
        overlays=analysis.overlays,
        truncated=analysis.truncated,
    )
