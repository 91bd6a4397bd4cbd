"""All that one request has led to, as the caller may see it: events of his organization, without another user's.

The tree is a list in the order of causes, each event with its depth: a chain may be longer than JSON should be deep.
"""

import asyncio
from datetime import datetime

from eventbus import Envelope, EventBus, Transaction, Unavailable
from eventbus.contract.history import Ending, Execution
from eventbus.contract.traces import Found, FoundIn, Node, Tree, carried, unfold
from eventbus.postgres import executions, find, gather, stored_envelope
from gateway.callers.auth import Caller
from gateway.events.event_status import OVERSEERS, held, is_visible, known_streams, remembered
from handlers.common.errors import NotFound
from handlers.common.fields import Answer

LIMIT = 2_000  # events of one answer
PATIENCE = 1.0  # seconds that Redis is waited for


class TracedExecution(Answer):
    """One execution of a group's handler. `offset_ms`: when it ended, counted from the first event of the trace."""

    group: str
    attempt: int
    outcome: Ending
    duration_ms: float
    offset_ms: float
    error: str | None


class TracedEvent(Answer):
    """`depth` 0 was caused by the request itself; otherwise the event is an effect of the last one before it whose
    depth is less by one. `orphan`: what caused it is not known any more, or not for your eyes, so that it stands at
    depth 0. `failed`: a group has given it up, or has failed at its last attempt so far."""

    event_id: str
    type: str
    subject: str | None
    organization_id: str | None
    time: datetime
    offset_ms: float
    depth: int
    caused_by: str | None
    orphan: bool
    replayed: bool
    place: FoundIn
    due_at: datetime | None
    failed: bool
    executions: list[TracedExecution]


class EventTrace(Answer):
    """Everything that one request has led to so far. `complete`: false if there is more than can be shown."""

    correlation_id: str
    began_at: datetime
    complete: bool
    events: list[TracedEvent]


async def trace_event(bus: EventBus, tx: Transaction, caller: Caller, event_id: str) -> EventTrace:
    """The trace of the request behind an event. Raises NotFound if the event is not known, or not any more, or the
    caller may not see it."""
    asked = await _find(bus, tx, event_id)
    if asked is None or not is_visible(asked.envelope, caller):
        raise NotFound("event")
    found, complete = await gather(tx.connection, asked.envelope, caller.organization, LIMIT)
    found += await _carried(bus, asked.envelope.correlation)
    shown = [one for one in (*found, asked) if await _is_visible(tx, one.envelope, caller)]
    done = await executions(tx.connection, list({one.envelope.id for one in shown}))
    return _shown(unfold(asked.envelope.correlation, shown, done, complete=complete))


async def _find(bus: EventBus, tx: Transaction, event_id: str) -> Found | None:
    """The event that is asked for. Redis, which takes longer, is asked only if PostgreSQL does not know it."""
    recorded = await find(tx.connection, event_id)
    if recorded is not None:
        return Found(recorded.envelope)
    envelope = await stored_envelope(tx.connection, event_id)
    if envelope is None:
        envelope = await held(bus, await bus.events.locate(event_id, known_streams()))
    return None if envelope is None else Found(envelope, FoundIn.STREAM)


async def _is_visible(tx: Transaction, envelope: Envelope, caller: Caller) -> bool:
    """Whether the caller may see the event. Its data tells; a large event was found without, so that is read here."""
    whole = envelope if envelope.data or caller.roles & OVERSEERS else await remembered(tx, envelope.id)
    return whole is not None and is_visible(whole, caller)


async def _carried(bus: EventBus, correlation_id: str) -> list[Found]:
    """Events that Redis has, and perhaps no table yet. While Redis is away, a trace is told without them."""
    try:
        async with asyncio.timeout(PATIENCE):
            return carried(await bus.transport.related(correlation_id, known_streams()))
    except (Unavailable, TimeoutError):
        return []


def _shown(tree: Tree) -> EventTrace:
    return EventTrace(
        correlation_id=tree.correlation_id,
        began_at=tree.began_at,
        complete=tree.complete,
        events=[_event(tree, node) for node in tree.nodes],
    )


def _event(tree: Tree, node: Node) -> TracedEvent:
    envelope = node.envelope
    return TracedEvent(
        event_id=envelope.id,
        type=envelope.type,
        subject=envelope.subject,
        organization_id=envelope.organization,
        time=envelope.time,
        offset_ms=_ms(tree.offset(envelope.time)),
        depth=node.depth,
        caused_by=envelope.causation_id,
        orphan=node.orphan,
        replayed=envelope.replayed,
        place=node.place,
        due_at=node.due,
        failed=node.failed,
        executions=[_execution(tree, execution) for execution in node.executions],
    )


def _execution(tree: Tree, execution: Execution) -> TracedExecution:
    return TracedExecution(
        group=execution.group,
        attempt=execution.attempt,
        outcome=execution.outcome,
        duration_ms=_ms(execution.seconds),
        offset_ms=_ms(tree.offset(execution.finished_at)),
        error=execution.error,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
