"""The `greenroom` command as a person types it: exit statuses, sentences, and no traceback."""

import asyncio
import json
import os
import pty
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from service.db.embedded import EmbeddedPostgres
from service.settings import Settings

ROOT = Path(__file__).parents[2]
VOICE = ROOT / "samples" / "voice.flac"
SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def environ(settings: Mapping[str, str]) -> dict[str, str]:
    """Ours without any setting, and with the given ones."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")}
    return kept | {f"GREENROOM_{name.upper()}": value for name, value in settings.items()}


async def greenroom(*words: str | Path, **settings: str) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", *map(str, words)),
        cwd=ROOT,
        env=environ(settings),
        stdout=PIPE,
        stderr=PIPE,
    )
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return Ended(status=process.returncode or 0, out=out.decode(), err=err.decode())


async def test_every_command_explains_itself() -> None:
    commands = ("demo", "dev", "api", "worker", "migrate", "keys", "check", "models")
    shown = await greenroom("--help")
    assert shown.status == 0
    assert all(command in shown.out for command in commands)


async def test_wrong_settings_end_any_command_with_every_mistake_in_one_line() -> None:
    ended = await greenroom("migrate", port="x", typo="1", secret_keys="short")  # noqa: S106 - no key
    assert ended.status == 2
    (line,) = ended.err.splitlines()
    for name in ("GREENROOM_PORT", "GREENROOM_TYPO", "GREENROOM_SECRET_KEYS"):
        assert name in line


async def test_a_service_says_what_it_needs_and_cannot_start_without() -> None:
    ended = await greenroom("worker")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("greenroom: GREENROOM_DATABASE_URL: not set")


@pytest.mark.parametrize(("kinds", "said"), [("nope", "nope"), ("fetch,fit", "fit"), (",", "kind")])
async def test_a_worker_refuses_kinds_of_work_that_there_are_not(kinds: str, said: str) -> None:
    ended = await greenroom("worker", "--kinds", kinds)
    assert ended.status == 2
    assert ended.err.startswith("greenroom: --kinds: ")
    assert said in ended.err


async def test_a_database_that_is_away_is_a_sentence(tmp_path: Path) -> None:
    ended = await greenroom("migrate", database_url=f"postgresql:///x?host={tmp_path}&user=x")
    assert ended.status == 1
    assert ended.err.startswith("greenroom: ")


async def test_a_database_that_does_not_exist_is_a_sentence(postgres: EmbeddedPostgres) -> None:
    ended = await greenroom("keys", "list", database_url=postgres.dsn("nowhere"))
    assert ended.status == 1
    assert 'database "nowhere" does not exist' in ended.err


async def test_migrating_says_what_it_applied(postgres: EmbeddedPostgres) -> None:
    dsn = await postgres.ensure_database("by_command")
    behind = await greenroom("worker", database_url=dsn, secret_keys=Fernet.generate_key().decode())
    assert behind.status == 2
    assert "run `greenroom migrate` first" in behind.err
    first = await greenroom("migrate", database_url=dsn)
    again = await greenroom("migrate", database_url=dsn)
    assert first.status == again.status == 0
    assert first.out.startswith("applied 0001_")
    assert again.out == "nothing to apply\n"


async def test_keys_are_made_listed_and_revoked(dsn: str) -> None:
    made = await greenroom("keys", "create", "acme", "--scope", "events:read", database_url=dsn)
    assert made.status == 0
    assert made.out.startswith("sk_live_")
    assert len(made.out.split()) == 1  # fit for $(...)
    (key,) = (await greenroom("keys", "list", "--json", database_url=dsn)).lines
    assert (key["organisation"], key["scopes"], key["revoked"]) == ("acme", ["events:read"], False)
    assert (await greenroom("keys", "revoke", key["id"], database_url=dsn)).status == 0
    again = await greenroom("keys", "revoke", key["id"], database_url=dsn)
    assert again.status == 1
    assert again.err == f"greenroom: no live key {key['id']}\n"
    (key,) = (await greenroom("keys", "list", "acme", "--json", database_url=dsn)).lines
    assert key["revoked"] is True
    table = await greenroom("keys", "list", database_url=dsn)
    assert made.out.strip() not in table.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("acme", "--scope", "root"), "greenroom: no such scope: root\n"),
        (("Acme Inc",), "'Acme Inc' names no organisation"),
    ],
)
async def test_a_key_that_cannot_be_is_a_sentence(
    dsn: str, words: tuple[str, ...], said: str
) -> None:
    ended = await greenroom("keys", "create", *words, database_url=dsn)
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.err


async def test_a_new_secret_is_one_that_settings_take() -> None:
    ended = await greenroom("keys", "secret")
    key = ended.out.strip()
    assert Settings.from_environ({"GREENROOM_SECRET_KEYS": key}).secret_keys == (key,)
    assert ended.err == ""


async def test_files_are_judged_in_the_order_given_and_the_worst_is_the_status(
    tmp_path: Path,
) -> None:
    missing, garbage = tmp_path / "missing.mp4", tmp_path / "garbage.bin"
    garbage.write_bytes(b"\x01\x02\x03" * 1000)
    ended = await greenroom("check", "--json", VOICE, missing, garbage)
    assert ended.status == 3
    voice, lost, refused = ended.lines
    assert [line["path"] for line in ended.lines] == [str(VOICE), str(missing), str(garbage)]
    assert voice["verdict"] == "accepted"
    assert voice["media"]["kind"] == "audio"
    assert {check["outcome"] for check in voice["checks"]} <= {
        "pass",
        "warn",
        "uncertain",
        "skipped",
    }
    assert set(lost) == {"path", "error"}
    assert lost["error"]["code"] == "not_readable"
    assert lost["error"]["message"] == "No such file or directory"
    assert refused["verdict"] == "rejected"
    failed = [check["code"] for check in refused["checks"] if check["outcome"] == "fail"]
    assert failed == ["unsupported_format"]


async def test_a_refusal_alone_is_status_1_and_says_why(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.bin"
    garbage.write_bytes(b"\x01\x02\x03" * 1000)
    ended = await greenroom("check", garbage, "--kind", "image")
    assert ended.status == 1
    assert "rejected" in ended.out
    assert "unsupported_format" in ended.out


async def test_an_accepted_file_is_status_0_from_any_folder(tmp_path: Path) -> None:
    here = Path(os.path.relpath(VOICE, ROOT))
    ended = await greenroom("check", "--json", here, "--policy", "standard", data_dir=str(tmp_path))
    assert ended.status == 0
    assert [line["path"] for line in ended.lines] == [str(here)]
    assert not list(tmp_path.iterdir())  # neither a store nor a database


async def test_no_name_commands_the_terminal_or_breaks_a_line(tmp_path: Path) -> None:
    hostile = tmp_path / os.fsdecode(b"\xff\x1b[2J[red]" + b"x" * 100 + b".mp4")
    hostile.write_bytes(b"x")
    (line,) = (await greenroom("check", "--json", hostile)).lines
    assert line["path"] == str(hostile)
    shown = await greenroom("check", hostile)
    assert shown.status == 1
    assert f"[2J[red]{'x' * 100}.mp4\n" in shown.out  # one line, to be copied whole
    assert "\x1b" not in shown.out
    assert "could not" not in shown.out


async def test_verdicts_go_where_they_are_sent_while_a_terminal_shows_how_far_it_is(
    tmp_path: Path,
) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "check", "--json", str(tmp_path / "none.mp4")),
        cwd=ROOT,
        env=environ({}) | {"TERM": "xterm"},
        stdout=PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    async with asyncio.timeout(SECONDS):
        out, _ = await process.communicate()
    shown = os.read(ours, 1 << 16)
    os.close(ours)
    assert process.returncode == 3
    assert [json.loads(line)["error"]["code"] for line in out.splitlines()] == ["not_readable"]
    assert b"0/1 judging" in shown
    assert b"not_readable" not in shown


@pytest.mark.parametrize(
    "words", [(), ("x", "--kind", "text"), ("x", "--policy", "lax"), ("x", "--nonsense")]
)
async def test_wrong_usage_of_check_is_status_2(words: tuple[str, ...]) -> None:
    ended = await greenroom("check", *words)
    assert (ended.status, ended.out) == (2, "")


async def test_models_are_listed_with_what_they_are() -> None:
    ended = await greenroom("models", "--list", "--json")
    assert ended.status == 0
    for line in ended.lines:
        assert set(line) == {
            *("name", "package", "version", "member", "sha256", "licence", "here"),
        }
        # a library is compiled for its platform, so it has no one hash
        assert line["sha256"] is None or len(line["sha256"]) == 64
    table = await greenroom("models", "--list")
    assert table.status == 0
    assert "licence" in table.out


async def test_a_second_dev_on_the_same_data_says_who_has_it_and_leaves_the_first_alone(
    tmp_path: Path,
) -> None:
    data, ready = tmp_path / "data", tmp_path / "ready"
    first = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "dev", "--port", "0"),
        *("--data", str(data), "--ready-file", str(ready)),
        cwd=ROOT,
        env=environ({"log_level": "warning"}),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(SECONDS):
            while not await asyncio.to_thread(ready.exists):  # noqa: ASYNC110 - a file wakes nobody
                await asyncio.sleep(0.05)
        second = await greenroom("dev", "--port", "0", "--data", data)
        assert second.status == 2
        assert second.err.splitlines()[-1].startswith("greenroom: ")
        assert f"is in use by process {first.pid}" in second.err
        taken = json.loads(await asyncio.to_thread(ready.read_text))["url"].rpartition(":")[2]
        elsewhere = await greenroom("dev", "--port", taken, "--data", tmp_path / "other")
        assert elsewhere.status == 1
        assert "ddress already in use" in elsewhere.err
        assert first.returncode is None
    finally:
        first.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            assert await first.wait() == 0
