"""Expiries as each kind of store signs them, and queries that only look like it."""

import base64
import json
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fetch.signed_url import expiry_of, says_expired

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
EPOCH = int(NOON.timestamp())
POLICY = (
    base64.b64encode(
        json.dumps(
            {
                "Statement": [
                    {
                        "Resource": "https://d1.cloudfront.net/>>>???*",
                        "Condition": {"DateLessThan": {"AWS:EpochTime": EPOCH}},
                    }
                ]
            }
        ).encode()
    )
    .decode()
    .translate(str.maketrans("+=/", "-_~"))
)


@pytest.mark.parametrize(
    "query",
    [
        (
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20261121T110000Z&X-Amz-Expires=3600"
            "&X-Amz-Signature=ab"
        ),
        "x-amz-expires=3600&x-amz-date=20261121T110000Z",
        f"AWSAccessKeyId=AK&Expires={EPOCH}&Signature=a%2Bb%3D",
        (
            "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Date=20261121T110000Z&X-Goog-Expires=3600"
            "&X-Goog-Signature=ab"
        ),
        f"GoogleAccessId=a%40b&Expires={EPOCH}&Signature=ab",
        "sv=2024-11-04&st=2026-11-20T12%3A00%3A00Z&se=2026-11-21T12%3A00%3A00Z&sr=b&sp=r&sig=ab",
        "se=2026-11-21T13:00:00%2B01:00&sig=ab",
        "se=2026-11-21T12%3A00Z&sig=ab",
        "x-oss-date=20261121T110000Z&x-oss-expires=3600&x-oss-signature=ab",
        f"q-sign-time=5%3B{EPOCH}&q-key-time=5%3B{EPOCH}&q-signature=ab",
        f"Expires={EPOCH}&Signature=a-b__&Key-Pair-Id=K1",
        f"Policy={POLICY}&Signature=a-b__&Key-Pair-Id=K1",
    ],
)
def test_the_expiry_of_every_kind_of_signature_is_read(query: str) -> None:
    assert expiry_of(f"https://bucket.example/k?{query}#t=1") == NOON


def test_the_policy_of_this_test_uses_cloudfront_s_own_alphabet() -> None:
    assert set("-~_") & set(POLICY)
    assert not set("+/=") & set(POLICY)


def test_the_earliest_expiry_counts() -> None:
    query = f"Expires={EPOCH + 5}&Signature=x&se=2026-11-21T12:00:00Z&sig=x"
    assert expiry_of(f"https://a.example/?{query}") == NOON


def test_a_date_without_a_time_is_midnight_utc() -> None:
    expected = datetime(2026, 11, 21, tzinfo=UTC)
    assert expiry_of("https://a.example/?se=2026-11-21&sig=x") == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example/k",
        "https://a.example/k?Expires=1",  # some application's own word
        "https://a.example/k?se=2026-11-21T12:00:00Z",
        "https://a.example/k?X-Amz-Date=20261121T110000Z",
        "https://a.example/k?X-Amz-Date=20261121T110000Z&X-Amz-Expires=soon",
        "https://a.example/k?X-Amz-Date=yesterday&X-Amz-Expires=60",
        "https://a.example/k?X-Amz-Date=20261121T110000Z&X-Amz-Expires=" + "9" * 300,
        "https://a.example/k?X-Amz-Date=20261121T110000Z&X-Amz-Expires=" + "9" * 5000,
        "https://a.example/k?Expires=99999999999999999&Signature=x",
        "https://a.example/k?Expires=Sat&Signature=x",
        "https://a.example/k?se=never&sig=x",
        f"https://a.example/k?q-sign-time=5;{EPOCH}",
        "https://a.example/k?q-sign-time=5&q-signature=x",
        "https://a.example/k?Policy=e30_&Signature=x",
        "https://a.example/k?Policy=%FF&Signature=x",
        "https://a.example/k?Policy=" + quote(base64.b64encode(b'{"Statement":[]}')),
        "https://a.example/k?Policy=" + quote(base64.b64encode(b"[" * 3000)) + "&Signature=x",
        "https://a.example/k?" + "a=b&" * 200 + "se=2026-11-21&sig=x",
        "https://[/",
    ],
)
def test_what_cannot_be_read_has_no_known_expiry(url: str) -> None:
    assert expiry_of(url) is None


@given(
    st.sampled_from(
        ["X-Amz-Date={0}&X-Amz-Expires={1}", "Expires={0}&Signature={1}", "se={0}&sig="]
    )
    | st.just("Policy={0}&Signature=x"),
    st.text(),
    st.text(),
)
def test_no_query_breaks_the_reader(form: str, one: str, other: str) -> None:
    expiry = expiry_of("https://a.example/?" + form.format(quote(one), quote(other)))
    assert expiry is None or expiry.tzinfo is UTC


@pytest.mark.parametrize(
    "body",
    [
        b"<Code>AccessDenied</Code><Message>Request has expired</Message>",
        b"<Code>ExpiredToken</Code>",
        b"Signature not valid in the specified time frame",
    ],
)
def test_stores_say_that_a_signature_ran_out(body: bytes) -> None:
    assert says_expired(body)


@pytest.mark.parametrize("body", [b"", b"<Code>AccessDenied</Code>", b"Forbidden"])
def test_other_refusals_do_not(body: bytes) -> None:
    assert not says_expired(body)
