"""`async with bus.session() as session`."""

import asyncio

import pytest

from eventbus import EventBus, Origin, Session, SessionStatus
from eventbus.contract.session_store import SessionId
from eventbus.errors import CodecError
from eventbus.sessions import queries
from eventbus.testing import MemoryBus
from tests.unit.sessions.house import Counted, Moody, bus_on, published


async def test_at_the_end_of_the_block_all_is_published_and_not_before() -> None:
    house = Moody()
    origin = Origin("c-1", None, None, "00-1-2-01", {"userId": "ann"})
    async with bus_on(house, None) as bus:
        async with bus.session(organization="acme", metadata={"from": "tests"}, origin=origin) as session:
            await session.add(Counted(number=1), key="o-1", priority=3)
            await session.add(Counted(number=2))
            assert await published(house) == []
            kept = await queries.events(bus.sessions, SessionId("acme", session.id))
        done = session.committed
        assert done is not None
        assert done.state is not None
        assert done.state.published == 2
        assert sorted(await published(house)) == [1, 2]
    assert (kept[0].subject, kept[0].priority, kept[0].organization) == ("o-1", 3, "acme")
    assert (kept[0].correlation_id, kept[0].traceparent, kept[0].metadata) == ("c-1", "00-1-2-01", {"userId": "ann"})
    assert kept[0].id < kept[1].id


HELD: list[Session] = []


async def fail(bus: EventBus, house: Moody, error: type[BaseException], mood: str = "well") -> None:
    """In the middle of a block."""
    async with bus.session() as session:
        HELD.append(session)
        await session.add(Counted(number=1))
        house.mood = mood
        raise error("mine")


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
async def test_what_is_raised_in_the_block_rolls_it_back(error: type[BaseException]) -> None:
    house = Moody()
    async with bus_on(house, None) as bus:
        with pytest.raises(error):
            await fail(bus, house, error)
        state = await queries.status(bus.sessions, SessionId("", HELD.pop().id))
        assert state.status is SessionStatus.ROLLED_BACK
        assert await published(house) == []


async def test_what_went_wrong_is_told_though_the_rollback_cannot_be_done() -> None:
    house = Moody()
    async with bus_on(house, None, timeout=0.2) as bus:
        with pytest.raises(ValueError, match="mine"):
            await fail(bus, house, ValueError, "away")


async def test_what_is_too_large_is_refused_where_it_is_added() -> None:
    async with EventBus("memory://", max_payload=10) as bus:
        with pytest.raises(CodecError):
            async with bus.session() as session:
                await session.add(Counted(number=10**9))


async def test_a_bus_of_tests_knows_what_was_published() -> None:
    async with MemoryBus() as bus:
        async with bus.session() as session:
            await session.add(Counted(number=7))
            assert bus.published(Counted) == []
        assert len(bus.published(Counted)) == 1


async def test_what_a_commit_publishes_is_counted() -> None:
    async with EventBus("memory://") as bus:
        async with bus.session() as session:
            await session.add(Counted(number=1))
            await session.add(Counted(number=2))
            assert bus.metrics.published == {}
        assert bus.metrics.published == {("order", "stored"): 2}
