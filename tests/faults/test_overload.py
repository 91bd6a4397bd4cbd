"""Fault 16: handlers are ten times slower than what arrives."""

import asyncio
from pathlib import Path

from redis.asyncio import Redis

from eventbus import EventBus
from eventbus.redis.keys import stream_keys
from tests.faults.conftest import Arena
from tests.faults.history import check
from tests.faults.jobs import ATTEMPTS
from tests.waiting import PATIENCE

EVENTS = 800  # arrive in a fraction of a second, and keep 20 handlers of 50 ms busy for two
# What runs, what is read ahead of that, what has ended and is not acknowledged yet, what a waiting read brings along.
IN_HAND = 4 * 20
GROWTH = 24 * 2**20  # bytes; the events together are a tenth of a megabyte


async def test_what_cannot_be_handled_yet_stays_in_redis(arena: Arena, bus: EventBus) -> None:
    worker = arena.fleet.start()
    warm_up = await arena.at_work(bus)
    await arena.settled(bus, warm_up)
    before, most_in_hand, most_memory = _resident(worker.pid), 0, 0
    publishing = asyncio.gather(*(arena.publish(bus, token, "sleep:0.05") for token in range(1, EVENTS + 1)))
    async with Redis.from_url(arena.redis_url, socket_timeout=PATIENCE) as client:
        while not publishing.done() or most_in_hand == 0 or await _in_hand(client):
            most_in_hand = max(most_in_hand, await _in_hand(client))
            most_memory = max(most_memory, _resident(worker.pid) - before)
            await asyncio.sleep(0.02)
    await publishing
    check(await arena.settled(bus, warm_up + EVENTS), attempts=ATTEMPTS)
    assert 10 <= most_in_hand <= IN_HAND
    assert most_memory < GROWTH


async def _in_hand(client: "Redis") -> int:
    pending = await client.xpending(stream_keys("eb", "job").stream, "jobs")
    return int(pending["pending"])


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * 4096
