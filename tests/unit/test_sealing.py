"""Secrets at rest: only our keys open them, whole, and in time."""

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from service.sealing import SealBrokenError, Sealer

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
SEALER = Sealer.with_keys((NEW,))
URL = "https://media.example/v.mp4?sig=s3cret"


@given(st.text())
def test_what_is_sealed_can_be_opened(text: str) -> None:
    assert SEALER.open(SEALER.seal(text)) == text


def test_a_sealed_url_shows_nothing_of_itself() -> None:
    sealed = SEALER.seal(URL)
    assert b"s3cret" not in sealed
    assert SEALER.seal(URL) != sealed  # equal URLs cannot be told from their seals


def test_after_a_rotation_the_old_key_opens_and_the_new_one_seals() -> None:
    before, rotated = Sealer.with_keys((OLD,)), Sealer.with_keys((NEW, OLD))
    assert rotated.open(before.seal(URL)) == URL
    assert SEALER.open(rotated.seal(URL)) == URL
    with pytest.raises(SealBrokenError):
        before.open(rotated.seal(URL))


def test_a_key_that_was_dropped_opens_nothing() -> None:
    with pytest.raises(SealBrokenError):
        SEALER.open(Sealer.with_keys((OLD,)).seal(URL))


@given(st.data())
def test_one_changed_byte_breaks_the_seal(data: st.DataObject) -> None:
    sealed = bytearray(SEALER.seal(URL).rstrip(b"="))
    at = data.draw(st.integers(0, len(sealed) - 3))  # the very last may carry spare bits
    sealed[at] ^= 1
    with pytest.raises(SealBrokenError):
        SEALER.open(bytes(sealed) + b"=" * (-len(sealed) % 4))


@pytest.mark.parametrize("garbage", ["", "forged", "gAAAAA==", "ünïcode", "a" * 10_000])
def test_garbage_is_a_broken_seal_and_no_other_error(garbage: str) -> None:
    with pytest.raises(SealBrokenError):
        SEALER.open_values(garbage, max_age_s=60)


def test_a_seal_expires() -> None:
    hour_old = Fernet(NEW).encrypt_at_time(b'{"key": "k"}', 1_700_000_000).decode()
    with pytest.raises(SealBrokenError):
        SEALER.open_values(hour_old, max_age_s=900)
    fresh = SEALER.seal_values({"key": "k"})
    assert SEALER.open_values(fresh, max_age_s=900) == {"key": "k"}


def test_a_seal_of_the_future_is_broken() -> None:
    ahead = Fernet(NEW).encrypt_at_time(b'{"key": "k"}', 33_000_000_000).decode()
    with pytest.raises(SealBrokenError):
        SEALER.open_values(ahead, max_age_s=900)


def test_values_are_safe_in_a_url_path() -> None:
    token = SEALER.seal_values({"key": "0af7/../x", "size": "12"})
    assert all(letter.isalnum() or letter in "-_=" for letter in token)


def test_a_sealer_does_not_print_its_keys() -> None:
    assert NEW not in repr(SEALER)
    assert "Fernet" not in repr(SEALER)
