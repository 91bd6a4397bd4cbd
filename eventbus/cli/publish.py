"""`eventbus publish`: one event, from a shell."""

import difflib
import json
import sys
from typing import Annotated

import typer
from pydantic import ValidationError

from eventbus.bus import EventBus
from eventbus.cli.app_option import AppOption, find_apps
from eventbus.errors import UnknownEventType
from eventbus.event import NORMAL_PRIORITY, Event, Receipt, event_class, event_types
from eventbus.process.loop import run


def publish(  # noqa: PLR0917 - typer calls it by name
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="For example lead.created.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="The event's fields; - reads them from stdin.")],
    app: AppOption = None,
    key: Annotated[str | None, typer.Option(help="What it is about, for example the lead's id.")] = None,
    delay: Annotated[float, typer.Option(min=0, help="Seconds until it is due.")] = 0.0,
    priority: Annotated[int, typer.Option(min=1, max=10, help="1 is first.")] = NORMAL_PRIORITY,
    organization: Annotated[str | None, typer.Option(help="Default: the event's own organizationId.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the receipt as JSON.")] = False,
) -> None:
    """Publish one event. Its type must be one that the application defines, and the JSON must fit it."""
    find_apps(app)
    event = _parse(event_type, sys.stdin.read() if payload == "-" else payload)

    async def send() -> Receipt:
        async with EventBus() as bus:
            return await bus.publish(event, key=key, delay=delay or None, priority=priority, organization=organization)

    receipt = run(send())
    typer.echo(json.dumps(receipt._asdict()) if as_json else f"{receipt.status} {receipt.id}")


def _parse(event_type: str, payload: str) -> Event:
    """Raises typer.BadParameter saying what does not fit."""
    try:
        cls = event_class(event_type)
    except UnknownEventType:
        near = difflib.get_close_matches(event_type, event_types(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "is its module imported by what --app names?"
        raise typer.BadParameter(f"no event has the type {event_type!r}: {hint}", param_hint="TYPE") from None
    try:
        return cls.model_validate_json(payload)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'JSON'}: {e['msg']}" for e in error.errors()[:5])
        raise typer.BadParameter(f"it does not fit {event_type}: {faults}", param_hint="JSON") from None
