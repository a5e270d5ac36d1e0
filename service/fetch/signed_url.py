"""When does a signed URL expire? Read from the URL itself, for the signatures in common use.

Signed URLs run out in queues: the expiry becomes the fetch's deadline, and an expired URL is
never tried again. A URL that we cannot read simply has no known expiry.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

_MAX_FIELDS = 100
# What stores say when a signature has run out; all of them within the first kilobyte.
_EXPIRED_MARKERS = (
    b"request has expired",  # S3
    b"<code>expiredtoken</code>",  # S3 and GCS
    b"token has expired",
    b"policy has expired",
    b"signature not valid in the specified time frame",  # Azure
    b"signature has expired",
    b"url signature expired",  # Meta's CDN
)

Query = Mapping[str, str]


def expiry_of(url: str) -> datetime | None:
    """The moment (aware, UTC) from which *url* is refused by its store; the earliest it names."""
    try:
        pairs = parse_qsl(urlsplit(url).query, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return None
    query = {name.lower(): value for name, value in reversed(pairs)}
    found = [expiry for read in _READERS if (expiry := _attempt(read, query)) is not None]
    return min(found, default=None)


def says_expired(body: bytes) -> bool:
    """Whether a refusal's *body* says that the URL's signature has run out."""
    text = body.lower()
    return any(marker in text for marker in _EXPIRED_MARKERS)


def _attempt(read: Callable[[Query], datetime], query: Query) -> datetime | None:
    try:
        return read(query)
    except (LookupError, TypeError, ValueError, OverflowError, OSError, RecursionError):
        return None  # not this kind of signature, or not one that its store would take


def _amazon(query: Query) -> datetime:
    """AWS Signature Version 4: signed at, for so many seconds. R2, B2 and MinIO do the same."""
    return _signed_for(query["x-amz-date"], query["x-amz-expires"])


def _google(query: Query) -> datetime:
    """Google Cloud Storage, V4 signing."""
    return _signed_for(query["x-goog-date"], query["x-goog-expires"])


def _alibaba(query: Query) -> datetime:
    """Alibaba OSS, V4 signing."""
    return _signed_for(query["x-oss-date"], query["x-oss-expires"])


def _tencent(query: Query) -> datetime:
    """Tencent COS: `begin;end` in seconds since the epoch."""
    _ = query["q-signature"]
    return _from_epoch(int(query["q-sign-time"].partition(";")[2]))


def _epoch(query: Query) -> datetime:
    """S3, GCS and OSS V1 and V2, CloudFront with a canned policy: `Expires` beside `Signature`."""
    _ = query["signature"]  # without one, Expires is some application's own word
    return _from_epoch(int(query["expires"]))


def _azure(query: Query) -> datetime:
    """A shared access signature: `se` beside `sig`."""
    _ = query["sig"]
    expiry = datetime.fromisoformat(query["se"])
    return expiry.replace(tzinfo=UTC) if expiry.tzinfo is None else expiry.astimezone(UTC)


def _cloudfront_policy(query: Query) -> datetime:
    """CloudFront with a custom policy: JSON in base64 with `+=/` written as `-_~`."""
    encoded = query["policy"].translate(str.maketrans("-_~", "+=/"))
    try:
        policy = json.loads(base64.b64decode(encoded))
    except binascii.Error as exc:
        raise ValueError("not base64") from exc
    condition = policy["Statement"][0]["Condition"]
    return _from_epoch(int(condition["DateLessThan"]["AWS:EpochTime"]))


def _signed_for(signed_at: str, seconds: str) -> datetime:
    start = datetime.strptime(signed_at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return start + timedelta(seconds=int(seconds))


def _from_epoch(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


_READERS = (_amazon, _google, _alibaba, _tencent, _epoch, _azure, _cloudfront_policy)
