"""What there is to tell of one event: Redis is asked where it is, PostgreSQL what it remembers.

Neither keeps events for ever, and some things nobody writes down. What cannot be known is said, not guessed.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic_core import from_json

from eventbus import Envelope, EventBus, Phase, Transaction
from eventbus.contract.inspection import EventStanding, GroupStanding, Standing, Trace
from eventbus.event import event_types, stream_of
from eventbus.postgres import effects, find, stored_envelope, trace
from gateway.callers.auth import Caller
from handlers.common.errors import NotFound
from handlers.common.fields import Answer

_PHASES = {
    Standing.WAITING: Phase.WAITING,
    Standing.RUNNING: Phase.ACTIVE,
    Standing.RESTING: Phase.DELAYED,
    Standing.DONE: Phase.COMPLETED,
    Standing.DEAD: Phase.FAILED,
    Standing.REPLAYED: Phase.FAILED,
}


OVERSEERS = frozenset({"admin", "system"})  # roles that see what is meant for any user


class EventLocation(StrEnum):
    """OUTBOX: committed, and on its way to its stream. GONE: trimmed when all were done with it, or never stored,
    because another one held its dedupe key."""

    OUTBOX = "outbox"
    SCHEDULED = "scheduled"
    STORED = "stored"
    GONE = "gone"


class ShownEnvelope(Answer):
    """`time`: when the event was accepted. What it says of itself is in `metadata.cloudEventTime`."""

    id: str
    type: str
    source: str
    subject: str | None
    time: datetime
    organization_id: str | None
    correlation_id: str
    causation_id: str | None
    traceparent: str | None
    priority: int
    metadata: dict[str, str]
    data: Any


class GroupState(Answer):
    """`attempts`: how often its handler was started; None: not known. `committed_at`: of its `ctx.transaction()`."""

    group: str
    state: Phase
    attempts: int | None
    error: str | None = None
    crashes: int = 0
    retry_at: datetime | None = None
    dead_letter: str | None = None
    committed_at: datetime | None = None


class EventState(Answer):
    """`not_known`: in sentences, for people."""

    event_id: str
    status: EventLocation
    due_at: datetime | None
    envelope: ShownEnvelope
    groups: list[GroupState]
    caused_by: str | None
    causes: list[str]
    not_known: list[str]


async def follow(bus: EventBus, tx: Transaction, caller: Caller, event_id: str) -> EventState:
    """The state of an event. Raises NotFound if it is not known, or not any more, or the caller may not see it."""
    traced = await trace(tx.connection, event_id)
    standing = await bus.events.locate(event_id, [stream_of(traced.type)] if traced.type else known_streams())
    envelope = await remembered(tx, event_id) or await held(bus, standing)
    if envelope is None or not is_visible(envelope, caller):
        raise NotFound("event")
    caused, complete = await effects(tx.connection, event_id, caller.organization)
    place = _place(standing, traced)
    groups = await _groups(bus, standing, traced)
    return EventState(
        event_id=event_id,
        status=place,
        due_at=_due(standing, traced),
        envelope=_shown(envelope),
        groups=groups,
        caused_by=envelope.causation_id,
        causes=caused,
        not_known=[*_unknown(place, groups), *_unknown_causes(complete)],
    )


async def remembered(tx: Transaction, event_id: str) -> Envelope | None:
    """The event as PostgreSQL has it: in the outbox for some days, in the event store for longer."""
    envelope = await stored_envelope(tx.connection, event_id)
    if envelope is not None:
        return envelope
    recorded = await find(tx.connection, event_id)
    return recorded and recorded.envelope


def known_streams() -> list[str]:
    """The streams of all event types that this gateway knows, sorted."""
    return sorted({stream_of(event_type) for event_type in event_types()})


async def held(bus: EventBus, standing: EventStanding) -> Envelope | None:
    """The envelope of an event that was found in its stream or as a dead letter, if it can be read."""
    if standing.envelope is not None or standing.stream is None:
        return standing.envelope
    for told in standing.groups:
        if told.letter is not None:
            letter = await bus.transport.dead_letter(standing.stream, told.letter.partition("/")[2])
            if letter is not None and letter.envelope is not None:
                return letter.envelope
    return None


def is_visible(envelope: Envelope, caller: Caller) -> bool:
    """Whether he may see the event. It must be his organization's. If its data names a user (`userId`), he must be that
    user, or have one of the roles OVERSEERS."""
    if envelope.organization != caller.organization:
        return False
    if caller.roles & OVERSEERS:
        return True
    try:
        said = from_json(envelope.data)
    except ValueError:  # nobody can tell for whom it is meant
        return False
    user = said.get("userId") if isinstance(said, dict) else None
    return user is None or user == caller.user


def _place(standing: EventStanding, traced: Trace) -> EventLocation:
    if standing.scheduled is not None:
        return EventLocation.SCHEDULED
    if standing.stream is not None:
        return EventLocation.STORED
    return EventLocation.OUTBOX if traced.committed and not traced.published else EventLocation.GONE


def _due(standing: EventStanding, traced: Trace) -> datetime | None:
    if traced.due is not None:
        return traced.due
    return None if standing.scheduled is None else _in(standing.scheduled)


def _shown(envelope: Envelope) -> ShownEnvelope:
    return ShownEnvelope(
        id=envelope.id,
        type=envelope.type,
        source=envelope.source,
        subject=envelope.subject,
        time=envelope.time,
        organization_id=envelope.organization,
        correlation_id=envelope.correlation,
        causation_id=envelope.causation_id,
        traceparent=envelope.traceparent,
        priority=envelope.priority,
        metadata=dict(envelope.metadata),
        data=_said(envelope.data),
    )


def _said(data: bytes) -> Any:
    """The data; as text, if it is no JSON: such an event was not published by the bus, ends as a dead letter, and is
    recorded all the same."""
    try:
        return from_json(data)  # whole numbers of any size, too
    except ValueError:
        return data.decode(errors="replace")


async def _groups(bus: EventBus, standing: EventStanding, traced: Trace) -> list[GroupState]:
    """Sorted by name. An event may have several entries, replays among them: the last one tells a group's state."""
    last = {told.group: told for told in _in_order(standing.groups)}
    states = [await _state(bus, standing.event_id, told, traced) for told in last.values()]
    states += [
        GroupState(group=group, state=Phase.COMPLETED, attempts=None, committed_at=at)
        for group, at in traced.effects.items()
        if group not in last
    ]
    return sorted(states, key=lambda state: state.group)


