"""`eventbus trace EVENT_ID`: what the request of an event has led to, as a tree."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from eventbus.cli import connections, store
from eventbus.cli.columns import printable, screen_width
from eventbus.cli.durations import ago, spoken
from eventbus.contract.history import Ending, Execution
from eventbus.contract.inspection import Related
from eventbus.contract.traces import LIMIT, Found, FoundIn, Node, Tree, carried, unfold
from eventbus.errors import EventBusError, Unavailable
from eventbus.event import Envelope
from eventbus.postgres import executions, find, gather, stored_envelope
from eventbus.process.loop import run
from eventbus.redis.explaining import explain
from eventbus.redis.related import related

DEEPEST = 12  # levels that are drawn; what is deeper stands there with its depth

_BAD = {Ending.DEAD: "bold red", Ending.FAILED: "yellow"}
_PLACES = {
    FoundIn.RECORDED: "",
    FoundIn.OUTBOX: "waits in the outbox",
    FoundIn.SCHEDULED: "scheduled",
    FoundIn.STREAM: "not recorded yet",
}


class NoTrace(EventBusError):
    """There is no such event, neither in the event store nor in the outbox nor in Redis."""


def trace(
    event_id: Annotated[
        str, typer.Argument(help="The event's id, as receipts and logs have it.", parser=connections.event_id)
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The tree from the request that began it to the last effect: events, handlers, times, failures."""
    tree = run(_look(event_id))
    if as_json:
        typer.echo(json.dumps(_told(tree), indent=2))
        return
    console = Console(width=screen_width(), highlight=False, soft_wrap=False)
    for line in _screen(tree, event_id):
        console.print(line, no_wrap=True, overflow="ellipsis", crop=True)


async def _look(event_id: str) -> Tree:
    async with store.database() as database, database.connection() as connection:
        recorded = await find(connection, event_id)
        first = recorded.envelope if recorded else await stored_envelope(connection, event_id)
        first = first or await _in_redis(event_id)
        if first is None:
            raise NoTrace(f"nobody knows {event_id}: `eventbus explain {event_id}` says where else it may be")
        found, complete = await gather(connection, first, None, LIMIT)
        found += carried(await _carried(first.correlation))
        found.append(Found(first, FoundIn.STREAM))
        done = await executions(connection, list({one.envelope.id for one in found}))
    return unfold(first.correlation, found, done, complete=complete)


async def _in_redis(event_id: str) -> Envelope | None:
    async with connections.redis() as links:
        return (await explain(links, connections.NAMESPACE, event_id)).envelope


async def _carried(correlation_id: str) -> list[Related]:
    """What Redis has of the request. Nothing if Redis is away, which is said on stderr: the store can still be read."""
    try:
        async with connections.redis() as links:
            return await related(links, connections.NAMESPACE, correlation_id)
    except Unavailable as error:
        typer.echo(f"what is in Redis alone is not looked at: {error}", err=True)
        return []


def _told(tree: Tree) -> dict[str, object]:
    return {
        "correlationId": tree.correlation_id,
        "beganAt": tree.began_at.isoformat(),
        "complete": tree.complete,
        "events": [_node(tree, node) for node in tree.nodes],
    }


def _node(tree: Tree, node: Node) -> dict[str, object]:
    envelope = node.envelope
    return {
        "eventId": envelope.id,
        "type": envelope.type,
        "subject": envelope.subject,
        "organization": envelope.organization,
        "time": envelope.time.isoformat(),
        "offset": round(tree.offset(envelope.time), 6),
        "depth": node.depth,
        "causedBy": envelope.causation_id,
        "orphan": node.orphan,
        "replayed": envelope.replayed,
        "place": node.place,
        "dueAt": node.due and node.due.isoformat(),
        "failed": node.failed,
        "executions": [_execution(tree, execution) for execution in node.executions],
    }


def _execution(tree: Tree, execution: Execution) -> dict[str, object]:
    return {
        "group": execution.group,
        "attempt": execution.attempt,
        "outcome": execution.outcome,
        "seconds": execution.seconds,
        "offset": round(tree.offset(execution.finished_at), 6),
        "error": execution.error,
    }


def _screen(tree: Tree, asked: str) -> Iterator[Text]:
    yield Text(f"request {printable(tree.correlation_id)}, {ago(tree.began_at, datetime.now(UTC))} ago")
    for node, lead in zip(tree.nodes, branches([node.depth for node in tree.nodes]), strict=True):
        below = lead.replace("├─ ", "│  ").replace("└─ ", "   ")
        yield Text(lead).append(_headline(tree, node), "bold" if node.envelope.id == asked else "")
        for execution in node.executions:
            told = Text(f"{below}   ").append(_line(tree, execution), _BAD.get(execution.outcome, "dim"))
            yield told
        if not node.executions and node.place is FoundIn.RECORDED:
            yield Text(f"{below}   ").append("nothing is known of any handler", "dim")
    yield Text(_sum(tree))


def _headline(tree: Tree, node: Node) -> str:
    envelope = node.envelope
    words = [f"{_offset(tree.offset(envelope.time))} {envelope.type} {envelope.id}"]
    words += [envelope.subject] if envelope.subject else []
    words += [f"of {envelope.organization}"] if envelope.organization else []
    words += [f"(its cause {envelope.causation_id} was not found)"] if node.orphan else []
    words += ["(replayed)"] if envelope.replayed else []
    place = _PLACES[node.place]
    if place and node.due is not None and node.due > datetime.now(UTC):
        place += f", due in {spoken((node.due - datetime.now(UTC)).total_seconds())}"
    return printable(" ".join([*words, *([f"({place})"] if place else [])]))


def _line(tree: Tree, execution: Execution) -> str:
    mark = "!! " if execution.outcome in _BAD else ""
    took = f"{execution.seconds * 1000:.0f} ms" if execution.seconds < 1 else spoken(execution.seconds)
    told = f"{mark}{execution.group} {execution.outcome}, attempt {execution.attempt}, {took}"
    told += f", until {_offset(tree.offset(execution.finished_at))}"
    return printable(told + (f": {execution.error}" if execution.error else ""))


def _offset(seconds: float) -> str:
    return f"{seconds:+.3f}s" if abs(seconds) < 10 else f"+{spoken(seconds)}"


def _sum(tree: Tree) -> str:
    executions = [execution for node in tree.nodes for execution in node.executions]
    dead = sum(execution.outcome is Ending.DEAD for execution in executions)
    failed = sum(execution.outcome is Ending.FAILED for execution in executions)
    told = f"{len(tree.nodes)} events, {len(executions)} executions, {failed} failed, {dead} dead"
    return told + ("" if tree.complete else f"; there are more than the {len(tree.nodes)} that are shown")


def branches(depths: Sequence[int]) -> Iterator[str]:
    """For each node, by its depth, the lines that lead to it: "├─ ", "│  └─ "."""
    last = _last(depths)
    open_at: list[bool] = []  # for each level, whether another node of it follows
    for place, depth in enumerate(depths):
        del open_at[depth:]
        drawn = "".join("│  " if more else "   " for more in open_at[:DEEPEST])
        deeper = f"… level {depth} " if depth > DEEPEST else ""
        yield drawn + deeper + ("└─ " if last[place] else "├─ ")
        open_at.append(not last[place])


def _last(depths: Sequence[int]) -> list[bool]:
    """For each node whether no other one of its depth follows below the same cause."""
    last, followed = [True] * len(depths), set[int]()
    for place in range(len(depths) - 1, -1, -1):
        depth = depths[place]
        last[place] = depth not in followed
        followed = {level for level in followed if level < depth} | {depth}
    return last
