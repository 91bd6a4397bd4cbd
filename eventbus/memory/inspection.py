"""What can be told of streams and events without touching them. `now` is a time of the transport's clock."""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from eventbus.contract.codec import decode
from eventbus.contract.dead_letters import DeadLetter
from eventbus.contract.inspection import (
    ConsumerState,
    EventStanding,
    GroupStanding,
    GroupState,
    InLine,
    Related,
    Standing,
    StreamState,
)
from eventbus.contract.limiting import member_of
from eventbus.errors import CodecError
from eventbus.memory.log import Cursor, Log


def inspect(name: str, log: Log, now: float) -> StreamState:
    groups = tuple(_inspect_group(group, log, cursor, now) for group, cursor in sorted(log.groups.items()))
    return StreamState(name, len(log.entries), len(log.scheduled), len(log.dead), groups)


def _inspect_group(name: str, log: Log, cursor: Cursor, now: float) -> GroupState:
    waiting = [entry for priority, lane in log.lanes.items() for entry in lane[cursor.delivered[priority] :]]
    held = [pending for pending in cursor.pending.values() if pending.due is None]
    return GroupState(
        name,
        lag=len(waiting),
        backlog=len(waiting),
        pending=len(cursor.pending),
        delayed=sum(pending.due is not None and pending.due < math.inf for pending in cursor.pending.values()),
        oldest_undelivered=_age(log, waiting, now),
        oldest_unacked=_age(log, cursor.pending, now),
        consumers=tuple(
            ConsumerState(who, len(mine), now - max(pending.touched for pending in mine))
            for who in sorted({pending.owner for pending in held})
            for mine in [[pending for pending in held if pending.owner == who]]
        ),
    )


def _age(log: Log, entry_ids: Iterable[str], now: float) -> float | None:
    """Seconds since the oldest of these was stored."""
    oldest = min((log.stored_at[entry_id] for entry_id in entry_ids), default=None)
    return None if oldest is None else now - oldest


InLines = Callable[[str, str], tuple[InLine, ...]]  # of a group, and a delivery by its name there


def locate(name: str, log: Log, event_id: str, now: float, in_lines: InLines) -> EventStanding | None:
    """Where the event is in this stream; None if it is not there."""
    if event_id in log.scheduled:
        due, envelope = log.scheduled[event_id]
        return EventStanding(event_id, name, scheduled=max(0.0, due - now), envelope=envelope)
    entries = [entry for entry, fields in log.entries.items() if fields[b"id"] == event_id.encode()]
    if entries:
        fields = log.entries[entries[0]]
        groups = tuple(
            replace(standing(log, group, cursor, entry, now), lines=in_lines(group, member_of(name, entry)))
            for group, cursor in sorted(log.groups.items())
            for entry in entries
        )
        return EventStanding(event_id, name, type=fields[b"type"].decode(), groups=groups, envelope=decode(fields))
    letters = [letter for letter in log.dead.values() if letter.fields.get(b"id") == event_id.encode()]
    if letters:
        return EventStanding(event_id, name, groups=tuple(_dead(letter) for letter in letters))
    return None


def related(log: Log, correlation_id: str, now: float) -> list[Related]:
    """The events of this correlation id in the stream, scheduled ones among them."""
    kept = [Related(envelope, max(0.0, due - now)) for due, envelope in log.scheduled.values()]
    for fields in log.entries.values():
        with suppress(CodecError):
            kept.append(Related(decode(fields), None))
    return [found for found in kept if found.envelope.correlation == correlation_id]


def standing(log: Log, group: str, cursor: Cursor, entry: str, now: float) -> GroupStanding:
    pending = cursor.pending.get(entry)
    if pending is not None and pending.due == math.inf:  # behind another of its key, in an ordered group
        return GroupStanding(group, entry, Standing.WAITING)
    if pending is not None and pending.due is not None:
        return GroupStanding(group, entry, Standing.RESTING, due=pending.due - now, failures=pending.failures)
    if pending is not None:
        held, failures = now - pending.touched, pending.failures
        return GroupStanding(group, entry, Standing.RUNNING, consumer=pending.owner, seconds=held, failures=failures)
    if any(entry in lane[cursor.delivered[priority] :] for priority, lane in log.lanes.items()):
        return GroupStanding(group, entry, Standing.WAITING)
    for letter in log.dead.values():
        if letter.group == group and letter.fields == log.entries[entry]:
            return replace(_dead(letter), entry=entry)
    return GroupStanding(group, entry, Standing.DONE)


def _dead(letter: DeadLetter) -> GroupStanding:
    return GroupStanding(letter.group, "", Standing.DEAD, failures=letter.attempts, error=letter.error)
