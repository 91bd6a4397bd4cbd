"""What has become of a message, and how its queue stands.

A message is found by its row. Before a worker has written the row, it is found by its event in Redis: the event that
holds the message's id as a dedupe key or, if we chose the message's id, the event that has the same id.
"""

from contextlib import suppress
from uuid import UUID

from eventbus import EventBus, EventBusError, Phase, Transaction
from eventbus.contract.codec import open_event
from eventbus.errors import CodecError
from eventbus.event import Envelope, uuid7
from eventbus.postgres import trace
from handlers.common.errors import NotFound
from handlers.message import store
from handlers.message.events import MessageReceived
from handlers.message.handlers import message
from handlers.message.models import Health, QueueHealth, QueueStats, Standing, State, Stats, Status
from handlers.message.service import STREAM, once_for

ALIVE = 15.0  # seconds: a worker of the group that is alive has asked Redis for something within them

_STATES: dict[Phase, State] = {
    Phase.WAITING: "waiting",
    Phase.ACTIVE: "active",
    Phase.COMPLETED: "completed",
    Phase.FAILED: "failed",
    Phase.DELAYED: "delayed",
}
_FORGOTTEN = "what became of it is not known any more"


async def status(bus: EventBus, tx: Transaction, organization: str, user: str, message_id: str) -> Status:
    """Raises NotFound for another user's message as well."""
    question = await store.find(tx.connection, organization, user, message_id, "user")
    event_id = str(question["event_id"]) if question else await _event_of(bus, organization, user, message_id)
    if event_id is None:
        raise NotFound("message")
    state = await bus.groups.state(message, event_id)
    if state.phase is Phase.UNKNOWN:
        traced = await trace(tx.connection, event_id)
        if traced.committed is not None:  # and perhaps relayed while we looked
            state = await bus.groups.state(message, event_id)
        if state.phase is Phase.UNKNOWN:
            waits = traced.committed is not None and traced.published is None
            return Status(data=await _by_rows(tx, organization, user, message_id, waits=waits))
    done, progress = state.phase is Phase.COMPLETED, state.progress
    standing = Standing(
        message_id=message_id,
        state=_STATES[state.phase],
        progress=100 if done else progress if isinstance(progress, int) else 0,
        attempts=state.attempts,
        error=None if done else state.error,
        finished_on=None if state.finished is None else round(state.finished.timestamp() * 1000),
    )
    return Status(data=standing)


async def _event_of(bus: EventBus, organization: str, user: str, message_id: str) -> str | None:
    """The id of the message's event in Redis. None if it cannot be found, or the message is another user's."""
    scope = Envelope(uuid7(), MessageReceived.event_type, b"", organization=organization)
    held = await bus.transport.holder(scope, once_for(user, message_id))
    if held is not None or not _is_event_id(message_id):
        return held
    envelope = (await bus.events.locate(message_id, [STREAM])).envelope
    if envelope is None or envelope.organization != organization:
        return None
    with suppress(CodecError):
        event = open_event(envelope)
        if isinstance(event, MessageReceived) and (event.user_id, event.message_id) == (user, message_id):
            return message_id
    return None


def _is_event_id(text: str) -> bool:
    try:
        return UUID(text).version == 7 and str(UUID(text)) == text
    except ValueError:
        return False


async def _by_rows(tx: Transaction, organization: str, user: str, message_id: str, *, waits: bool) -> Standing:
    """For a message of which Redis knows nothing: not yet, if it `waits` for the relay, or not any more."""
    response = await store.find(tx.connection, organization, user, message_id, "assistant")
    if response is None and waits:
        return Standing(message_id=message_id, state="waiting", progress=0, attempts=0)
    if response is None:
        return Standing(message_id=message_id, state="failed", progress=0, attempts=0, error=_FORGOTTEN)
    finished = round(response["created_at"].timestamp() * 1000)
    return Standing(message_id=message_id, state="completed", progress=100, attempts=1, finished_on=finished)


# The queue ------------------------------------------------------------------------------------------------------------


async def stats(bus: EventBus) -> Stats:
    """Counts of all organizations together, as BullMQ counts: what waits in a paused queue is paused, not waiting."""
    return Stats(data=await _count(bus))


async def health(bus: EventBus) -> Health:
    """Healthy: Redis answers, the queue is not paused, and if something waits there is a worker for it."""
    try:
        found, paused = await _count(bus), message.name in await bus.groups.paused()
        waits = found.waiting + found.delayed + found.active
        healthy = not paused and (not waits or await _is_worked_for(bus))
    except EventBusError:
        found, healthy = QueueStats(), False
    return Health(success=healthy, data=QueueHealth(healthy=healthy, stats=found))


async def _count(bus: EventBus) -> QueueStats:
    counts = await bus.groups.counts(message)
    waiting, paused = counts.waiting or 0, 0
    if message.name in await bus.groups.paused():
        waiting, paused = 0, waiting
    return QueueStats(
        waiting=waiting,
        active=counts.active,
        completed=counts.completed,
        failed=counts.failed,
        delayed=counts.delayed,
        paused=paused,
        total=waiting + paused + counts.active + counts.completed + counts.failed + counts.delayed,
    )


async def _is_worked_for(bus: EventBus) -> bool:
    streams = await bus.transport.inspect(message.streams)
    groups = [group for stream in streams for group in stream.groups if group.name == message.name]
    return any(consumer.idle < ALIVE for group in groups for consumer in group.consumers)
