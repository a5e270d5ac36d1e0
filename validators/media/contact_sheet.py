"""Pictures and a waveform for people to look at. Nothing here is measured or judged.

Facts hold neither pixels nor samples, so this decodes once more, confined as every decode is.
Only raw frames and samples come back; they are compressed here.
"""

import asyncio
import io
import os
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from validators.errors import ToolCrashedError, one_failure
from validators.facts import Facts, Kind, Range, StreamFacts
from validators.media.command import arguments, source, upright
from validators.media.decode import (
    CORNER,
    FINE_TIME_BASE,
    SAMPLES_PER_S,
    frame_size,
)
from validators.media.picture import Picture, decode_picture
from validators.media.pipes import Pipe, open_pipes
from validators.media.sandbox import Sandbox, complaints

SPREAD = 12  # pictures at even distances: three, four or six stand in a row
MAX_SHOTS = 18  # those, and some of the moments that were found bad
SHOT_SIDE = 320
STILL_SIDE = 960
QUALITY = 72
COLUMNS = 600  # of the waveform: one a pixel on a desk
EARLY_S = 0.002  # how far rounding to the clock of a container may move a frame
BYTES_PER_SAMPLE = 2
FULL_SCALE = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One frame as a viewer sees it: upright, its pixels square."""

    time_s: float  # on the clock of the facts
    width: int
    height: int
    jpeg: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The lowest and highest sample of each column, -1..1, from *start_s* to *end_s*."""

    start_s: float
    end_s: float
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactSheet:
    """What a person is shown of one medium. Empty where nothing of it decodes."""

    shots: tuple[Shot, ...] = ()
    envelope: Envelope | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a sheet is made with: the same tools and limits as the inspection before it."""

    sandbox: Sandbox
    ffmpeg: str
    up_to_s: float
    max_frame_pixels: int
    max_image_pixels: int


async def read_contact_sheet(
    path: Path, facts: Facts, failing: Sequence[Range], reading: Reading
) -> ContactSheet:
    """Pictures spread over *path* and from its *failing* ranges, and its waveform.

    What was not decoded when it was measured is not decoded here. Raises InspectionError.
    """
    if facts.kind is Kind.IMAGE:
        shot = await _still(path, facts, reading) if facts.picture is not None else None
        return ContactSheet(shots=() if shot is None else (shot,))
    if facts.decode is None or facts.container is None:
        return ContactSheet()
    return await _recording(path, facts, worth_showing(facts, failing), reading)


def worth_showing(facts: Facts, failing: Sequence[Range]) -> tuple[float, ...]:
    """When pictures are taken: evenly, and in the longest *failing* ranges that those miss.

    Where frames were looked at, only at these, so that a picture and its faces are of one moment.
    """
    if facts.decode is None or facts.decode.video is None:
        return ()
    length_s = facts.decode.duration_s
    looked_at = [frame.time_s for frame in facts.faces.frames] if facts.faces is not None else []
    even = [length_s * number / SPREAD for number in range(SPREAD)]
    longest = sorted(failing, key=lambda each: each[0] - each[1])
    chosen = {_nearest(time_s, looked_at) for time_s in even}
    for start_s, end_s in longest:
        shown = any(start_s <= at <= end_s for at in chosen)
        if not shown and len(chosen) < MAX_SHOTS:
            chosen.add(_nearest((start_s + end_s) / 2, looked_at))
    return tuple(sorted(chosen))


def _nearest(time_s: float, looked_at: Sequence[float]) -> float:
    if not looked_at:
        return time_s
    at = bisect_left(looked_at, time_s)
    return min(looked_at[max(0, at - 1) : at + 1], key=lambda each: abs(each - time_s))


async def _recording(
    path: Path, facts: Facts, times_s: Sequence[float], reading: Reading
) -> ContactSheet:
    video, audio = _streams(facts)
    video = video if times_s else None
    with open_pipes((video is not None) + (audio is not None)) as pipes, one_failure():
        order = _Order(path=path, facts=facts, video=video, audio=audio, times_s=times_s)
        async with asyncio.TaskGroup() as group:
            raw = [group.create_task(_read(pipe, order.size_bytes(reading))) for pipe in pipes]
            shown = group.create_task(_decode(order, reading, pipes))
    outputs = [task.result() for task in raw]
    frames = outputs.pop(0) if video is not None else b""
    shots = await asyncio.to_thread(_shots, order, frames, shown.result())
    return ContactSheet(shots=shots, envelope=_heard(facts, outputs[0]) if outputs else None)


def _streams(facts: Facts) -> tuple[StreamFacts | None, StreamFacts | None]:
    """The streams that were judged: the first of each type, no video in a recording of sound."""
    if facts.container is None:
        return None, None
    video = facts.container.video if facts.kind is Kind.VIDEO else ()
    return next(iter(video), None), next(iter(facts.container.audio), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What one run of ffmpeg is asked for."""

    path: Path
    facts: Facts
    video: StreamFacts | None
    audio: StreamFacts | None
    times_s: Sequence[float]

    @property
    def start_s(self) -> float:
        """What the decoder's clock shows when that of the facts begins."""
        return self.facts.decode.start_s if self.facts.decode is not None else 0.0

    @property
    def shot_size(self) -> tuple[int, int]:
        return frame_size(self.video, side=SHOT_SIDE) if self.video is not None else (0, 0)

    def size_bytes(self, reading: Reading) -> int:
        """More than either output can hold."""
        width, height = self.shot_size
        sound = round(reading.up_to_s + 1) * SAMPLES_PER_S * BYTES_PER_SAMPLE
        return max(width * height * 3 * (MAX_SHOTS + 1), sound)


