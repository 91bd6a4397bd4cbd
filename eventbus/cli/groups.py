"""`eventbus groups`: stop a group, let it go on, or forget one that is gone for good."""

import json
from typing import Annotated

import typer

from eventbus.bus import EventBus
from eventbus.cli.actions import audit, confirm
from eventbus.process.loop import run

app = typer.Typer(help="Stop groups, let them go on, forget those that are gone.", no_args_is_help=True)

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


@app.command()
def forget(
    name: Name,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Drop a group that no worker serves any more, with all that it has not settled. It pins its streams until then.

    A worker of the group would create it again, at the beginning of the streams."""
    if not yes:
        confirm(f"Drop {name} with everything that it has not settled?")
    streams = run(_forget(name))
    if streams:
        audit("groups.forgotten", group=name, streams=streams)
    if as_json:
        typer.echo(json.dumps({"group": name, "streams": streams}))
    else:
        typer.echo(f"forgot {name} on {', '.join(streams)}" if streams else f"no stream knows a group {name}")


def _tell(name: str, changed: bool, verb: str, otherwise: str, as_json: bool) -> None:
    if changed:
        audit(f"groups.{verb}", group=name)
    if as_json:
        typer.echo(json.dumps({"group": name, "paused": verb == "paused", "changed": changed}))
    else:
        typer.echo(f"{verb} {name}" if changed else f"{name}: {otherwise}")


async def _forget(name: str) -> list[str]:
    async with EventBus() as bus:
        known = await bus.transport.find_streams()
        return [stream for stream in known if await bus.transport.forget_group(stream, name)]


async def _pause(name: str, reason: str) -> bool:
    async with EventBus() as bus:
        return await bus.groups.pause(name, reason)


async def _resume(name: str) -> bool:
    async with EventBus() as bus:
        return await bus.groups.resume(name)
