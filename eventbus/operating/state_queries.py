"""Asking for the state of events in tracked groups.

A record is written a moment behind what it tells of, so a worker that dies in that moment leaves an old one for good. A
record that says that more is to come, and is older than STALE, is therefore compared with the pending list, which is
the truth: with the entry that the record names, in one round trip, and if that is pending no more, with the whole
stream. What was found is written down, so that nobody looks again for STALE seconds; unless somebody else has written
the record since the look.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from time import time_ns
from typing import NamedTuple

import orjson

from eventbus.contract.broker import Broker
from eventbus.contract.inspection import EventStanding, GroupStanding, Standing
from eventbus.contract.states import WRITE_INTERVAL, Counts, Keep, Notice, Occasion, Phase, Records, State, Update
from eventbus.errors import Full
from eventbus.event import stream_of, unix_ms
from eventbus.group import Group

STALE = 2.0  # seconds within which a worker that lives has written its news

_ENDED = {Phase.COMPLETED, Phase.FAILED}
_PHASES = {
    Standing.WAITING: Phase.WAITING,
    Standing.RUNNING: Phase.ACTIVE,
    Standing.RESTING: Phase.DELAYED,
    Standing.DEAD: Phase.FAILED,
    Standing.DONE: Phase.COMPLETED,
}


class Asked(NamedTuple):
    """The group that somebody asks about. If it was named by its name alone, nothing else of it is known."""

    name: str
    streams: list[str] | None
    lease: float = math.inf
    keep: Keep | None = None

    @classmethod
    def about(cls, group: Group | str) -> "Asked":
        if isinstance(group, str):
            return cls(group, None)
        return cls(group.name, group.streams, group.lease, Keep(group.keep_completed, group.keep_failed))


async def recorded(records: Records, group: str, event_id: str) -> State | None:
    """The state by the event's record alone; None if there is no record."""
    record = await records.find(group, event_id)
    return _state(event_id, record) if record else None


async def state(transport: Broker, group: Group | str, event_id: str) -> State:
    """The state by the event's record, if that is not old. Without a record, it has not begun, or is not known any
    more."""
    asked = Asked.about(group)
    if record := await transport.records.find(asked.name, event_id):
        known = _state(event_id, record)
        return (
            known if known.phase in _ENDED or _age(record) < STALE else await _renewed(transport, asked, known, record)
        )
    seen = _without_record(asked, await transport.locate(event_id, asked.streams))
    if seen.phase in {Phase.ACTIVE, *_ENDED}:  # so a record is about to be written, or never was
        await asyncio.sleep(2 * WRITE_INTERVAL)
        if (written := await recorded(transport.records, asked.name, event_id)) is not None:
            return written
    return seen


async def _renewed(transport: Broker, asked: Asked, known: State, record: Mapping[str, bytes]) -> State:
    """The state, found by where the event is now. It is also written down."""
    found = await _look(transport, asked, known, record.get("entry", b"").decode())
    if asked.keep is None and found.phase in _ENDED:  # then it is not written: how many are kept is not known here
        return found
    told = {"attempts": b"%d" % found.attempts, "error": (found.error or "").encode(errors="backslashreplace")}
    if found.finished is not None:
        told["finished"] = b"%d" % round(found.finished.timestamp() * 1000)
    version, written = record["version"].decode(), record.get("written", b"")
    update = Update(known.event_id, version, found.phase, told, replaces=written)
    with suppress(Full):  # then whoever asks next looks again
        await transport.records.track(asked.name, asked.keep or Keep(0, 0), [update])
    return found


async def _look(transport: Broker, asked: Asked, known: State, entry: str) -> State:
    stream = stream_of(known.type or "")
    log, _, entry = entry.rpartition("/")
    if entry and (standing := await transport.pending(log or stream, asked.name, entry)) is not None:
        return _told(known, asked, standing)
    located = await transport.locate(known.event_id, [stream])
    if located.scheduled is not None:
        return known._replace(phase=Phase.DELAYED)
    if located.stream is None:  # trimmed: so every group had settled it, and it is no dead letter
        return _told(known, asked, GroupStanding(asked.name, entry, Standing.DONE))
    return _told(known, asked, _last(asked, located))


