"""One voice or two: segmentation-3.0 over the whole recording, CAM++ over its windows."""

from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import onnxruntime

from validators.analysis.models.speaker_features import (
    MIN_WINDOWS,
    SEGMENTATION_LEAD_S,
    SEGMENTATION_STEP_S,
    WINDOW_S,
    Floats,
    Parts,
    activity,
    best_split,
    by_presence,
    cosine,
    embedding_features,
    intersection,
    is_turn,
    length_s,
    parts_of,
    ranges_of,
    score,
    second_part,
    segmentation_features,
    union,
)
from validators.analysis.models.speech import Samples, as_samples
from validators.analysis.weights import path_of
from validators.analysis.wire import SAMPLE_RATE_HZ
from validators.facts import Range, SpeakerFacts

MIN_SPEECH_S = 1.5  # one window: with less there is nothing to compare

_HOP_S = 0.75
_MIN_SPOKEN_SHARE = 0.6  # of a window whose voice is worth comparing
_BANK_FRAMES_PER_S = 100
_WINDOW_FRAMES = 148  # filter-bank frames of 25 ms that fit into a window
_BATCH = 4  # windows at once: more is no faster on one thread and costs memory

# How the second voice is placed in time. Neither decides whether there is one: the score does.
_ACTIVE = 0.5  # probability at which segmentation's second speaker is taken to speak
_BRIDGE_S, _CRUMB_S = 0.3, 0.2

_DOUBTFUL = 0.75  # cosine of the split's windows above which whole parts were always alike
_MIN_PART_S = 1.4  # shorter parts of one voice fell to 0.49


class Speakers:
    """Two ONNX sessions of one thread each."""

    def __init__(self, models_dir: Path | None) -> None:
        self._segmentation = _session(path_of("segmentation-3.0.onnx", models_dir))
        self._embedding = _session(path_of("campplus.onnx", models_dir))

    def measure(self, pcm: bytes, speech: tuple[Range, ...]) -> SpeakerFacts:
        """*speech*: where the voice activity net heard some, in seconds."""
        if length_s(speech) < MIN_SPEECH_S:
            return SpeakerFacts(score=None, second_voice_s=0.0)
        samples = as_samples(pcm)
        log_probabilities = self._segmentation.run(None, {"x": samples[None, None]})[0][0]
        second = overlapped(log_probabilities)
        features = segmentation_features(log_probabilities)
        starts_s = window_starts(len(samples) / SAMPLE_RATE_HZ, speech)
        if len(starts_s) >= MIN_WINDOWS:
            bank = filter_bank(samples)
            embeddings = self._windows(bank, starts_s)
            features |= embedding_features(embeddings)
            parts = parts_of(best_split(embeddings), starts_s, speech)
            features["cam_parts"] = self._part_similarity(bank, parts, features["cam_seg"])
            if is_turn(features):
                second = union(second, second_part(parts, second))
        return SpeakerFacts(
            score=score(features),
            second_voice_s=length_s(second),
            second_voice=second,
            features=features,
        )

    def _windows(self, bank: Floats, starts_s: list[float]) -> Floats:
        """Unit embeddings (windows, 192) of the windows that start at *starts_s*."""
        firsts = [round(start * _BANK_FRAMES_PER_S) for start in starts_s]
        windows = np.stack([bank[at : at + _WINDOW_FRAMES] for at in firsts])
        batches = [self._embed(windows[at : at + _BATCH]) for at in range(0, len(windows), _BATCH)]
        return np.concatenate(batches)

    def _part_similarity(self, bank: Floats, parts: Parts, split_similarity: float) -> float:
        """Cosine of one embedding for each whole part; 1 where not worth asking.

        A whole part says far more about its voice than the mean of its windows, and costs as
        much as all windows together: so only where the windows left a doubt.
        """
        if split_similarity > _DOUBTFUL or min(map(length_s, parts)) < _MIN_PART_S:
            return 1.0
        one, other = (self._embed(_frames_in(bank, part)[None])[0] for part in parts)
        return cosine(one, other)

    def _embed(self, windows: Floats) -> Floats:
        """(n, frames, 80) filter banks to (n, 192) unit embeddings."""
        centred = windows - windows.mean(axis=1, keepdims=True)
        embeddings: Floats = self._embedding.run(None, {"x": centred})[0]
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        return embeddings


def window_starts(duration_s: float, speech: tuple[Range, ...]) -> list[float]:
    """Every 0.75 s, a window of 1.5 s, if most of it is speech."""
    starts = np.arange(0, duration_s - WINDOW_S + 1e-6, _HOP_S)
    return [
        float(start) for start in starts if _spoken_share(float(start), speech) >= _MIN_SPOKEN_SHARE
    ]


def _spoken_share(start: float, speech: tuple[Range, ...]) -> float:
    inside = intersection(((start, start + WINDOW_S),), speech)
    return length_s(inside) / WINDOW_S


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


def _frames_in(bank: Floats, part: tuple[Range, ...]) -> Floats:
    at = (np.arange(len(bank)) + 0.5) / _BANK_FRAMES_PER_S
    chosen = np.logical_or.reduce([(start <= at) & (at < end) for start, end in part])
    return bank[chosen]


def filter_bank(samples: Samples) -> Floats:
    """(frames, 80): Kaldi's, a frame of 25 ms every 10 ms, no dither, samples in -1..1."""
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = SAMPLE_RATE_HZ
    options.mel_opts.num_bins = 80
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(SAMPLE_RATE_HZ, samples.tolist())
    bank.input_finished()
    return np.stack([bank.get_frame(at) for at in range(bank.num_frames_ready)])


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