def _in_order(standings: Iterable[GroupStanding]) -> list[GroupStanding]:
    """By entry, the oldest first, without replays that are addressed to another group."""
    mine = (told for told in standings if told.standing is not Standing.PASSED)
    return sorted(mine, key=lambda told: _order(told.entry))


def _order(entry: str) -> tuple[int, int]:
    ms, _, sequence = entry.partition("@")[0].partition("-")
    return int(ms), int(sequence or 0)


async def _state(bus: EventBus, event_id: str, told: GroupStanding, traced: Trace) -> GroupState:
    record = await bus.groups.recorded(told.group, event_id)
    attempts, error = _attempts(told), told.error
    if record is not None:
        attempts, error = record.attempts if attempts is None else attempts, error or record.error
    return GroupState(
        group=told.group,
        state=_PHASES[told.standing],
        attempts=attempts,
        error=error,
        crashes=told.crashes,
        retry_at=None if told.due is None else _in(told.due),
        dead_letter=told.letter,
        committed_at=traced.effects.get(told.group),
    )


def _attempts(told: GroupStanding) -> int | None:
    """How often the handler was started; None once the group is done: its failures are forgotten then."""
    match told.standing:
        case Standing.RUNNING:
            return told.failures + 1
        case Standing.WAITING | Standing.RESTING | Standing.DEAD:
            return told.failures
        case _:
            return None


def _unknown(place: EventLocation, groups: Sequence[GroupState]) -> list[str]:
    told = []
    if place is EventLocation.GONE:
        told.append(
            "groups: the event is in its stream no more; those that wrote nothing in a transaction are not named"
        )
    if place in {EventLocation.OUTBOX, EventLocation.SCHEDULED}:
        told.append("groups: it has not been given to any yet")
    if any(state.attempts is None for state in groups):
        told.append("attempts: how many a group needed is kept for tracked groups only, once it has completed")
    if any(state.state is Phase.DELAYED and state.error is None for state in groups):
        told.append(
            "error: why an attempt failed is kept for tracked groups only, until the event becomes a dead letter"
        )
    return told


def _unknown_causes(complete: bool) -> list[str]:
    told = ["causes: events that were published outside of a transaction, or days ago, are not named"]
    if not complete:
        told.append("causes: too many events have followed for all of them to be looked at")
    return told


def _in(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)
