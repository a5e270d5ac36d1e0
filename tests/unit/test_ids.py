"""One id, two spellings; anything else spells nothing."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ids import avatar_spelling, new_id, parse_id, ulid

ID = UUID("0197f3a2-5b6c-7d8e-9f01-23456789abcd")


@given(st.uuids())
def test_both_spellings_of_an_id_lead_back_to_it(value: UUID) -> None:
    assert parse_id(str(value)) == value
    assert parse_id(str(value).upper()) == value
    assert parse_id(avatar_spelling(value)) == value


@given(st.uuids(), st.uuids())
def test_both_spellings_sort_as_the_ids_do(one: UUID, other: UUID) -> None:
    assert (ulid(one) < ulid(other)) == (str(one) < str(other)) == (one < other)


@given(st.text())
def test_what_is_no_id_is_none_and_never_an_error(text: str) -> None:
    for given_text in (text, f"av_{text}"):
        found = parse_id(given_text)
        assert found is None or given_text.lower() in {str(found), avatar_spelling(found).lower()}


GOOD = avatar_spelling(ID).removeprefix("av_")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "av_",
        f"av_{GOOD[:-1]}",
        f"av_{GOOD}0",
        f"av_{GOOD.lower()}",
        f"AV_{GOOD}",
        f"av_8{GOOD[1:]}",  # 129 bits
        *(f"av_{GOOD[:-1]}{letter}" for letter in "ILOU"),
        f"av_{GOOD[:-1]}\uff10",  # a digit, and no ASCII
        GOOD,
        ID.hex,
        f"{{{ID}}}",
        f"urn:uuid:{ID}",
        f" {ID}",
        f"{ID}\n",
        str(ID)[:-1],
    ],
)
def test_malformed_ids_are_none(text: str) -> None:
    assert parse_id(text) is None


def test_the_largest_id_has_a_spelling() -> None:
    most = UUID(int=2**128 - 1)
    assert avatar_spelling(most) == "av_7" + "Z" * 25
    assert parse_id(avatar_spelling(most)) == most


def test_new_ids_are_unique_and_sort_by_their_time() -> None:
    made = [new_id() for _ in range(1000)]
    assert len(set(made)) == len(made)
    assert made == sorted(made)
    assert {value.version for value in made} == {7}
