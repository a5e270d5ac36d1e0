"""The one decode of a medium: sampled frames, speech samples and a timeline, in one ffmpeg.

The timeline has a line for every frame of video and every packet of audio that decoded, with
its time and length, so durations and counts are those of what a viewer sees and hears. Errors
in a packet drop it (`-err_detect explode`): concealed damage would count as decoded.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import ffmpeg

from validators.facts import DecodeFacts, StreamFacts, TrackFacts
from validators.media.probe import input_options
from validators.media.sandbox import Sandbox

FRAMES_PER_S = 5  # research: an intruder of 5 frames at 25 fps is seen with 90 %
FRAME_SIDE = 640  # finds a face of 5 % of the frame's height in two of three
SAMPLES_PER_S = 16_000
FINE_TIME_BASE = "1:90000"  # the default, one over the frame rate, rounds variable rates
MAX_THREADS = 4  # more only cost memory
BROKEN_PIPE = os.strerror(errno.EPIPE)  # ffmpeg ignores SIGPIPE, reports this and fails
VIDEO, AUDIO = 0, 1  # the streams of the timeline

TURNS = {0: "", 90: ",transpose=clock", 180: ",hflip,vflip", 270: ",transpose=cclock"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to decode: the first real stream of each kind, up to a time, and where it goes."""

    signature: str
    video: StreamFacts | None
    audio: StreamFacts | None
    up_to_s: float
    max_pixels: int
    frames_fd: int | None = None  # None: no frames wanted
    samples_fd: int | None = None

    @property
    def fds(self) -> tuple[int, ...]:
        return tuple(fd for fd in (self.frames_fd, self.samples_fd) if fd is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What decoding gave. Abandoned: a reader of the frames or samples closed its end early."""

    facts: DecodeFacts
    abandoned: bool = False


def frame_size(stream: StreamFacts, *, side: int = FRAME_SIDE) -> tuple[int, int]:
    """Width and height of a sampled frame: upright, square pixels, long side at most *side*."""
    width, height = stream.display_size
    scale = min(1.0, side / max(width, height))
    return max(2, round(width * scale)), max(2, round(height * scale))


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
    timeline = Timeline(on_time=on_time)
    argv = command(path, plan, ffmpeg_name=ffmpeg_name)
    completed = await sandbox.run(argv, pass_fds=plan.fds, on_stdout=timeline.feed)
    facts = timeline.facts(plan, complete=completed.succeeded)
    abandoned = completed.status != 0 and BROKEN_PIPE in completed.stderr
    return Decoded(facts=facts, abandoned=abandoned)


def command(path: Path, plan: Plan, *, ffmpeg_name: str) -> list[str]:
    """The command line. Outputs have filters of their own, so one dead stream stops no other."""
    source = ffmpeg.input(
        f"file:{path}",
        **input_options(plan.signature),
        t=plan.up_to_s,
        threads=min(MAX_THREADS, os.cpu_count() or 1),
        err_detect="explode",
        max_pixels=plan.max_pixels,
    )
    outputs = [_timeline_output(source, plan)]
    if plan.video is not None and plan.frames_fd is not None:
        outputs.append(_frames_output(source, plan.video, plan.frames_fd))
    if plan.audio is not None and plan.samples_fd is not None:
        outputs.append(_samples_output(source, plan.audio, plan.samples_fd))
    arguments: list[str] = ffmpeg.merge_outputs(*outputs).get_args()
    quiet = ["-nostdin", "-hide_banner", "-v", "error", "-noautorotate", "-filter_threads", "1"]
    return [ffmpeg_name, *quiet, *arguments]


def _timeline_output(source: ffmpeg.Stream, plan: Plan) -> ffmpeg.Stream:
    """A corner of each frame is enough: only its time counts."""
    options = {"f": "framecrc", "fps_mode": "passthrough", "c:a": "pcm_s16le"}
    tracks = []
    if plan.video is not None:
        tracks.append(source[str(plan.video.index)])
        options |= {"c:v": "rawvideo", "enc_time_base:v": FINE_TIME_BASE}
        options |= {"filter:v": r"crop=min(16\,iw):min(16\,ih):0:0"}
    if plan.audio is not None:
        tracks.append(source[str(plan.audio.index)])
    return ffmpeg.output(*tracks, "pipe:1", **options)


def _frames_output(source: ffmpeg.Stream, video: StreamFacts, fd: int) -> ffmpeg.Stream:
    """Scaled before it is turned: turning small frames is cheap."""
    width, height = frame_size(video)
    if video.rotation_deg % 180:
        width, height = height, width
    sampled = f"fps={FRAMES_PER_S}:start_time=0,scale={width}:{height}"
    return source[str(video.index)].output(
        f"pipe:{fd}",
        f="rawvideo",
        pix_fmt="bgr24",
        fps_mode="passthrough",
        vf=f"{sampled}{TURNS[video.rotation_deg]}",
    )


def _samples_output(source: ffmpeg.Stream, audio: StreamFacts, fd: int) -> ffmpeg.Stream:
    return source[str(audio.index)].output(f"pipe:{fd}", f="s16le", ac=1, ar=SAMPLES_PER_S)


@dataclass(slots=True, kw_only=True)
class Timeline:
    """Reads ffmpeg's framecrc as it comes: `stream, dts, pts, duration, size, crc`."""

    on_time: Callable[[float], None]
    bases: dict[int, Fraction] = field(default_factory=dict)
    tracks: dict[int, "_Track"] = field(default_factory=dict)
    rest: bytes = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            self._line(line)
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

    def facts(self, plan: Plan, *, complete: bool) -> DecodeFacts:
        present = [plan.video is not None, plan.audio is not None]
        video = self.tracks.get(VIDEO) if plan.video is not None else None
        audio = self.tracks.get(sum(present) - 1) if plan.audio is not None else None
        end_s = max((track.end_s for track in self.tracks.values()), default=0.0)
        return DecodeFacts(
            complete=complete,
            capped=end_s >= plan.up_to_s - 1 / FRAMES_PER_S,
            video=video.facts() if video else None,
            audio=audio.facts() if audio else None,
        )


@dataclass(slots=True)
class _Track:
    start_s: float = float("inf")
    end_s: float = float("-inf")
    units: int = 0

    def add(self, start_s: float, end_s: float) -> None:
        self.start_s = min(self.start_s, start_s)
        self.end_s = max(self.end_s, end_s)
        self.units += 1

    def facts(self) -> TrackFacts:
        return TrackFacts(start_s=self.start_s, end_s=self.end_s, units=self.units)
