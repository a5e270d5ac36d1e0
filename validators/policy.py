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
    second_voice_score: float = 0.0  # log-odds; of 149 single voices one is above -0.9
    second_voice_margin: float = 0.5  # closer than this to the score is too close to call
    second_voice_s: float = 0.7  # the shortest run of speech that is compared: shorter only warns

    # Measured on speech, clean and spoiled.
    noisy_audio_warn_db: float = 18.0  # speech-to-noise; 60 clean recordings: 19.8 and more
    noisy_audio_fail_db: float = 13.0  # mixes at 5 dB: 11 at most; at 20 dB: 18.4 at least
    noisy_audio_margin_db: float = 1.0  # the measurement's own error
    background_warn: float = 0.06  # mean probability of music; clean speech: .02 at the 95th
    background_fail: float = 0.30  # a music bed: .74 and more; babble 20 dB down, fit to use: .27
    clipped_audio_warn_per_s: float = 2.0  # flat-topped runs; clean speech: 1.1 at most
    clipped_audio_fail_per_s: float = 5.0
    quiet_audio_warn_dbfs: float = -40.0
    speech_margin_s: float = 0.1  # how far voice activity may be off at its edges

    # Measured on frames, in grey levels of 0..255 and in seconds.
    scene_cut_fail: float = 6.0  # clean takes: 2.6 at most; cutaways: 9 at the 5th percentile
    scene_cut_margin: float = 1.0
    still_block: float = 0.5  # the block that changes most; live takes: .19 at the 10th percentile
    frozen_run_s: float = 0.5  # shorter standstills are repeated frames: live takes have 0.10
    frozen_warn_s: float = 0.5
    frozen_fail_s: float = 1.0  # good takes, 42 of them: 0
    black_share: float = 0.98  # of the picture; lit takes: .35 at most
    black_warn_s: float = 0.1  # as ffmpeg's blackdetect is mostly used
    black_fail_s: float = 0.5

    # Measured on faces.
    face_confidence: float = 0.80  # of the detector, for a face that counts alone
    faint_face_confidence: float = 0.60  # counts when seen in `faint_face_frames` frames
    faint_face_frames: int = 3
    faint_face_s: float = 0.5  # and for so long in all: looks may follow each other quickly
    agreed_face: float = 0.50  # what both networks say of a face fainter still, for it to count
    group_of_faces: int = 3  # so many certain faces confirm each other, small as they may be
    face_confirmation: float = 0.62  # of the second network; kills animals and pumpkins
    denied_confirmation: float = 0.30  # below it the second network says that it is no face
    edge: float = 0.02  # a box closer to the edge of the frame may be of a face that it cuts off
    face_missing_warn: float = 0.02  # share of the clip
    face_missing_fail: float = 0.10
    inside_main_face: float = 0.50  # share of a box; a second box on one face is no second face
    face_too_small_warn: float = 0.18  # height, as a share of the picture's shorter side
    face_too_small_fail: float = 0.10  # 72 pixels of 720p; of 41 good media none is under 0.22
    face_too_small_margin: float = 0.01  # how far the detector's boxes differ
    face_cut_off_warn: float = 0.05  # share of the face; good clips: 0.01 for a quarter of the time
    face_cut_off_fail: float = 0.30  # a face cut through the far eye: 0.25; through the nose: 0.61
    face_cut_off_margin: float = 0.05  # where the mesh puts what it does not see

    # Measured on the main face seen closely: 41 good media and 30 spoiled ones.
    lasting_share: float = 0.25  # of the time: what is exceeded for less is a passing movement
    face_presence: float = 0.90  # of the mesh network; below it a look means nothing
    certain_presence: float = 0.999  # of a face that nothing else confirms; pumpkins: 0.97
    face_aside_warn_deg: float = 26.0  # good media: 22 at most; "looks aside": 27
    face_aside_fail_deg: float = 42.0  # half a profile reads 44, a full one 47 to 55
    face_up_warn_deg: float = 30.0  # good media: 23 at most, filmed from below
    face_up_fail_deg: float = 42.0  # a guess: none was seen
    face_down_warn_deg: float = 20.0  # good media: 13 at most; "looks down": 25
    face_down_fail_deg: float = 35.0  # a guess: none was seen
    face_tilted_warn_deg: float = 26.0  # good media: 19 at most
    face_tilted_fail_deg: float = 45.0
    face_turned_margin_deg: float = 3.0  # how far two looks at one face differ
    blurry_warn: float = 0.25  # good media: 0.34 and more; blurred ones: 0.20 and less
    too_dark_warn: float = 0.20  # luma; good media: 0.41 and more; darkened ones: 0.07 and less
    too_bright_warn: float = 0.15  # burnt share; good media: 0.00; overexposed: 0.97
    still_mouth_warn: float = 0.0035  # face heights between quartiles; mumbled: 0.0079; stills: 0
    still_mouth_looks: int = 8  # fewer give no quartiles
    different_person: float = 0.53  # L2; one person in 31 clips: .495 at most; two: .56 at least
    different_person_margin: float = 0.03  # past the limit by so much, one sample is enough
    different_person_samples: int = 2

    # Measured on overlays, drawn over live takes and painted into their scenes.
    overlay_confidence_warn: float = 0.40  # prints in a scene, out of focus: .2 to .5
    overlay_confidence_fail: float = 0.70
    overlay_confidence_margin: float = 0.05
    overlay_confidence_on_face: float = 0.55  # no still image proves more than .6
    overlay_fail: float = 0.002  # share of the frame, of all together
    overlay_face_fail: float = 0.01  # share of the face that one covers

    # Measured on pairs of media.
    face_mismatch_fail: float = 0.62  # distance; one person: .50 at most, .69 in the dark
    face_mismatch_margin: float = 0.07  # different people: .54 at the 1st percentile
    voice_mismatch_fail: float = 0.35  # cosine of two voices; 99 of 100 pairs of two: below
    voice_mismatch_margin: float = 0.10  # one voice through another channel: .60 and more

    @property
    def label(self) -> str:
        return f"{self.name}-{self.version}"


STANDARD = Policy(name=PolicyName.STANDARD, version=1, uncertain_fails=False)
STRICT = Policy(name=PolicyName.STRICT, version=1, uncertain_fails=True)

POLICIES = {policy.name: policy for policy in (STANDARD, STRICT)}
