"""What this process depends on, as a table of named checks. Another dependency needs one line more:

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
    """`ask` returns details for people; it raises an EventBusError if the dependency is away. `decides`: then this
    process is unfit for traffic. A check that does not decide runs only when details are asked for."""

    ask: Callable[[EventBus], Coroutine[Any, Any, Details]]
    decides: bool = True


async def _redis(bus: EventBus) -> Details:
    await bus.shared.broadcast(READY_CHANNEL, b"")
    return {}


async def _postgres(bus: EventBus) -> Details:
    async with bus.transaction() as tx:
        await tx.connection.fetchval("SELECT 1")
    return {}


async def _outbox(bus: EventBus) -> Details:
    """Rows that no worker has relayed yet, and those set aside because none can."""
    async with bus.transaction() as tx:
        found = await standing(tx.connection)
    return {"waiting": found.rows, "oldestSeconds": round(found.seconds, 3), "setAside": found.aside}


async def _spool(bus: EventBus) -> Details:
    """What this machine's disk keeps until Redis is back."""
    if bus.spool is None:
        return {"configured": False}
    records, rejected = await asyncio.to_thread(lambda spool: (spool.records, spool.rejected), bus.spool)
    return {"records": records, "bytes": bus.spool.size, "rejected": rejected}


async def _streams(bus: EventBus) -> Details:
    """For each stream its dead letters; for each group what waits, and for how long the oldest of it has."""
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
    """How many services outside are not called at present (`open`), and how many are, though their last calls failed
    (`failing`). Names are not told: users name the workflows, and whoever asks needs no token."""
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
    """Run these checks side by side. The answers are in the order of the names."""
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
