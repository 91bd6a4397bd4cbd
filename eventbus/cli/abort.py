"""`eventbus abort EVENT_ID`: stop the handlers of an event."""

import json
from datetime import timedelta
from typing import Annotated

import typer

from eventbus.bus import EventBus
from eventbus.cli import connections
from eventbus.cli.actions import audit
from eventbus.cli.durations import duration
from eventbus.operating.aborting import WITHIN
from eventbus.process.loop import run


def abort(
    event_id: Annotated[str, typer.Argument(help="The event's id.", parser=connections.event_id)],
    *,
    group: Annotated[str | None, typer.Option("--group", "-g", help="In this group only.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="For those who come after.")] = "",
    within: Annotated[
        timedelta | None,
        typer.Option(
            "--within", parser=duration, metavar="TIME", help="How long it is asked for: 30m, 1h; default 1h."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Stop the running handlers of an event, and let none begin. It becomes a dead letter, which can be replayed."""
    run(_abort(event_id, group, reason, within or WITHIN))
    audit("abort", eventId=event_id, group=group, reason=reason)
    if as_json:
        typer.echo(json.dumps({"eventId": event_id, "group": group, "asked": True}))
    else:
        typer.echo(f"asked; within a second: eventbus explain {event_id}")


async def _abort(event_id: str, group: str | None, reason: str, within: timedelta) -> None:
    async with EventBus() as bus:
        await bus.events.abort(event_id, group, reason=reason, within=within)
