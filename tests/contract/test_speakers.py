"""One suite for both engines that tell voices apart.

pyannote.audio wants torch: its half is marked `pyannote`, skips where the extra is not installed,
and runs with `make test-pyannote`.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import media
from tests.corpus import labelled
from validators.analysis import weights
from validators.analysis.models.engines import speaker_engine
from validators.analysis.models.speakers import SpeakerEngine
from validators.analysis.models.speech import Speech
from validators.analysis.speaker_choice import EngineMissingError, EngineName, SpeakerChoice
from validators.facts import SpeakerFacts
from validators.policy import STANDARD

SAMPLES = Path(__file__).parents[2] / "samples"
MAN, WOMAN = "en-us", "en-us+f3"
HEARD_AT = STANDARD.second_voice_score

pytestmark = pytest.mark.filterwarnings(  # pyannote, of a speaker that is never alone
    "ignore:Mean of empty slice:RuntimeWarning", "ignore:invalid value:RuntimeWarning"
)

Hear = Callable[[bytes], SpeakerFacts]


def engine_called(name: EngineName) -> SpeakerEngine:
    choice = SpeakerChoice(engine=name)
    try:
        choice.expect_installed()
    except EngineMissingError as exc:
        pytest.skip(f"{exc}: this engine was NOT checked")
    for weight in weights.missing(engines=choice.wants_weights):
        weights.fetch(weight)
    return speaker_engine(None, choice)


@pytest.fixture(
    scope="module",
    params=[EngineName.ONNX, pytest.param(EngineName.PYANNOTE, marks=pytest.mark.pyannote)],
)
def engine(request: pytest.FixtureRequest) -> SpeakerEngine:
    return engine_called(request.param)


@pytest.fixture(scope="module")
def speech() -> Speech:
    return Speech(None)


@pytest.fixture
def hear(engine: SpeakerEngine, speech: Speech) -> Hear:
    return lambda pcm: engine.measure(pcm, speech.measure(pcm).speech)


def voice(tmp_path: Path, name: str, *, seconds: float = 6) -> bytes:
    path = media.speech(tmp_path / f"{name.replace('+', '-')}.wav", seconds=seconds, voice=name)
    return pcm_of(path)


def pcm_of(path: Path) -> bytes:
    raw = path.with_name(f"{path.stem}.s16le")
    form = ("-vn", "-ar", "16000", "-ac", "1", "-f", "s16le")
    media.ffmpeg("-i", path, *form, raw)
    return raw.read_bytes()


def together(one: bytes, other: bytes) -> bytes:
    length = min(len(one), len(other))
    first, second = (np.frombuffer(pcm[:length], "<i2").astype(np.int32) for pcm in (one, other))
    return ((first + second) // 2).astype("<i2").tobytes()


def test_it_has_a_name_for_the_verdict(engine: SpeakerEngine) -> None:
    assert engine.name.partition(":")[0] in set(EngineName)


def test_one_voice_is_one(hear: Hear, tmp_path: Path) -> None:
    facts = hear(voice(tmp_path, MAN))
    assert facts.score is not None
    assert facts.score < HEARD_AT - STANDARD.second_voice_margin
    assert facts.second_voice == ()


def test_two_voices_at_once_are_two(hear: Hear, tmp_path: Path) -> None:
    facts = hear(together(voice(tmp_path, MAN), voice(tmp_path, WOMAN)))
    assert facts.score is not None
    assert facts.score > HEARD_AT + STANDARD.second_voice_margin
    assert facts.second_voice_s > 1
    assert facts.second_voice_s == pytest.approx(sum(b - a for a, b in facts.second_voice))


def test_too_little_speech_is_not_judged(engine: SpeakerEngine) -> None:
    nothing = SpeakerFacts(score=None, second_voice_s=0.0)
    assert engine.measure(bytes(64_000), ((0.0, 1.4),)) == nothing
    assert engine.embed(bytes(64_000), ((0.0, 1.4),)) is None


def test_a_voice_is_known_again_and_told_from_another(
    engine: SpeakerEngine, speech: Speech, tmp_path: Path
) -> None:
    whole = voice(tmp_path, MAN, seconds=10)
    parts = [whole[: 5 * 32_000], whole[5 * 32_000 :], voice(tmp_path, WOMAN)]
    embeddings = [engine.embed(pcm, speech.measure(pcm).speech) for pcm in parts]
    first, again, other = (vector for vector in embeddings if vector is not None)
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-4)
    sure = STANDARD.voice_mismatch_fail + STANDARD.voice_mismatch_margin
    assert first @ again > sure > first @ other + 0.1


@pytest.mark.pyannote
@pytest.mark.timeout(600)
def test_both_engines_agree_on_the_samples(speech: Speech, tmp_path: Path) -> None:
    engines = [engine_called(name) for name in EngineName]
    for name in ("voice.flac", "one_person.mp4", "two_people.mp4"):
        wave = tmp_path / "sample.wav"
        media.ffmpeg("-i", SAMPLES / name, "-vn", wave)
        pcm = pcm_of(wave)
        spoken = speech.measure(pcm).speech
        heard = [engine.measure(pcm, spoken).score for engine in engines]
        assert len({None if one is None else one > HEARD_AT for one in heard}) == 1, (name, heard)


@pytest.mark.pyannote
@pytest.mark.corpus
@pytest.mark.timeout(900)
def test_both_engines_on_labelled_recordings(
    speech: Speech, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints who agrees with what. Single voices must stay single voices to both."""
    most = int(os.environ.get("GREENROOM_CORPUS_LIMIT", "12"))
    single = labelled("audio", expect="accept")[:most]
    double = labelled("audio", expect="reject", reasons={"multiple_speakers"})[:most]
    engines = {name: engine_called(name) for name in EngineName}
    wrong = dict.fromkeys(engines, 0)
    rows = []
    for item in (*single, *double):
        wave = tmp_path / "labelled.wav"
        media.ffmpeg("-i", item.path, "-vn", wave)
        pcm = pcm_of(wave)
        spoken = speech.measure(pcm).speech
        scores = {name: engine.measure(pcm, spoken).score for name, engine in engines.items()}
        sure = HEARD_AT + STANDARD.second_voice_margin
        heard = {name: score is not None and score > sure for name, score in scores.items()}
        rows.append(f"{item.path.name:50} {item.expect:7} {scores}")
        for name in engines:
            wrong[name] += item.expect == "accept" and heard[name]
    with capsys.disabled():
        print("", *rows, sep="\n")  # noqa: T201 - the table is what this test is for
    assert all(count <= 1 for count in wrong.values()), wrong
