"""What this process depends on, as a table of named checks. Another dependency needs one line more:

CHECKS["n8n"] = Check(_n8n, decides=False)
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import JsonValue

from eventbus import EventBus, EventBusError, Full, RateLimit
from eventbus.contract.inspection import StreamState
from eventbus.event import event_types, stream_of
from eventbus.postgres import standing
from gateway.endpoints.dispatch import MAX_BODY
from handlers.common.deadline import within

CHECK_TIMEOUT = 2.0  # seconds
SHORT_TIMEOUT = 0.5  # seconds, where something stands in: Kubernetes gives a probe one second, balancers two
READY_KEY, READY_LIMIT = "gateway\0ready", RateLimit(1_000_000, 1.0)
ROOM = 2 * MAX_BODY  # bytes: the largest that a client may send, as a record of the spool

Details = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Check:
    """`ask` returns details for people, which `judge` makes a state of; it raises an EventBusError if the dependency is
    away. `decides`: then this process is unfit for traffic, unless the check that `stand_in` names is `ok`: that of
    what does the work meanwhile. A check that does not decide runs when it has to stand in for another, or details are
    asked for."""

    ask: Callable[[EventBus], Coroutine[Any, Any, Details]]
    decides: bool = True
    judge: Callable[[Details], str] = lambda _details: "ok"
    stand_in: Callable[[EventBus], str | None] = lambda _bus: None


async def _redis(bus: EventBus) -> Details:
    """A write: a server without memory, or one that has become a replica, still answers a PING."""
    await bus.transport.spend(READY_KEY, READY_LIMIT, 1)
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
    spool = bus.spool
    room, records, rejected = await asyncio.to_thread(lambda: (spool.room, spool.records, spool.rejected))
    full = room < min(ROOM, spool.limit // 2)
    return {"records": records, "bytes": spool.size, "room": room, "full": full, "rejected": rejected}


def _spool_state(details: Details) -> str:
    return "full" if details.get("full") else "ok"


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
    "redis": Check(_redis, stand_in=lambda bus: None if bus.spool is None else "spool"),
    "postgres": Check(_postgres),
    "outbox": Check(_outbox, decides=False),
    "spool": Check(_spool, decides=False, judge=_spool_state),
    "streams": Check(_streams, decides=False),
    "circuits": Check(_circuits, decides=False),
}


@dataclass(frozen=True, slots=True)
class Found:
    """`state`: `ok`, `away`, `no answer` or `full`. `seconds`: how long it took to find out."""

    name: str
    decides: bool
    state: str
    seconds: float
    details: Details


class Assessment(NamedTuple):
    """`status`: `ready`; `degraded`, if something is away and what stands in for it does its work; `not ready`.
    `states`: of what decided that, by name. `found`: all that was looked at."""

    status: str
    states: dict[str, str]
    found: list[Found]


async def assess(bus: EventBus, *, all_of_them: bool = False) -> Assessment:
    """Whether this process can take what clients send. `all_of_them`: look also at what does not decide."""
    found = await look(bus, [name for name, check in CHECKS.items() if check.decides or all_of_them])
    states = {one.name: one.state for one in found if one.decides}
    troubled = [name for name, state in states.items() if state != "ok"]
    stand_ins = [name for name in (CHECKS[name].stand_in(bus) for name in troubled) if name is not None]
    found += await look(bus, [name for name in stand_ins if name not in {one.name for one in found}])
    states |= {one.name: one.state for one in found if one.name in stand_ins}
    if not troubled:
        return Assessment("ready", states, found)
    taken_over = len(stand_ins) == len(troubled) and all(states[name] == "ok" for name in stand_ins)
    return Assessment("degraded" if taken_over else "not ready", states, found)


async def look(bus: EventBus, names: Iterable[str]) -> list[Found]:
    """Run these checks side by side. The answers are in the order of the names."""
    return await asyncio.gather(*(_look(bus, name, CHECKS[name]) for name in names))


async def _look(bus: EventBus, name: str, check: Check) -> Found:
    began, state, details = time.perf_counter(), "ok", {}
    try:
        timeout = CHECK_TIMEOUT if check.stand_in(bus) is None else SHORT_TIMEOUT
        details = dict(await within(timeout, check.ask(bus)))
        state = check.judge(details)
    except TimeoutError:
        state = "no answer"
    except Full:
        state = "full"
    except EventBusError:
        state = "away"
    return Found(name, check.decides, state, time.perf_counter() - began, details)
