"""A folder of labelled media: `manifest.csv`, and what its words mean for our checks."""

import csv
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from validators.facts import Kind
from validators.verdict import Code

MANIFEST = "manifest.csv"
NEEDED = ("file", "media", "expect", "reasons")


class Expect(StrEnum):
    ACCEPT = "accept"
    WARN = "warn"  # a borderline file: wrong in neither direction
    REJECT = "reject"


class ManifestError(ValueError):
    """The manifest cannot be used; the message names every row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One row."""

    name: str  # of the file, inside the folder
    path: Path
    kind: Kind
    expect: Expect
    reasons: tuple[str, ...] = ()
    origin: str = ""  # two files of one origin may show the same person
    second_voice_s: float | None = None
    second_face_share: float | None = None  # of the frame height


# The check that a reason is the fault of, then the checks that name the same fault as rightly.
# A reason without any is of something that no check promises to see.
REASONS: dict[str, tuple[Code, ...]] = {
    # people
    "multiple_faces": (Code.MULTIPLE_FACES,),
    "no_face": (Code.NO_FACE, Code.FACE_MISSING),
    "different_person": (Code.DIFFERENT_PERSON, Code.SCENE_CUT, Code.MULTIPLE_FACES),
    "small_face": (Code.FACE_TOO_SMALL, Code.NO_FACE),
    "face_cropped": (Code.FACE_CUT_OFF, Code.NO_FACE, Code.FACE_MISSING),
    "face_occluded": (),
    "pose": (Code.FACE_TURNED, Code.NO_FACE, Code.FACE_MISSING),
    "profile_pose": (Code.FACE_TURNED, Code.NO_FACE, Code.FACE_MISSING),
    "off_axis_gaze": (),
    "not_photorealistic": (),
    # sound
    "multiple_speakers": (Code.MULTIPLE_SPEAKERS,),
    "no_speech": (Code.NO_SPEECH, Code.TOO_LITTLE_SPEECH),
    "silent_audio": (Code.NO_SPEECH, Code.TOO_LITTLE_SPEECH, Code.NO_AUDIO_STREAM),
    "insufficient_speech": (Code.TOO_LITTLE_SPEECH, Code.NO_SPEECH),
    "no_clean_speech": (
        Code.BACKGROUND_AUDIO,
        Code.NOISY_AUDIO,
        Code.NO_SPEECH,
        Code.TOO_LITTLE_SPEECH,
    ),
    "background_music": (
        Code.BACKGROUND_AUDIO,
        Code.NOISY_AUDIO,
        Code.NO_SPEECH,
        Code.TOO_LITTLE_SPEECH,
    ),
    "singing": (Code.BACKGROUND_AUDIO, Code.NO_SPEECH, Code.TOO_LITTLE_SPEECH),
    "noisy": (Code.NOISY_AUDIO, Code.BACKGROUND_AUDIO),
    "noise_or_music_suspected": (Code.NOISY_AUDIO, Code.BACKGROUND_AUDIO),
    "clipping": (Code.CLIPPED_AUDIO,),
    "low_volume": (Code.QUIET_AUDIO,),
    "dropouts": (),
    "low_audio_bandwidth": (),
    "low_bitrate": (),
    "reverberant": (),
    "synthetic_speech": (),
    "unintelligible": (),
    "antiphase_stereo": (),
    "one_sided_stereo": (),
    # picture
    "scene_cut": (
        Code.SCENE_CUT,
        Code.DIFFERENT_PERSON,
        Code.MULTIPLE_FACES,
        Code.FACE_MISSING,
    ),
    "overlay": (Code.OVERLAY, Code.MULTIPLE_FACES, Code.SCENE_CUT),
    "static_face": (Code.STILL_MOUTH, Code.FROZEN_VIDEO),
    "blurry": (Code.BLURRY,),
    "low_light": (Code.TOO_DARK,),
    "overexposed": (Code.TOO_BRIGHT,),
    "low_resolution": (Code.LOW_RESOLUTION, Code.FACE_TOO_SMALL),
    "low_fps": (Code.LOW_FRAME_RATE,),
    "low_quality": (),
    "fully_transparent": (),
    "rotated": (),
    # the file
    "corrupt": (
        Code.UNREADABLE,
        Code.UNSUPPORTED_FORMAT,
        Code.DURATION_TOO_SHORT,
        Code.NO_VIDEO_STREAM,
        Code.NO_AUDIO_STREAM,
    ),
    "truncated": (Code.UNREADABLE, Code.DURATION_TOO_SHORT, Code.HEADER_MISMATCH),
    "lying_header": (
        Code.HEADER_MISMATCH,
        Code.UNREADABLE,
        Code.DURATION_TOO_SHORT,
        Code.DURATION_TOO_LONG,
    ),
    "lying_extension": (),
    "unsupported_format": (Code.UNSUPPORTED_FORMAT, Code.UNREADABLE),
    "unsafe_playlist": (Code.UNSUPPORTED_FORMAT, Code.UNREADABLE),
    "unsafe_reference": (Code.UNSUPPORTED_FORMAT, Code.UNREADABLE),
    "polyglot": (Code.UNSUPPORTED_FORMAT, Code.UNREADABLE),
    "unusual_format": (),
    "duration_too_short": (Code.DURATION_TOO_SHORT,),
    "duration_too_long": (Code.DURATION_TOO_LONG,),
    "av_length_mismatch": (),
    "no_audio": (Code.NO_AUDIO_STREAM, Code.NO_SPEECH),
    "no_video": (Code.NO_VIDEO_STREAM,),
    "multiple_audio_tracks": (Code.EXTRA_STREAMS,),
    "multiple_video_tracks": (Code.EXTRA_STREAMS,),
    "resolution_too_large": (Code.IMAGE_TOO_LARGE,),
    "animated_image": (Code.ANIMATED_IMAGE, Code.UNSUPPORTED_FORMAT),
}


def read_labels(folder: Path) -> list[Label]:
    """Every row of the folder's manifest. Raises ManifestError, or OSError where there is none."""
    with (folder / MANIFEST).open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        absent = [name for name in NEEDED if name not in (reader.fieldnames or ())]
        if absent:
            raise ManifestError(f"{MANIFEST} has no column {', '.join(absent)}")
        labels, wrong = list[Label](), list[str]()
        for number, row in enumerate(reader, 2):
            try:
                labels.append(_label(folder, row))
            except ValueError as exc:
                wrong.append(f"row {number}: {exc}")
    if wrong:
        raise ManifestError("; ".join(wrong))
    return labels


def _label(folder: Path, row: dict[str, str]) -> Label:
    path = folder / row["file"]
    if not path.is_file():
        raise ValueError(f"there is no file {row['file']}")
    return Label(
        name=row["file"],
        path=path,
        kind=Kind(row["media"]),
        expect=Expect(row["expect"]),
        reasons=tuple(filter(None, (word.strip() for word in row["reasons"].split(";")))),
        origin=(row.get("source") or row["file"]).partition("@")[0],
        second_voice_s=_number(row, "second_voice_s"),
        second_face_share=_number(row, "second_face_share"),
    )


def _number(row: dict[str, str], column: str) -> float | None:
    text = row.get(column)
    return float(text) if text else None


def right_codes(label: Label) -> frozenset[Code]:
    """Any of these names a fault of the file."""
    return frozenset(code for reason in label.reasons for code in REASONS.get(reason, ()))
