"""`eventbus explain EVENT_ID`: why has it not run? One line for each group."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from eventbus.cli import connections, status
from eventbus.cli.columns import cut, hanging, printable, screen_width
from eventbus.cli.durations import ago, spoken
from eventbus.cli.shapes import camel
from eventbus.contract.inspection import AHEAD_LIMIT, EventStanding, GroupStanding, GroupState, Standing, Trace
from eventbus.event import unix_ms
from eventbus.operating.control import Pause
from eventbus.process.loop import run
from eventbus.redis.explaining import explain as find
from eventbus.redis.inspection import read_streams

_NOWHERE = (
    "Redis does not know it. Either it was never stored (its publish failed, or its transaction rolled back),\n"
    "or it waits in the spool of its publisher (`eventbus spool status`, on that machine),\n"
    "or every group was done with it and it has been trimmed."
)
_SETTLED = {
    Standing.DONE: "done",
    Standing.REPLAYED: "done or dead before, and replayed",
    Standing.PASSED: "not for this group: a replay for another one",
}


def explain(
    event_id: Annotated[
        str, typer.Argument(help="The event's id, as receipts and logs have it.", parser=connections.event_id)
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Where an event is, and for each group: done, dead, in hand, resting or waiting, and why."""
    standing, groups, pauses = run(_look(event_id))
    trace = run(connections.traced(event_id))
    lines = [
        (told.group, told.entry, _reason(told, groups.get(told.group), pauses.get(told.group)))
        for told in standing.groups
    ]
    if as_json:
        told = {**_fields(standing), "outbox": camel(asdict(trace)) if trace else None}
        for group, (_, _, reason) in zip(told["groups"], lines, strict=True):
            group["reason"] = reason
        typer.echo(json.dumps(told, indent=2))
    else:
        typer.echo("\n".join([_head(standing, trace), *_body(standing, lines, trace)]))
    if standing.stream is None and not (trace and trace.committed):
        raise typer.Exit(1)


def _fields(standing: EventStanding) -> dict[str, Any]:
    """Without the envelope: payloads are for the eyes of those who ask for them, see `eventbus dead show`."""
    fields = camel(asdict(replace(standing, envelope=None)))
    del fields["envelope"]
    return fields


async def _look(event_id: str) -> tuple[EventStanding, Mapping[str, GroupState], Mapping[str, Pause]]:
    async with connections.redis() as links:
        standing = await find(links, connections.NAMESPACE, event_id)
        states = await read_streams(links, connections.NAMESPACE, [standing.stream]) if standing.stream else []
        pauses = await connections.paused(links)
    return standing, {group.name: group for state in states for group in state.groups}, pauses


def _head(standing: EventStanding, trace: Trace | None) -> str:
    made = datetime.fromtimestamp(unix_ms(standing.event_id) / 1000, UTC)
    kind = standing.type or (trace.type if trace else None) or "event"
    about = standing.subject or (trace.subject if trace else None)
    words = [kind, *([f"about {about}"] if about else []), f"made {ago(made, datetime.now(UTC))} ago"]
    if standing.stream:
        words.append(f"in stream {standing.stream}")
    if standing.priority:
        words.append(f"priority {standing.priority}")
    return printable(", ".join(words))


def _body(standing: EventStanding, lines: Sequence[tuple[str, str, str]], trace: Trace | None) -> list[str]:
    now = datetime.now(UTC)
    told = []
    if trace and trace.committed:
        fate = f"published {ago(trace.published, now)} ago" if trace.published else "waits for the relay"
        if trace.refused:
            fate = f"not published: {trace.refused} (see eventbus outbox list)"
        told.append(f"outbox: committed {ago(trace.committed, now)} ago, {fate}")
    if standing.scheduled is not None:
        told.append(f"scheduled: due in {spoken(standing.scheduled)}; no group is given it before")
    elif standing.stream is None:
        told.append(_NOWHERE if not (trace and trace.committed and not trace.published) else "")
    elif not lines:
        told.append("no group reads this stream")
    several = len({entry for _, entry, _ in lines}) > 1  # a replay is an entry of its own
    told += hanging([(f"{group} {entry}" if several else group, reason) for group, entry, reason in lines])
    if trace and trace.effects:
        done = ", ".join(f"{group} ({ago(when, now)} ago)" for group, when in sorted(trace.effects.items()))
        told.append(cut(f"effects committed in PostgreSQL: {done}", screen_width()))
    return [line for line in told if line]


def _reason(standing: GroupStanding, state: GroupState | None, pause: Pause | None) -> str:
    workers = "" if state is None or status.alive(state) else "; no worker runs this group"
    if pause is not None:
        workers = f"; {status.told(pause)}"
    match standing.standing:
        case Standing.WAITING:
            return f"waiting, {_count(standing.ahead or 0)} of its priority before it{workers}"
        case Standing.RUNNING:
            return (
                f"in the hands of {standing.consumer} since {spoken(standing.seconds or 0)}{_past(standing)}{workers}"
            )
        case Standing.RESTING:
            return f"{_next(standing.due)}{_past(standing)}{workers}"
        case Standing.DEAD:
            return f"dead after {_times(standing.failures, 'attempt')}: {standing.letter}: {standing.error}"
        case settled:
            return _SETTLED[settled]


def _next(due: float | None) -> str:
    if due is None:
        return "due now"
    return f"next try in {spoken(due)}" if due > 0 else f"due since {spoken(-due)}"


def _past(standing: GroupStanding) -> str:
    told = "".join(
        f"; waits for the limit of {line.limit}: {line.key!r}, {_count(line.ahead)} before it"
        for line in standing.lines
    )
    if standing.standing is Standing.RESTING and not (standing.failures or standing.crashes or told):
        return "; put off without a failure: by a limit, by the handler, or because a server was away"
    if standing.failures:
        told += f"; {_times(standing.failures, 'attempt')} failed, the first {spoken(standing.first_failed or 0)} ago"
    if standing.crashes:
        told += f"; {_times(standing.crashes, 'worker')} died with it"
    return told + (": a suspect, runs alone" if standing.suspect else "")


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _count(count: int) -> str:
    return f"{count} or more" if count >= AHEAD_LIMIT else str(count)
