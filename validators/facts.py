"""What was measured, free of thresholds. Rules judge these values; nothing here judges.

Shapes and units: times are seconds from the first sample shown or heard; faces are shares of
the frame in display orientation; decibels are relative to full scale unless said otherwise.
Facts are stored as JSON and can be judged again under another policy, so `FACTS_VERSION` rises
whenever a measurement changes its meaning.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

FACTS_VERSION = 4

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
    def sized(self) -> bool:
        """Whether its header tells the size of the picture."""
        return bool(self.width) and bool(self.height)

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
    """Speech and what lies around it, from 16 kHz mono. Times are from its first sample."""

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
    """How much of the speech is not the main voice's. The score is a log-odds of two voices.

    Times are from the first sample of the sound.
    """

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
class FaceLook:
    """The largest sure face of one frame, seen closely: validators/analysis/models/face_mesh.py.

    Angles are 0 where the face looks straight into the camera. Where `presence` is low the rest
    means little.
    """

    presence: float  # 0..1: whether the mesh network finds a face in the crop at all
    yaw_deg: float  # positive: turned to the right of the picture; a full profile reads about 50
    pitch_deg: float  # positive: looks up
    roll_deg: float  # positive: tilted clockwise as seen in the picture; 180: upside down
    mouth_open: float  # distance of the inner lips over the face's height
    eyes_open: float  # of the more closed eye: distance of the lids over the eye's width; .2 to .3
    sharpness: float  # 0..1 of the face at 64 pixels of height, free of its contrast; sharp: .35
    luma: float  # mean over nose and cheeks, 0..1
    burnt: float  # share of nose and cheeks that is as good as white
    black: float  # share of nose and cheeks that is as good as black
    outside: float  # share of the face beyond the edges of the picture


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFacts:
    """The faces of one frame that was looked at, largest first. It stands until the next."""

    time_s: float
    faces: tuple[Face, ...]
    number: int = 0  # among the decoded frames, from 0
    look: FaceLook | None = None  # None: no sure face, or not looked at so closely
    stranger: float | None = None  # distance of the identity from the clip's own; None: not taken


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceFacts:
    """Every frame that was looked at, in order.

    A frame that was not differs nowhere much from the looked-at frame before it.
    """

    frames: tuple[FrameFacts, ...]
    interval_s: float  # at least one frame is looked at in such a time; 0 for a still image


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionFacts:
    """Every decoded frame beside the one before it, in small and grey. One entry for a frame.

    Changes are differences of grey levels, 0..255; the first frame's are 0.
    """

    times_s: tuple[float, ...]
    change: tuple[float, ...]  # mean over the picture
    block_change: tuple[float, ...]  # mean over the block that changes most
    luma: tuple[float, ...]  # mean grey level, 0..255
    dark: tuple[float, ...]  # share of the picture that is as good as black
    cuts: tuple["Cut", ...] = ()

    def timed(self, times_s: Sequence[float]) -> "MotionFacts":
        """The same frames at *times_s*, as many as both have."""
        frames = slice(min(len(times_s), len(self.times_s)))
        return MotionFacts(
            times_s=tuple(times_s[frames]),
            change=self.change[frames],
            block_change=self.block_change[frames],
            luma=self.luma[frames],
            dark=self.dark[frames],
            cuts=tuple(
                replace(cut, time_s=times_s[cut.number])
                for cut in self.cuts
                if cut.number < frames.stop
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A change from one frame to the next that no movement explains."""

    time_s: float
    score: float  # see validators/analysis/motion.py
    number: int = 0  # of the first frame after it


class OverlayKind(StrEnum):
    TEXT = "text"
    GRAPHIC = "graphic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """Something drawn over the picture. Shares of the frame, from its top left."""

    kind: OverlayKind
    left: float
    top: float
    width: float
    height: float
    confidence: float  # 0..1: that it lies over the picture and is no part of the scene
    shown: tuple[Range, ...] = ()  # empty for a still image


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayFacts:
    """What was found on the frames that were searched for it."""

    overlays: tuple[Overlay, ...]
    frames: int  # that were searched


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
    motion: MotionFacts | None = None
    overlays: OverlayFacts | None = None
    truncated: bool = False  # more came out of the decoder than any medium may hold: it was dropped
    strained: bool = False  # a tool was stopped for what it used up: a calmer machine may see more

    def heard(self, ranges: Iterable[Range]) -> tuple[Range, ...]:
        """*ranges* of the sound's own clock on that of the medium: sound may begin later."""
        audio = self.decode.audio if self.decode is not None else None
        late_s = audio.start_s - self.decode.start_s if audio and self.decode else 0.0
        return tuple((start + late_s, end + late_s) for start, end in ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFacts:
    """How alike two media of one avatar are. None: not both were given, or one shows too little.

    Compared in memory: neither face nor voice is described by what is kept.
    """

    face_distance: float | None = None  # between the image's face and the video's, 0: the same
    voice_similarity: float | None = None  # cosine of the recording's voice and the video's
    engines: dict[str, str] = field(default_factory=dict)