async def _read(pipe: Pipe, most_bytes: int) -> bytes:
    return await asyncio.to_thread(_read_to_end, pipe.hand_over_reader(), most_bytes)


def _read_to_end(fd: int, most_bytes: int) -> bytes:
    with os.fdopen(fd, "rb") as pipe:
        return pipe.read(most_bytes)


async def _decode(order: _Order, reading: Reading, pipes: Sequence[Pipe]) -> list[float]:
    """Fill *pipes*, frames before samples; returns when the frames are shown."""
    fds = [pipe.hand_over_writer() for pipe in pipes]
    argv = command(order, reading, fds)
    completed = await reading.sandbox.run(argv, reads=[order.path], pass_fds=fds)
    complaints(completed, order.path)  # of the medium they are no news; of the tool they raise
    return shown_at(completed.stdout)


def command(order: _Order, reading: Reading, fds: Sequence[int]) -> list[str]:
    """One ffmpeg: the wanted frames, when each is shown, and the sound."""
    opened = source(
        order.path,
        order.facts.signature or "",
        video=order.video,
        up_to_s=reading.up_to_s,
        max_pixels=reading.max_frame_pixels,
    )
    left, outputs = list(fds), []
    if order.video is not None:
        picked = pick([time_s + order.start_s for time_s in order.times_s])
        track, most = opened[str(order.video.index)], {"frames:v": MAX_SHOTS}
        raw = {"f": "rawvideo", "pix_fmt": "bgr24", "fps_mode": "passthrough"}
        timed = {"f": "framecrc", "c:v": "rawvideo", "enc_time_base:v": FINE_TIME_BASE}
        frames = f"pipe:{left.pop(0)}"
        turned = upright(order.video, order.shot_size, flags="bicubic")
        outputs.append(track.output(frames, vf=f"{picked},{turned}", **raw, **most))
        timed |= {"fps_mode": "passthrough", "vf": f"{picked},{CORNER}"}
        outputs.append(track.output("pipe:1", **timed, **most))
    if order.audio is not None:
        form = f"aformat=sample_fmts=s16:sample_rates={SAMPLES_PER_S}:channel_layouts=mono"
        form += f",atrim=end_sample={int(reading.up_to_s * SAMPLES_PER_S)}"
        sound = opened[str(order.audio.index)]
        outputs.append(sound.output(f"pipe:{left.pop(0)}", f="s16le", af=form))
    return arguments(*outputs, ffmpeg_name=reading.ffmpeg)


