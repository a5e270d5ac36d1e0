"""The verdict: public API. Codes are added, never renamed; every check of a kind is listed."""

from dataclasses import dataclass, field
from enum import StrEnum

from validators.facts import Kind, Range


class Code(StrEnum):
    """What a check is called in public, in the order in which verdicts list them."""

    UNREADABLE = "unreadable"
    UNSUPPORTED_FORMAT = "unsupported_format"
    DURATION_TOO_SHORT = "duration_too_short"
    DURATION_TOO_LONG = "duration_too_long"
    HEADER_MISMATCH = "header_mismatch"
    NO_VIDEO_STREAM = "no_video_stream"
    NO_AUDIO_STREAM = "no_audio_stream"
    EXTRA_STREAMS = "extra_streams"
    ANIMATED_IMAGE = "animated_image"
    IMAGE_TOO_LARGE = "image_too_large"
    LOW_RESOLUTION = "low_resolution"
    LOW_FRAME_RATE = "low_frame_rate"
    NO_SPEECH = "no_speech"
    TOO_LITTLE_SPEECH = "too_little_speech"
    MULTIPLE_SPEAKERS = "multiple_speakers"
    BACKGROUND_AUDIO = "background_audio"
    NOISY_AUDIO = "noisy_audio"
    CLIPPED_AUDIO = "clipped_audio"
    QUIET_AUDIO = "quiet_audio"
    NO_FACE = "no_face"
    FACE_MISSING = "face_missing"
    MULTIPLE_FACES = "multiple_faces"
    DIFFERENT_PERSON = "different_person"
    FACE_TOO_SMALL = "face_too_small"
    FACE_CUT_OFF = "face_cut_off"
    FACE_TURNED = "face_turned"
    BLURRY = "blurry"
    TOO_DARK = "too_dark"
    TOO_BRIGHT = "too_bright"
    SCENE_CUT = "scene_cut"
    OVERLAY = "overlay"
    FROZEN_VIDEO = "frozen_video"
    BLACK_FRAMES = "black_frames"
    STILL_MOUTH = "still_mouth"


class PairCode(StrEnum):
    """Checks of two media of one avatar."""

    FACE_MISMATCH = "face_mismatch"
    VOICE_MISMATCH = "voice_mismatch"


class Outcome(StrEnum):
    PASS = "pass"  # noqa: S105 - an outcome, not a password
    WARN = "warn"
    FAIL = "fail"
    UNCERTAIN = "uncertain"
    SKIPPED = "skipped"


class Decision(StrEnum):
    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyFinding:
    """One check's outcome: what was measured, against what, and where in time (seconds)."""

    code: StrEnum
    outcome: Outcome
    value: float | None = None
    limit: float | None = None
    unit: str | None = None
    ranges: tuple[Range, ...] = ()
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(AnyFinding):
    """Of a check of one medium."""

    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFinding(AnyFinding):
    """Of a check of two media of one avatar. It has no place in time."""

    code: PairCode


@dataclass(frozen=True, slots=True, kw_only=True)
class PairVerdict:
    """Both pair checks of one avatar, whichever media it has. Accepted when neither fails."""

    verdict: Decision
    policy: str
    engines: dict[str, str] = field(default_factory=dict)
    checks: tuple[PairFinding, ...]

    @property
    def accepted(self) -> bool:
        return self.verdict is Decision.ACCEPTED

    @property
    def failed(self) -> tuple[PairCode, ...]:
        return tuple(finding.code for finding in self.checks if finding.outcome is Outcome.FAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """The medium in one glance. Fields that its kind does not have are None."""

    kind: Kind
    duration_s: float | None = None
    width: int | None = None  # in display orientation, pixels square
    height: int | None = None
    fps: float | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    rotation_deg: int | None = None
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All findings of one medium. Accepted when none fails."""

    verdict: Decision
    policy: str
    engines: dict[str, str] = field(default_factory=dict)
    media: Media
    checks: tuple[Finding, ...]

    @property
    def accepted(self) -> bool:
        return self.verdict is Decision.ACCEPTED

    @property
    def failed(self) -> tuple[Code, ...]:
        return tuple(finding.code for finding in self.checks if finding.outcome is Outcome.FAIL)
