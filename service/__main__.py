"""The `greenroom` command. Each command reads its settings, then does its work elsewhere."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from cryptography.fernet import Fernet
from rich.console import Console

from service.commands import dev as dev_command
from service.commands import keys as keys_command
from service.commands.environment import fail, run, settings_from_environ
from service.commands.serving import drain_on_signals, serve
from service.db.migrate import migrate as apply_migrations
from service.db.migrate import migrations

app = typer.Typer(
    help="Greenroom: source media for talking avatars, taken in, checked and announced.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
keys_app = typer.Typer(help="API keys, and the keys that encrypt secrets.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(min=0, max=65_535, help="0 takes a free port.")]


@app.command()
def dev(
    host: Host = None,
    port: Port = None,
    data: Annotated[Path | None, typer.Option(help="Data directory.")] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written when ready: url, key, pid.")
    ] = None,
) -> None:
    """Run everything in one process tree, on embedded parts."""
    settings = settings_from_environ()
    chosen = replace(
        settings,
        host=host or settings.host,
        port=settings.port if port is None else port,
        data_dir=data or settings.data_dir,
    )

    def ready(started: dev_command.Started) -> None:
        typer.echo(f"Greenroom answers at {started.url}")
        typer.echo(f"  key     {started.key}")
        typer.echo(
            f"  try     curl -H 'Authorization: Bearer {started.key}' {started.url}/v1/events"
        )
        typer.echo(f"  health  {started.url}/readyz")
        if ready_file is not None:
            dev_command.write_ready_file(ready_file, started)

    async def main() -> int:
        await dev_command.run_dev(chosen, drain_on_signals(), on_ready=ready)
        return 0

    run(main())


@app.command()
def api(host: Host = None, port: Port = None) -> None:
    """Serve the HTTP API; needs GREENROOM_DATABASE_URL and GREENROOM_SECRET_KEYS."""
    settings = settings_from_environ()
    chosen = replace(
        settings, host=host or settings.host, port=settings.port if port is None else port
    )

    async def main() -> int:
        await serve(
            chosen,
            drain_on_signals(),
            api=True,
            kinds=frozenset(),
            on_ready=lambda url: typer.echo(f"Greenroom answers at {url}"),
        )
        return 0

    run(main())


@app.command()
def worker(
    kinds: Annotated[str, typer.Option(help="What this process does.")] = "fetch,inspect",
) -> None:
    """Do the work that the API accepts; any number of these, anywhere."""
    settings = settings_from_environ()
    try:
        wanted = dev_command.kinds_of(kinds)
    except ValueError as exc:
        fail(f"--kinds: {exc}")

    async def main() -> int:
        await serve(
            settings,
            drain_on_signals(),
            api=False,
            kinds=wanted,
            on_ready=lambda _url: typer.echo(f"Working on {', '.join(sorted(wanted))}"),
        )
        return 0

    run(main())


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema. Safe to run from several places at once."""
    settings = settings_from_environ()

    async def main() -> int:
        applied = await apply_migrations(
            keys_command.dsn_of(settings), await asyncio.to_thread(migrations)
        )
        typer.echo("\n".join(f"applied {name}" for name in applied) or "nothing to apply")
        return 0

    run(main())


@keys_app.command("create")
def create_key(
    organisation: Annotated[str, typer.Argument(help="Its organisation; * for the platform.")],
    name: Annotated[str, typer.Option(help="To tell keys apart.")] = "default",
    scope: Annotated[
        list[str] | None, typer.Option(help="Repeatable; unset: all but admin.")
    ] = None,
) -> None:
    """Make a key. It is shown once."""
    settings = settings_from_environ()
    wanted = keys_command.Wanted(
        organisation=organisation,
        name=name,
        scopes=tuple(scope or ()),
        policy=settings.default_policy,
    )

    async def main() -> int:
        typer.echo(await keys_command.create(settings, wanted))
        return 0

    run(main())


@keys_app.command("list")
def list_keys(
    organisation: Annotated[str | None, typer.Argument()] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List keys by their first characters."""
    settings = settings_from_environ()

    async def main() -> int:
        found = await keys_command.listed(settings, organisation)
        if as_json:
            for key in found:
                typer.echo(
                    json.dumps(
                        {
                            "id": str(key.id),
                            "organisation": key.organisation_id,
                            "name": key.name,
                            "scopes": key.scopes,
                            "revoked": key.revoked_at is not None,
                        }
                    )
                )
        else:
            keys_command.show(found, Console())
        return 0

    run(main())


@keys_app.command("revoke")
def revoke_key(key_id: str) -> None:
    """Revoke a key, at once and everywhere."""
    settings = settings_from_environ()

    async def main() -> int:
        if not await keys_command.revoke(settings, key_id):
            typer.echo(f"greenroom: no live key {key_id}", err=True)
            return 1
        return 0

    run(main())


@keys_app.command("secret")
def secret() -> None:
    """Make a key for GREENROOM_SECRET_KEYS."""
    typer.echo(Fernet.generate_key().decode())


def main() -> None:
    app()


if __name__ == "__main__":
    main()
