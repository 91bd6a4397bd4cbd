"""`eventbus status`: what every stream and group holds, on one screen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from eventbus.cli import connections
from eventbus.cli.columns import columns
from eventbus.cli.durations import ago, spoken
from eventbus.cli.shapes import camel, camel_values
from eventbus.contract.inspection import ConsumerState, GroupState, OutboxStanding, StreamState
from eventbus.operating.control import Pause
from eventbus.process.loop import run
from eventbus.redis.inspection import read_streams

ALIVE = 60.0  # seconds: a consumer that has not asked for anything for so long is not counted


def status(
    *,
    stream: Annotated[list[str] | None, typer.Option("--stream", "-s", help="Only this one; may be repeated.")] = None,
    group: Annotated[list[str] | None, typer.Option("--group", "-g", help="Only this one; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Streams and groups: what waits, what is in hand, what rests, what is dead, and who works."""
    streams, pauses, outbox = run(_read(stream))
    if group:
        streams = [_of_groups(state, group) for state in streams]
        streams = [state for state in streams if state.groups]
    if as_json:
        stopped = {name: pause._asdict() for name, pause in pauses.items()}
        told = {"streams": [camel(asdict(state)) for state in streams], "paused": camel_values(stopped)}
        typer.echo(json.dumps({**told, "outbox": outbox and _counts(outbox)}, indent=2))
    else:
        typer.echo(_screen(streams, pauses))
        if outbox is not None and (outbox.rows or outbox.aside):
            aside = f", {outbox.aside} set aside: eventbus outbox list" if outbox.aside else ""
            typer.echo(f"\noutbox: {outbox.rows} wait, the oldest for {spoken(outbox.seconds)}{aside}")


async def _read(
    names: Sequence[str] | None,
) -> tuple[list[StreamState], dict[str, Pause], OutboxStanding | None]:
    async with connections.redis() as links:
        return (
            await read_streams(links, connections.NAMESPACE, names),
            await connections.paused(links),
            await connections.outbox(),
        )


def _counts(outbox: OutboxStanding) -> dict[str, object]:
    return {"waiting": outbox.rows, "oldestSeconds": outbox.seconds, "setAside": outbox.aside}


def _of_groups(state: StreamState, names: Sequence[str]) -> StreamState:
    groups = tuple(group for group in state.groups if group.name in names)
    return replace(state, groups=groups)


def _screen(streams: Sequence[StreamState], pauses: Mapping[str, Pause]) -> str:
    if not streams:
        return f"{connections.redis_name()}: no streams\n(nothing has been published, or it was published elsewhere)"
    numbers = ("entries", "delayed", "dead")
    logs = columns(
        ("stream", *numbers, "groups"),
        [
            (_named(s), s.length, s.scheduled, s.dead, ", ".join(g.name for g in s.groups) or "none reads it")
            for s in streams
        ],
        right=numbers,
    )
    heads = ("lag", "in hand", "resting", "oldest", "workers")
    rows = [
        (group.name, state.name, *_cells(group), _remark(group, pauses.get(group.name)))
        for state in streams
        for group in state.groups
    ]
    rows.sort()
    return f"{connections.redis_name()}\n\n{logs}\n\n{columns(('group', 'stream', *heads, ''), rows, right=heads)}"


def _named(state: StreamState) -> str:
    return state.name if state.partitions == 1 else f"{state.name} ({state.partitions} partitions)"


def _cells(group: GroupState) -> tuple[str, int, int, str, str]:
    ages = [age for age in (group.oldest_undelivered, group.oldest_unacked) if age is not None]
    lag = "unknown" if group.lag is None else str(group.lag)
    in_hand = group.pending - group.delayed
    return lag, in_hand, group.delayed, spoken(max(ages)) if ages else "-", str(len(alive(group)))


def alive(group: GroupState) -> list[ConsumerState]:
    """Consumers that have asked for something lately."""
    return [consumer for consumer in group.consumers if consumer.idle < ALIVE]


def told(pause: Pause) -> str:
    """Who paused it, when and why."""
    reason = f": {pause.reason}" if pause.reason else ""
    return f"paused {ago(pause.at, datetime.now(UTC))} ago by {pause.by}{reason}"


def _remark(group: GroupState, pause: Pause | None) -> str:
    if pause is not None:
        return told(pause)
    if not alive(group):
        return "no worker runs this group"
    if group.lag is None and group.backlog:
        return f"{group.backlog} or more wait"
    return ""
