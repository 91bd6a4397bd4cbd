"""`eventbus groups`: stop a group and let it go on."""

import json
from typing import Annotated

import typer

from eventbus.bus import EventBus
from eventbus.cli.actions import audit
from eventbus.loop import run

app = typer.Typer(help="Stop groups, and let them go on.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The group's name, as `eventbus status` shows it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def pause(
    name: Name,
    *,
    reason: Annotated[str, typer.Option("--reason", help="For those who come after.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Let a group take nothing new, in no process; what runs ends. Workers see it within a second."""
    _tell(name, run(_pause(name, reason)), "paused", "it was paused already", as_json)


@app.command()
def resume(name: Name, *, as_json: JsonOption = False) -> None:
    """Let a group go on."""
    _tell(name, run(_resume(name)), "resumed", "it was not paused", as_json)


def _tell(name: str, changed: bool, verb: str, otherwise: str, as_json: bool) -> None:
    if changed:
        audit(f"groups.{verb}", group=name)
    if as_json:
        typer.echo(json.dumps({"group": name, "paused": verb == "paused", "changed": changed}))
    else:
        typer.echo(f"{verb} {name}" if changed else f"{name}: {otherwise}")


async def _pause(name: str, reason: str) -> bool:
    async with EventBus() as bus:
        return await bus.pause(name, reason)


async def _resume(name: str) -> bool:
    async with EventBus() as bus:
        return await bus.resume(name)
