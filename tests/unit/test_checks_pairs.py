"""The rules of pairs at their limits, and the shape in which they are public."""

import json
from dataclasses import replace

import pytest

from validators.checks.pairs import Given, judge_pair
from validators.encoding import (
    StaleFactsError,
    decode_pair_facts,
    decode_pair_verdict,
    encode_pair_facts,
    encode_pair_verdict,
    pair_document,
)
from validators.facts import PairFacts
from validators.policy import STANDARD, STRICT
from validators.verdict import Decision, Outcome, PairCode

BOTH = Given(image=True, audio=True)
ALIKE = PairFacts(face_distance=0.2, voice_similarity=0.9, engines={"identity": "dlib@1"})
POLICY = replace(
    STANDARD,
    face_mismatch_fail=0.6,
    face_mismatch_margin=0.05,
    voice_mismatch_fail=0.5,
    voice_mismatch_margin=0.05,
)
STRICTLY = replace(POLICY, name=STRICT.name, uncertain_fails=True)


def outcomes(facts: PairFacts, given: Given = BOTH) -> list[Outcome]:
    return [check.outcome for check in judge_pair(facts, given, POLICY).checks]


@pytest.mark.parametrize(
    ("distance", "outcome"),
    [
        (0.0, Outcome.PASS),
        (0.549, Outcome.PASS),
        (0.551, Outcome.UNCERTAIN),
        (0.649, Outcome.UNCERTAIN),
        (0.651, Outcome.FAIL),
        (1.2, Outcome.FAIL),
    ],
)
def test_faces_far_apart_are_different_people(distance: float, outcome: Outcome) -> None:
    assert outcomes(replace(ALIKE, face_distance=distance)) == [outcome, Outcome.PASS]


@pytest.mark.parametrize(
    ("similarity", "outcome"),
    [
        (1.0, Outcome.PASS),
        (0.551, Outcome.PASS),
        (0.549, Outcome.UNCERTAIN),
        (0.451, Outcome.UNCERTAIN),
        (0.449, Outcome.FAIL),
        (-0.2, Outcome.FAIL),
    ],
)
def test_voices_that_are_not_alike_are_different(similarity: float, outcome: Outcome) -> None:
    assert outcomes(replace(ALIKE, voice_similarity=similarity)) == [Outcome.PASS, outcome]


def test_what_is_absent_is_skipped_and_what_cannot_be_compared_is_uncertain() -> None:
    nothing = PairFacts()
    assert outcomes(nothing, Given(image=False, audio=False)) == [Outcome.SKIPPED] * 2
    assert outcomes(nothing) == [Outcome.UNCERTAIN] * 2


@pytest.mark.parametrize(
    "facts", [replace(ALIKE, face_distance=0.6), replace(ALIKE, voice_similarity=0.5), PairFacts()]
)
def test_what_is_too_close_to_call_is_accepted_unless_the_policy_is_strict(
    facts: PairFacts,
) -> None:
    assert judge_pair(facts, BOTH, POLICY).accepted
    strict = judge_pair(facts, BOTH, STRICTLY)
    assert strict.verdict is Decision.REJECTED
    assert "does not accept" in next(c.message for c in strict.checks if c.code in strict.failed)


def test_a_mismatch_rejects_and_names_what_differs() -> None:
    verdict = judge_pair(replace(ALIKE, face_distance=0.9), BOTH, POLICY)
    assert not verdict.accepted
    assert verdict.failed == (PairCode.FACE_MISMATCH,)
    face, voice = verdict.checks
    assert (face.value, face.limit, face.unit) == (0.9, 0.6, "distance")
    assert face.hint is not None
    assert (voice.value, voice.limit, voice.unit, voice.hint) == (0.9, 0.5, "cosine", None)


def test_a_pair_verdict_has_findings_of_the_public_shape_and_comes_back() -> None:
    verdict = judge_pair(replace(ALIKE, face_distance=0.9123456), BOTH, POLICY)
    document = pair_document(verdict)
    assert document["checks"][0] == {
        "code": "face_mismatch",
        "outcome": "fail",
        "value": 0.912,
        "limit": 0.6,
        "unit": "distance",
        "ranges": [],
        "message": "The image and the video show different people.",
        "hint": "Give an image of the person in the video.",
    }
    assert list(document) == ["verdict", "policy", "engines", "checks"]
    assert json.loads(encode_pair_verdict(verdict)) == document
    assert decode_pair_verdict(encode_pair_verdict(verdict)) == verdict


def test_pair_facts_are_kept_without_a_face_or_a_voice() -> None:
    kept = json.loads(encode_pair_facts(ALIKE))
    assert set(kept) == {"face_distance", "voice_similarity", "engines"}
    assert all(not isinstance(value, list) for value in kept.values())
    assert decode_pair_facts(encode_pair_facts(ALIKE)) == ALIKE
    with pytest.raises(StaleFactsError):
        decode_pair_facts(b'{"face_distance": "near"}')
