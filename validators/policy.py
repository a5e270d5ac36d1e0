"""The thresholds, by name and version. No other module holds one.

A check with two thresholds warns at the first and fails at the second. Start values come from
measurements on labelled media; where a value is the contract's own it says so.
"""

from dataclasses import dataclass
from enum import StrEnum


class PolicyName(StrEnum):
    STANDARD = "standard"
    STRICT = "strict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Limits are inclusive: a value equal to its limit is still good."""

    name: PolicyName
    version: int
    uncertain_fails: bool  # how `uncertain` counts

    # contract: DESIGN and CONTRACT fix these
    min_duration_s: float = 4.0
    max_duration_s: float = 15.0
    duration_tolerance_s: float = 0.005
    max_frame_tolerance_s: float = 0.070  # above the maximum: one frame, unless it is slow
    lossy_audio_tolerance_s: float = 0.050  # above the maximum, where padding is unknown
    clock_error_s: float = 0.5  # sound that holds so much more than its times say is no recording
    min_decoded_share: float = 0.90
    lost_packets: int = 3  # always forgiven: encoder delay swallows the first ones
    max_image_pixels: int = 50_000_000
    max_frame_pixels: int = 8_300_000
    max_video_pixels: int = 8_000_000_000  # of all frames: 4K at 60 fps for 15 s; decodes in 20 s
    header_mismatch_s: float = 0.5
    low_resolution_warn_px: int = 512
    low_resolution_fail_px: int = 256
    low_frame_rate_warn_fps: float = 15.0
    too_little_speech_warn_s: float = 3.0
    too_little_speech_fail_s: float = 2.0

    # Measured on voices.
    second_voice_score: float = 0.6  # log-odds; of 108 clean single voices none is over 0.32
    second_voice_margin: float = 0.2  # closer than this to the score is too close to call
    second_voice_s: float = 1.0  # shorter second voices are not reliably found, so only warn

    # Measured on speech, clean and spoiled.
    noisy_audio_warn_db: float = 20.0  # speech-to-noise; clean speech: 22 at the 5th percentile
    noisy_audio_fail_db: float = 15.0
    noisy_audio_margin_db: float = 1.0  # the measurement's own error
    background_warn: float = 0.06  # mean probability of music; clean speech: .02 at the 95th
    background_fail: float = 0.30  # a music bed: .74 and more; babble 20 dB down, fit to use: .27
    clipped_audio_warn_per_s: float = 2.0  # flat-topped runs; clean speech: 1.1 at most
    clipped_audio_fail_per_s: float = 5.0
    quiet_audio_warn_dbfs: float = -40.0
    speech_margin_s: float = 0.1  # how far voice activity may be off at its edges

    # Measured on faces.
    face_confidence: float = 0.80  # of the detector, for a face that counts alone
    faint_face_confidence: float = 0.60  # counts when seen in `faint_face_frames` frames
    faint_face_frames: int = 3
    face_confirmation: float = 0.62  # of the second network; kills animals and pumpkins
    denied_confirmation: float = 0.30  # below it the second network says that it is no face
    edge: float = 0.02  # a box closer to the edge of the frame may be of a face that it cuts off
    face_missing_warn: float = 0.02  # share of the clip
    face_missing_fail: float = 0.10
    inside_main_face: float = 0.50  # share of a box; a second box on one face is no second face
    face_too_small_warn: float = 0.15  # height, as a share of the frame's
    face_too_small_fail: float = 0.08
    face_cut_off_warn: float = 0.02  # share of the box outside the frame
    face_cut_off_fail: float = 0.15

    @property
    def label(self) -> str:
        return f"{self.name}-{self.version}"


STANDARD = Policy(name=PolicyName.STANDARD, version=1, uncertain_fails=False)
STRICT = Policy(name=PolicyName.STRICT, version=1, uncertain_fails=True)

POLICIES = {policy.name: policy for policy in (STANDARD, STRICT)}
