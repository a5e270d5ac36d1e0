"""Events are public API: every type has data, a schema that fits it, and a size that is bounded."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter

from service.db.events import Event
from service.domain import Cause, EventType
from service.errors import FAILURES, FailureCode
from service.events.cloudevents import cloud_event, schema_path
from service.events.data import (
    DATA_OF,
    AssetDeleted,
    AssetFailed,
    AssetReady,
    AssetRejected,
    AssetStored,
    AvatarCreated,
    AvatarDeleted,
    AvatarFailed,
    AvatarReady,
    AvatarReadyForFitting,
    EventData,
    FittingSource,
    VerdictSummary,
    avatar_ref,
    encode,
    schema,
)
from validators.facts import Kind
from validators.verdict import Code, Decision, Media

ID = UUID("0197f3a2-5b6c-7d8e-9f01-23456789abcd")
SHA256 = "ab" * 32
LINK = f"/v1/assets/{ID}"
MEDIA = Media(
    kind=Kind.VIDEO,
    duration_s=60.5,
    width=3840,
    height=2160,
    fps=29.97,
    video_codec="h264",
    audio_codec="aac",
    rotation_deg=90,
    sha256=SHA256,
    size_bytes=500_000_000,
)
NAME = "\U0001f600" * 200  # the longest name, in the widest characters
EVERY_CODE = tuple(code.value for code in Code)
REFUSED = VerdictSummary(
    verdict=Decision.REJECTED, policy="standard-1", codes=EVERY_CODE, link=LINK
)
ACCEPTED = VerdictSummary(verdict=Decision.ACCEPTED, policy="standard-1", codes=(), link=LINK)
FITTING_SOURCE = FittingSource(asset=str(ID), sha256=SHA256, media=MEDIA, content=f"{LINK}/content")
ORGANISATION = "o" * 63

EXAMPLES: dict[EventType, EventData] = {
    EventType.AVATAR_CREATED: AvatarCreated(
        avatar=avatar_ref(ID),
        organisation=ORGANISATION,
        name=NAME,
        runtime_type="avtr1",
        roles=tuple(kind.value for kind in Kind),
    ),
    EventType.ASSET_STORED: AssetStored(
        asset=str(ID), kind=Kind.AUDIO, sha256=SHA256, size_bytes=100_000_000
    ),
    EventType.ASSET_FAILED: AssetFailed(
        asset=str(ID),
        kind=Kind.IMAGE,
        code=FailureCode.SOURCE_TIMEOUT.value,
        message=FAILURES[FailureCode.SOURCE_TIMEOUT].sentence,
        who="source_owner",
    ),
    EventType.ASSET_READY: AssetReady(asset=str(ID), media=MEDIA, verdict=ACCEPTED),
    EventType.ASSET_REJECTED: AssetRejected(asset=str(ID), kind=Kind.VIDEO, verdict=REFUSED),
    EventType.AVATAR_READY_FOR_FITTING: AvatarReadyForFitting(
        avatar=avatar_ref(ID),
        organisation=ORGANISATION,
        name=NAME,
        runtime_type="avtr1",
        sources={kind.value: FITTING_SOURCE for kind in Kind},
        portrait=FITTING_SOURCE,
        voice_reference=FITTING_SOURCE,
        preview=FITTING_SOURCE,
    ),
    EventType.AVATAR_READY: AvatarReady(avatar=avatar_ref(ID)),
    EventType.AVATAR_FAILED: AvatarFailed(
        avatar=avatar_ref(ID), cause=Cause.REJECTED.value, codes=EVERY_CODE * 3
    ),
    EventType.AVATAR_DELETED: AvatarDeleted(avatar=avatar_ref(ID)),
    EventType.ASSET_DELETED: AssetDeleted(asset=str(ID), kind=Kind.VIDEO),
}

every_type = pytest.mark.parametrize("type_", EventType)


def cloudevent(type_: EventType) -> dict[str, Any]:
    event = Event(
        position=1,
        id=ID,
        organisation_id=ORGANISATION,
        type=type_.value,
        subject=avatar_ref(ID).id,
        sequence=1,
        time=datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC),
        data=json.loads(encode(EXAMPLES[type_])),
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    return cloud_event(event, public_url="https://greenroom.example")


def test_every_type_has_data_and_an_example_here() -> None:
    assert set(DATA_OF) == set(EXAMPLES) == set(EventType)


@every_type
def test_an_example_reads_back_as_it_was(type_: EventType) -> None:
    example = EXAMPLES[type_]
    assert type(example) is DATA_OF[type_]
    assert TypeAdapter(DATA_OF[type_]).validate_json(encode(example)) == example


@every_type
def test_an_event_is_smaller_than_64_kib_at_its_largest(type_: EventType) -> None:
    assert len(json.dumps(cloudevent(type_)).encode()) < 65_536
    assert len(encode(EXAMPLES[type_]).encode()) < 60_000  # what the database takes


def mismatches(value: object, node: dict[str, Any], root: dict[str, Any]) -> Iterator[str]:
    """Where *value* breaks the part of JSON Schema that our schemas use; other words are errors."""
    if "$ref" in node:
        yield from mismatches(value, root["$defs"][node["$ref"].rpartition("/")[2]], root)
    elif "anyOf" in node:
        if all(list(mismatches(value, arm, root)) for arm in node["anyOf"]):
            yield f"{value!r} is none of {node['anyOf']}"
    elif value not in node.get("enum", [value]):
        yield f"{value!r} is not in {node['enum']}"
    elif not isinstance(value, JSON_TYPES[node["type"]]):
        yield f"{value!r} is no {node['type']}"
    else:
        yield from mismatches_inside(value, node, root)


def mismatches_inside(value: object, node: dict[str, Any], root: dict[str, Any]) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from mismatches(item, node["items"], root)
    elif isinstance(value, dict):
        yield from mismatches_of_object(value, node, root)


def mismatches_of_object(
    value: dict[str, object], node: dict[str, Any], root: dict[str, Any]
) -> Iterator[str]:
    properties, others = node.get("properties", {}), node.get("additionalProperties")
    yield from (f"{name} is missing" for name in node.get("required", ()) if name not in value)
    for name, item in value.items():
        if name in properties or others:
            yield from mismatches(item, properties.get(name, others), root)
        else:
            yield f"{name} is not described"


JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "array": list,
    "object": dict,
    "null": type(None),
}


@every_type
def test_the_schema_of_a_type_describes_its_data(type_: EventType) -> None:
    document = schema(type_)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    example = json.loads(encode(EXAMPLES[type_]))
    assert list(mismatches(example, document, document)) == []


@every_type
def test_the_schema_of_a_type_does_not_fit_what_lacks_a_field(type_: EventType) -> None:
    document = schema(type_)
    example = json.loads(encode(EXAMPLES[type_]))
    required = document["required"]
    assert required
    for name in required:
        lacking = {key: value for key, value in example.items() if key != name}
        assert list(mismatches(lacking, document, document)) == [f"{name} is missing"]


@every_type
def test_what_is_optional_may_be_absent_from_a_sparse_event(type_: EventType) -> None:
    """`encode` leaves out what is None, so no such field may be required by the schema."""
    still = Media(kind=Kind.IMAGE, sha256=SHA256, size_bytes=3)
    sparse: dict[EventType, EventData] = EXAMPLES | {
        EventType.ASSET_READY: AssetReady(asset=str(ID), media=still, verdict=ACCEPTED),
        EventType.AVATAR_FAILED: AvatarFailed(avatar=avatar_ref(ID), cause="internal"),
    }
    document = schema(type_)
    data = json.loads(encode(sparse[type_]))
    assert list(mismatches(data, document, document)) == []


@every_type
def test_an_event_is_a_cloudevent(type_: EventType) -> None:
    body = cloudevent(type_)
    assert set(body) >= {"id", "source", "subject", "time", "type", "datacontenttype"}
    assert body["specversion"] == "1.0"
    assert (body["type"], body["source"]) == (type_.value, f"/greenroom/{ORGANISATION}")
    assert body["time"] == "2026-01-02T03:04:05.000600Z"
    assert body["dataschema"] == f"https://greenroom.example{schema_path(type_)}"
    assert all(name.islower() and name.isalnum() for name in body)  # CloudEvents 1.0, 3.1


def test_both_spellings_of_an_avatar_name_one_id() -> None:
    ref = avatar_ref(ID)
    assert ref.uuid == str(ID)
    assert ref.id.startswith("av_")


def test_no_verdict_is_sent_whole() -> None:
    assert '"checks"' not in "".join(encode(example) for example in EXAMPLES.values())
