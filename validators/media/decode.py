"""The one decode of a medium: small frames, speech samples and a timeline, in one ffmpeg.

The timeline has a line for every frame of video and every packet of audio that decoded, with
its time and length, so durations and counts are those of what a viewer sees and hears. Errors
in a packet drop it (`-err_detect explode`): concealed damage would count as decoded. The child
gets every frame, so that none goes unlooked-at; scaling all of them adds 40 % to the decoding of
1080p, and nothing that was sampled beforehand would show what happens between the samples.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import ffmpeg

from validators.analysis.wire import MAX_VIDEO_FRAMES
from validators.errors import ToolCrashedError, ToolSpentError
from validators.facts import DecodeFacts, StreamFacts, TrackFacts
from validators.media.command import arguments, source, upright
from validators.media.sandbox import Sandbox, complaints
from validators.media.spending import decoding_s

FRAME_SIDE = 640  # finds a face of 5 % of the frame's height in two of three
CAP_SLACK_S = 0.2  # a last frame that starts so close to the stop was cut short by it
SAMPLES_PER_S = 16_000
FINE_TIME_BASE = "1:90000"  # the default, one over the frame rate, rounds variable rates
BROKEN_PIPE = os.strerror(errno.EPIPE)  # ffmpeg ignores SIGPIPE, reports this and fails
CORNER = r"crop=min(16\,iw):min(16\,ih):0:0,scale=16:16,format=gray"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to decode: the first real stream of each kind, up to a time, and where it goes."""

    signature: str
    size_bytes: int
    video: StreamFacts | None
    audio: StreamFacts | None
    up_to_s: float
    max_pixels: int
    frames_fd: int | None = None  # None: no frames wanted
    samples_fd: int | None = None
    left_alone: bool = False  # take the left of two channels as the sound, not their mean

    @property
    def fds(self) -> tuple[int, ...]:
        return tuple(fd for fd in (self.frames_fd, self.samples_fd) if fd is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What decoding gave. Abandoned: a reader of the frames or samples closed its end early."""

    facts: DecodeFacts
    frames_s: tuple[float, ...] = ()  # when each frame is shown, on the tracks' clock
    abandoned: bool = False
    strained: bool = False  # stopped for what it used up, or refused memory


def frame_size(stream: StreamFacts, *, side: int = FRAME_SIDE) -> tuple[int, int]:
    """Width and height of a small frame: upright, square pixels, long side at most *side*.

    Both are even, as frames with half as many colours as pixels must be.
    """
    width, height = stream.display_size
    scale = min(1.0, side / max(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


async def decode(
    path: Path,
    plan: Plan,
    sandbox: Sandbox,
    *,
    ffmpeg_name: str,
    on_time: Callable[[float], None] = lambda _: None,
) -> Decoded:
    """Decode *path* as *plan* says. Takes over the plan's descriptors, as `Sandbox.run` does.

    *on_time* hears how far the timeline has come, in seconds. Raises InspectionError.
    """
    timeline = Timeline(on_time=on_time, seeing=plan.video is not None)
    argv = command(path, plan, ffmpeg_name=ffmpeg_name)
    try:
        completed = await sandbox.run(
            argv,
            reads=[path],
            pass_fds=plan.fds,
            on_stdout=timeline.feed,
            cpu_s=decoding_s(plan.video, plan.size_bytes),
        )
    except ToolSpentError:  # what no recording of its size demands
        return Decoded(
            facts=timeline.facts(plan, complete=False),
            frames_s=tuple(timeline.starts_s),
            strained=True,
        )
    said = complaints(completed, path)
    return Decoded(
        facts=timeline.facts(plan, complete=completed.succeeded),
        frames_s=tuple(timeline.starts_s),
        abandoned=completed.status != 0 and BROKEN_PIPE in said,
        strained=completed.refused_memory,
    )


def command(path: Path, plan: Plan, *, ffmpeg_name: str) -> list[str]:
    """The command line. Outputs have filters of their own, so one dead stream stops no other."""
    opened = source(
        path,
        plan.signature,
        video=plan.video,
        up_to_s=plan.up_to_s,
        max_pixels=plan.max_pixels,
    )
    outputs = [_timeline_output(opened, plan)]
    if plan.video is not None and plan.frames_fd is not None:
        outputs.append(_frames_output(opened, plan.video, plan.frames_fd))
    if plan.audio is not None and plan.samples_fd is not None:
        outputs.append(_samples_output(opened, plan.audio, plan.samples_fd, plan))
    return arguments(*outputs, ffmpeg_name=ffmpeg_name)


def _timeline_output(opened: ffmpeg.Stream, plan: Plan) -> ffmpeg.Stream:
    """A corner of each frame is enough: only its time counts."""
    options = {"f": "framecrc", "fps_mode": "passthrough", "c:a": "pcm_s16le"}
    tracks = []
    if plan.video is not None:
        tracks.append(opened[str(plan.video.index)])
        options |= {"c:v": "rawvideo", "enc_time_base:v": FINE_TIME_BASE, "filter:v": CORNER}
    if plan.audio is not None:
        tracks.append(opened[str(plan.audio.index)])
    return ffmpeg.output(*tracks, "pipe:1", **options)


def _frames_output(opened: ffmpeg.Stream, video: StreamFacts, fd: int) -> ffmpeg.Stream:
    """One size, whatever comes.

    Averaging areas costs a fifth of what bicubic does and invents no edges.
    """
    return opened[str(video.index)].output(
        f"pipe:{fd}",
        f="rawvideo",
        pix_fmt="yuv420p",
        fps_mode="passthrough",
        vf=upright(video, frame_size(video), flags="area:out_range=tv"),
        **{"frames:v": MAX_VIDEO_FRAMES},
    )


def _samples_output(
    opened: ffmpeg.Stream, audio: StreamFacts, fd: int, plan: Plan
) -> ffmpeg.Stream:
    """Cut by the count of samples: a header may give them a clock of any speed."""
    left = "pan=mono|c0=c0," if plan.left_alone else ""
    wanted = f"aformat=sample_fmts=s16:sample_rates={SAMPLES_PER_S}:channel_layouts=mono"
    last = f"atrim=end_sample={int(plan.up_to_s * SAMPLES_PER_S)}"
    return opened[str(audio.index)].output(f"pipe:{fd}", f="s16le", af=f"{left}{wanted},{last}")


@dataclass(slots=True, kw_only=True)
class Timeline:
    """Reads ffmpeg's framecrc as it comes: `stream, dts, pts, duration, size, crc`."""

    on_time: Callable[[float], None]
    seeing: bool  # whether the first track is video
    bases: dict[int, Fraction] = field(default_factory=dict)
    tracks: dict[int, "_Track"] = field(default_factory=dict)
    starts_s: list[float] = field(default_factory=list)  # of the frames
    rest: bytes = b""

    def feed(self, chunk: bytes) -> None:
        """Raises ToolCrashedError where ffmpeg writes what is no framecrc."""
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        try:
            for line in lines:
                self._line(line)
        except (ValueError, LookupError, ArithmeticError) as exc:
            raise ToolCrashedError("ffmpeg writes a timeline that makes no sense") from exc
        self.on_time(max((track.end_s for track in self.tracks.values()), default=0.0))

    def _line(self, line: bytes) -> None:
        if line.startswith(b"#tb "):
            number, base = line.removeprefix(b"#tb ").split(b": ")
            self.bases[int(number)] = Fraction(base.decode())
        elif line and not line.startswith(b"#"):
            words = line.split(b",")
            stream, pts, length = int(words[0]), int(words[2]), int(words[3])
            tick_s = float(self.bases[stream])
            track = self.tracks.setdefault(stream, _Track())
            track.add(pts * tick_s, (pts + length) * tick_s)
            if stream == 0 and self.seeing:
                self.starts_s.append(pts * tick_s)

    def facts(self, plan: Plan, *, complete: bool) -> DecodeFacts:
        video = self.tracks.get(0) if self.seeing else None
        audio = self.tracks.get(int(self.seeing)) if plan.audio is not None else None
        end_s = max((track.end_s for track in self.tracks.values()), default=0.0)
        return DecodeFacts(
            complete=complete,
            capped=end_s >= plan.up_to_s - CAP_SLACK_S,
            video=video.facts() if video else None,
            audio=audio.facts() if audio else None,
        )


@dataclass(slots=True)
class _Track:
    start_s: float = float("inf")
    end_s: float = float("-inf")
    units: int = 0
    units_s: float = 0.0

    def add(self, start_s: float, end_s: float) -> None:
        self.start_s = min(self.start_s, start_s)
        self.end_s = max(self.end_s, end_s)
        self.units += 1
        self.units_s += end_s - start_s

    def facts(self) -> TrackFacts:
        return TrackFacts(
            start_s=self.start_s, end_s=self.end_s, units=self.units, units_s=self.units_s
        )
