"""Make docs/reference/settings.md from service/settings.py.

``python tools/settings_page.py`` writes the page; a test fails when it is out of date.
"""

import types
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from yarl import URL

from service.fetch.address import AllowedBlock
from service.settings import PREFIX, Settings

MEGABYTE = 1_000_000
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"
_WARNING = "Made by tools/settings_page.py from service/settings.py: change those, not this page."

_INTRODUCTION = f"""\
<!-- {_WARNING} -->

# Settings

Every setting is an environment variable and nothing else. They are read once, at start. A value
that cannot be used, or a name with our prefix that is no setting, ends the command with status 2
and a line that lists every mistake at once.

| Variable | What it says | Kind | Default |
|---|---|---|---|
"""

_SECRETS = """
Secrets never appear in logs or error messages: {names}. `greenroom keys secret` makes a key for
`GREENROOM_SECRET_KEYS`. To rotate it, put the new key before the old one, restart every process,
and drop the old key once nothing sealed with it is left: a day is enough.
"""

_KINDS: dict[object, str] = {
    str: "text",
    bool: "0 or 1",
    int: "whole number",
    float: "seconds",
    Path: "path",
    URL: "URL",
    tuple[str, ...]: "list, comma-separated",
    tuple[int, ...]: "list of ports, comma-separated",
    tuple[AllowedBlock, ...]: "list of blocks, comma-separated",
}


def page() -> str:
    """The page as it must be."""
    hints = get_type_hints(Settings)
    settings = fields(Settings)
    secrets = ", ".join(f"`{name_of(setting)}`" for setting in settings if not setting.repr)
    rows = "".join(_row(setting, hints[setting.name]) for setting in settings)
    return _INTRODUCTION + rows + _SECRETS.format(names=secrets)


def name_of(setting: "Field[Any]") -> str:
    return PREFIX + setting.name.upper()


def _row(setting: "Field[Any]", hint: object) -> str:
    cells = (f"`{name_of(setting)}`", setting.metadata["about"], _kind(setting, hint))
    return _line((*cells, _default(setting)))


def _line(cells: Iterable[str]) -> str:
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |\n"


def _kind(setting: "Field[Any]", hint: object) -> str:
    of = next((arm for arm in get_args(hint) if arm is not types.NoneType), hint)
    kind = _KINDS[hint if hint in _KINDS else of]
    return "bytes" if kind == "whole number" and setting.name.endswith("_bytes") else kind


def _default(setting: "Field[Any]") -> str:
    value = setting.default
    if value is MISSING:
        return "none: must be set"
    if value in (None, (), ""):
        return "unset"
    if isinstance(value, bool):
        return f"`{int(value)}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    if isinstance(value, int):
        return f"`{value}`" if value < MEGABYTE else f"`{value}` ({_size(value)})"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _size(size_bytes: int) -> str:
    """As people say it: binary units for what divides evenly, else decimal ones."""
    if size_bytes % (1 << 20) == 0:
        return f"{size_bytes / (1 << 30):g} GiB"
    return f"{size_bytes / MEGABYTE:g} MB"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
