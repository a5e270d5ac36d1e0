import importlib.util

import pytest

from service.settings import Settings, SettingsError
from service.wiring import speaker_choice
from validators.analysis.client import Analyzer
from validators.analysis.speaker_choice import (
    Device,
    EngineMissingError,
    EngineName,
    SpeakerChoice,
)

TOKEN = "hf_x"  # noqa: S105 - of nobody
HUB = SpeakerChoice(
    engine=EngineName.PYANNOTE, device=Device.CUDA, pipeline="pyannote/one", token=TOKEN
)


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    hidden = {"torch", "torchaudio", "pyannote.audio"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in hidden else real(name)
    )


@pytest.mark.parametrize("choice", [SpeakerChoice(), HUB])
def test_the_child_reads_what_it_was_told(choice: SpeakerChoice) -> None:
    assert SpeakerChoice.from_environ(choice.environment()) == choice


def test_the_default_tells_the_child_nothing() -> None:
    assert SpeakerChoice(token=TOKEN, pipeline="pyannote/one").environment() == {}


def test_the_token_goes_only_where_the_hub_is_asked() -> None:
    local = SpeakerChoice(engine=EngineName.PYANNOTE, token=TOKEN)
    assert "hf_x" not in local.environment().values()
    assert "hf_x" in HUB.environment().values()
    assert "hf_x" not in repr(HUB)


def test_only_the_local_pipeline_wants_its_weights() -> None:
    assert SpeakerChoice(engine=EngineName.PYANNOTE).wants_weights == {"pyannote"}
    assert not HUB.wants_weights
    assert not SpeakerChoice().wants_weights


def test_settings_choose_the_engine() -> None:
    settings = Settings.from_environ(
        {
            "GREENROOM_SPEAKER_ENGINE": "pyannote",
            "GREENROOM_DEVICE": "cuda",
            "GREENROOM_PYANNOTE_PIPELINE": "pyannote/one",
            "GREENROOM_HUGGINGFACE_TOKEN": "hf_x",
        }
    )
    assert speaker_choice(settings) == HUB
    assert "hf_x" not in repr(settings)
    assert speaker_choice(Settings()) == SpeakerChoice()


@pytest.mark.parametrize("name", ["GREENROOM_SPEAKER_ENGINE", "GREENROOM_DEVICE"])
def test_an_engine_or_device_that_does_not_exist_is_a_mistake(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environ({name: "abacus"})


@pytest.mark.usefixtures("without_torch")
async def test_an_engine_that_is_not_installed_is_trouble_before_any_child_starts() -> None:
    choice = SpeakerChoice(engine=EngineName.PYANNOTE)
    with pytest.raises(EngineMissingError, match=r"install greenroom\[pyannote\]"):
        choice.expect_installed()
    async with Analyzer(speakers=choice) as analyzer:
        assert "greenroom[pyannote]" in str(await analyzer.trouble())
        assert analyzer.restarts == 0
    SpeakerChoice().expect_installed()
