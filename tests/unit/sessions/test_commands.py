"""Each command by itself: what it does, what it refuses, and that it may be repeated."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from eventbus import EventBus, NoSuchSession, SessionFull, SessionStatus, Unavailable, WrongState
from eventbus.contract.session_store import LIFETIME, MAX_EVENTS, SessionId
from eventbus.event import uuid7
from eventbus.sessions import commands
from eventbus.sessions.commands import add, commit, roll_back, start
from tests.unit.sessions.house import Moody, bus_on, counted, published


@pytest.fixture
def house() -> Moody:
    return Moody()


@pytest.fixture
async def bus(house: Moody) -> AsyncIterator[EventBus]:
    """Without a spool."""
    async with bus_on(house, None, timeout=0.3) as bus:
        yield bus


async def begun(bus: EventBus) -> SessionId:
    answer = await start(bus.sessions, "acme")
    assert answer.state is not None
    return SessionId("acme", answer.state.id)


async def test_start(bus: EventBus) -> None:
    answer = await start(bus.sessions, "acme", {"from": "tests"})
    state = answer.state
    assert state is not None
    assert (state.status, state.event_count, state.metadata) == (SessionStatus.ACTIVE, 0, {"from": "tests"})
    assert (state.expires_at - state.created_at).total_seconds() == LIFETIME
    assert abs(state.created_at - datetime.now(UTC)) < timedelta(seconds=5)
    assert not answer.contingency


async def test_add(bus: EventBus) -> None:
    session = await begun(bus)
    counts = []
    for events in (counted(1), counted(2, 3), []):
        answer = await add(bus.sessions, session, events)
        assert answer.state is not None
        counts.append(answer.state.event_count)
    assert counts == [1, 3, 3]


async def test_the_same_addition_again(bus: EventBus) -> None:
    session = await begun(bus)
    for _ in range(2):
        answer = await add(bus.sessions, session, counted(1), "once")
        assert answer.state is not None
        assert answer.state.event_count == 1


async def test_commit(bus: EventBus, house: Moody) -> None:
    session = await begun(bus)
    await add(bus.sessions, session, counted(1, 2, 3))
    first = await commit(bus.sessions, session)
    assert first.state is not None
    assert (first.state.status, first.state.published, first.state.batches) == (SessionStatus.COMMITTED, 3, 1)
    assert await commit(bus.sessions, session) == first
    assert await published(house) == [1, 2, 3]


async def test_roll_back(bus: EventBus, house: Moody) -> None:
    session = await begun(bus)
    await add(bus.sessions, session, counted(1))
    first = await roll_back(bus.sessions, session)
    assert first.state is not None
    assert first.state.status is SessionStatus.ROLLED_BACK
    assert await roll_back(bus.sessions, session) == first
    assert await published(house) == []


async def test_wrong_transitions(bus: EventBus) -> None:
    committed, given_up = await begun(bus), await begun(bus)
    await commit(bus.sessions, committed)
    await roll_back(bus.sessions, given_up)
    for step, status in (
        (add(bus.sessions, committed, counted(1)), "COMMITTED"),
        (roll_back(bus.sessions, committed), "COMMITTED"),
        (add(bus.sessions, given_up, counted(1)), "ROLLED_BACK"),
        (commit(bus.sessions, given_up), "ROLLED_BACK"),
    ):
        with pytest.raises(WrongState, match=status):
            await step


async def test_nobodys_session(bus: EventBus) -> None:
    nobody, session = SessionId("acme", uuid7()), await begun(bus)
    for place in (nobody, session._replace(organization="umbrella")):
        for step in (
            add(bus.sessions, place, counted(1)),
            commit(bus.sessions, place),
            roll_back(bus.sessions, place),
        ):
            with pytest.raises(NoSuchSession):
                await step


async def test_too_many(bus: EventBus) -> None:
    session = await begun(bus)
    with pytest.raises(SessionFull):
        await add(bus.sessions, session, counted(*[0] * (MAX_EVENTS + 1)))


@pytest.mark.parametrize("step", ["start", "add", "commit", "roll_back"])
async def test_a_lost_reply_is_asked_for_again_and_nothing_is_done_twice(
    step: str, bus: EventBus, house: Moody
) -> None:
    session = await begun(bus)
    await add(bus.sessions, session, counted(1))
    arguments = {"start": ("acme",), "add": (session, counted(2))}.get(step, (session,))
    house.mood = "forgetful"
    answer = await getattr(commands, step)(bus.sessions, *arguments)
    assert answer.state is not None
    assert answer.state.event_count == {"start": 0, "add": 2}.get(step, 1)
    if step == "start":
        assert await bus.sessions.ledger.active("acme") == 2
    if step == "commit":
        assert await published(house) == [1]


@pytest.mark.parametrize("mood", ["away", "silent"])
async def test_without_a_spool_an_absence_is_told_in_time(mood: str, bus: EventBus, house: Moody) -> None:
    session = await begun(bus)
    house.mood = mood
    for step in (
        start(bus.sessions, "acme"),
        add(bus.sessions, session, counted(1)),
        commit(bus.sessions, session),
        roll_back(bus.sessions, session),
    ):
        with pytest.raises(Unavailable):
            await step
