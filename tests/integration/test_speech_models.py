"""The real networks on speech that is made here: espeak-ng talks, ffmpeg joins and mixes."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from validators.analysis.models.speakers import Speakers
from validators.analysis.models.speech import Speech, snr_db
from validators.facts import SpeakerFacts, SpeechFacts

ONE = "The green room is where guests wait before they go on stage, and the tea is always warm."
OTHER = (
    "Good evening, we will begin in a few minutes, so please take your seats and enjoy the show."
)
MAN, WOMAN = ("-v", "en-us"), ("-v", "en-us+f3", "-p", "80")

Measure = Callable[[bytes], tuple[SpeechFacts, SpeakerFacts]]


@pytest.fixture(scope="module")
def measure() -> Measure:
    speech, speakers = Speech(None), Speakers(None)

    def both(pcm: bytes) -> tuple[SpeechFacts, SpeakerFacts]:
        facts = speech.measure(pcm)
        return facts, speakers.measure(pcm, facts.speech)

    return both


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("voices")


def pcm_of(*arguments: str) -> bytes:
    command = ["ffmpeg", "-v", "error", *arguments, "-ar", "16000", "-ac", "1", "-f", "s16le", "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def said(folder: Path, text: str, voice: tuple[str, ...]) -> bytes:
    path = folder / "said.wav"
    subprocess.run(["espeak-ng", *voice, "-w", str(path), text], check=True)
    return pcm_of("-i", str(path))


def source(description: str) -> bytes:
    return pcm_of("-f", "lavfi", "-i", description)


def mixed(folder: Path, voice: bytes, description: str) -> bytes:
    """*voice* with *description*, a lavfi source, beneath."""
    path = folder / "voice.raw"
    path.write_bytes(voice)
    return pcm_of(
        *("-f", "s16le", "-ar", "16000", "-ac", "1", "-i", str(path)),
        *("-f", "lavfi", "-i", description),
        *("-filter_complex", "[0][1]amix=inputs=2:duration=first:normalize=0"),
    )


def test_one_voice_is_one_voice(measure: Measure, folder: Path) -> None:
    speech, speakers = measure(said(folder, ONE, MAN) + said(folder, OTHER, MAN))
    assert speech.speech_s == pytest.approx(speech.duration_s, abs=0.5)
    assert speakers.score is not None
    assert speakers.score < 0
    assert speakers.second_voice == ()


def test_a_second_voice_in_turn_is_placed_where_it_speaks(measure: Measure, folder: Path) -> None:
    before, second = said(folder, ONE, MAN), said(folder, OTHER, WOMAN)[: 3 * 32_000]
    after = said(folder, OTHER, MAN)
    _, speakers = measure(before + second + after)
    start = len(before) / 32_000
    assert speakers.score is not None
    assert speakers.score > 2
    assert speakers.second_voice_s == pytest.approx(3, abs=0.75)
    assert speakers.second_voice[0][0] == pytest.approx(start, abs=0.5)
    assert speakers.second_voice[-1][1] == pytest.approx(start + 3, abs=0.5)


@pytest.mark.parametrize("place", ["first", "within", "last"])
def test_a_second_voice_of_one_second_is_heard(measure: Measure, folder: Path, place: str) -> None:
    one, more = said(folder, ONE, MAN)[: 3 * 32_000], said(folder, OTHER, MAN)[: 3 * 32_000]
    second = said(folder, OTHER, WOMAN)[6_400 : 6_400 + 32_000]
    order = {"first": (second, one, more), "within": (one, second, more)}
    _, speakers = measure(b"".join(order.get(place, (one, more, second))))
    assert speakers.score is not None
    assert speakers.score > 0.5
    assert speakers.second_voice_s == pytest.approx(1, abs=0.4)


def test_two_voices_at_once_are_two(measure: Measure, folder: Path) -> None:
    path = folder / "over.raw"
    path.write_bytes(said(folder, ONE, MAN))
    other = folder / "other.raw"
    other.write_bytes(said(folder, OTHER, WOMAN))
    raw = ("-f", "s16le", "-ar", "16000", "-ac", "1", "-i")
    pcm = pcm_of(*raw, str(path), *raw, str(other), "-filter_complex", "[0][1]amix=inputs=2")
    _, speakers = measure(pcm)
    assert speakers.score is not None
    assert speakers.score > 2
    assert speakers.second_voice_s > 3


@pytest.mark.parametrize(
    "description",
    [
        "anullsrc=r=16000:cl=mono:d=6",
        "anoisesrc=r=16000:c=white:a=0.05:d=6",
        "sine=f=440:r=16000:d=6",
        "anoisesrc=r=16000:c=pink:a=0.3:d=6",
    ],
)
def test_what_is_no_speech_is_none(measure: Measure, description: str) -> None:
    speech, speakers = measure(source(description))
    assert speech.speech == ()
    assert speech.duration_s == pytest.approx(6, abs=0.01)
    assert (speech.snr_db, speech.loudness_dbfs, speakers.score) == (None, None, None)


def test_digital_silence_wakes_no_network(measure: Measure) -> None:
    speech, _ = measure(bytes(6 * 32_000))
    assert speech == SpeechFacts(duration_s=6.0, speech=(), clipped_runs_per_s=0.0)


@pytest.mark.parametrize("pcm", [b"", bytes(2), bytes(640), b"\x10\x20" * 300])
def test_next_to_nothing_is_measured_as_nothing(measure: Measure, pcm: bytes) -> None:
    speech, speakers = measure(pcm)
    assert speech.duration_s == len(pcm) / 32_000
    assert speech.speech == ()
    assert speakers == SpeakerFacts(score=None, second_voice_s=0.0)


def test_music_under_a_voice_is_heard(measure: Measure, folder: Path) -> None:
    voice = said(folder, ONE, WOMAN)
    chord = "+".join(
        f"0.08*sin(2*PI*{base}*t*(1+0.5*mod(floor(t*2)\\,3)))" for base in (220, 277.2, 329.6)
    )
    alone, _ = measure(voice)
    together, _ = measure(mixed(folder, voice, f"aevalsrc={chord}:s=16000"))
    assert alone.music_probability is not None
    assert together.music_probability is not None
    assert alone.music_probability < 0.12 < together.music_probability


def test_noise_under_a_voice_lowers_its_ratio_to_about_what_it_is(
    measure: Measure, folder: Path
) -> None:
    voice = said(folder, ONE, WOMAN) + bytes(32_000) + said(folder, OTHER, WOMAN)
    ratios = []
    for amplitude in (0.005, 0.05):
        speech, _ = measure(mixed(folder, voice, f"anoisesrc=r=16000:c=white:a={amplitude}"))
        assert speech.snr_db is not None
        ratios.append(speech.snr_db)
    assert ratios[0] - ratios[1] == pytest.approx(20, abs=3)  # ten times the noise


@pytest.mark.parametrize(
    "noise",
    [
        "aevalsrc=0.35*sin(2*PI*45*t):s=16000",
        "anoisesrc=r=16000:c=brown:a=0.9,lowpass=f=60,lowpass=f=60,volume=8dB",
        "anoisesrc=r=16000:c=white:a=0.5,volume='if(lt(mod(t,0.7),0.2),1,0)':eval=frame",
    ],
    ids=["hum", "rumble", "bursts"],
)
def test_noise_is_heard_below_the_voice_and_in_bursts(
    measure: Measure, folder: Path, noise: str
) -> None:
    """The median of the gaps misses bursts, and a high-pass alone misses rumble."""
    pause = bytes(2 * 32_000)
    voice = said(folder, ONE, WOMAN) + pause + said(folder, OTHER, WOMAN)
    clean, _ = measure(voice)
    noisy, _ = measure(mixed(folder, voice, noise))
    assert clean.snr_db is not None
    assert noisy.snr_db is not None
    assert noisy.snr_db < 13 < clean.snr_db - 5


def test_a_breath_in_a_gap_is_no_noise(measure: Measure, folder: Path) -> None:
    breath = source("anoisesrc=r=16000:c=pink:a=0.2:d=0.15")
    pause = bytes(24_000)
    voice = said(folder, ONE, WOMAN) + pause + breath + pause + said(folder, OTHER, WOMAN)
    speech, _ = measure(voice)
    assert speech.snr_db is not None
    assert speech.snr_db > 20


def test_digital_silence_gives_no_fantastic_ratio() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    samples = np.concatenate([tone * np.hanning(16_000), np.zeros(32_000)]).astype(np.float32)
    assert snr_db(samples, samples, ((0.0, 1.5),)) == 60


def test_a_telephone_is_neither_noise_nor_a_second_voice(measure: Measure, folder: Path) -> None:
    path = folder / "phone.raw"
    path.write_bytes(said(folder, ONE, MAN) + said(folder, OTHER, MAN))
    narrow = folder / "phone.wav"
    raw = ("-f", "s16le", "-ar", "16000", "-ac", "1", "-i", str(path))
    subprocess.run(
        ["ffmpeg", "-y", "-v", "error", *raw, "-ar", "8000", "-c:a", "pcm_mulaw", str(narrow)],
        check=True,
    )
    speech, speakers = measure(pcm_of("-i", str(narrow)))
    assert speech.snr_db is not None
    assert speech.snr_db > 18
    assert speakers.score is not None
    assert speakers.score < -0.5


def test_music_far_below_a_voice_is_heard(measure: Measure, folder: Path) -> None:
    """15 dB below: a root mean square of 0.03 under espeak-ng's 0.17."""
    voice = said(folder, ONE, WOMAN)
    chord = "+".join(
        f"0.024*sin(2*PI*{base}*t*(1+0.5*mod(floor(t*2)\\,3)))" for base in (220, 277.2, 329.6)
    )
    together, _ = measure(mixed(folder, voice, f"aevalsrc={chord}:s=16000"))
    assert together.music_probability is not None
    assert together.music_probability > 0.06


