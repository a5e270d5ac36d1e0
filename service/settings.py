"""Settings are read once, at start, from `GREENROOM_*`; every mistake is reported together."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any, Self

from cryptography.fernet import Fernet
from yarl import URL

from service.fetch.address import MAX_PORT, AllowedBlock, parse_allowed_blocks

PREFIX = "GREENROOM_"
DAY_S = 86_400.0
# An object that is begun and not finished within twice this time is taken for left behind.
LONGEST_TRANSFER_S = 1800.0
S3_LONGEST_EXPIRY_S = 7 * DAY_S


class SettingsError(ValueError):
    """One or more settings are wrong; the message names every one."""


def setting(
    about: str,
    parse: Callable[[str], Any],
    default: Any = MISSING,
    *,
    secret: bool = False,
) -> Any:
    return field(default=default, repr=not secret, metadata={"about": about, "parse": parse})


def _positive(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise ValueError("must be more than 0")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= MAX_PORT:
        raise ValueError("must be 0 to 65535")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError("must be more than 0 seconds")
    return value


def _transfer(text: str) -> float:
    value = _seconds(text)
    if value > LONGEST_TRANSFER_S:
        raise ValueError(f"must be at most {LONGEST_TRANSFER_S:g} seconds")
    return value


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _ports(text: str) -> tuple[int, ...]:
    ports = tuple(int(word) for word in _words(text))
    if not all(1 <= port <= MAX_PORT for port in ports):
        raise ValueError(f"ports are 1 to {MAX_PORT}")
    return ports


def _proxy(text: str) -> URL:
    """The message never repeats the text, which may hold a password."""
    wrong = "must be http://host:port or http://user:password@host:port"
    try:
        url = URL(text)
        f"{url.user}{url.password}".encode("latin-1")  # as the header will have them
    except ValueError:
        raise ValueError(wrong) from None
    plain = url.scheme == "http" and url.host and url.path == "/" and not url.query_string
    if not plain or url.fragment or ":" in (url.user or "") or not url.port:
        raise ValueError(wrong)
    return url


def _fernet_keys(text: str) -> tuple[str, ...]:
    keys = _words(text)
    if not keys:
        raise ValueError("wants at least one key")
    for number, key in enumerate(keys, 1):
        try:
            Fernet(key)
        except ValueError as exc:  # the key itself must not reach the message
            raise ValueError(f"key {number} is not 32 bytes of url-safe base64") from exc
    return keys


def _policy(text: str) -> str:
    if text not in {"standard", "strict"}:
        raise ValueError("must be standard or strict")
    return text


def _flag(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError("must be 0 or 1")
    return text == "1"


def _s3_encryption(text: str) -> str:
    if text not in {"AES256", "aws:kms"}:
        raise ValueError("must be AES256 or aws:kms")
    return text


def _s3_prefix(text: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*/)+", text):
        raise ValueError("must be names of letters, digits, dots and hyphens, each ended by /")
    return text


def _engine(text: str) -> str:
    if text not in {"onnx", "pyannote"}:
        raise ValueError("must be onnx or pyannote")
    return text


def _sandbox(text: str) -> str:
    if text not in {"available", "required", "off"}:
        raise ValueError("must be available, required or off")
    return text


def _device(text: str) -> str:
    if text not in {"cpu", "cuda"}:
        raise ValueError("must be cpu or cuda")
    return text


def _log_level(text: str) -> str:
    level = text.lower()
    if level not in {"debug", "info", "warning", "error"}:
        raise ValueError("must be debug, info, warning or error")
    return level


def _listening(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        return str(IPv4Address(0))  # every address


def _base_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", text):
        raise ValueError("must be an http(s) URL without query")
    URL(text)  # says what is wrong with its host or port
    return text.rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator can choose. The reference page is generated from this class."""

    database_url: str | None = setting(
        "Direct Postgres DSN; unset: an embedded Postgres in the data directory",
        str,
        None,
        secret=True,
    )
    secret_keys: tuple[str, ...] = setting(
        "Comma-separated Fernet keys, newest first; encrypt source URLs, sign local URLs",
        _fernet_keys,
        (),
        secret=True,
    )
    data_dir: Path = setting("Local store and embedded parts", Path, Path(".greenroom"))
    models_dir: Path | None = setting(
        "Where model weights live; unset: the user's cache", Path, None
    )
    speaker_engine: str = setting(
        "What tells voices apart: onnx, or pyannote (wants greenroom[pyannote])", _engine, "onnx"
    )
    device: str = setting("Where pyannote computes: cpu or cuda", _device, "cpu")
    pyannote_pipeline: str = setting(
        "Diarization pipeline of the Hugging Face hub; unset: built from pinned weights", str, ""
    )
    huggingface_token: str | None = setting(
        "Token for that pipeline, where the hub wants one", str, None, secret=True
    )
    s3_bucket: str | None = setting(
        "Bucket for assets; unset: a folder in the data directory", str, None
    )
    s3_endpoint: str | None = setting(
        "URL of an S3-compatible server; unset: Amazon's", _base_url, None
    )
    s3_public_endpoint: str | None = setting(
        "How callers reach that server; unset: as we do", _base_url, None
    )
    s3_region: str = setting("Region of the bucket", str, "us-east-1")
    s3_access_key_id: str | None = setting(
        "Its access key; unset: from the environment or the instance, as Amazon's tools do",
        str,
        None,
        secret=True,
    )
    s3_secret_access_key: str | None = setting("The secret of that key", str, None, secret=True)
    s3_prefix: str = setting("What the name of every object begins with", _s3_prefix, "")
    s3_path_style: bool = setting(
        "1: the bucket stands in the path, not in the host's name", _flag, False
    )
    s3_encryption: str = setting(
        "Server-side encryption: AES256 or aws:kms; unset: the bucket's own", _s3_encryption, ""
    )
    s3_kms_key_id: str | None = setting("Key for aws:kms; unset: the account's own", str, None)
    s3_storage_class: str = setting("Storage class of objects; unset: the bucket's own", str, "")
    host: str = setting("Address the API listens on", str, "127.0.0.1")
    port: int = setting("Port the API listens on; 0 takes a free one", _port, 8080)
    public_url: str | None = setting(
        "How callers reach the API; unset: host and port", _base_url, None
    )
    log_level: str = setting("debug, info, warning or error", _log_level, "info")

    runtime_types: tuple[str, ...] = setting(
        "Runtimes that avatars may be made for", _words, ("avtr1", "gaussian", "mock")
    )
    default_runtime_type: str = setting("Runtime of avatars that name none", str, "avtr1")
    default_policy: str = setting("Policy of organisations that name none", _policy, "standard")

    fetch_allow: tuple[AllowedBlock, ...] = setting(
        "Address blocks, with optional ports, that sources may use although not public",
        parse_allowed_blocks,
        (),
    )
    fetch_ports: tuple[int, ...] = setting(
        "Ports of public addresses that sources may use besides 80, 443, 8080 and 8443", _ports, ()
    )
    webhook_allow: tuple[AllowedBlock, ...] = setting(
        "Address blocks, with optional ports, that webhooks may use although not public",
        parse_allowed_blocks,
        (),
    )
    egress_proxy: URL | None = setting(
        "HTTP proxy for sources and webhooks, `http://user:password@host:port`; it resolves names,"
        " and must refuse private addresses",
        _proxy,
        None,
        secret=True,
    )
    fetch_connect_timeout_s: float = setting("Longest wait for a connection", _seconds, 10.0)
    fetch_idle_timeout_s: float = setting("Longest wait for the next bytes", _seconds, 20.0)
    fetch_total_timeout_s: float = setting("Longest fetch", _transfer, 300.0)
    fetch_concurrency: int = setting("Fetches at once in one process", _positive, 200)
    fetch_concurrency_per_host: int = setting("Fetches at once from one host", _positive, 8)

    max_video_bytes: int = setting("Largest video", _positive, 500_000_000)
    max_audio_bytes: int = setting("Largest audio", _positive, 100_000_000)
    max_image_bytes: int = setting("Largest image", _positive, 50_000_000)
    max_portrait_bytes: int = setting("Largest portrait upload", _positive, 20_000_000)
    max_json_bytes: int = setting("Largest JSON body", _positive, 65_536)
    body_idle_timeout_s: float = setting(
        "Longest wait for the next bytes of a request's body", _seconds, 20.0
    )
    body_total_timeout_s: float = setting("Longest wait for a whole body", _transfer, 300.0)

    inspect_timeout_s: float = setting("Longest decode, and longest analysis", _seconds, 60.0)
    inspect_concurrency: int | None = setting(
        "Inspections and derivations at once in one process; unset: one per core", _positive, None
    )
    sandbox: str = setting(
        "available: confine decoders with all that this kernel has; required: do not start where"
        " Landlock or seccomp is missing; off: limits alone",
        _sandbox,
        "available",
    )
    decoder_memory_bytes: int = setting("Address space of a decoder", _positive, 2 << 30)
    analysis_memory_bytes: int = setting("Memory of an analysis child", _positive, 1536 << 20)

    heartbeat_timeout_s: float = setting("A worker silent for this long has died", _seconds, 6.0)
    sweep_interval_s: float = setting("Pause between searches for forgotten work", _seconds, 5.0)
    drain_timeout_s: float = setting("Longest wait for work in hand when stopping", _seconds, 20.0)
    fitting_timeout_s: float = setting("Longest wait for the fitter", _seconds, 86_400.0)
    signed_url_expiry_s: float = setting("How long a signed URL gives bytes", _seconds, 900.0)
    upload_expiry_s: float = setting("How long an upload URL takes bytes", _seconds, 3600.0)

    keep_events_s: float = setting("How long events can be read", _seconds, 30 * DAY_S)
    keep_job_log_s: float = setting("How long the log of jobs is kept", _seconds, 30 * DAY_S)
    keep_answers_s: float = setting(
        "How long an Idempotency-Key gets its first answer", _seconds, DAY_S
    )
    keep_uploads_s: float = setting(
        "How long an upload that nobody finalises is kept", _seconds, DAY_S
    )
    keep_refused_s: float = setting(
        "How long the bytes of rejected and failed sources are kept", _seconds, 7 * DAY_S
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read and check every setting; raise SettingsError naming all that are wrong."""
        values: dict[str, Any] = {}
        problems = []
        unknown = {name for name in environ if name.startswith(PREFIX)} - NOT_SETTINGS
        for f in fields(cls):
            name = PREFIX + f.name.upper()
            unknown.discard(name)
            if not environ.get(name):
                continue
            try:
                values[f.name] = f.metadata["parse"](environ[name])
            except ValueError as exc:
                problems.append(f"{name}: {exc}")
        problems += [f"{name}: no such setting" for name in sorted(unknown)]
        if not problems:
            made = cls(**values)
            problems = list(_contradictions(made))
            if not problems:
                return made
        raise SettingsError("; ".join(problems))

    @property
    def own(self) -> frozenset[tuple[str, int]]:
        """Hosts and ports where this service answers. A name that it listens on may be any
        address of this host.
        """
        public = URL(self.public_url or "")
        named = {(public.raw_host, public.port)} if public.raw_host and public.port else set()
        return frozenset({(_listening(self.host), self.port), *named})

    def filled(self, *, database_url: str, secret_keys: tuple[str, ...]) -> Self:
        """The same settings with the parts that `dev` brings itself."""
        return replace(self, database_url=database_url, secret_keys=secret_keys)


def _contradictions(chosen: Settings) -> Iterator[str]:
    """What is right by itself, and wrong beside another setting."""
    if chosen.default_runtime_type not in chosen.runtime_types:
        yield f"{PREFIX}DEFAULT_RUNTIME_TYPE: not one of {PREFIX}RUNTIME_TYPES"
    if (chosen.s3_access_key_id is None) != (chosen.s3_secret_access_key is None):
        yield f"{PREFIX}S3_ACCESS_KEY_ID and {PREFIX}S3_SECRET_ACCESS_KEY: give both or none"
    if chosen.s3_kms_key_id and chosen.s3_encryption != "aws:kms":
        yield f"{PREFIX}S3_KMS_KEY_ID: wants {PREFIX}S3_ENCRYPTION=aws:kms"
    if chosen.s3_bucket is None:
        yield from _without_a_bucket(chosen)
        return
    for name in ("signed_url_expiry_s", "upload_expiry_s"):
        if getattr(chosen, name) > S3_LONGEST_EXPIRY_S:
            yield f"{PREFIX}{name.upper()}: S3 signs for {S3_LONGEST_EXPIRY_S:g} seconds at most"


def _without_a_bucket(chosen: Settings) -> Iterator[str]:
    """An operator who names a server wants his assets there, and not on this disk."""
    for f in fields(Settings):
        if f.name.startswith("s3_") and getattr(chosen, f.name) != f.default:
            yield f"{PREFIX}{f.name.upper()}: wants {PREFIX}S3_BUCKET"


# names with our prefix that are no setting of the service: test suites and their folders
NOT_SETTINGS = frozenset({"GREENROOM_CORPUS"})
