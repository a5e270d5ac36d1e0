"""What is made from an accepted medium, and what each recipe is called.

A recipe's version rises whenever it would make something else of the same bytes.
"""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import assert_never

from validators.derive.derived import Derived
from validators.derive.portrait import portrait
from validators.derive.preview import preview
from validators.derive.voice_reference import voice_reference
from validators.facts import Facts, Kind
from validators.inspect import Tools


class Recipe(StrEnum):
    """Values are public: events and the database name them."""

    PORTRAIT = "portrait"
    VOICE_REFERENCE = "voice_reference"
    PREVIEW = "preview"


RECIPE_VERSIONS: dict[Recipe, int] = {
    Recipe.PORTRAIT: 1,
    Recipe.VOICE_REFERENCE: 1,
    Recipe.PREVIEW: 1,
}

CONTENT_TYPES: dict[Recipe, str] = {
    Recipe.PORTRAIT: "image/png",
    Recipe.VOICE_REFERENCE: "audio/wav",
    Recipe.PREVIEW: "video/mp4",
}

_Cook = Callable[[Path, Facts, Path, Tools], Awaitable[Derived]]
_COOKS: dict[Recipe, _Cook] = {
    Recipe.PORTRAIT: portrait,
    Recipe.VOICE_REFERENCE: voice_reference,
    Recipe.PREVIEW: preview,
}


def recipes_for(kind: Kind) -> tuple[Recipe, ...]:
    """What can be made from a medium of *kind*, in a fixed order."""
    match kind:
        case Kind.VIDEO:
            return (Recipe.PORTRAIT, Recipe.VOICE_REFERENCE, Recipe.PREVIEW)
        case Kind.IMAGE:
            return (Recipe.PORTRAIT,)
        case Kind.AUDIO:
            return (Recipe.VOICE_REFERENCE,)
        case _:
            assert_never(kind)


async def derive(recipe: Recipe, path: Path, facts: Facts, out: Path, tools: Tools) -> Derived:
    """Make *recipe* of the accepted medium at *path*, whose facts are *facts*, and write *out*.

    What stands at *out* before is replaced; after an error it may hold a part. Raises ValueError
    where the kind has no such recipe, InspectionError where a tool fails, and OSError where
    *path* cannot be read or *out* cannot be written.
    """
    if recipe not in recipes_for(facts.kind):
        raise ValueError(f"no {recipe} is made from {facts.kind}")
    return await _COOKS[recipe](path, facts, out, tools)
