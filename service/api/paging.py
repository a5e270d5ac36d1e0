"""Query parameters that lists share."""

from dataclasses import dataclass

from aiohttp import web

from service.api.problem import invalid_field

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    given_limit: int | None
    starting_after: str | None

    @property
    def limit(self) -> int:
        return self.given_limit or DEFAULT_LIMIT


def page_of(request: web.Request) -> Page:
    """`limit` and `starting_after`; 422 when one is wrong."""
    limit = request.query.get("limit")
    return Page(
        given_limit=None if limit is None else whole_number(limit, "limit", 1, MAX_LIMIT),
        starting_after=request.query.get("starting_after"),
    )


def whole_number(text: str, param: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):  # noqa: PLR2004 - longer numbers are over every limit
        raise invalid_field(param, f"{param} is a whole number from {low} to {high}.")
    return int(text)
