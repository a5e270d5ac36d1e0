"""What was measured, free of thresholds. Rules judge these values; nothing here judges.

Shapes and units: times are seconds from the first sample shown or heard; faces are shares of
the frame in display orientation; decibels are relative to full scale unless said otherwise.
Facts are stored as JSON and can be judged again under another policy, so `FACTS_VERSION` rises
whenever a measurement changes its meaning.
"""

from dataclasses import dataclass, field
from enum import StrEnum

FACTS_VERSION = 2

Range = tuple[float, float]


class Kind(StrEnum):
    VIDEO = "video"
    IMAGE = "image"
    AUDIO = "audio"


class StreamType(StrEnum):
    VIDEO = "video"
    AUDIO = "audio"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """One stream as its container describes it, and its packets as they were counted."""

    index: int
    type: StreamType
    codec: str
    attached_picture: bool = False
    width: int | None = None  # as coded, before rotation
    height: int | None = None
    sample_aspect: float = 1.0  # width of a pixel over its height
    mirrored: bool = False  # left and right are swapped before the picture is turned
    rotation_deg: int = 0  # clockwise turn that a viewer applies
    declared_fps: float | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    declared_duration_s: float | None = None
    packets: int = 0  # that a decoder is asked to show: discarded pre-roll does not count
    promised_packets: int | None = None  # in the sample table, where the container has one

    @property
    def display_size(self) -> tuple[int, int]:
        """Width and height as a viewer sees them: turned, the width stretched to square pixels."""
        width, height = round((self.width or 0) * self.sample_aspect), self.height or 0
        return self._turned(width, height)

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height in pixels as coded, turned but not stretched."""
        return self._turned(self.width or 0, self.height or 0)

    def _turned(self, width: int, height: int) -> tuple[int, int]:
        return (height, width) if self.rotation_deg % 180 else (width, height)

    @property
    def shown(self) -> bool:
        """Whether a player would show or play it: cover art and empty streams are neither."""
        return not self.attached_picture and (self.packets > 0 or bool(self.promised_packets))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerFacts:
    """The container as the demuxer reads it."""

    format: str
    declared_duration_s: float | None
    streams: tuple[StreamFacts, ...]

    @property
    def video(self) -> tuple[StreamFacts, ...]:
        """The real video streams; the first is the one that is judged."""
        return self._shown(StreamType.VIDEO)

    @property
    def audio(self) -> tuple[StreamFacts, ...]:
        """The non-empty audio streams; the first is the one that is judged."""
        return self._shown(StreamType.AUDIO)

    def _shown(self, wanted: StreamType) -> tuple[StreamFacts, ...]:
        return tuple(s for s in self.streams if s.type is wanted and s.shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackFacts:
    """One stream as it was decoded."""

    start_s: float
    end_s: float  # end of the last sample
    units: int  # frames of video, packets of audio that decoded
    units_s: float = 0.0  # their lengths together; more than the duration where they overlap

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeFacts:
    """What the one decode of the medium gave."""

    complete: bool  # False: the decoder gave up, and what is measured is what came before
    capped: bool  # True: decoding stopped past the upper limit; durations are lower bounds
    video: TrackFacts | None = None
    audio: TrackFacts | None = None

    @property
    def start_s(self) -> float:
        """When the first sample is shown or heard, on the clock of the tracks."""
        return min((track.start_s for track in self._tracks), default=0.0)

    @property
    def duration_s(self) -> float:
        """From the first sample shown or heard to the end of the last; 0 where none decoded."""
        return max((track.end_s for track in self._tracks), default=0.0) - self.start_s

    @property
    def _tracks(self) -> tuple[TrackFacts, ...]:
        return tuple(track for track in (self.video, self.audio) if track is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFacts:
    """A still image as a viewer would see it, orientation applied."""

    width: int
    height: int
    frames: int = 1  # 2 stands for any number over one: counting them would read the whole file


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechFacts:
    """Speech and what lies around it, from 16 kHz mono."""

    duration_s: float
    speech: tuple[Range, ...]
    snr_db: float | None = None  # None: no speech, or no gap to compare with
    music_probability: float | None = None  # mean over the recording
    clipped_runs_per_s: float | None = None
    loudness_dbfs: float | None = None  # of the speech alone

    @property
    def speech_s(self) -> float:
        return sum(end - start for start, end in self.speech)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerFacts:
    """How much of the speech is not the main voice's. The score is a log-odds of two voices."""

    score: float | None  # None: too little speech to compare
    second_voice_s: float
    second_voice: tuple[Range, ...] = ()
    features: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One box. Shares of the frame, from its top left; confidences are 0..1."""

    left: float
    top: float
    width: float
    height: float
    confidence: float  # of the detector
    confirmation: float | None = None  # of a second network on the crop; None: not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFacts:
    """The faces of one sampled frame, largest first. It stands for the time until the next."""

    time_s: float
    faces: tuple[Face, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceFacts:
    """Every frame that was looked at, in order."""

    frames: tuple[FrameFacts, ...]
    interval_s: float  # the least time between samples; 0 for a still image


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything measured of one medium. What could not be measured is None."""

    version: int = 0  # set by whoever measures; 0 is no version
    kind: Kind
    size_bytes: int
    sha256: str
    engines: dict[str, str] = field(default_factory=dict)
    signature: str | None = None  # what the first bytes say: "mp4", "png", …; None: nothing we know
    unreadable: str | None = None  # why the container or picture could not be opened at all
    container: ContainerFacts | None = None
    decode: DecodeFacts | None = None
    picture: PictureFacts | None = None
    speech: SpeechFacts | None = None
    speakers: SpeakerFacts | None = None
    faces: FaceFacts | None = None
    truncated: bool = False  # more came out of the decoder than any medium may hold: it was dropped
