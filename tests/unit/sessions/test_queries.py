"""Each question by itself."""

from collections.abc import AsyncIterator

import pytest

from eventbus import EventBus, NoSuchSession, SessionStatus
from eventbus.contract.session_store import SessionId
from eventbus.sessions.commands import add, roll_back, start
from eventbus.sessions.queries import active, events, status
from tests.unit.sessions.house import counted


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://") as bus:
        yield bus


async def begun(bus: EventBus) -> SessionId:
    answer = await start(bus.sessions, "acme")
    assert answer.state is not None
    return SessionId("acme", answer.state.id)


async def test_status(bus: EventBus) -> None:
    session = await begun(bus)
    await add(bus.sessions, session, counted(1))
    found = await status(bus.sessions, session)
    assert (found.id, found.status, found.event_count) == (session.id, SessionStatus.ACTIVE, 1)
    with pytest.raises(NoSuchSession):
        await status(bus.sessions, session._replace(organization="umbrella"))


async def test_events(bus: EventBus) -> None:
    session, sent = await begun(bus), counted(*range(5))
    await add(bus.sessions, session, sent)
    assert await events(bus.sessions, session) == sent
    assert await events(bus.sessions, session, 3, 1) == sent[3:4]
    with pytest.raises(NoSuchSession):
        await events(bus.sessions, session._replace(organization="umbrella"))


async def test_active(bus: EventBus) -> None:
    session, _ = await begun(bus), await begun(bus)
    assert (await active(bus.sessions, "acme"), await active(bus.sessions, "umbrella")) == (2, 0)
    await roll_back(bus.sessions, session)
    assert await active(bus.sessions, "acme") == 1
