"""Facts and verdicts as JSON and back: what is stored, printed and served."""

from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from validators.facts import FACTS_VERSION, Facts, PairFacts
from validators.verdict import PairVerdict, Verdict

_FACTS = TypeAdapter(Facts)
_VERDICT = TypeAdapter(Verdict)
_PAIR_FACTS = TypeAdapter(PairFacts)
_PAIR_VERDICT = TypeAdapter(PairVerdict)


class StaleFactsError(ValueError):
    """The stored facts are of another version, or no facts: measure again."""


def encode_facts(facts: Facts) -> str:
    return _FACTS.dump_json(facts, exclude_defaults=True).decode()


def decode_facts(text: str | bytes) -> Facts:
    """Facts as stored by `encode_facts`; raise StaleFactsError where they cannot be judged."""
    try:
        facts = _FACTS.validate_json(text)
    except ValidationError as exc:
        raise StaleFactsError(str(exc)) from exc
    if facts.version != FACTS_VERSION:
        raise StaleFactsError(f"facts version {facts.version}, wanted {FACTS_VERSION}")
    return facts


def encode_verdict(verdict: Verdict) -> str:
    return _VERDICT.dump_json(verdict, exclude_none=True).decode()


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """The public JSON document of VERDICTS, as plain values; absent fields are left out."""
    return cast("dict[str, Any]", _VERDICT.dump_python(verdict, mode="json", exclude_none=True))


def decode_verdict(text: str | bytes) -> Verdict:
    return _VERDICT.validate_json(text)


def encode_pair_facts(facts: PairFacts) -> str:
    return _PAIR_FACTS.dump_json(facts, exclude_none=True).decode()


def decode_pair_facts(text: str | bytes) -> PairFacts:
    """As stored by `encode_pair_facts`; raise StaleFactsError where they cannot be judged."""
    try:
        return _PAIR_FACTS.validate_json(text)
    except ValidationError as exc:
        raise StaleFactsError(str(exc)) from exc


def encode_pair_verdict(verdict: PairVerdict) -> str:
    return _PAIR_VERDICT.dump_json(verdict, exclude_none=True).decode()


def pair_document(verdict: PairVerdict) -> dict[str, Any]:
    """A pair verdict as plain values; its checks have the shape of a medium's."""
    return cast(
        "dict[str, Any]", _PAIR_VERDICT.dump_python(verdict, mode="json", exclude_none=True)
    )


def decode_pair_verdict(text: str | bytes) -> PairVerdict:
    return _PAIR_VERDICT.validate_json(text)
