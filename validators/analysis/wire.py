"""Frames between the service and the analysis child: a 4-byte length, then JSON.

Media never cross the socket: a request carries the read ends of ffmpeg's pipes as ancillary
data (SCM_RIGHTS), frames first, then samples, and the child reads them to their ends.
"""

import struct
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from validators.facts import (
    FaceFacts,
    Kind,
    MotionFacts,
    OverlayFacts,
    PairFacts,
    Range,
    SpeakerFacts,
    SpeechFacts,
)

_T = TypeVar("_T")

HEADER = struct.Struct("!I")
MAX_FRAME_BYTES = 1 << 22  # a thousand looks at a crowd take less than 1 MB
MAX_FDS = 2  # frames, samples

MAX_MEDIA_S = 17.0  # decoding stops 1 s past the longest medium that can pass
MAX_VIDEO_FRAMES = 4_000  # 250 a second of the longest that can pass; no more are read

SAMPLE_RATE_HZ = 16_000
BYTES_PER_SAMPLE = 2  # s16le, mono
BYTES_PER_PIXEL = 3  # bgr24


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameStream:
    """Raw frames of one size: a still image as bgr24, or every frame of a video as yuv420p.

    The sides of a video's frames are even.
    """

    width: int
    height: int
    per_s: float  # about how many there are in a second; 0: one still image

    @property
    def still(self) -> bool:
        return self.per_s == 0

    @property
    def frame_bytes(self) -> int:
        pixels = self.width * self.height
        return pixels * BYTES_PER_PIXEL if self.still else pixels + pixels // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisRequest:
    """What the passed descriptors carry. Samples are s16le, mono, 16 kHz.

    A request that carries neither asks only which engines would answer.
    """

    kind: Kind
    frames: FrameStream | None
    samples: bool

    @property
    def descriptors(self) -> int:
        return (self.frames is not None) + self.samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The child's answer: facts only."""

    engines: dict[str, str] = field(default_factory=dict)
    speech: SpeechFacts | None = None
    speakers: SpeakerFacts | None = None
    faces: FaceFacts | None = None
    motion: MotionFacts | None = None
    overlays: OverlayFacts | None = None
    truncated: bool = False  # more came than any medium may hold; the facts are of its beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSize:
    """Of raw bgr24 pictures, upright, pixels square."""

    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FacePairRequest:
    """Are these faces one person's? The descriptors carry the still, then frames of the video."""

    still: PictureSize
    frames: PictureSize

    @property
    def descriptors(self) -> int:
        return 2


@dataclass(frozen=True, slots=True, kw_only=True)
class VoicePairRequest:
    """Are these voices one person's? The descriptors carry the recording, then the video's sound.

    Samples as in an AnalysisRequest; the ranges say where there is speech in each, in seconds.
    """

    recording_speech: tuple[Range, ...]
    video_speech: tuple[Range, ...]

    @property
    def descriptors(self) -> int:
        return 2


ComparisonRequest = FacePairRequest | VoicePairRequest
Request = AnalysisRequest | ComparisonRequest


class WireError(ValueError):
    """The other side broke the protocol. Nothing it says from here on can be trusted."""


_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)  # no two have a required field in common
_ANALYSIS = TypeAdapter(Analysis)
_COMPARISON = TypeAdapter(PairFacts)


def encode_request(request: Request) -> bytes:
    return _framed(_REQUEST.dump_json(request))


def decode_request(body: bytes) -> Request:
    return _parsed(_REQUEST, body)


def encode_analysis(analysis: Analysis) -> bytes:
    return _framed(_ANALYSIS.dump_json(analysis, exclude_defaults=True))


def decode_analysis(body: bytes) -> Analysis:
    return _parsed(_ANALYSIS, body)


def encode_comparison(facts: PairFacts) -> bytes:
    return _framed(_COMPARISON.dump_json(facts))


def decode_comparison(body: bytes) -> PairFacts:
    return _parsed(_COMPARISON, body)


def body_bytes(header: bytes) -> int:
    """How long the body after *header* is; raise WireError where no honest side sends that."""
    if len(header) != HEADER.size:
        raise WireError(f"header of {len(header)} bytes")
    size = int(HEADER.unpack(header)[0])
    if size > MAX_FRAME_BYTES:
        raise WireError(f"frame of {size} bytes")
    return size


def _framed(body: bytes) -> bytes:
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"frame of {len(body)} bytes")
    return HEADER.pack(len(body)) + body


def _parsed(adapter: TypeAdapter[_T], body: bytes) -> _T:
    try:
        return adapter.validate_json(body)
    except ValidationError as exc:
        raise WireError(f"{exc.error_count()} errors in a {adapter!r}") from exc
