"""The page of settings is made from the settings, and kept so."""

import runpy
from dataclasses import fields
from pathlib import Path

from service.settings import Settings

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "settings_page.py"))
PAGE, page, name_of = TOOL["PAGE"], TOOL["page"], TOOL["name_of"]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run: python tools/settings_page.py"


def test_the_page_has_every_setting_once_with_what_it_says() -> None:
    lines = page().splitlines()
    for setting in fields(Settings):
        (row,) = [line for line in lines if line.startswith(f"| `{name_of(setting)}` |")]
        assert setting.metadata["about"] in row


def test_the_table_is_not_broken_by_what_a_setting_says() -> None:
    rows = [line for line in page().splitlines() if line.startswith("|")]
    assert {row.replace(r"\|", "").count("|") for row in rows} == {5}
