"""The sound of an accepted medium as one channel that the voice is in.

ffmpeg decodes in its sandbox; pydub only ever sees samples.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from pydub import AudioSegment

from validators.errors import ToolCrashedError, UnmeasuredError
from validators.facts import Facts, Range
from validators.media.command import arguments
from validators.media.reopen import expect_success, opened, sound_of
from validators.media.sandbox import Sandbox
from validators.policy import STANDARD

SAMPLE_BYTES = 4  # so that what is quiet loses nothing when it is made louder
STEREO = 2
CANCELLED_DB = 20.0  # a mean of two channels that much under the left one has lost the voice


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One channel of 32-bit samples, and where in it there is speech, in seconds."""

    sound: AudioSegment
    speech: tuple[Range, ...]


async def decode_voice(
    path: Path, facts: Facts, sandbox: Sandbox, *, ffmpeg_name: str, rate_hz: int
) -> Voice:
    """The sound at *rate_hz*. Raises InspectionError."""
    if facts.speech is None or not facts.speech.speech:
        raise UnmeasuredError("no speech was measured, so there is no voice")
    stream = sound_of(facts)
    channels = STEREO if stream.channels == STEREO else 1
    layout = "stereo" if channels == STEREO else "mono"
    longest_s = STANDARD.max_duration_s + 1
    wanted = f"aformat=sample_fmts=s32:sample_rates={rate_hz}:channel_layouts={layout}"
    last = f"atrim=end_sample={int(longest_s * rate_hz)}"
    sound = opened(path, facts, up_to_s=longest_s)[str(stream.index)]
    output = sound.output("pipe:1", f="s32le", af=f"{wanted},{last}")
    completed = await sandbox.run(arguments(output, ffmpeg_name=ffmpeg_name), reads=[path])
    expect_success(completed, path)
    heard = segment(completed.stdout, rate_hz=rate_hz, channels=channels)
    sound = await asyncio.to_thread(one_channel, heard, facts.speech.speech)
    return Voice(sound=sound, speech=facts.speech.speech)


def segment(data: bytes, *, rate_hz: int, channels: int) -> AudioSegment:
    """Interleaved samples of 32 bits; a last one that was cut short is dropped."""
    whole = len(data) // (SAMPLE_BYTES * channels) * SAMPLE_BYTES * channels
    if not whole:
        raise ToolCrashedError("a medium that was accepted has no sound any more")
    return AudioSegment(
        data=data[:whole], sample_width=SAMPLE_BYTES, frame_rate=rate_hz, channels=channels
    )


def one_channel(heard: AudioSegment, speech: tuple[Range, ...]) -> AudioSegment:
    """The mean of two channels, or the left one where they cancel each other."""
    if heard.channels != STEREO:
        return heard
    mean, left = heard.set_channels(1), heard.split_to_mono()[0]
    cancelled = spoken(mean, speech).dBFS < spoken(left, speech).dBFS - CANCELLED_DB
    return left if cancelled else mean


def spoken(sound: AudioSegment, speech: tuple[Range, ...]) -> AudioSegment:
    """The speech alone, its pauses cut out."""
    parts = [sound[milliseconds(start) : milliseconds(end)] for start, end in speech]
    return sum(parts[1:], parts[0])


def milliseconds(seconds: float) -> int:
    """The unit that pydub cuts in."""
    return round(seconds * 1000)
