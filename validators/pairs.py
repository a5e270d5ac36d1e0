"""Two media of one avatar beside each other: a picture or a recording, and the video.

Both are decoded again, but only what is compared: a few frames, one picture, speech. What
describes a face or a voice stays in the analysis child and is forgotten there.
"""

import asyncio
import itertools
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from validators.analysis.wire import (
    BYTES_PER_SAMPLE,
    SAMPLE_RATE_HZ,
    FacePairRequest,
    PictureSize,
    VoicePairRequest,
)
from validators.checks.pairs import Given, judge_pair
from validators.errors import ToolCrashedError, UnmeasuredError, one_failure
from validators.facts import FaceFacts, Facts, FrameFacts, PairFacts
from validators.inspect import Tools
from validators.media.command import arguments, upright
from validators.media.decode import frame_size
from validators.media.picture import Picture, decode_picture
from validators.media.pipes import Pipe, open_pipes
from validators.media.reopen import expect_success, opened, picture_of
from validators.media.voice import Voice, decode_voice
from validators.policy import STANDARD, Policy
from validators.verdict import PairVerdict

FRAMES = 5  # of the video: one turned head or closed eye among them decides nothing
LAST_S = STANDARD.max_duration_s + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A medium that was accepted, and what was measured of it."""

    path: Path
    facts: Facts


async def compare(
    video: Judged, image: Judged | None, audio: Judged | None, tools: Tools, policy: Policy
) -> PairVerdict:
    """Both pair checks; what is not given is skipped. Raises InspectionError and OSError."""
    facts = await measure_pair(video, image, audio, tools)
    given = Given(image=image is not None, audio=audio is not None)
    return judge_pair(facts, given, policy)


async def measure_pair(
    video: Judged, image: Judged | None, audio: Judged | None, tools: Tools
) -> PairFacts:
    """How alike they are. The two comparisons run one after the other: each wants a whole core."""
    facts = PairFacts()
    if image is not None:
        facts = await _faces(await _absolute(video), await _absolute(image), tools)
    if audio is not None:
        heard = await _voices(await _absolute(video), await _absolute(audio), tools)
        engines = facts.engines | heard.engines
        facts = replace(facts, voice_similarity=heard.voice_similarity, engines=engines)
    return facts


async def _absolute(judged: Judged) -> Judged:
    """Tools run in a directory of their own."""
    return replace(judged, path=await asyncio.to_thread(judged.path.absolute))


async def _faces(video: Judged, image: Judged, tools: Tools) -> PairFacts:
    width, height = frame_size(picture_of(video.facts))
    numbers = chosen(video.facts.faces)
    with open_pipes(2) as (still_pipe, frames_pipe), one_failure():
        async with asyncio.TaskGroup() as group:
            still: asyncio.Future[Picture] = asyncio.get_running_loop().create_future()
            group.create_task(_decode_still(image, tools, still_pipe, still))
            size = (await still).frame
            if size is None:
                raise ToolCrashedError("an image that was accepted cannot be decoded again")
            group.create_task(_decode_frames(video, numbers, tools, frames_pipe))
            request = FacePairRequest(
                still=PictureSize(width=size[0], height=size[1]),
                frames=PictureSize(width=width, height=height),
            )
            readers = [still_pipe.hand_over_reader(), frames_pipe.hand_over_reader()]
            return await tools.analyzer.compare(request, readers)


async def _decode_still(
    image: Judged, tools: Tools, pipe: Pipe, opened_: asyncio.Future[Picture]
) -> None:
    await decode_picture(
        image.path,
        image.facts.signature or "",
        tools.sandbox,
        max_pixels=STANDARD.max_image_pixels,
        frame_fd=pipe.hand_over_writer(),
        opened=opened_,
    )


async def _decode_frames(video: Judged, numbers: tuple[int, ...], tools: Tools, pipe: Pipe) -> None:
    """The chosen frames alone, as small as they were judged."""
    stream = picture_of(video.facts)
    these = "+".join(rf"eq(n\,{number})" for number in numbers)
    source = opened(video.path, video.facts, up_to_s=LAST_S)
    writer = pipe.hand_over_writer()
    output = source[str(stream.index)].output(
        f"pipe:{writer}",
        f="rawvideo",
        pix_fmt="bgr24",
        fps_mode="passthrough",
        vf=f"select={these},{upright(stream, frame_size(stream), flags='area')}",
        **{"frames:v": len(numbers)},
    )
    argv = arguments(output, ffmpeg_name=tools.ffmpeg)
    completed = await tools.sandbox.run(argv, reads=[video.path], pass_fds=[writer])
    expect_success(completed, video.path)


def chosen(faces: FaceFacts | None) -> tuple[int, ...]:
    """Numbers of the frames to compare: the best of each of some equal parts of the video.

    Raises UnmeasuredError where no frame shows a face.
    """
    seen = [frame for frame in faces.frames if frame.faces] if faces else []
    if not seen:
        raise UnmeasuredError("no frame shows a face, so there is none to compare")
    parts = min(FRAMES, len(seen))
    edges = [len(seen) * part // parts for part in range(parts + 1)]
    return tuple(
        max(seen[start:end], key=_frontal).number for start, end in itertools.pairwise(edges)
    )


def _frontal(frame: FrameFacts) -> tuple[float, float]:
    """Higher for a face that looks into the camera, then for one that is surer to be one."""
    turned = 90.0 if frame.look is None else abs(frame.look.yaw_deg) + abs(frame.look.pitch_deg)
    return -turned, frame.faces[0].confidence


async def _voices(video: Judged, audio: Judged, tools: Tools) -> PairFacts:
    recorded, shown = await asyncio.gather(_voice(audio, tools), _voice(video, tools))
    request = VoicePairRequest(recording_speech=recorded.speech, video_speech=shown.speech)
    with open_pipes(2) as pipes, one_failure():
        async with asyncio.TaskGroup() as group:
            for pipe, voice in zip(pipes, (recorded, shown), strict=True):
                pcm = voice.sound.set_sample_width(BYTES_PER_SAMPLE).raw_data
                group.create_task(asyncio.to_thread(_pour, pcm, pipe.hand_over_writer()))
            return await tools.analyzer.compare(request, [p.hand_over_reader() for p in pipes])


async def _voice(judged: Judged, tools: Tools) -> Voice:
    return await decode_voice(
        judged.path,
        judged.facts,
        tools.sandbox,
        ffmpeg_name=tools.ffmpeg,
        rate_hz=SAMPLE_RATE_HZ,
    )


def _pour(pcm: bytes, fd: int) -> None:
    """Blocks. A child that went away answers for itself."""
    with suppress(BrokenPipeError), os.fdopen(fd, "wb") as pipe:
        pipe.write(pcm)
