"""A commit on every transport: each event once, in order, wherever it is cut off and however often it is run."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from eventbus.contract.broker import Broker
from eventbus.contract.codec import pairs
from eventbus.contract.session_store import SessionId, SessionStatus, Stale
from eventbus.errors import EventBusError, NoSuchSession, Unavailable, WrongState
from eventbus.event import Envelope, uuid7
from eventbus.process import crash_points
from eventbus.redis import RedisTransport
from eventbus.redis.keys import stream_keys
from eventbus.redis.links import Links
from eventbus.sessions import committing
from eventbus.sessions.committing import commit
from eventbus.sessions.recovery import Recovery
from tests.samples import consumer, envelope, numbers

STREAMS = ("order", "invoice", "parcel")
COUNT = 40
POINTS = ("session.registered", "session.committing", "session.appended", "session.published", "session.committed")


class Cut(BaseException):
    """Where a process dies, everything in it ends."""


class Knife:
    """Cuts at the n-th crossing of a crash point."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name, self.left, self.crossed = "", 0, 0
        monkeypatch.setattr(crash_points, "point", self._cross)

    def at(self, name: str, number: int = 1) -> None:
        self.name, self.left = name, number

    def _cross(self, name: str) -> None:
        self.crossed += name == "session.appended"
        if name == self.name:
            self.left -= 1
            if self.left == 0:
                raise Cut


@pytest.fixture
def knife(monkeypatch: pytest.MonkeyPatch) -> Knife:
    monkeypatch.setattr(committing, "BATCH", 10)
    return Knife(monkeypatch)


def mixed(count: int = COUNT) -> list[Envelope]:
    return [envelope(number, stream=STREAMS[number % 3]) for number in range(count)]


async def filled(transport: Broker, events: Sequence[Envelope]) -> SessionId:
    session = SessionId("acme", uuid7())
    await transport.sessions.start(session, {}, 60.0)
    await transport.sessions.add(session, "all", events)
    return session


async def stored(transport: Broker) -> list[int]:
    """All that is in the streams; of each stream in its order."""
    found: list[int] = []
    for stream in STREAMS:
        reader, mine = consumer(stream=stream, group=f"g-{uuid7()}"), list[int]()
        for _ in range(3):  # the first may find no group, and makes it
            mine += numbers(await transport.read(reader, 1000, 0.02))
        assert mine == sorted(mine), "the order of adding"
        found += mine
    return sorted(found)


async def status(transport: Broker, session: SessionId) -> SessionStatus:
    state = await transport.sessions.find(session)
    assert state is not None
    return state.status


async def test_all_events_are_published_once_and_in_order(transport: Broker, knife: Knife) -> None:
    session = await filled(transport, mixed())
    committed = await commit(transport.sessions, session)
    assert (committed.status, committed.published) == (SessionStatus.COMMITTED, COUNT)
    assert committed.batches == knife.crossed == COUNT // 10 * 3
    assert sorted(committed.streams) == sorted(STREAMS)
    assert await stored(transport) == list(range(COUNT))
    assert await transport.sessions.unfinished(0.0, 0.001) == []


async def test_again_it_answers_the_same_and_publishes_nothing(transport: Broker, knife: Knife) -> None:
    session = await filled(transport, mixed())
    first = await commit(transport.sessions, session)
    crossed = knife.crossed
    assert await commit(transport.sessions, session) == first
    assert knife.crossed == crossed
    assert await stored(transport) == list(range(COUNT))


async def test_many_at_once_answer_the_same_and_publish_once(transport: Broker, knife: Knife) -> None:
    session = await filled(transport, mixed())
    answers = await asyncio.gather(*(commit(transport.sessions, session) for _ in range(8)))
    assert len({(answer.status, answer.published, answer.batches) for answer in answers}) == 1
    assert await stored(transport) == list(range(COUNT))
    assert await transport.sessions.unfinished(0.0, 0.001) == []


async def test_one_without_events_is_committed_as_well(transport: Broker) -> None:
    session = await filled(transport, [])
    committed = await commit(transport.sessions, session)
    assert (committed.status, committed.published, committed.batches) == (SessionStatus.COMMITTED, 0, 0)


