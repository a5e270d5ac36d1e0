"""Request bodies to values, and views of avatars and assets back to JSON."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.bodies import (
    CreateAvatarProfile,
    FittingReport,
    asset_document,
    avatar_profile,
    avatar_verdict,
    parse,
)
from service.api.problem import ApiError
from service.db.assets import Asset
from service.db.avatars import Avatar
from service.db.claims import Progress
from service.domain import AssetState, Cause, Origin, Status
from service.errors import FAILURES, FailureCode
from tests.facts import VIDEO
from validators.facts import Kind
from validators.policy import STANDARD
from validators.rules import judge

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
URL = "https://media.example/v.mp4"

AVATAR = Avatar(
    id=UUID(int=1),
    organisation_id="acme",
    name="Eileen",
    runtime_type="mock",
    policy="standard",
    status=Status.ACCEPTED,
    cause=None,
    codes=(),
    message=None,
    traceparent=None,
    created_at=NOW,
    fitting_since=None,
)
ASSET = Asset(
    id=UUID(int=2),
    organisation_id="acme",
    kind=Kind.VIDEO,
    origin=Origin.FETCH,
    state=AssetState.PENDING,
    size_bytes=None,
    sha256=None,
    key=None,
    source_shown=URL,
    error_code=None,
    error_message=None,
    http_status=None,
    progress=None,
    verdict=None,
    policy="standard",
    created_at=NOW,
)


def create(sources: object, name: object = "Eileen", **more: object) -> CreateAvatarProfile:
    return parse(
        CreateAvatarProfile, json.dumps({"name": name, "sources": sources, **more}).encode()
    )


def refusal(sources: object, name: object = "Eileen") -> tuple[str, str | None]:
    with pytest.raises(ApiError) as caught:
        create(sources, name)
    return caught.value.code, caught.value.param


roles = st.fixed_dictionaries(
    {},
    optional={f"{kind}_{what}": st.just("x") for kind in Kind for what in ("url", "id")},
)


@given(roles)
def test_sources_are_a_video_or_an_image_with_an_audio_each_given_one_way(
    sources: dict[str, str],
) -> None:
    has = {field.partition("_")[0] for field in sources}
    twice = len(has) < len(sources)
    complete = "video" in has or {"image", "audio"} <= has
    if twice:
        assert refusal(sources) == ("source_conflict", "sources")
    elif not complete:
        assert refusal(sources) == ("sources_incomplete", "sources")
    else:
        body = create(sources)
        given_kinds = {k for k in Kind if body.sources.url_of(k) or body.sources.id_of(k)}
        assert given_kinds == {Kind(kind) for kind in has}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "invalid_field"),
        ("   ", "invalid_field"),
        ("x" * 201, "invalid_field"),
        ("a\nb", "invalid_field"),
        ("a\x00b", "invalid_field"),
        ("a\x1b[31m", "invalid_field"),
        (None, "invalid_field"),
        (7, "invalid_field"),
    ],
)
def test_a_name_is_1_to_200_printable_characters(name: object, code: str) -> None:
    assert refusal({"video_url": URL}, name) == (code, "name")


def test_a_name_loses_the_space_around_it_and_nothing_else() -> None:
    assert create({"video_url": URL}, "  Zoë 李  ").name == "Zoë 李"
    assert create({"video_url": URL}, "x" * 200).name == "x" * 200


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b"", "malformed_body", None),
        (b"{", "malformed_body", None),
        (b'{"name": "\xff"}', "malformed_body", None),
        (b"[" * 10_000, "malformed_body", None),
        (b"[]", "invalid_field", None),
        (b"null", "invalid_field", None),
        (b"{}", "missing_field", "name"),
        (b'{"name": "x"}', "missing_field", "sources"),
        (b'{"name": "x", "sources": []}', "invalid_field", "sources"),
        (b'{"name": "x", "sources": {"video_url": 1}}', "invalid_field", "sources.video_url"),
        (b'{"name": "x", "sources": {"video_url": ""}}', "invalid_field", "sources.video_url"),
    ],
)
def test_a_refusal_names_the_field(raw: bytes, code: str, param: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        parse(CreateAvatarProfile, raw)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.message.endswith(".")


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(ApiError) as caught:
        create({"video_url": ["https://media.example/?sig=s3cret"]})
    assert "s3cret" not in caught.value.message


def test_family_b_ignores_unknown_fields_and_our_own_bodies_refuse_them() -> None:
    assert create({"video_url": URL, "x": 1}, more=1).sources.video_url == URL
    with pytest.raises(ApiError) as caught:
        parse(FittingReport, b'{"status": "ready", "extra": 1}')
    assert (caught.value.code, caught.value.param) == ("unknown_field", "extra")


@pytest.mark.parametrize("code", ["", "Bad", "a b", "x" * 65, "7up"])
def test_a_fitters_code_is_lower_snake_case(code: str) -> None:
    with pytest.raises(ApiError):
        parse(FittingReport, json.dumps({"status": "failed", "code": code}).encode())


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (Status.ACCEPTED, "pending"),
        (Status.FETCHING, "pending"),
        (Status.INSPECTING, "processing"),
        (Status.DERIVING, "processing"),
        (Status.FITTING, "processing"),
        (Status.READY, "ready"),
        (Status.FAILED, "failed"),
    ],
)
def test_family_b_has_its_own_view_of_every_status(status: Status, shown: str) -> None:
    profile = avatar_profile(replace(AVATAR, status=status), preview_url=None)
    assert profile["status"] == shown
    assert list(profile) == ["id", "video_preview_url", "name", "status", "status_message"]


def source_of(asset: Asset, avatar: Avatar = AVATAR) -> dict[str, Any]:
    document = avatar_verdict(avatar, {asset.kind.value: asset})
    json.dumps(document)
    (source,) = document["sources"]
    shown: dict[str, Any] = source
    return shown


def test_an_unfinished_source_has_neither_verdict_nor_error() -> None:
    assert source_of(ASSET) == {"role": "video", "asset_id": str(ASSET.id), "state": "pending"}


def test_a_judged_source_shows_its_verdict_whole() -> None:
    verdict = judge(VIDEO, STANDARD)
    judged = replace(ASSET, state=AssetState.READY, verdict=verdict)
    shown = source_of(judged)
    assert "error" not in shown
    assert [check["code"] for check in shown["verdict"]["checks"]] == [
        c.code for c in verdict.checks
    ]


@pytest.mark.parametrize("code", FailureCode)
def test_a_failed_source_says_what_who_and_whether_to_try_again(code: FailureCode) -> None:
    failed = replace(
        ASSET, state=AssetState.FAILED, error_code=code, error_message="It did.", http_status=503
    )
    error = source_of(failed)["error"]
    assert (error["code"], error["message"]) == (code.value, "It did.")
    assert error["who"] == FAILURES[code].who.value
    assert isinstance(error["retryable"], bool)


def test_progress_is_that_of_a_running_source_and_null_when_nothing_runs() -> None:
    running = replace(ASSET, progress=Progress(stage="decode", done=2.5, total=10, unit="s"))
    moving = avatar_verdict(AVATAR, {"video": running})["progress"]
    assert moving == {"stage": "decode", "done": 2.5, "total": 10, "unit": "s"}
    assert avatar_verdict(AVATAR, {"video": ASSET})["progress"] is None


def test_a_failed_avatar_says_its_cause() -> None:
    failed = replace(AVATAR, status=Status.FAILED, cause=Cause.SOURCE, message="No.")
    document = avatar_verdict(failed, {})
    assert (document["state"], document["cause"]) == ("failed", "source")
    assert avatar_profile(failed, preview_url=None)["status_message"] == "No."


def test_an_asset_never_shows_its_key_in_the_store() -> None:
    stored = replace(ASSET, state=AssetState.STORED, key="0af7", sha256="ab" * 32, size_bytes=3)
    document = asset_document(stored)
    assert "0af7" not in json.dumps(document)
    assert document["sha256"] == "ab" * 32


def test_an_asset_that_failed_after_it_was_stored_still_says_what_its_bytes_were() -> None:
    known = replace(ASSET, state=AssetState.FAILED, sha256="ab" * 32, size_bytes=3)
    document = asset_document(known)
    assert (document["sha256"], document["size_bytes"]) == ("ab" * 32, 3)
