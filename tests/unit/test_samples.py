"""The committed samples are small, accounted for, and the files they are said to be."""

import hashlib
import re
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "samples"
MAX_TOTAL_BYTES = 1_000_000
EXPECTED = {"one_person.mp4", "portrait.jpg", "two_people.mp4", "voice.flac"}


def media() -> set[str]:
    return {path.name for path in SAMPLES.iterdir()} - {"PROVENANCE.md"}


def test_the_samples_of_the_demo_are_there_and_no_other() -> None:
    assert media() == EXPECTED


def test_the_samples_take_less_than_a_megabyte_together() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < MAX_TOTAL_BYTES


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_provenance_names_each_sample_with_its_size_and_digest(name: str) -> None:
    content = (SAMPLES / name).read_bytes()
    row = (
        rf"^\| `{re.escape(name)}` \| {len(content)} \| `{hashlib.sha256(content).hexdigest()}` \|"
    )
    assert re.search(row, (SAMPLES / "PROVENANCE.md").read_text(), re.MULTILINE)