def test_a_clipped_voice_has_flat_tops_even_after_it_was_turned_down(
    measure: Measure, folder: Path
) -> None:
    voice = folder / "clean.raw"
    voice.write_bytes(said(folder, ONE, WOMAN))
    raw = ("-f", "s16le", "-ar", "16000", "-ac", "1", "-i", str(voice))
    clean, _ = measure(pcm_of(*raw))
    clipped, _ = measure(
        pcm_of(*raw, "-af", "volume=12dB:precision=fixed,volume=-10dB:precision=fixed")
    )
    assert clean.clipped_runs_per_s is not None
    assert clipped.clipped_runs_per_s is not None
    assert clean.clipped_runs_per_s < 5 < clipped.clipped_runs_per_s


def test_loudness_follows_the_volume_and_ignores_pauses(measure: Measure, folder: Path) -> None:
    voice = said(folder, ONE, WOMAN)
    path = folder / "loud.raw"
    path.write_bytes(voice + bytes(4 * 32_000))
    raw = ("-f", "s16le", "-ar", "16000", "-ac", "1", "-i", str(path))
    loud, _ = measure(voice)
    quiet, _ = measure(pcm_of(*raw, "-af", "volume=-20dB"))
    assert loud.loudness_dbfs is not None
    assert quiet.loudness_dbfs == pytest.approx(loud.loudness_dbfs - 20, abs=1)
