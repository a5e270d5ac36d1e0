"""One voice or two: segmentation-3.0 and CAM++, each once over the whole recording."""

from pathlib import Path
from typing import Protocol

import kaldi_native_fbank as knf
import numpy as np

from validators.analysis.models.sessions import session
from validators.analysis.models.speaker_features import (
    SEGMENTATION_LEAD_S,
    SEGMENTATION_STEP_S,
    Floats,
    activity,
    by_presence,
    is_turn,
    least_alike,
    length_s,
    pooled,
    ranges_of,
    score,
    second_part,
    segmentation_features,
    spoken_frames,
    union,
)
from validators.analysis.models.speech import Samples, as_samples
from validators.analysis.weights import path_of
from validators.analysis.wire import SAMPLE_RATE_HZ
from validators.facts import Range, SpeakerFacts

MIN_SPEECH_S = 1.5  # with less there is nothing to compare

# How the second voice is placed in time. Neither decides whether there is one: the score does.
_ACTIVE = 0.5  # probability at which segmentation's second speaker is taken to speak
_BRIDGE_S, _CRUMB_S = 0.3, 0.2


class SpeakerEngine(Protocol):
    """Tells whether one voice speaks or two, and describes the voice. Samples are s16le."""

    @property
    def name(self) -> str:
        """What the verdict calls it; changes whenever its answers may."""
        ...

    def measure(self, pcm: bytes, speech: tuple[Range, ...], /) -> SpeakerFacts:
        """*speech*: where the voice activity net heard some, in seconds."""
        ...

    def embed(self, pcm: bytes, speech: tuple[Range, ...], /) -> Floats | None:
        """(192,), of length 1: the cosine of two says how alike they are. None of too little."""
        ...


class Speakers:
    """The engine that needs ONNX Runtime alone. Not to be shared between threads."""

    def __init__(self, models_dir: Path | None, *, name: str = "onnx") -> None:
        self.name = name
        self._segmentation = session(path_of("segmentation-3.0.onnx", models_dir))
        self._voices = Voices(models_dir)

    def measure(self, pcm: bytes, speech: tuple[Range, ...]) -> SpeakerFacts:
        if length_s(speech) < MIN_SPEECH_S:
            return SpeakerFacts(score=None, second_voice_s=0.0)
        samples = as_samples(pcm)
        log_probabilities = self._segmentation.run(None, {"x": samples[None, None]})[0][0]
        second = overlapped(log_probabilities)
        features = segmentation_features(log_probabilities)
        frames = self._voices.frames(samples)
        spoken = spoken_frames(frames.shape[1], speech)
        if split := least_alike(frames[:, spoken], self._voices.embed_pools):
            features["unlike"] = split.unlike
            if is_turn(features):
                run = np.zeros_like(spoken)
                run[np.flatnonzero(spoken)[split.first : split.last]] = True
                second = union(second, second_part(run, spoken, second))
        return SpeakerFacts(
            score=score(features),
            second_voice_s=length_s(second),
            second_voice=second,
            features=features,
        )

    def embed(self, pcm: bytes, speech: tuple[Range, ...]) -> Floats | None:
        return voice_of(self._voices, pcm, speech)


class Voices:
    """CAM++ in two parts: the costly one runs once, then any part of it is quickly described."""

    def __init__(self, models_dir: Path | None) -> None:
        self._frames = session(path_of("campplus.onnx", models_dir))
        self._pools = session(path_of("campplus-voice.onnx", models_dir))

    def frames(self, samples: Samples) -> Floats:
        """(512, frames), one every 20 ms. *samples*: -1..1, a tenth of a second or more."""
        bank = filter_bank(samples)
        frames: Floats = self._frames.run(None, {"x": (bank - bank.mean(axis=0))[None]})[0][0]
        return frames

    def embed(self, frames: Floats) -> Floats:
        """The unit embedding (192,) of (512, n) frames."""
        embedding: Floats = self.embed_pools(pooled(frames))[0]
        return embedding

    def embed_pools(self, pools: Floats) -> Floats:
        """(n, 1024) means and deviations of frames to (n, 192) unit embeddings."""
        embeddings: Floats = self._pools.run(None, {"x": pools})[0]
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True) + 1e-9
        return embeddings


def voice_of(voices: Voices, pcm: bytes, speech: tuple[Range, ...]) -> Floats | None:
    """The unit embedding of all speech together; None of less than MIN_SPEECH_S."""
    if length_s(speech) < MIN_SPEECH_S:
        return None
    frames = voices.frames(as_samples(pcm))
    spoken = spoken_frames(frames.shape[1], speech)
    return voices.embed(frames[:, spoken]) if spoken.any() else None


def overlapped(log_probabilities: Floats) -> tuple[Range, ...]:
    """Where segmentation's second speaker talks, alone or over the first."""
    second = by_presence(activity(log_probabilities))[:, 1]
    return ranges_of(
        second >= _ACTIVE,
        step_s=SEGMENTATION_STEP_S,
        lead_s=SEGMENTATION_LEAD_S,
        bridge_s=_BRIDGE_S,
        least_s=_CRUMB_S,
    )


def filter_bank(samples: Samples) -> Floats:
    """(frames, 80): Kaldi's, a frame of 25 ms every 10 ms, no dither, samples in -1..1."""
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = SAMPLE_RATE_HZ
    options.mel_opts.num_bins = 80
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(SAMPLE_RATE_HZ, samples)
    bank.input_finished()
    return np.stack([bank.get_frame(at) for at in range(bank.num_frames_ready)])
