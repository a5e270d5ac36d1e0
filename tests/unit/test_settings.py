"""Settings: read once, every mistake at once, and no secret in any message."""

import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from yarl import URL

from service.fetch.limits import FetchLimits
from service.settings import NOT_SETTINGS, Settings, SettingsError

KEY = Fernet.generate_key().decode()
DSN = "postgresql://greenroom:hunter2@db.internal/greenroom"


def mistakes(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(
            {f"GREENROOM_{name.upper()}": value for name, value in environ.items()}
        )
    return str(caught.value)


def test_nothing_has_to_be_set() -> None:
    assert Settings.from_environ({}) == Settings()


def test_every_mistake_is_reported_together() -> None:
    said = mistakes(
        port="65536",
        max_video_bytes="0",
        fetch_total_timeout_s="nan",
        secret_keys="short",  # noqa: S106 - no key at all
        default_policy="lax",
        public_url="ftp://x",
        log_level="loud",
        fetch_allow="10.0.0.0/8, nonsense, 1.2.3.4:99999",
        fetch_ports="81, 0",
        webhook_allow="10.0.0.1/8",
        egress_proxy="https://proxy.internal:4750",
        typo="1",
    )
    named = re.findall(r"GREENROOM_(\w+): ", said)
    assert sorted(named) == [
        "DEFAULT_POLICY",
        "EGRESS_PROXY",
        "FETCH_ALLOW",
        "FETCH_PORTS",
        "FETCH_TOTAL_TIMEOUT_S",
        "LOG_LEVEL",
        "MAX_VIDEO_BYTES",
        "PORT",
        "PUBLIC_URL",
        "SECRET_KEYS",
        "TYPO",
        "WEBHOOK_ALLOW",
    ]
    assert "nonsense" in said
    assert "1.2.3.4:99999" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "-1"),
        ("port", "http"),
        ("max_image_bytes", "-5"),
        ("max_image_bytes", "50 MB"),
        ("fetch_idle_timeout_s", "0"),
        ("fetch_idle_timeout_s", "inf"),
        ("fetch_idle_timeout_s", "soon"),
        ("fetch_total_timeout_s", "1800.1"),  # or what is still written would be swept away
        ("body_total_timeout_s", "3600"),
        ("inspect_concurrency", "0"),
        ("secret_keys", ","),
        ("secret_keys", " , "),
        ("log_level", "verbose"),
        ("public_url", "https://x.example/?a=1"),
        ("public_url", "x.example"),
        ("public_url", "https://x.example:99999"),
        ("public_url", "https://[::1"),
        ("fetch_allow", "http://10.0.0.1"),
        ("webhook_allow", "10.0.0.0/8:0"),
        ("fetch_ports", "http"),
        ("fetch_ports", "65536"),
        ("default_runtime_type", "avtr2"),
        ("no_such_thing", "1"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str) -> None:
    assert mistakes(**{name: value}).startswith(f"GREENROOM_{name.upper()}: ")


def test_a_key_that_is_none_is_counted_and_not_repeated() -> None:
    wrong = KEY[:-4]
    said = mistakes(secret_keys=f"{KEY},{wrong}")
    assert "key 2 " in said
    assert wrong not in said
    assert KEY not in said


def test_secrets_stay_out_of_repr() -> None:
    settings = Settings.from_environ(
        {"GREENROOM_DATABASE_URL": DSN, "GREENROOM_SECRET_KEYS": f"{KEY}, {KEY}"}
    )
    assert settings.secret_keys == (KEY, KEY)
    assert settings.database_url == DSN
    assert "hunter2" not in repr(settings)
    assert KEY not in repr(settings)
    assert "8080" in repr(settings)


@pytest.mark.parametrize(
    "proxy",
    [
        "https://user:hunter2@proxy.internal:4750",
        "socks5://user:hunter2@proxy.internal:4750",
        "http://user:hunter2@proxy.internal:4750/path",
        "http://user:hunter2@proxy.internal:4750?a=1",
        "http://user:hunter2@proxy.internal:4750/#a",
        "http://user:hunter2@proxy.internal:99999",
        "http://user:hunter2@:4750",
        "http://us%3Aer:hunter2@proxy.internal",  # the header could not tell where the user ends
        "http://user:hunter2\u20ac@proxy.internal",
        "http://user:hunter2@[::1",
        "user:hunter2@proxy.internal:4750",
        "hunter2",
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_and_its_password_is_not(proxy: str) -> None:
    said = mistakes(egress_proxy=proxy)
    assert said.startswith("GREENROOM_EGRESS_PROXY: must be http://")
    assert "hunter2" not in said


def test_the_ways_out_are_read_as_what_they_are() -> None:
    settings = Settings.from_environ(
        {
            "GREENROOM_FETCH_ALLOW": "127.0.0.1/32:9000, 10.0.0.0/8",
            "GREENROOM_FETCH_PORTS": "8000, 9443",
            "GREENROOM_WEBHOOK_ALLOW": "[fd00::/8]:9000",
            "GREENROOM_EGRESS_PROXY": "http://user:hunter2@proxy.internal:4750",
        }
    )
    assert [str(block) for block in settings.fetch_allow] == ["127.0.0.1/32:9000", "10.0.0.0/8"]
    assert [str(block) for block in settings.webhook_allow] == ["[fd00::/8]:9000"]
    assert settings.fetch_ports == (8000, 9443)
    assert settings.egress_proxy == URL("http://user:hunter2@proxy.internal:4750")
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("chosen", "own"),
    [
        (Settings(), {("127.0.0.1", 8080)}),
        (Settings(host="localhost", port=80), {("0.0.0.0", 80)}),  # noqa: S104 - bound by nobody
        (Settings(host="0::1"), {("::1", 8080)}),
        (
            Settings(public_url="https://Media.example/greenroom"),
            {("127.0.0.1", 8080), ("media.example", 443)},
        ),
    ],
)
def test_the_service_knows_where_it_answers(chosen: Settings, own: set[tuple[str, int]]) -> None:
    assert chosen.own == own


def test_only_our_prefix_is_looked_at() -> None:
    environ = {"PORT": "x", "greenroom_port": "x", "GREENROOM_CORPUS": "/media"}
    assert Settings.from_environ(environ) == Settings()
    assert {"GREENROOM_CORPUS"} == NOT_SETTINGS


def test_values_are_read_as_what_they_are() -> None:
    settings = Settings.from_environ(
        {
            "GREENROOM_DATA_DIR": "/srv/greenroom",
            "GREENROOM_PORT": "0",
            "GREENROOM_LOG_LEVEL": "WARNING",
            "GREENROOM_PUBLIC_URL": "https://media.example/greenroom/",
            "GREENROOM_HEARTBEAT_TIMEOUT_S": "0.5",
            "GREENROOM_INSPECT_CONCURRENCY": "3",
        }
    )
    assert settings.data_dir == Path("/srv/greenroom")
    assert (settings.port, settings.log_level) == (0, "warning")
    assert settings.public_url == "https://media.example/greenroom"
    assert (settings.heartbeat_timeout_s, settings.inspect_concurrency) == (0.5, 3)


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]  # that it cannot be assigned is the point


