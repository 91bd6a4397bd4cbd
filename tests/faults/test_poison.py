"""Fault 15: what cannot be decoded, what fails for ever, what kills its worker. Neighbours are none the worse."""

import asyncio
from collections import Counter

import pytest
from redis.asyncio import Redis

from eventbus import EventBus
from eventbus.contract.delivery import SUSPECT_FROM
from eventbus.event import uuid7
from tests.faults.conftest import KEY, Arena
from tests.faults.history import check
from tests.faults.jobs import ATTEMPTS
from tests.waiting import PATIENCE

CRASH_BUDGET = 3
CRASHES = SUSPECT_FROM + CRASH_BUDGET  # of an event that always kills: some in company, the rest alone
BAD_DATA = 2  # of the undecodable entries: their envelope can be read


async def test_undecodable_entries_become_dead_letters_and_the_loop_goes_on(arena: Arena, bus: EventBus) -> None:
    """taskiq#569: a message that could not be decoded stayed pending for ever."""
    poison: list[dict[str, str | bytes]] = [
        {"id": b"\xff\xfe", "type": "job.requested", "meta": "", "data": "{}"},  # bad bytes
        {"id": uuid7(), "type": "job.requested", "meta": b"\xff{", "data": '{"token": 1}'},
        {"id": uuid7(), "type": "job.requested", "meta": "[]", "data": '{"token": 1}'},  # meta is no object
        {"id": uuid7(), "type": "job.requested", "meta": "", "data": b"\xff\xfe"},
        {"id": uuid7(), "type": "job.requested", "meta": "", "data": '{"token": "many"}'},  # wrong schema
        {"id": uuid7(), "type": "job.unheard_of", "meta": "", "data": "{}"},  # unknown type
        {"something": "else"},
    ]
    async with Redis.from_url(arena.redis_url, socket_timeout=PATIENCE) as client:
        for fields in poison:
            await client.xadd(KEY, fields)  # type: ignore[arg-type]  # its stub wants one type of keys
    arena.fleet.start()
    await arena.publish_all(bus, range(1, 51), per_second=200)
    # Two groups read this stream, and each must put away what it cannot read. Data that does not fit is met by the one
    # that handles the type; the other passes it by.
    observed = await arena.settled(bus, 50 + len(poison) + len(poison) - BAD_DATA)
    dead = await bus.transport.dead_letters("job", limit=100)
    assert all(letter.error for letter in dead)
    check(observed, attempts=ATTEMPTS, undecodable=len(dead))
    assert Counter(letter.group for letter in dead) == {"jobs": len(poison), "notes": len(poison) - BAD_DATA}
    assert any(b"something" in letter.fields for letter in dead), "the entry is kept as it came"


async def test_what_kills_its_worker_is_dead_after_its_crash_budget_and_takes_nobody_along(
    arena: Arena, bus: EventBus
) -> None:
    """dramatiq#383: what made the kernel kill its worker came back and killed the next one, for ever."""
    for _ in range(2):
        arena.fleet.start()
    poison = [1000, 1001, 1002]
    for token in range(1, 201):
        await arena.publish(bus, token, "sleep:0.05")
        if token % 60 == 0:
            await arena.publish(bus, poison[token // 60 - 1], "killed" if token == 60 else "exit")
    crashes = 0
    for _ in range(600):
        crashes += arena.fleet.replace_dead()
        observed = await arena.observe(bus)
        if len(observed.effects) + len(observed.dead) == 203 and not observed.pending:
            break
        await asyncio.sleep(0.1)
    observed = await arena.settled(bus, 203)
    check(observed, attempts=ATTEMPTS, poison=poison)
    # Several may kill the same process at once, and a crash is charged to all of them.
    assert CRASHES <= crashes <= CRASHES * len(poison), crashes
    letters = {letter.envelope.id: letter for letter in await bus.transport.dead_letters("job") if letter.envelope}
    # One more for whoever is being buried while another kills the same process.
    assert all(letter.crashes >= CRASHES and "its worker died" in letter.error for letter in letters.values())
    innocent = [line for line in observed.history if line["what"] == "run" and line["token"] not in poison]
    assert all(line["attempt"] == 1 for line in innocent), "a crash is charged to no one's attempts"


@pytest.mark.parametrize("behaviour", ["fail", "memory"])
async def test_what_always_fails_is_dead_after_its_attempts(behaviour: str, arena: Arena, bus: EventBus) -> None:
    arena.fleet.start()
    await arena.publish(bus, 99, behaviour)
    await arena.publish_all(bus, range(1, 51), per_second=200)
    observed = await arena.settled(bus, 51)
    check(observed, attempts=ATTEMPTS, poison=[99])
    [letter] = await bus.transport.dead_letters("job")
    assert letter.attempts == ATTEMPTS
    assert "Traceback" in letter.traceback
