"""Measured values as people read them, and names as they can be shown."""

import re
import unicodedata
from collections.abc import Sequence

from validators.facts import Range

THIN = "\u202f"  # a narrow space that does not break
TO = "\u2013"
NOTHING = TO
BY = "\u00d7"
TIED = "\u00a0"
UNSHOWN = "\ufffd"
SHOWN_RANGES = 6
KILO = 1024
NUMBER_AND_UNIT = re.compile(r"(\d) (s|px|dB|dBFS|fps|%)\b")
COUNTED = frozenset({"frames", "streams"})
NO_UNITS = frozenset({"probability", "score", "distance", "luma"})  # names of what is measured
SIGNS = {"deg": "\u00b0", "1/s": " per s"}
TURNED_TEXT = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str) -> str:
    """*text* on one line, without what a terminal or a browser would obey instead of showing.

    A file may be called anything: control characters, marks that turn text around, and bytes
    that are no UTF-8 become U+FFFD.
    """
    return "".join(
        UNSHOWN if letter in TURNED_TEXT or unicodedata.category(letter) in {"Cc", "Cs"} else letter
        for letter in text
    )


def sentence(text: str) -> str:
    """A message as it is shown: a number keeps its unit on its line."""
    return NUMBER_AND_UNIT.sub(f"\\1{TIED}\\2", plain(text))


def amount(value: float | None, unit: str | None) -> str:
    """A value with its unit; a share as a percentage."""
    if value is None:
        return NOTHING
    if unit == "share":
        return f"{_trimmed(value * 100, 1)}{THIN}%"
    if value == 1 and unit in COUNTED:
        return f"1{THIN}{unit.removesuffix('s')}"
    shown = _trimmed(value, 0 if unit in {"px", "frames"} else 2)
    if unit is None or unit in NO_UNITS:
        return shown
    return f"{shown}{SIGNS.get(unit, f'{THIN}{unit}')}"


def _trimmed(value: float, digits: int) -> str:
    """Fixed digits without trailing zeros, thousands apart; a very small value keeps two."""
    if value and abs(value) < 0.5 * 10**-digits:
        return f"{value:.2g}"
    text = f"{value:,.{digits}f}".replace(",", THIN).replace("-", "\u2212")
    return text.rstrip("0").rstrip(".") if "." in text else text


def moment(time_s: float) -> str:
    return f"{time_s:.1f}{THIN}s"


def span(shown: Range) -> str:
    """From and to; one moment where both are the same to a tenth of a second."""
    start, end = f"{shown[0]:.1f}", f"{shown[1]:.1f}"
    return f"{start}{THIN}s" if start == end else f"{start}{TO}{end}{THIN}s"


def spans(ranges: Sequence[Range], *, most: int = SHOWN_RANGES) -> str:
    shown = ", ".join(span(each) for each in ranges[:most])
    more = len(ranges) - most
    return f"{shown} and {more} more" if more > 0 else shown


def count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def size(size_bytes: int) -> str:
    value, unit = float(size_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if value < KILO:
            break
        value, unit = value / KILO, larger
    digits = 0 if unit == "bytes" else 1
    return f"{value:.{digits}f}{THIN}{unit}"
