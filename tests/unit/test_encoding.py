import json

import pytest

from validators.encoding import (
    StaleFactsError,
    decode_facts,
    decode_verdict,
    encode_facts,
    encode_verdict,
    verdict_document,
)
from validators.facts import (
    FACTS_VERSION,
    ContainerFacts,
    DecodeFacts,
    Face,
    FaceFacts,
    Facts,
    FrameFacts,
    Kind,
    SpeechFacts,
    StreamFacts,
    StreamType,
    TrackFacts,
)
from validators.policy import STANDARD
from validators.rules import judge

FULL = Facts(
    version=FACTS_VERSION,
    kind=Kind.VIDEO,
    size_bytes=7,
    sha256="ab",
    engines={"speech": "x@1"},
    signature="mp4",
    container=ContainerFacts(
        format="mov",
        declared_duration_s=5.0,
        streams=(StreamFacts(index=0, type=StreamType.VIDEO, codec="h264", width=640, height=360),),
    ),
    decode=DecodeFacts(
        complete=True, capped=False, video=TrackFacts(start_s=0, end_s=5, units=125)
    ),
    speech=SpeechFacts(duration_s=5, speech=((0.5, 4.5),), snr_db=30),
    faces=FaceFacts(
        frames=(
            FrameFacts(
                time_s=0,
                faces=(Face(left=0.1, top=0.2, width=0.3, height=0.4, confidence=0.9),),
            ),
        ),
        interval_s=0.2,
    ),
)


def test_facts_survive_their_text() -> None:
    assert decode_facts(encode_facts(FULL)) == FULL


def test_facts_of_another_version_are_refused() -> None:
    text = json.dumps(json.loads(encode_facts(FULL)) | {"version": FACTS_VERSION + 1})
    with pytest.raises(StaleFactsError, match="version"):
        decode_facts(text)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"version": 1, "kind": "smell"}'])
def test_text_that_is_no_facts_is_refused(text: str) -> None:
    with pytest.raises(StaleFactsError):
        decode_facts(text)


def test_a_verdict_survives_its_text() -> None:
    verdict = judge(FULL, STANDARD)
    assert decode_verdict(encode_verdict(verdict)) == verdict


def test_a_stored_medium_can_be_judged_again_to_the_same_verdict() -> None:
    assert judge(decode_facts(encode_facts(FULL)), STANDARD) == judge(FULL, STANDARD)


def test_the_public_document_leaves_out_what_is_absent() -> None:
    document = verdict_document(judge(FULL, STANDARD))
    assert document["policy"] == "standard-1"
    assert "audio_codec" not in document["media"]
    assert all(check["message"] for check in document["checks"])
