import ast
import importlib.metadata
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

import validators
from validators.instruments import (
    PACKAGES,
    PYANNOTE_PACKAGES,
    READ_WHILE_MEASURING,
    Instruments,
)
from validators.policy import STANDARD, STRICT, Policy

HERE = Instruments(parts={"facts": "4", "ffmpeg": "5.1.6", "weights": "0123"})
# They bring bytes and describe values; what is measured does not come from them.
MEASURES_NOTHING = {"structlog", "pydantic", "ffmpeg-python"}
ROOT = Path(validators.__file__).parent


def test_the_same_instruments_have_one_name_of_32_digits() -> None:
    name = HERE.measured_by(STANDARD)
    assert name is not None
    assert len(name) == 32
    assert name == replace(HERE, parts=dict(reversed([*HERE.parts.items()]))).measured_by(STANDARD)


@pytest.mark.parametrize("part", HERE.parts)
def test_every_part_has_a_say_in_the_name(part: str) -> None:
    other = replace(HERE, parts={**HERE.parts, part: "another"})
    assert other.measured_by(STANDARD) != HERE.measured_by(STANDARD)


@pytest.mark.parametrize("name", [field.name for field in fields(Policy)])
def test_a_limit_has_a_say_where_measuring_reads_it_and_nowhere_else(name: str) -> None:
    value = getattr(STANDARD, name)
    changed = {name: STRICT.name if name == "name" else value + 1}
    other = replace(STANDARD, **changed)  # type: ignore[arg-type]  # each of its own type
    differs = HERE.measured_by(other) != HERE.measured_by(STANDARD)
    assert differs == (name in READ_WHILE_MEASURING)


def test_what_the_hub_may_change_has_no_name() -> None:
    assert replace(HERE, known=False).measured_by(STANDARD) is None


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.partition(".")[0] for name in found}


def test_every_package_that_measures_has_a_say() -> None:
    """Whatever the analysis child and the decoders import, by the packages that bring it."""
    files = [*ROOT.joinpath("analysis").rglob("*.py"), *ROOT.joinpath("media").glob("*.py")]
    modules = set().union(*(imported(file) for file in files))
    modules -= {"validators", "torch", "torchaudio", "pyannote", *sys.stdlib_module_names}
    brought_by = importlib.metadata.packages_distributions()
    packages = {brought_by[module][0].lower().replace("_", "-") for module in modules}
    assert packages - MEASURES_NOTHING == set(PACKAGES)
    assert {"torch", "torchaudio", "pyannote.audio"} == set(PYANNOTE_PACKAGES)
