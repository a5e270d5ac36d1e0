"""URLs that parsers disagree about, and controls that must pass."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from service.errors import FailureCode, SourceError
from service.fetch.address import AddressGuard, parse_allowed_blocks
from service.fetch.source_url import MAX_URL_CHARACTERS, SourceUrl, parse_source_url

PUBLIC = AddressGuard()
INSIDE = AddressGuard(blocks=parse_allowed_blocks("127.0.0.1/32:9000,10.1.2.0/24"))


def wire(text: str, guard: AddressGuard = PUBLIC) -> str:
    return str(parse_source_url(text, guard).wire)


def code(text: str, guard: AddressGuard = PUBLIC) -> FailureCode:
    with pytest.raises(SourceError) as caught:
        parse_source_url(text, guard)
    assert not caught.value.retryable
    return caught.value.code


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("https://example.com/a.mp4", "https://example.com/a.mp4"),
        ("HTTPS://EXAMPLE.com:443/A.mp4", "https://example.com/A.mp4"),
        ("http://example.com", "http://example.com/"),
        ("http://example.com?a=b", "http://example.com/?a=b"),
        ("http://example.com:/a", "http://example.com/a"),
        ("http://example.com:080/a", "http://example.com/a"),
        ("http://example.com:8080/a", "http://example.com:8080/a"),
        ("https://example.com:8443/a#t=3", "https://example.com:8443/a"),
        ("https://example.com./a", "https://example.com./a"),
        ("https://a_b.s3.example.com/a", "https://a_b.s3.example.com/a"),
        ("https://bücher.example/ä?ö=ü", "https://xn--bcher-kva.example/%C3%A4?%C3%B6=%C3%BC"),
        ("https://EXAMPLE。com/a", "https://example.com/a"),
        ("http://93.184.216.34/a", "http://93.184.216.34/a"),
        ("https://100.63.255.254/", "https://100.63.255.254/"),
        ("https://[2606:4700:4700::1111]/a", "https://[2606:4700:4700::1111]/a"),
        ("https://1.example.com/", "https://1.example.com/"),
        ("https://127.0.0.1.nip.io/", "https://127.0.0.1.nip.io/"),  # judged by its address
        ("https://0x7f.example.com/", "https://0x7f.example.com/"),
        ("https://internal.example/", "https://internal.example/"),
        ("https://notmetadata.goog/", "https://notmetadata.goog/"),
        ("https://local.test/", "https://local.test/"),
        ("https://" + ("a" * 60 + ".") * 4 + "example./", None),
        ("https://b.s3.amazonaws.com/k?X-Amz-Signature=a%2Fb%2b&x=%7e", None),
        ("https://example.com/a/../%2e%2e/./b//c?a=/../&b=[]'\"", None),
        ("https://example.com/a?b=http://user:pw@127.0.0.1/", None),
    ],
)
def test_a_public_url_is_sent_as_it_came(text: str, sent: str | None) -> None:
    assert wire(text) == (sent or text)


@pytest.mark.parametrize(
    "text",
    [
        # schemes, credentials, ports
        "file:///etc/passwd",
        "ftp://example.com/a.mp4",
        "data:image/png;base64,iVBORw0KGgo=",
        "s3://bucket/key",
        "HTTP+UNIX://%2Fvar%2Frun%2Fdocker.sock/images",
        "javascript:alert(1)",
        "http://example.com@127.0.0.1/",
        "http://user:pass@example.com/a.mp4",
        "http://@example.com/",
        "http://example.com:22/a.mp4",
        "http://example.com:6379/a.mp4",
        "http://example.com:9000/a.mp4",
        # literals, however they are spelt
        "http://127.0.0.1/",
        "http://10.1.2.3/",
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1?@example.com/",
        "http://127.0.0.1#@example.com/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://127.1/",
        "http://00000177.0.0.1/",
        "http://127.0.0.0x1/",
        "http://①②⑦.⓪.⓪.①/",
        "http://127。0。0。1/",
        "http://127.0.0.1./",
        "http://1.1.1.1./",
        "http://127.0.0.1%2e/",
        "http://127%2e0%2e0%2e1/",
        "http://%31%32%37.0.0.1/",
        "http://%e2%91%a0%e2%91%a1%e2%91%a6.1/",
        "http://0x/",
        "http://1.1.1.1.1/",
        "http://a.b.0x7f/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[fe80::1%25eth0]/",
        "http://[::1]:443/",
        # names that lead inside
        "http://localhost/",
        "http://LocalHost./",
        "http://a.localhost/",
        "http://redis/",
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://api.default.svc.cluster.local/",
        "http://api.default.svc/",
        "http://vault.service.consul/",
        "http://localhost.localdomain/",
        "http://nas.HOME.arpa./",
        "http://files.corp/",
        "http://router.lan/",
        "http://metadata.goog/",
        "http://METADATA.tencentyun.com./",
        "http://a.metadata.platformequinix.com/",
        "http://expyuzz4wqqyqhjn.onion/",
    ],
)
def test_where_we_may_not_go_is_forbidden(text: str) -> None:
    assert code(text) is FailureCode.SOURCE_URL_FORBIDDEN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.mp4",
        "//example.com/a",
        "http://",
        "http:///127.0.0.1/",
        "http:/example.com/",
        "http:example.com/",
        "https:\\\\example.com\\a.mp4",
        "http://example.com\\@127.0.0.1/",
        "http://127.0.0.1\\@example.com/",
        "http://1.1.1.1 &@2.2.2.2# @3.3.3.3/",
        "http://example.com%00.127.0.0.1/",
        "http://127.0.0.1%0d%0aX-A:b/",
        "http://ex%61mple.com/",
        "http://%65xample.com/",
        "http://127.0.0.1%252e/",
        "http://%00/",
        "http://%ff.1/",
        "http://exa mple.com/",
        "http://ex\tample.com/",
        "http://example.com/a\r\nX-A: b",
        "http://example.com/a\0",
        " http://example.com/",
        "http://example.com/\n",
        "http://example\u200b.com/",
        "http://example.com/\u2028",
        "http://example.com/\ud800",
        "http://a..b/",
        "http://.example.com/",
        "http://example.com../",
        "http://-a.example.com/",
        "http://a-.example.com/",
        "http://exa*mple.com/",
        "http://exa<mple.com/",
        "http://" + "a" * 64 + ".com/",
        "http://" + ("a" * 60 + ".") * 5 + "com/",
        "http://[::1",
        "http://::1/",
        "http://[::1]a/",
        "http://[v1.fe80::1]/",
        "http://[::1.2.3]/",
        "http://[2606:4700:4700:::1111]/",
        "http://[1.1.1.1]/",
        "http://example.com:65536/a.mp4",
        "http://example.com:0/a.mp4",
        "http://example.com:-80/",
        "http://example.com:8 0/",
        "http://example.com:80:80/",
        "http://example.com:８０/",  # noqa: RUF001 - the point
        "http://example.com/" + "a" * MAX_URL_CHARACTERS,
    ],
)
def test_what_parsers_could_read_in_two_ways_is_invalid(text: str) -> None:
    assert code(text) is FailureCode.SOURCE_URL_INVALID


def test_a_host_that_is_too_long_costs_no_work() -> None:
    """Eighteen letters each: normalised and looked at one by one, they took a second."""
    for host in ("\ufdfa" * 4000, "%" + "\ufdfa" * 4000):
        began_s = time.process_time()
        assert code(f"http://{host}/") is FailureCode.SOURCE_URL_INVALID
        assert time.process_time() - began_s < 0.2


def test_the_longest_url_passes() -> None:
    text = "http://example.com/"
    assert wire(text + "a" * (MAX_URL_CHARACTERS - len(text)))


def test_the_operator_s_exceptions_open_their_addresses_ports_and_names() -> None:
    assert wire("http://127.0.0.1:9000/a", INSIDE) == "http://127.0.0.1:9000/a"
    assert wire("http://10.1.2.3/bucket/k", INSIDE) == "http://10.1.2.3/bucket/k"
    assert wire("http://minio:9000/a", INSIDE)  # judged by its address, once that is known
    assert wire("http://example.com:9000/a", INSIDE)  # likewise
    assert code("http://1.1.1.1:9000/a", INSIDE) is FailureCode.SOURCE_URL_FORBIDDEN
    assert code("http://127.0.0.1/a", INSIDE) is FailureCode.SOURCE_URL_FORBIDDEN
    assert code("http://127.0.0.2:9000/a", INSIDE) is FailureCode.SOURCE_URL_FORBIDDEN


def test_nothing_that_is_shown_holds_the_query() -> None:
    url = parse_source_url("https://example.com:8443/a?sig=secret#secret", PUBLIC)
    assert url.without_query == "https://example.com:8443/a"
    for shown in (str(url), repr(url), f"{url}", url.without_query):
        assert "secret" not in shown


@pytest.mark.parametrize("text", ["http://exa mple.com/?sig=secret", "ftp://a.example/?sig=secret"])
def test_no_refusal_holds_the_query(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_source_url(text, PUBLIC)
    assert "secret" not in repr(caught.value)


def follow(base: str, location: str) -> SourceUrl:
    return parse_source_url(base, PUBLIC).follow(location, PUBLIC)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b?x=%2F", "https://a.example/b?x=%2F"),
        ("c", "https://a.example/a/c"),
        ("?y", "https://a.example/a/b?y"),
        ("//b.example/c", "https://b.example/c"),
        ("https://b.example:8443/c?d#e", "https://b.example:8443/c?d"),
    ],
)
def test_a_redirect_is_resolved_against_its_url(location: str, target: str) -> None:
    assert str(follow("https://a.example/a/b?sig=x", location).wire) == target


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://a.example/", FailureCode.SOURCE_URL_FORBIDDEN),  # a downgrade
        ("//127.0.0.1/", FailureCode.SOURCE_URL_FORBIDDEN),
        ("file:///etc/passwd", FailureCode.SOURCE_URL_FORBIDDEN),
        ("https://a.example:22/", FailureCode.SOURCE_URL_FORBIDDEN),
        ("https://[", FailureCode.SOURCE_URL_INVALID),
        ("https://a b/", FailureCode.SOURCE_URL_INVALID),
        ("/\udcff", FailureCode.SOURCE_URL_INVALID),
        ("ht\ttps://b.example/", FailureCode.SOURCE_URL_INVALID),  # urljoin drops the tab
        ("/\\127.0.0.1/", FailureCode.SOURCE_URL_INVALID),
        ("http:/127.0.0.1/", FailureCode.SOURCE_URL_INVALID),
    ],
)
def test_a_redirect_is_judged_like_any_url(location: str, code: FailureCode) -> None:
    with pytest.raises(SourceError) as caught:
        follow("https://a.example/", location)
    assert caught.value.code is code


def test_a_redirect_from_http_to_https_is_fine() -> None:
    assert follow("http://a.example/", "https://a.example/").scheme == "https"


def accepted(text: str) -> SourceUrl | None:
    try:
        return parse_source_url(text, INSIDE)
    except SourceError:
        return None


@given(st.text(max_size=40).map("http://{}/".format) | st.text(max_size=60))
@example("http://bücher.example/ä?ö")
def test_any_text_is_either_refused_or_read_alike_by_two_parsers(text: str) -> None:
    url = accepted(text)
    if url is not None:
        again = URL(str(url.wire))
        assert (again.scheme, again.raw_host, again.port) == (url.scheme, url.host, url.port)
        assert parse_source_url(str(url.wire), INSIDE) == url
