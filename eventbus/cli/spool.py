"""`eventbus spool`: see what waits on this machine's disk for Redis, and send it there."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from eventbus.bus import EventBus
from eventbus.cli.columns import printable
from eventbus.contract.broker import Broker
from eventbus.errors import ConfigurationError, EventBusError
from eventbus.process.loop import run
from eventbus.publishing.spool import SPOOL_BYTES, Replayed, SpoolFile, SpoolStatus, replay, replay_rejected
from eventbus.settings import Settings

MOST_REASONS = 10  # of lines that were set aside
CLAIM_PATIENCE = 10.0  # seconds that a replay of another process may take

app = typer.Typer(help="See what waits on the disk for Redis, and send it there.", no_args_is_help=True)

PathOption = Annotated[Path | None, typer.Option("--path", help="The spool; default: EVENTBUS_SPOOL_PATH.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


class SpoolFailed(EventBusError):
    """The spool cannot be read, or another process does not let go of it."""


@app.command()
def status(path: PathOption = None, as_json: JsonOption = False) -> None:
    """How much waits, since when, and how many lines were set aside."""
    found, reasons = _status(_file(path))
    if as_json:
        typer.echo(json.dumps({**found._asdict(), "reasons": reasons}, indent=2))
        return
    for name, value in found._asdict().items():
        typer.echo(f"{name + ':':<10}{'-' if value is None else value}")
    for reason, count in list(reasons.items())[:MOST_REASONS]:
        typer.echo(f"{count:>10} {printable(reason)}")


@app.command("replay")
def replay_(
    path: PathOption = None,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="What was set aside instead, once the cause is gone.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Send all that waits to Redis, in order. What is there already is not stored twice."""
    file = _file(path)
    call, there = (replay_rejected, file.rejected()) if rejected else (replay, file.size())
    try:
        done = run(_replay(file, call)) if there else Replayed()
    except OSError as error:
        raise SpoolFailed(f"spool {file.path}: {error}") from error
    if as_json:
        typer.echo(json.dumps(done._asdict(), indent=2))
        return
    verb = "left" if rejected else "set"
    aside = f", {verb} {done.rejected} lines aside in {file.rejected_path}" if done.rejected else ""
    typer.echo(f"replayed {done.records}{aside}")


def _file(path: Path | None) -> SpoolFile:
    chosen = path or Settings().spool_path
    if chosen is None:
        raise ConfigurationError("no spool is configured: set EVENTBUS_SPOOL_PATH, or name one with --path")
    return SpoolFile(chosen, SPOOL_BYTES)


def _status(file: SpoolFile) -> tuple[SpoolStatus, dict[str, int]]:
    """(how much waits, why lines were set aside: each reason with its number of lines)."""
    try:
        return file.status(), file.aside.reasons()
    except OSError as error:
        raise SpoolFailed(f"spool {file.path}: {error}") from error


async def _replay(file: SpoolFile, call: Callable[[SpoolFile, Broker], Awaitable[Replayed | None]]) -> Replayed:
    async with EventBus() as bus:
        waited = 0.0
        while (done := await call(file, bus.transport)) is None:
            if waited >= CLAIM_PATIENCE:
                raise SpoolFailed(f"spool {file.path}: another process is replaying it; see `eventbus spool status`")
            await asyncio.sleep(0.1)
            waited += 0.1
        return done
