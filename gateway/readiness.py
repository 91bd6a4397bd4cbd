"""What this process depends on, as a table of named checks. Who brings another dependency adds a line:

CHECKS["n8n"] = Check(_n8n, decides=False)
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from eventbus import EventBus, EventBusError
from eventbus.contract.inspection import StreamState
from eventbus.event import event_types, stream_of
from eventbus.postgres import standing
from handlers.common.deadline import within

CHECK_TIMEOUT = 2.0  # seconds
READY_CHANNEL = "pubsub:ready"

Details = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Check:
    """`ask` returns details, for people; what it raises is a dependency that is away. `decides`: whether this process
    is unfit for traffic then; what does not decide is looked at when details are asked for."""

    ask: Callable[[EventBus], Coroutine[Any, Any, Details]]
    decides: bool = True


async def _redis(bus: EventBus) -> Details:
    await bus.broadcast(READY_CHANNEL, b"")
    return {}


async def _postgres(bus: EventBus) -> Details:
    async with bus.transaction() as tx:
        await tx.connection.fetchval("SELECT 1")
    return {}


async def _outbox(bus: EventBus) -> Details:
    """What no worker has relayed yet, and what none can."""
    async with bus.transaction() as tx:
        found = await standing(tx.connection)
    return {"waiting": found.rows, "oldestSeconds": round(found.seconds, 3), "setAside": found.aside}


async def _spool(bus: EventBus) -> Details:
    """What is on this machine's disk, for a Redis that was away."""
    if bus.spool is None:
        return {"configured": False}
    records, rejected = await asyncio.to_thread(lambda spool: (spool.records, spool.rejected), bus.spool)
    return {"records": records, "bytes": bus.spool.size, "rejected": rejected}


async def _streams(bus: EventBus) -> Details:
    """By stream: dead letters, and by group what waits, and for how long the oldest has."""
    found = await bus.transport.inspect({stream_of(event_type) for event_type in event_types()})
    return {stream.name: _stream(stream) for stream in found if stream.length or stream.groups or stream.dead}


def _stream(stream: StreamState) -> dict[str, JsonValue]:
    groups: dict[str, JsonValue] = {
        group.name: {
            "backlog": group.backlog,
            "pending": group.pending,
            "oldestSeconds": max(group.oldest_undelivered or 0.0, group.oldest_unacked or 0.0),
        }
        for group in stream.groups
    }
    return {"dead": stream.dead, "groups": groups}


async def _circuits(bus: EventBus) -> Details:
    """Services outside that are not called now, and those that have failed and are. No names: workflows have theirs
    from users, and whoever asks has no token."""
    troubled = await bus.transport.circuits.troubled()
    is_open = sum(state.is_open for state in troubled)
    return {"open": is_open, "failing": len(troubled) - is_open}


CHECKS: dict[str, Check] = {
    "redis": Check(_redis),
    "postgres": Check(_postgres),
    "outbox": Check(_outbox, decides=False),
    "spool": Check(_spool, decides=False),
    "streams": Check(_streams, decides=False),
    "circuits": Check(_circuits, decides=False),
}


@dataclass(frozen=True, slots=True)
class Found:
    """`state`: `ok`, `away` or `no answer`. `seconds`: how long it took to find out."""

    name: str
    decides: bool
    state: str
    seconds: float
    details: Details


async def look(bus: EventBus, names: Iterable[str]) -> list[Found]:
    """All of these at once."""
    return await asyncio.gather(*(_look(bus, name, CHECKS[name]) for name in names))


async def _look(bus: EventBus, name: str, check: Check) -> Found:
    began, state, details = time.perf_counter(), "ok", {}
    try:
        details = dict(await within(CHECK_TIMEOUT, check.ask(bus)))
    except TimeoutError:
        state = "no answer"
    except EventBusError:
        state = "away"
    return Found(name, check.decides, state, time.perf_counter() - began, details)
