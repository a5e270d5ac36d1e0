"""Settings and logs, as every command starts: a mistake ends it with status 2 and a sentence."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn

import asyncpg
import typer
import uvloop

from service.db.embedded import EmbeddedPostgresError
from service.db.migrate import MigrationError
from service.logs import configure
from service.settings import Settings, SettingsError
from validators.analysis.weights import WeightsError

USAGE = 2
TERMINATED = 128 + signal.SIGTERM

# errors that say themselves what to do: a traceback would only hide it
SPOKEN = (SettingsError, EmbeddedPostgresError, MigrationError, WeightsError)
# a database that is away or turns us down, or a port that is taken
UNREACHABLE = (
    OSError,
    asyncpg.CannotConnectNowError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


def settings_from_environ() -> Settings:
    try:
        settings = Settings.from_environ(os.environ)
    except SettingsError as exc:
        fail(str(exc))
    configure(settings.log_level, terminal=sys.stderr.isatty())
    return settings


def quiet(settings: Settings) -> Settings:
    """Log only what is wrong, unless the operator chose a level: people watch this command."""
    if "GREENROOM_LOG_LEVEL" not in os.environ:
        configure("error", terminal=sys.stderr.isatty())
    return settings


def fail(message: str, *, status: int = USAGE) -> NoReturn:
    typer.echo(f"greenroom: {message}", err=True)
    raise typer.Exit(status)


def run(main: Coroutine[Any, Any, int]) -> NoReturn:
    """Run a command's coroutine on uvloop; exit with its status, or with a sentence."""
    try:
        status = uvloop.run(main)
    except SPOKEN as exc:
        fail(str(exc))
    except UNREACHABLE as exc:
        fail(str(exc), status=1)
    except asyncio.CancelledError:
        raise typer.Exit(TERMINATED) from None
    raise typer.Exit(status)


def stop_on_sigterm() -> None:
    """End the command that runs now in order, so that nothing of it is left behind."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
