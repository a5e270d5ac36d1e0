"""pyannote.audio's own diarization behind SpeakerEngine: the only file that runs torch.

By default the pipeline is built here, from segmentation-3.0 as it was published and from our
CAM++, and nothing leaves the machine. An operator may name a pipeline of the Hugging Face hub
instead. Voices of two recordings are compared by CAM++ in both cases, so that the policy's limits
mean the same.
"""

import os
import sys
import types
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from validators.analysis.models.speaker_features import Floats, length_s, union
from validators.analysis.models.speakers import MIN_SPEECH_S, Voices, voice_of
from validators.analysis.models.speech import as_samples
from validators.analysis.speaker_choice import SpeakerChoice
from validators.analysis.weights import path_of
from validators.analysis.wire import SAMPLE_RATE_HZ
from validators.facts import Range, SpeakerFacts

_SEGMENTATION = "segmentation-3.0.bin"
_OUR_PIPELINE = {
    "segmentation": {"min_duration_off": 0.0},
    "clustering": {"method": "centroid", "min_cluster_size": 2, "threshold": 1.0},
}
_FEWEST_FRAMES = 25  # of CAM++, half a second: a shorter voice has no place among the others

# On the scale of the other engine's log-odds, whose limit is 0: from 0.55 s on it is sure.
_SCORE_PER_S, _SCORE_OF_NONE = 2.0, -0.6


class PyannoteSpeakers:
    """Not to be shared between threads. Loading takes seconds and half a gigabyte."""

    def __init__(self, models_dir: Path | None, choice: SpeakerChoice) -> None:
        """Raises EngineMissingError, WeightsError, or RuntimeError where the hub gives nothing."""
        choice.expect_installed()
        self._voices = Voices(models_dir)
        _quieten(from_hub=choice.from_hub)
        self._torch = import_module("torch")
        self._torch.set_num_threads(1)
        _let_torchaudio_load_without_cuda(self._torch)
        self._pipeline = (
            _pipeline_of_hub(choice)
            if choice.from_hub
            else _pipeline_of_ours(models_dir, self._voices)
        )
        self._pipeline.to(self._torch.device(choice.device.value))
        self.name = engine_name(choice)

    def measure(self, pcm: bytes, speech: tuple[Range, ...]) -> SpeakerFacts:
        """The second voice is all that is said by anybody but who speaks longest."""
        if length_s(speech) < MIN_SPEECH_S:
            return SpeakerFacts(score=None, second_voice_s=0.0)
        waveform = self._torch.from_numpy(as_samples(pcm).copy())[None]
        output = self._pipeline({"waveform": waveform, "sample_rate": SAMPLE_RATE_HZ})
        return facts_of(turns_of(getattr(output, "speaker_diarization", output)))

    def embed(self, pcm: bytes, speech: tuple[Range, ...]) -> Floats | None:
        return voice_of(self._voices, pcm, speech)


def engine_name(choice: SpeakerChoice) -> str:
    return f"pyannote:{choice.pipeline or 'seg3+campplus'}"


def turns_of(diarization: Any) -> dict[str, tuple[Range, ...]]:  # noqa: ANN401 - pyannote.core's
    """When each speaker talks, from a pyannote.core Annotation."""
    return {
        str(label): union(
            tuple((float(s.start), float(s.end)) for s in diarization.label_timeline(label))
        )
        for label in diarization.labels()
    }


def facts_of(turns: dict[str, tuple[Range, ...]]) -> SpeakerFacts:
    ordered = sorted(turns.values(), key=length_s, reverse=True)
    second = union(*ordered[1:])
    second_s = length_s(second)
    return SpeakerFacts(
        score=_SCORE_PER_S * second_s + _SCORE_OF_NONE,
        second_voice_s=second_s,
        second_voice=second,
        features={"speakers": float(len(ordered))},
    )


class _Embedding:
    """CAM++ with the attributes and the call that pyannote expects of a speaker embedding."""

    sample_rate = SAMPLE_RATE_HZ
    dimension = 192
    metric = "cosine"
    min_num_samples = SAMPLE_RATE_HZ // 2  # with less alone, a voice is taken with its overlap

    def __init__(self, voices: Voices) -> None:
        self._voices = voices

    def to(self, _: object) -> "_Embedding":
        """It stays on the processor."""
        return self

    def __call__(self, waveforms: Any, masks: Any = None) -> Floats:  # noqa: ANN401 - tensors
        """(batch, 1, samples) and (batch, frames) to (batch, 192); NaN for too short a voice."""
        if masks is None:
            masks = np.ones((len(waveforms), 1))
        pairs = zip(np.asarray(waveforms)[:, 0], np.asarray(masks), strict=True)
        return np.stack([self._of(waveform, mask) for waveform, mask in pairs])

    def _of(self, waveform: Floats, mask: Floats) -> Floats:
        frames = self._voices.frames(waveform)
        nearest = (np.arange(frames.shape[1]) + 0.5) * len(mask) / frames.shape[1]
        chosen = frames[:, mask[nearest.astype(int)] > 0.5]  # noqa: PLR2004 - active or not
        if chosen.shape[1] < _FEWEST_FRAMES:
            return np.full(self.dimension, np.nan, np.float32)
        return self._voices.embed(chosen)


def _pipeline_of_ours(models_dir: Path | None, voices: Voices) -> Any:  # noqa: ANN401 - a Pipeline
    """pyannote's SpeakerDiarization with both networks from pinned files.

    The checkpoint is a pickle: `path_of` has proven that it is the reviewed one.
    """
    audio = import_module("pyannote.audio")
    checkpoint = str(path_of(_SEGMENTATION, models_dir))
    segmentation = audio.Model.from_pretrained(checkpoint)
    plda = import_module("pyannote.audio.core.plda").PLDA
    pipeline = import_module("pyannote.audio.pipelines").SpeakerDiarization(
        segmentation=segmentation,
        embedding=segmentation,  # stands in until ours is put in its place: it takes no object
        embedding_exclude_overlap=True,
        plda=plda.__new__(plda),  # of no use to this clustering, but None is refused
        clustering="AgglomerativeClustering",
    )
    pipeline._embedding = _Embedding(voices)  # noqa: SLF001 - there is no other way in
    return pipeline.instantiate(_OUR_PIPELINE)


def _pipeline_of_hub(choice: SpeakerChoice) -> Any:  # noqa: ANN401 - a Pipeline
    pipeline = import_module("pyannote.audio").Pipeline.from_pretrained(
        choice.pipeline, token=choice.token
    )
    if pipeline is None:
        raise RuntimeError(f"the hub gave no pipeline {choice.pipeline}: check name and token")
    return pipeline


def _quieten(*, from_hub: bool) -> None:
    """No telemetry, and no hub unless asked for. pyannote reads both when it is imported."""
    os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
    if not from_hub:
        os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore", message=r"(?s).*torchcodec.*")  # samples are decoded already


def _let_torchaudio_load_without_cuda(torch: Any) -> None:  # noqa: ANN401 - a module
    """Put torchaudio in the state that it has itself where its compiled part is absent.

    Its wheel on PyPI links CUDA and fails to import beside a torch without it. pyannote uses
    only its parts in Python.
    """
    if torch.version.cuda is not None or "torchaudio" in sys.modules:
        return
    extension = types.ModuleType("torchaudio._extension")
    vars(extension).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        fail_if_no_align=lambda function: function,
    )
    sys.modules["torchaudio._extension"] = extension
