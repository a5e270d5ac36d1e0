"""The voice reference: the speech of a recording, mono, trimmed and at one loudness, as WAV."""

import asyncio
import hashlib
import io
from pathlib import Path

import webrtcvad
from pydub import AudioSegment

from validators.derive.derived import Derived
from validators.facts import Facts, Range
from validators.inspect import Tools
from validators.media.reopen import sound_of
from validators.media.voice import Voice, decode_voice, milliseconds, spoken

HIGHEST_HZ = 48_000
BYTES_WRITTEN = 2  # of a sample

# Root mean square of the speech alone. Peaks of speech lie 15 to 18 dB above it, so they stay
# under the ceiling almost always; where they would not, the gain is less. Nothing is limited.
SPEECH_DBFS = -20.0
PEAK_DBFS = -1.0

LEAD_S, TAIL_S = 0.10, 0.20  # kept before and after the speech
FADE_MS = 10  # so that a cut into room tone does not click

VAD_HZ, VAD_FRAME_MS = 16_000, 10
VAD_MODE = 2  # of 0..3, the higher the less is speech
SURE_FRAMES = 3  # in a row: a single one may be a click
SEARCHED_S = 0.3  # around the ends that the models gave, whose own error is 0.1 s


async def voice_reference(path: Path, facts: Facts, out: Path, tools: Tools) -> Derived:
    """See `recipes.derive`. At the source's own rate, up to 48 kHz."""
    rate_hz = min(sound_of(facts).sample_rate_hz or HIGHEST_HZ, HIGHEST_HZ)
    voice = await decode_voice(
        path, facts, tools.sandbox, ffmpeg_name=tools.ffmpeg, rate_hz=rate_hz
    )
    return await asyncio.to_thread(_write, voice, out)


def _write(voice: Voice, out: Path) -> Derived:
    """Blocks."""
    reference = shaped(voice)
    file = io.BytesIO()
    reference.export(file, format="wav")
    content = file.getvalue()
    out.write_bytes(content)
    return Derived(
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        duration_s=round(reference.duration_seconds, 3),
    )


def shaped(voice: Voice) -> AudioSegment:
    """Samples of 16 bits: the speech, what lies within and a little around it, levelled."""
    levelled = voice.sound.apply_gain(gain_db(voice))
    start_s, end_s = ends(voice)
    kept = levelled[milliseconds(max(0.0, start_s - LEAD_S)) : milliseconds(end_s + TAIL_S)]
    return kept.set_sample_width(BYTES_WRITTEN).fade_in(FADE_MS).fade_out(FADE_MS)


def gain_db(voice: Voice) -> float:
    """What brings the speech to its level, or the peak to its ceiling where that is less."""
    speech_dbfs, peak_dbfs = spoken(voice.sound, voice.speech).dBFS, voice.sound.max_dBFS
    return float(min(SPEECH_DBFS - speech_dbfs, PEAK_DBFS - peak_dbfs))


def ends(voice: Voice) -> Range:
    """First and last moment of speech in seconds, to one frame of voice activity."""
    voiced = _voiced(voice.sound)
    length_s = len(voiced) * VAD_FRAME_MS / 1000
    first_s = _onset(voiced, voice.speech[0][0])
    after_s = _onset(voiced[::-1], length_s - voice.speech[-1][1])
    return first_s, length_s - after_s


def _voiced(sound: AudioSegment) -> list[bool]:
    """Whether each frame of 10 ms is speech, by webrtcvad."""
    detector = webrtcvad.Vad(VAD_MODE)
    pcm = sound.set_frame_rate(VAD_HZ).set_sample_width(BYTES_WRITTEN).raw_data
    step = VAD_HZ * VAD_FRAME_MS // 1000 * BYTES_WRITTEN
    starts = range(0, len(pcm) - step + 1, step)
    return [bool(detector.is_speech(pcm[at : at + step], VAD_HZ)) for at in starts]


def _onset(voiced: list[bool], about_s: float) -> float:
    """Start of the first voiced run within reach of *about_s*; *about_s* where there is none."""
    per_s = 1000 // VAD_FRAME_MS
    first = max(0, round((about_s - SEARCHED_S) * per_s))
    last = min(len(voiced) - SURE_FRAMES, round((about_s + SEARCHED_S) * per_s))
    for at in range(first, last + 1):
        if all(voiced[at : at + SURE_FRAMES]):
            return at / per_s
    return about_s