async def test_what_cannot_be_committed_is_told_and_leaves_no_note(transport: Broker) -> None:
    session = await filled(transport, mixed(2))
    await transport.sessions.roll_back(session)
    with pytest.raises(WrongState):
        await commit(transport.sessions, session)
    with pytest.raises(NoSuchSession):
        await commit(transport.sessions, SessionId("acme", uuid7()))
    assert await transport.sessions.unfinished(0.0, 0.001) == []
    assert await stored(transport) == []


@pytest.mark.parametrize("number", [1, 2, 7, 12])
@pytest.mark.parametrize("point", POINTS)
async def test_cut_anywhere_it_is_whole_when_it_is_run_again(
    point: str, number: int, transport: Broker, knife: Knife
) -> None:
    if number > 1 and point != "session.appended":
        return
    session = await filled(transport, mixed())
    knife.at(point, number)
    with pytest.raises(Cut):
        await commit(transport.sessions, session)
    committed = await commit(transport.sessions, session)
    assert (committed.status, committed.published, committed.batches) == (SessionStatus.COMMITTED, COUNT, 12)
    assert await stored(transport) == list(range(COUNT))
    assert await transport.sessions.unfinished(0.0, 0.001) == []


@pytest.mark.parametrize("point", POINTS)
async def test_cut_anywhere_recovery_ends_it_or_it_is_untouched(
    point: str, transport: Broker, knife: Knife, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.sessions.recovery.GRACE", 0.01)
    session = await filled(transport, mixed())
    knife.at(point)
    with pytest.raises(Cut):
        await commit(transport.sessions, session)
    await asyncio.sleep(0.02)
    await Recovery(transport, lambda _events: None).look()
    if point == "session.registered":
        assert await status(transport, session) is SessionStatus.ACTIVE
        assert await stored(transport) == []
        assert len(await transport.sessions.unfinished(0.0, 0.001)) == 0, "told a moment ago"
    else:
        assert await status(transport, session) is SessionStatus.COMMITTED
        assert await stored(transport) == list(range(COUNT))


async def test_every_event_is_counted_by_whoever_has_appended_it(transport: Broker, knife: Knife) -> None:
    session, counted = await filled(transport, mixed()), list[bytes]()

    def count(events: Sequence[Envelope]) -> None:
        counted.extend(event.data for event in events)

    knife.at("session.published")
    with pytest.raises(Cut):
        await commit(transport.sessions, session, count=count)
    for _ in range(2):
        await commit(transport.sessions, session, count=count)
    assert sorted(map(int, counted)) == list(range(COUNT))


async def test_what_was_handled_and_trimmed_meanwhile_is_not_published_again(
    redis_transport: RedisTransport, raw: Links, knife: Knife
) -> None:
    await raw.execute("FLUSHDB")
    session = await filled(redis_transport, mixed())
    knife.at("session.appended", 7)
    with pytest.raises(Cut):
        await commit(redis_transport.sessions, session)
    before = await stored(redis_transport)
    for stream in STREAMS:
        await raw.execute("DEL", stream_keys("eb", stream).stream)
    assert (await commit(redis_transport.sessions, session)).published == COUNT
    assert sorted([*before, *await stored(redis_transport)]) == list(range(COUNT))
    assert len(before) > COUNT // 2


async def test_a_zombie_that_goes_on_behind_its_successor_changes_nothing(
    transport: Broker, knife: Knife, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await filled(transport, mixed())
    resume, asleep, publish = asyncio.Event(), asyncio.Event(), transport.sessions.publish

    async def sleepy(run: object, portion: object) -> int:
        if knife.crossed == 4 and not asleep.is_set():
            asleep.set()
            await resume.wait()
        return await publish(run, portion)  # type: ignore[arg-type]

    monkeypatch.setattr(transport.sessions, "publish", sleepy)
    zombie = asyncio.create_task(commit(transport.sessions, session))
    await asleep.wait()
    ended = await commit(transport.sessions, session)
    resume.set()
    assert await zombie == ended
    assert await stored(transport) == list(range(COUNT))


async def test_who_was_noted_too_long_ago_notes_it_again(transport: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the recovery might have dropped the note, and a death would leave it COMMITTING for ever."""
    session, register, notes = await filled(transport, mixed()), transport.sessions.register, []

    async def sleepy(noted: SessionId) -> int:
        notes.append(await register(noted))
        return notes[-1] - (31_000 if len(notes) == 1 else 0)

    monkeypatch.setattr(transport.sessions, "register", sleepy)
    assert (await commit(transport.sessions, session)).published == COUNT
    assert len(notes) == 2


async def test_clocks_that_never_agree_are_told(transport: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_arguments: object) -> None:
        raise Stale

    session = await filled(transport, mixed())
    monkeypatch.setattr(transport.sessions, "begin", never)
    with pytest.raises(Unavailable):
        await commit(transport.sessions, session)


async def test_a_note_that_leads_to_nothing_is_dropped_when_nobody_can_rely_on_it(
    transport: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.sessions.recovery.GRACE", 0.0)
    monkeypatch.setattr("eventbus.sessions.recovery.INTERVAL", 0.002)
    active, gone, ended = await filled(transport, mixed(2)), SessionId("acme", uuid7()), await filled(transport, [])
    await commit(transport.sessions, ended)
    for session in (active, gone, ended):
        await transport.sessions.register(session)
    await asyncio.sleep(0.005)
    await Recovery(transport, lambda _events: None).look()
    await asyncio.sleep(0.005)
    left = {note.session for note in await transport.sessions.unfinished(0.0, 0.001)}
    assert left == {active, gone}, "who has made them may still begin"
    monkeypatch.setattr("eventbus.sessions.recovery.NOTE_STANDS", 0.001)
    await asyncio.sleep(0.005)
    await Recovery(transport, lambda _events: None).look()
    await asyncio.sleep(0.005)
    assert await transport.sessions.unfinished(0.0, 0.001) == []
    assert await status(transport, active) is SessionStatus.ACTIVE


# What nobody can publish ----------------------------------------------------------------------------------------------


async def test_what_is_no_event_is_set_aside_and_the_rest_is_published(
    redis_transport: RedisTransport, raw: Links, knife: Knife
) -> None:
    """It was collected by a version that did not look at what it was given, or was damaged."""
    session = await filled(redis_transport, mixed())
    key = f"eb:{{session:acme}}:{session.id}:events"
    wrong = [b'id\norder.placed\n{"subject":4711}\n{}', b"no event"]
    for place, value in zip((7, 21), wrong, strict=True):
        await raw.execute("LSET", key, place, value)
    with capture_logs() as logs:
        state = await commit(redis_transport.sessions, session)
    assert state.status is SessionStatus.COMMITTED
    found = sorted([n for stream in STREAMS for n in await in_lanes(raw, stream)])
    assert found == sorted({*range(COUNT)} - {7, 21})
    told = [line["place"] for line in logs if line["event"] == "an event of a session cannot be published"]
    assert told == [7, 21]
    [letter] = await redis_transport.dead_letters("order")
    assert "cannot be published" in letter.error
    assert letter.fields[b"meta"] == b'{"subject":4711}'


async def test_a_stream_that_refuses_its_events_gets_none_of_them_twice(
    redis_transport: RedisTransport, raw: Links, knife: Knife
) -> None:
    events = mixed()
    for place in range(0, COUNT, 3):  # the orders, some of them urgent
        events[place] = events[place]._replace(priority=1 if place == 6 else 5)
    session = await filled(redis_transport, events)
    await raw.execute("SET", stream_keys("eb", "order").lane(1), "no stream")
    for _ in range(3):
        with pytest.raises(EventBusError, match="WRONGTYPE"):
            await commit(redis_transport.sessions, session)
    others = [n for stream in STREAMS[1:] for n in await in_lanes(raw, stream)]
    assert sorted(others) == [n for n in range(COUNT) if n % 3], "others were not kept back, nor published twice"
    found = await redis_transport.sessions.find(session)
    assert found is not None
    assert found.status is SessionStatus.COMMITTING
    await raw.execute("DEL", stream_keys("eb", "order").lane(1))
    assert (await commit(redis_transport.sessions, session)).status is SessionStatus.COMMITTED
    orders = await in_lanes(raw, "order")
    assert sorted(orders) == [*range(0, COUNT, 3)]


async def in_lanes(raw: Links, stream: str) -> list[int]:
    """In all lanes."""
    lanes = [await raw.execute("XRANGE", lane, "-", "+") for lane in stream_keys("eb", stream).lanes]
    return [int(pairs(fields)[b"data"]) for lane in lanes for _, fields in lane]
