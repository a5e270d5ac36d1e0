"""tools/accuracy on a tiny folder made of samples/: real tools, real models, twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import media

ROOT = Path(__file__).parents[2]
MANIFEST = """\
file,media,expect,reasons
one_person.mp4,video,accept,
two_people.mp4,video,reject,multiple_faces;multiple_speakers
portrait.jpg,image,accept,
voice.flac,audio,accept,
voice.flac,image,reject,unsupported_format
short.wav,audio,reject,duration_too_short
"""


def accuracy(*arguments: str | Path) -> str:
    argv = [sys.executable, "-m", "tools.accuracy", *map(str, arguments)]
    ended = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.timeout(600)
def test_a_folder_is_measured_once_judged_often_and_the_same_each_time(tmp_path: Path) -> None:
    folder, cache, page = tmp_path / "media", tmp_path / "cache", tmp_path / "page.md"
    folder.mkdir()
    for name in ("one_person.mp4", "two_people.mp4", "portrait.jpg", "voice.flac"):
        (folder / name).symlink_to(ROOT / "samples" / name)
    media.tone(folder / "short.wav", seconds=1)
    (folder / "manifest.csv").write_text(MANIFEST)

    accuracy(folder, "--cache", cache, "--page", page)
    text = page.read_text()
    assert "| video files | 1 accept, 0 warn, 1 reject |" in text
    assert text.count("| 0/1 = 0 % (0-79) | 0/1 = 0 % (0-79) | 1/1 = 100 % (21-100) | - | 0 |") == 6
    assert "Under `standard-1`:\n\nNone." in text

    (kept,) = cache.glob("*.jsonl")
    lines = [json.loads(line) for line in kept.read_text().splitlines() if line]
    assert len(lines) == 6
    assert len({line["key"] for line in lines}) == 6

    kept.write_bytes(kept.read_bytes()[:-100])  # as if it had been killed while it wrote
    said = accuracy(folder, "--cache", cache, "--page", page, "--verify-rejudging")
    assert "6 files: 0 other verdicts, 0 other facts alone" in said
    assert len([line for line in kept.read_text().splitlines() if '"key"' in line]) == 7