def pick(times_s: Sequence[float]) -> str:
    """A filter that lets pass the first frame at or after each time, and the very first."""
    passed = (f"gte(t,{at:.4f})*lt(prev_t,{at:.4f})" for at in (t - EARLY_S for t in times_s))
    return f"select='isnan(prev_t)+{'+'.join(passed)}'"


def shown_at(framecrc: bytes) -> list[float]:
    """When each frame is shown, in seconds. Raises ToolCrashedError where it makes no sense."""
    tick_s, times = 0.0, []
    try:
        for line in framecrc.decode().splitlines():
            if line.startswith("#tb 0: "):
                tick_s = float(Fraction(line.removeprefix("#tb 0: ")))
            elif line and not line.startswith("#"):
                times.append(int(line.split(",")[2]) * tick_s)
    except (ValueError, LookupError, ArithmeticError) as exc:
        raise ToolCrashedError("ffmpeg writes a timeline that makes no sense") from exc
    return times


def _shots(order: _Order, frames: bytes, shown_s: Sequence[float]) -> tuple[Shot, ...]:
    """One for each whole frame. One that was cut off is left out."""
    width, height = order.shot_size
    length = width * height * 3
    return tuple(
        Shot(
            time_s=round(at_s - order.start_s, 3),
            width=width,
            height=height,
            jpeg=_jpeg((width, height), frames[number * length : (number + 1) * length]),
        )
        for number, at_s in enumerate(shown_s)
        if (number + 1) * length <= len(frames)
    )


def _jpeg(size: tuple[int, int], bgr: bytes, *, side: int = SHOT_SIDE) -> bytes:
    picture = Image.frombytes("RGB", size, bgr, "raw", "BGR")
    picture.thumbnail((side, side))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()


def _heard(facts: Facts, pcm: bytes) -> Envelope | None:
    whole = len(pcm) - len(pcm) % BYTES_PER_SAMPLE
    samples = np.frombuffer(pcm[:whole], "<i2")
    track = facts.decode.audio if facts.decode is not None else None
    if not samples.size or facts.decode is None or track is None:
        return None
    return envelope(samples, start_s=track.start_s - facts.decode.start_s)


def envelope(
    samples: npt.NDArray[np.int16], *, start_s: float = 0.0, columns: int = COLUMNS
) -> Envelope:
    """The waveform of 16 kHz mono *samples*, of which there is one at least."""
    starts = np.unique(np.linspace(0, samples.size, columns, endpoint=False).astype(int))
    low = np.minimum.reduceat(samples, starts) / FULL_SCALE
    high = np.maximum.reduceat(samples, starts) / FULL_SCALE
    return Envelope(
        start_s=start_s,
        end_s=start_s + samples.size / SAMPLES_PER_S,
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
    )


async def _still(path: Path, facts: Facts, reading: Reading) -> Shot | None:
    opened: asyncio.Future[Picture] = asyncio.get_running_loop().create_future()
    with open_pipes(1) as (pipe,), one_failure():
        async with asyncio.TaskGroup() as group:
            raw = group.create_task(_read(pipe, reading.max_image_pixels * 3))
            group.create_task(
                decode_picture(
                    path,
                    facts.signature or "",
                    reading.sandbox,
                    max_pixels=reading.max_image_pixels,
                    frame_fd=pipe.hand_over_writer(),
                    opened=opened,
                )
            )
    size, pixels = (await opened).frame, raw.result()
    if size is None or len(pixels) != size[0] * size[1] * 3:
        return None
    jpeg = await asyncio.to_thread(_jpeg, size, pixels, side=STILL_SIDE)
    return Shot(time_s=0.0, width=size[0], height=size[1], jpeg=jpeg)