def _told(known: State, asked: Asked, standing: GroupStanding) -> State:
    """What is known, corrected. `finished` is when the end was noticed: nobody was there to note when it came."""
    phase = _phase(asked, standing)
    return known._replace(
        phase=phase,
        attempts=max(known.attempts, standing.failures),
        error=standing.error if phase in _ENDED else known.error,
        finished=_time(b"%d" % (time_ns() // 1_000_000)) if phase in _ENDED else None,
    )


def _phase(asked: Asked, standing: GroupStanding) -> Phase:
    """The phase that a standing means. An event waits to be taken over if its lease is over, or its rest."""
    match standing.standing:
        case Standing.RUNNING if standing.seconds is not None and standing.seconds > asked.lease:
            return Phase.WAITING
        case Standing.RESTING if standing.due is not None and standing.due <= 0:
            return Phase.WAITING
        case other:
            return _PHASES[other]


def _last(asked: Asked, standing: EventStanding) -> GroupStanding:
    """The last of the entries that are the group's business. If there is none, the group has not begun to read."""
    mine = [one for one in standing.groups if one.group == asked.name and one.standing in _PHASES]
    return mine[-1] if mine else GroupStanding(asked.name, "", Standing.WAITING)


def _without_record(asked: Asked, standing: EventStanding) -> State:
    published = _time(b"%d" % unix_ms(standing.event_id))
    if standing.scheduled is not None:
        return State(standing.event_id, Phase.DELAYED, published=published)
    if standing.stream is None:
        return State(standing.event_id, Phase.UNKNOWN)
    last = _last(asked, standing)
    return State(
        standing.event_id,
        _phase(asked, last),
        type=standing.type,
        attempts=last.failures,
        error=last.error,
        published=published,
    )


async def counts(transport: Broker, group: str, streams: Collection[str] | None) -> Counts:
    """The counts now. A scheduled event counts for every group of its stream."""
    found = await transport.inspect(await transport.find_streams() if streams is None else streams)
    mine = [(stream, state) for stream in found for state in stream.groups if state.name == group]
    lags = [state.lag for _, state in mine]
    completed, failed = await transport.records.totals(group)
    return Counts(
        waiting=None if None in lags else sum(lag for lag in lags if lag is not None),
        delayed=sum(stream.scheduled + state.delayed for stream, state in mine),
        active=sum(state.pending - state.delayed for _, state in mine),
        completed=completed,
        failed=failed,
    )


async def watch(records: Records, group: str) -> AsyncIterator[Notice]:
    """Notices from now on. What is told while the server is away is lost."""
    async for packed in records.watch(group):
        told = orjson.loads(packed)
        yield Notice(
            Occasion(told["occasion"]),
            told["eventId"],
            told["type"],
            told["attempts"],
            told.get("progress"),
            told.get("error"),
        )


def _state(event_id: str, record: Mapping[str, bytes]) -> State:
    return State(
        event_id,
        Phase(record["phase"].decode()),
        type=record["type"].decode(),
        attempts=int(record.get("attempts", 0)),
        progress=orjson.loads(record.get("progress") or b"null"),
        error=record.get("error", b"").decode() or None,
        published=_time(record.get("published")),
        started=_time(record.get("started")),
        finished=_time(record.get("finished")),
    )


def _age(record: Mapping[str, bytes]) -> float:
    """Seconds since it was written, by the server's clock."""
    return (int(record["now"]) - int(record.get("written", 0))) / 1000


def _time(ms: bytes | None) -> datetime | None:
    return datetime.fromtimestamp(int(ms) / 1000, UTC) if ms else None
