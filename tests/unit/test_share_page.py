"""What callers are told who send the page around a file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fetch.share_page import _HINTS, what_to_send


@pytest.mark.parametrize(
    ("host", "path", "hint"),
    [
        ("drive.google.com", "/file/d/abc/view", "uc?export=download"),
        ("www.dropbox.com", "/scl/fi/x/v.mp4", "dl=1"),
        ("dropbox.com.", "/s/x/v.mp4", "dl=1"),
        ("onedrive.live.com", "/", "upload"),
        ("1drv.ms", "/v/s!x", "upload"),
        ("acme-my.sharepoint.com", "/:v:/g/personal/x", "download=1"),
        ("www.icloud.com", "/iclouddrive/x", "upload"),
        ("we.tl", "/t-x", "upload"),
        ("acme.wetransfer.com", "/downloads/x", "upload"),
        ("app.box.com", "/s/x", "/shared/static/"),
        ("www.youtube.com", "/watch", "upload"),
        ("youtu.be", "/x", "upload"),
        ("vimeo.com", "/1", "upload"),
        ("www.instagram.com", "/reel/x", "upload"),
        ("vm.tiktok.com", "/x", "upload"),
        ("github.com", "/acme/site/blob/main/v.mp4", "/raw/"),
        ("gitlab.com", "/acme/a/site/-/blob/main/v.mp4", "/raw/"),
        ("huggingface.co", "/datasets/a/b/blob/main/v.mp4", "/resolve/"),
    ],
)
def test_a_known_service_has_its_advice(host: str, path: str, hint: str) -> None:
    assert hint in (what_to_send(host, path) or "")


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("media.example", "/v.mp4"),
        ("github.com", "/acme/site"),
        ("notdropbox.com", "/s/x"),
        ("dropbox.com.evil.example", "/s/x"),
        ("com", "/"),
        ("google.com", "/"),
        ("203.0.113.5", "/"),
        ("::1", "/"),
        ("", ""),
    ],
)
def test_a_service_that_we_do_not_know_has_none(host: str, path: str) -> None:
    assert what_to_send(host, path) is None


@given(st.text(), st.text())
def test_every_host_and_path_gets_an_answer(host: str, path: str) -> None:
    assert what_to_send(host, path) is None or host


@pytest.mark.parametrize("name", _HINTS)
def test_advice_is_one_short_clause(name: str) -> None:
    hint = what_to_send(name, "/") or ""
    assert 20 < len(hint) < 200
    assert hint.startswith(("a ", "an "))
    assert not hint.endswith(".")
