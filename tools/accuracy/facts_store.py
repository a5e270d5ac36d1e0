"""Measured facts on disk, one JSON line each, so that a second run only judges.

The name of the file says what the facts were measured with: other facts, engines or another
ffmpeg have a file of their own. A run that is killed loses the files that it was measuring.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from validators.encoding import StaleFactsError, decode_facts, encode_facts
from validators.facts import FACTS_VERSION, Facts


def store_path(folder: Path, engines: Mapping[str, str], ffmpeg: str) -> Path:
    together = json.dumps([sorted(engines.items()), ffmpeg])
    digest = hashlib.sha256(together.encode()).hexdigest()[:8]
    return folder / f"facts-{FACTS_VERSION}-{digest}.jsonl"


class FactsStore:
    """Not to be shared between processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / ".gitignore").write_text("*\n")
        self._texts = dict(_lines(path))

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, key: str) -> Facts | None:
        text = self._texts.get(key)
        try:
            return None if text is None else decode_facts(text)
        except StaleFactsError:  # the fields changed and the version did not
            return None

    def put(self, key: str, facts: Facts) -> Facts:
        """Keep *facts*, and give them back as they will be read."""
        text = encode_facts(facts)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps({"key": key, "facts": text}))  # after half a line, too
        self._texts[key] = text
        return decode_facts(text)


def _lines(path: Path) -> list[tuple[str, str]]:
    """What is kept, without a last line that was cut short."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text("utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found.append((row["key"], row["facts"]))
    return found
