"""Which engine compares voices, and how the analysis child is told.

The child gets this through its environment, like the folder of the weights. The hub's token goes
with it only where a pipeline of the hub is asked for.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

ENGINE_VARIABLE = "GREENROOM_SPEAKER_ENGINE"
DEVICE_VARIABLE = "GREENROOM_DEVICE"
PIPELINE_VARIABLE = "GREENROOM_PYANNOTE_PIPELINE"
TOKEN_VARIABLE = "GREENROOM_HUGGINGFACE_TOKEN"  # noqa: S105 - a name, not a token

_PACKAGES = ("torch", "torchaudio", "pyannote.audio")


class EngineName(StrEnum):
    ONNX = "onnx"
    PYANNOTE = "pyannote"


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


class EngineMissingError(Exception):
    """The chosen engine is not installed. Somebody of ours must act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerChoice:
    """What an operator chose. *device* and *pipeline* are pyannote's; onnx runs on the CPU."""

    engine: EngineName = EngineName.ONNX
    device: Device = Device.CPU
    pipeline: str = ""  # of the Hugging Face hub; empty: built here from pinned weights
    token: str | None = field(default=None, repr=False)

    @property
    def from_hub(self) -> bool:
        return self.engine is EngineName.PYANNOTE and bool(self.pipeline)

    @property
    def wants_weights(self) -> frozenset[str]:
        """The engines whose own weights must be here, as models.toml calls them."""
        local = self.engine is EngineName.PYANNOTE and not self.pipeline
        return frozenset({EngineName.PYANNOTE}) if local else frozenset()

    def environment(self) -> dict[str, str]:
        """What the child must be told; empty for what it would do anyway."""
        if self.engine is EngineName.ONNX:
            return {}
        told = {ENGINE_VARIABLE: self.engine.value, DEVICE_VARIABLE: self.device.value}
        if self.pipeline:
            told[PIPELINE_VARIABLE] = self.pipeline
        if self.from_hub and self.token:
            told[TOKEN_VARIABLE] = self.token
        return told

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Raises ValueError for an engine or a device that does not exist."""
        return cls(
            engine=EngineName(environ.get(ENGINE_VARIABLE, EngineName.ONNX)),
            device=Device(environ.get(DEVICE_VARIABLE, Device.CPU)),
            pipeline=environ.get(PIPELINE_VARIABLE, ""),
            token=environ.get(TOKEN_VARIABLE),
        )

    def expect_installed(self) -> None:
        """Raise EngineMissingError where the packages of the engine are not here; imports none."""
        if self.engine is EngineName.ONNX:
            return
        absent = [name for name in _PACKAGES if not _is_installed(name)]
        if absent:
            raise EngineMissingError(
                f"{ENGINE_VARIABLE}={self.engine} needs {', '.join(absent)}: "
                "install greenroom[pyannote]"
            )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is not here
        return False
