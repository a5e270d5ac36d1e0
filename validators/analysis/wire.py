"""Frames between the service and the analysis child: a 4-byte length, then JSON.

Media never cross the socket: a request carries the read ends of ffmpeg's pipes as ancillary
data (SCM_RIGHTS), frames first, then samples, and the child reads them to their ends.
"""

import struct
from dataclasses import dataclass, field

from validators.facts import FaceFacts, Kind, SpeakerFacts, SpeechFacts

HEADER = struct.Struct("!I")
MAX_FRAME_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameStream:
    """Raw bgr24 frames of one size, one every `interval_s` from time 0; one frame for an image."""

    width: int
    height: int
    interval_s: float  # 0 for a still image


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisRequest:
    """What the passed descriptors carry. Samples are s16le, mono, 16 kHz."""

    kind: Kind
    frames: FrameStream | None
    samples: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The child's answer: facts only."""

    engines: dict[str, str] = field(default_factory=dict)
    speech: SpeechFacts | None = None
    speakers: SpeakerFacts | None = None
    faces: FaceFacts | None = None
