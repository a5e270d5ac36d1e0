"""One 128-bit id, two spellings: a UUID, and a prefix with Crockford base32 of the same bits."""

from uuid import UUID

from uuid_utils.compat import uuid7

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
ULID_LENGTH = 26
AVATAR_PREFIX = "av_"


def new_id() -> UUID:
    """A fresh UUIDv7: sorts by the time it was made."""
    return uuid7()


def ulid(value: UUID) -> str:
    """The 26 characters of a ULID for the bits of *value*."""
    bits = value.int
    return "".join(_ALPHABET[bits >> shift & 31] for shift in range(125, -1, -5))


def new_request_id() -> str:
    """For a request whose caller named none."""
    return f"req_{ulid(new_id())}"


def avatar_spelling(value: UUID) -> str:
    return AVATAR_PREFIX + ulid(value)


def parse_id(text: str, *, prefix: str = AVATAR_PREFIX) -> UUID | None:
    """The id that *text* spells, either way; None when it spells none."""
    if text.startswith(prefix):
        return _parse_ulid(text.removeprefix(prefix))
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text.lower() else None  # UUID() also takes braces and urn:


def _parse_ulid(text: str) -> UUID | None:
    if len(text) != ULID_LENGTH or text[0] > "7":  # a first letter over 7 would need 129 bits
        return None
    bits = 0
    for letter in text:
        value = _VALUES.get(letter)
        if value is None:
            return None
        bits = bits << 5 | value
    return UUID(int=bits)
