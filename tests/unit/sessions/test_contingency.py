"""With Redis away sessions go to the spool, and from there to where they belong: in order, once, or loudly aside."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from eventbus import EventBus, Full, SessionFull, SessionStatus, Unavailable, WrongState
from eventbus.contract.session_store import MAX_EVENTS, SessionId
from eventbus.errors import EventBusError
from eventbus.event import Envelope, uuid7
from eventbus.publishing.spool import SpoolFile, replay
from eventbus.publishing.spool.record import pack
from eventbus.publishing.spool.replay import replay_rejected
from eventbus.sessions import queries
from eventbus.sessions.commands import add, commit, roll_back, start
from eventbus.sessions.operations import AddEvents, CommitSession, SessionOperation, StartSession
from tests.unit.sessions.house import Moody, bus_on, counted, published
from tests.waiting import eventually, in_a_span, until


@pytest.fixture
def house() -> Moody:
    return Moody()


@pytest.fixture
async def bus(house: Moody, tmp_path: Path) -> AsyncIterator[EventBus]:
    async with bus_on(house, tmp_path / "spool", timeout=1.0) as bus:
        yield bus


async def begun(bus: EventBus) -> SessionId:
    answer = await start(bus.sessions, "acme")
    assert answer.state is not None
    return SessionId("acme", answer.state.id)


def file_of(bus: EventBus) -> SpoolFile:
    assert bus.spool is not None
    return bus.spool.file


async def healed(bus: EventBus, house: Moody) -> None:
    house.mood = "well"
    await until(lambda: file_of(bus).size() == 0)


@pytest.mark.parametrize("mood", ["away", "silent", "full"])
async def test_all_of_a_session_may_happen_while_redis_is_away(mood: str, bus: EventBus, house: Moody) -> None:
    house.mood = mood
    session = await begun(bus)
    counts = [await add(bus.sessions, session, counted(n)) for n in range(3)]
    assert [(told.state and told.state.event_count, told.contingency) for told in counts] == [
        (1, True),
        (2, True),
        (3, True),
    ]
    committing = await commit(bus.sessions, session)
    assert committing.contingency
    assert committing.state is not None
    assert (committing.state.status, committing.state.published) == (SessionStatus.COMMITTING, 0)
    assert await commit(bus.sessions, session) == committing
    assert file_of(bus).status().records == 6
    await healed(bus, house)
    assert await published(house) == [0, 1, 2]
    state = await queries.status(bus.sessions, session)
    assert (state.status, state.published) == (SessionStatus.COMMITTED, 3)
    assert file_of(bus).rejected() == 0


async def test_a_rollback_in_the_spool_publishes_nothing(bus: EventBus, house: Moody) -> None:
    session = await begun(bus)
    await add(bus.sessions, session, counted(1))
    house.mood = "away"
    answer = await roll_back(bus.sessions, session)
    assert answer.contingency
    assert answer.state is not None
    assert answer.state.status is SessionStatus.ROLLED_BACK
    with pytest.raises(WrongState):
        await add(bus.sessions, session, counted(2))
    await healed(bus, house)
    assert (await queries.status(bus.sessions, session)).status is SessionStatus.ROLLED_BACK
    assert await published(house) == []


async def test_while_anything_waits_in_the_spool_sessions_queue_behind_it(
    bus: EventBus, house: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await begun(bus)
    await add(bus.sessions, session, counted(1))
    with file_of(bus).claim() as mine:  # nobody else replays meanwhile
        assert mine
        house.mood = "away"
        await add(bus.sessions, session, counted(2))
        house.mood = "well"
        house.asked.clear()
        answers = [await add(bus.sessions, session, counted(3)), await commit(bus.sessions, session)]
        assert [answer.contingency for answer in answers] == [True, True]
        assert house.asked == []

        async def direct() -> bool:
            """Which nothing in the spool can come before."""
            return not (await start(bus.sessions, "acme")).contingency

        await eventually(direct)
        assert file_of(bus).size() > 0
    await healed(bus, house)
    assert await published(house) == [1, 2, 3]


async def test_another_process_with_the_same_file_queues_as_well(bus: EventBus, house: Moody, tmp_path: Path) -> None:
    async with bus_on(house, tmp_path / "spool") as other:
        session = await begun(bus)
        with file_of(bus).claim():
            house.mood = "away"
            await add(bus.sessions, session, counted(1))
            house.mood = "well"
            told = await add(other.sessions, session, counted(2))
            assert told == (None, True), "it has never heard of this session"
            assert (await commit(other.sessions, session)).contingency
        await healed(bus, house)
        assert await published(house) == [1, 2]


async def test_what_reached_redis_without_our_knowing_is_not_done_again(bus: EventBus, house: Moody) -> None:
    session = await begun(bus)
    step = bus.sessions.ledger.add

    async def slow(*arguments: object) -> None:
        await step(*arguments)  # type: ignore[arg-type]
        await asyncio.sleep(3600)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(house.sessions, "add", slow, raising=False)
        answer = await add(bus.sessions, session, counted(1))
        assert answer.contingency
    await healed(bus, house)
    assert (await queries.status(bus.sessions, session)).event_count == 1


async def test_a_file_that_is_replayed_again_does_nothing_twice(bus: EventBus, house: Moody) -> None:
    with file_of(bus).claim():
        house.mood = "away"
        session, given_up = await begun(bus), await begun(bus)
        for place in (session, given_up):
            await add(bus.sessions, place, counted(1, 2))
        await commit(bus.sessions, session)
        await roll_back(bus.sessions, given_up)
        house.mood = "well"
        content = file_of(bus).path.read_bytes()
    await healed(bus, house)
    assert await published(house) == [1, 2]
    file_of(bus).append([content])
    await until(lambda: file_of(bus).size() == 0)
    assert await published(house) == []
    assert (await queries.status(bus.sessions, session)).event_count == 2
    assert file_of(bus).rejected() == 0


async def test_what_can_never_be_applied_is_set_aside_loudly(house: Moody, tmp_path: Path) -> None:
    now, session, nobody = datetime.now(UTC), SessionId("acme", uuid7()), SessionId("acme", uuid7())
    await house.sessions.start(session, {}, 60.0)
    await house.sessions.roll_back(session)
    good = StartSession(SessionId("acme", uuid7()), now, {})
    bad: list[SessionOperation] = [AddEvents(session, now, "late", counted(1)), CommitSession(nobody, now)]
    file = SpoolFile(tmp_path / "spool", 10**6)
    lines = [pack(operation) for operation in (bad[0], good, bad[1])]
    with structlog.testing.capture_logs() as said:
        for _ in range(2):
            file.append(lines)
            assert await replay(file, house) == (1, 2)
    assert file.rejected_path.read_bytes() == lines[0] + lines[2], "each once"
    loud = [(line["operation"], line["reason"]) for line in said if line["log_level"] == "error"]
    assert loud[:2] == [("AddEvents", "the session is ROLLED_BACK"), ("CommitSession", "there is no such session")]
    assert await house.sessions.find(good.session) is not None


async def test_a_session_that_expires_while_redis_is_away_is_committed_all_the_same(
    house: Moody, tmp_path: Path
) -> None:
    async def expires_after(seconds: float) -> None:  # and is forgotten as much later
        session = SessionId("acme", uuid7())
        await house.sessions.start(session, {}, seconds)
        acknowledged = datetime.now(UTC)
        await asyncio.sleep(seconds + 0.02)
        file = SpoolFile(tmp_path / f"spool-{seconds}", 10**6)
        in_time: list[SessionOperation] = [
            AddEvents(session, acknowledged, "a", counted(1)),
            CommitSession(session, acknowledged),
        ]
        file.append([pack(operation) for operation in in_time])
        assert await replay(file, house) == (2, 0)
        assert await published(house) == [1]

    await in_a_span(expires_after)


async def test_what_would_be_refused_later_is_refused_now_as_far_as_it_is_known(bus: EventBus, house: Moody) -> None:
    session, over, committed = await begun(bus), await begun(bus), await begun(bus)
    await add(bus.sessions, session, counted(*[0] * (MAX_EVENTS - 1)))
    await commit(bus.sessions, committed)
    known = bus.sessions.known.get(over)
    assert known is not None
    bus.sessions.known.note(over, known._replace(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    house.mood = "away"
    with pytest.raises(SessionFull):
        await add(bus.sessions, session, counted(1, 2))
    with pytest.raises(WrongState, match="EXPIRED"):
        await add(bus.sessions, over, counted(1))
    with pytest.raises(WrongState, match="COMMITTED"):
        await roll_back(bus.sessions, committed)
    assert file_of(bus).size() == 0


async def test_what_may_be_in_the_spool_is_not_said_to_be_nowhere(bus: EventBus, house: Moody) -> None:
    with file_of(bus).claim():
        house.mood = "away"
        session = await begun(bus)
        house.mood = "well"
        with pytest.raises(Unavailable):
            await queries.status(bus.sessions, session)

    async def there() -> bool:
        return (await house.sessions.find(session)) is not None

    await eventually(there)


@pytest.mark.parametrize(("mood", "kind"), [("away", Unavailable), ("full", Full)])
async def test_when_neither_takes_it_both_reasons_are_told(
    mood: str, kind: type[Exception], house: Moody, tmp_path: Path
) -> None:
    async with EventBus("memory://", spool=tmp_path / "spool", spool_bytes=10, publish_timeout=1.0) as bus:
        bus.transport, house.mood = house, mood
        with pytest.raises(kind, match=r"at home.*and spool .* is full"):
            await start(bus.sessions, "acme")


async def test_one_look_in_a_second_at_a_server_that_is_away(bus: EventBus, house: Moody) -> None:
    house.mood = "away"
    for _ in range(50):
        assert (await start(bus.sessions, "acme")).contingency
    assert len(house.asked) < 10


async def test_without_one_addition_the_rest_of_its_session_does_not_follow(
    bus: EventBus, house: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All or nothing: what the server cannot take keeps back the commit, and only that session's."""
    house.mood = "away"
    torn, whole = await begun(bus), await begun(bus)
    for session, numbers in ((torn, (1, 2)), (whole, (3,))):
        for number in numbers:
            await add(bus.sessions, session, counted(number))
        await commit(bus.sessions, session)
    step = house.sessions.add

    async def refusing(session: SessionId, addition: str, events: Sequence[Envelope], at: datetime) -> object:
        if session == torn and events[0].data == b'{"number":1}':
            raise EventBusError("WRONGTYPE")
        return await step(session, addition, events, at)

    monkeypatch.setattr(house.sessions, "add", refusing, raising=False)
    await healed(bus, house)
    assert await published(house) == [3]
    assert (await queries.status(bus.sessions, torn)).status is SessionStatus.ACTIVE
    assert file_of(bus).rejected() == 3, "two additions, and the commit"
    monkeypatch.undo()
    assert await eventually(lambda: replay_rejected(file_of(bus), bus.transport)) == (3, 0)
    assert await published(house) == [1, 2]