def test_filling_in_changes_nothing_else() -> None:
    filled = Settings(port=9).filled(database_url=DSN, secret_keys=(KEY,))
    assert (filled.port, filled.database_url, filled.secret_keys) == (9, DSN, (KEY,))


@pytest.mark.parametrize(
    ("name", "promised"),
    [
        ("max_video_bytes", 500 * 10**6),
        ("max_audio_bytes", 100 * 10**6),
        ("max_image_bytes", 50 * 10**6),
        ("max_portrait_bytes", 20 * 10**6),
        ("max_json_bytes", 64 * 1024),
        ("fetch_connect_timeout_s", 10),
        ("fetch_idle_timeout_s", 20),
        ("fetch_total_timeout_s", 300),
        ("fetch_concurrency_per_host", 8),
        ("fetch_concurrency", 200),
        ("inspect_timeout_s", 60),
        ("decoder_memory_bytes", 2 * 1024**3),
        ("analysis_memory_bytes", 3 * 1024**3 // 2),
        ("fitting_timeout_s", 24 * 3600),
        ("fetch_allow", ()),
        ("fetch_ports", ()),
        ("webhook_allow", ()),
        ("egress_proxy", None),
        ("default_policy", "standard"),
    ],
)
def test_defaults_are_the_ones_that_are_promised(name: str, promised: object) -> None:
    assert getattr(Settings(), name) == promised


def test_limits_that_are_no_settings_are_the_promised_ones() -> None:
    limits = FetchLimits()
    assert limits.min_bytes_per_s == 16 * 1024
    assert (limits.rate_window_s, limits.max_redirects) == (10, 5)


def _plain(default: object) -> object:
    return int(default) if isinstance(default, bool) else default


def test_every_default_can_be_written_in_the_environment() -> None:
    for setting in fields(Settings):
        default = setting.default
        if default in (None, ()):
            continue
        written = ",".join(default) if isinstance(default, tuple) else str(_plain(default))
        read = Settings.from_environ({f"GREENROOM_{setting.name.upper()}": written})
        assert getattr(read, setting.name) == default, setting.name


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert Settings.from_environ({"GREENROOM_DATABASE_URL": "", "GREENROOM_MODELS_DIR": ""}) == (
        Settings()
    )


@pytest.mark.parametrize(
    ("chosen", "complaint"),
    [
        ({"S3_BUCKET": "b", "S3_ACCESS_KEY_ID": "k"}, "S3_SECRET_ACCESS_KEY: give both or none"),
        ({"S3_BUCKET": "b", "S3_SECRET_ACCESS_KEY": "s"}, "S3_SECRET_ACCESS_KEY: give both"),
        ({"S3_ENDPOINT": "http://s3.example"}, "GREENROOM_S3_ENDPOINT: wants GREENROOM_S3_BUCKET"),
        ({"S3_PATH_STYLE": "1"}, "GREENROOM_S3_PATH_STYLE: wants GREENROOM_S3_BUCKET"),
        ({"S3_BUCKET": "b", "S3_KMS_KEY_ID": "k"}, "GREENROOM_S3_KMS_KEY_ID: wants"),
        ({"S3_BUCKET": "b", "UPLOAD_EXPIRY_S": "604801"}, "UPLOAD_EXPIRY_S: S3 signs for 604800"),
    ],
)
def test_settings_of_s3_that_contradict_each_other_are_named(
    chosen: dict[str, str], complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        Settings.from_environ({f"GREENROOM_{name}": value for name, value in chosen.items()})


def test_a_bucket_alone_is_enough_for_s3() -> None:
    assert Settings.from_environ({"GREENROOM_S3_BUCKET": "b"}).s3_bucket == "b"
