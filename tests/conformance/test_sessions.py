"""The ledger of sessions: each step happens once, or not at all."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.session_store import MAX_BYTES, MAX_EVENTS, Portion, Run, SessionId, SessionStatus, Stale
from eventbus.errors import Full, NoSuchSession, SessionFull, WrongState
from eventbus.event import Envelope, uuid7
from eventbus.redis import RedisTransport
from eventbus.redis.keys import session_keys
from eventbus.redis.links import Links
from tests.samples import consumer, envelope, numbers, receive
from tests.waiting import in_a_span

ANN = consumer("ann")


def acme() -> SessionId:
    return SessionId("acme", uuid7())


def events(*found: int, **attributes: Any) -> list[Envelope]:
    return [envelope(number, **attributes) for number in found]


async def started(transport: Broker, *found: int, seconds: float = 60.0) -> SessionId:
    """A session that has these events."""
    session = acme()
    await transport.sessions.start(session, {"from": "tests"}, seconds)
    if found:
        await transport.sessions.add(session, "first", events(*found))
    return session


async def begun(transport: Broker, *found: int) -> tuple[SessionId, Run]:
    session = await started(transport, *found)
    _, run = await transport.sessions.begin(session, await transport.sessions.register(session))
    return session, run


async def status(transport: Broker, session: SessionId) -> SessionStatus | None:
    found = await transport.sessions.find(session)
    return None if found is None else found.status


def portion(sent: Sequence[Envelope], since: int, until: int) -> Portion:
    return Portion("order", since, until, [(position, sent[position]) for position in range(since, until)])


async def stored(transport: Broker) -> list[int]:
    found = [await transport.read(ANN, 1000, 0.02) for _ in range(3)]
    return [number for read in found for number in numbers(read)]


# Collecting -----------------------------------------------------------------------------------------------------------


async def test_a_session_begins_empty_and_is_the_same_when_it_is_started_again(transport: Broker) -> None:
    session = acme()
    first = await transport.sessions.start(session, {"from": "tests", "n": [1, None]}, 60.0)
    assert (first.id, first.status, first.event_count, first.size) == (session.id, SessionStatus.ACTIVE, 0, 0)
    assert (first.expires_at - first.created_at).total_seconds() == 60.0
    assert abs((datetime.now(UTC) - first.created_at).total_seconds()) < 5
    assert first.metadata == {"from": "tests", "n": [1, None]}
    assert await transport.sessions.start(session, {}, 5.0) == first
    assert await transport.sessions.find(session) == first


async def test_events_are_kept_in_order_and_come_back_whole(transport: Broker) -> None:
    session = await started(transport)
    whole = envelope(
        subject="o-1", organization="acme", correlation_id="c", metadata={"a": "b\n"}, priority=2, data=b'{"a":\n"b"}'
    )
    await transport.sessions.add(session, "a", [whole])
    state = await transport.sessions.add(session, "b", events(1, 22, 333))
    assert (state.event_count, state.size) == (4, len(whole.data) + 1 + 2 + 3)
    found = await transport.sessions.events(session, 0, 10)
    assert found[0] == whole
    assert [event.data for event in found[1:] if isinstance(event, Envelope)] == [b"1", b"22", b"333"]
    assert await transport.sessions.events(session, 1, 2) == found[1:3]
    assert await transport.sessions.events(session, 4, 2) == await transport.sessions.events(session, 0, 0) == []


async def test_an_addition_is_made_once(transport: Broker) -> None:
    session = await started(transport)
    sent = events(1, 2)
    states = await asyncio.gather(*(transport.sessions.add(session, "a", sent) for _ in range(5)))
    assert {state.event_count for state in states} == {2}
    assert (await transport.sessions.add(session, "b", events(3))).event_count == 3
    assert (await transport.sessions.add(session, "c", [])).event_count == 3


async def test_an_addition_that_was_made_is_known_behind_the_end_as_well(transport: Broker) -> None:
    session = await started(transport, 1)
    await transport.sessions.roll_back(session)
    assert (await transport.sessions.add(session, "first", events(1))).status is SessionStatus.ROLLED_BACK


async def test_what_does_not_fit_is_refused_as_a_whole(transport: Broker) -> None:
    session = await started(transport)
    await transport.sessions.add(session, "a", events(*[0] * (MAX_EVENTS - 1)))
    with pytest.raises(SessionFull):
        await transport.sessions.add(session, "b", events(1, 2))
    assert (await transport.sessions.add(session, "c", events(1))).event_count == MAX_EVENTS
    assert len(await transport.sessions.events(session, 0, MAX_EVENTS + 1)) == MAX_EVENTS


async def test_bytes_have_a_bound_too(transport: Broker) -> None:
    session = await started(transport)
    half = MAX_BYTES // 2
    await transport.sessions.add(session, "a", [envelope(data=b"x" * half)])
    with pytest.raises(SessionFull):
        await transport.sessions.add(session, "b", [envelope(data=b"x" * (half + 1))])
    assert (await transport.sessions.add(session, "c", [envelope(data=b"x" * half)])).size == MAX_BYTES


async def test_another_organizations_session_is_not_there(transport: Broker) -> None:
    session = await started(transport, 1)
    stolen = SessionId("umbrella", session.id)
    note = await transport.sessions.register(stolen)
    for step in (
        transport.sessions.add(stolen, "a", events(2)),
        transport.sessions.roll_back(stolen),
        transport.sessions.begin(stolen, note),
        transport.sessions.finish(stolen, 0, []),
    ):
        with pytest.raises(NoSuchSession):
            await step
    assert await transport.sessions.find(stolen) is None
    assert await transport.sessions.events(stolen, 0, 10) == []
    assert (await transport.sessions.active("umbrella"), await transport.sessions.active("acme")) == (0, 1)
    assert (await transport.sessions.add(session, "a", [])).event_count == 1


@pytest.mark.parametrize("organization", ["", "a}b", "{", "ä b", "x:y}:z"])
async def test_an_organization_may_be_called_anything(organization: str, transport: Broker) -> None:
    session = SessionId(organization, uuid7())
    await transport.sessions.start(session, {}, 60.0)
    await transport.sessions.add(session, "a", events(1))
    assert await transport.sessions.active(organization) == 1
    note = await transport.sessions.register(session)
    _, run = await transport.sessions.begin(session, note)
    assert await transport.sessions.publish(run, portion(events(1), 0, 1)) == 0
    assert [found.session for found in await transport.sessions.unfinished(0.0, 0.001)] == [session]
    assert (await transport.sessions.finish(session, 1, ["order"])).published == 1


# Ending ---------------------------------------------------------------------------------------------------------------


async def test_what_is_rolled_back_is_gone_and_takes_nothing(transport: Broker) -> None:
    session = await started(transport, 1, 2)
    assert (await transport.sessions.roll_back(session)).status is SessionStatus.ROLLED_BACK
    assert (await transport.sessions.roll_back(session)).status is SessionStatus.ROLLED_BACK
    assert await transport.sessions.events(session, 0, 10) == []
    note = await transport.sessions.register(session)
    for step in (transport.sessions.add(session, "a", events(3)), transport.sessions.begin(session, note)):
        with pytest.raises(WrongState) as refused:
            await step
        assert refused.value.status == "ROLLED_BACK"


async def test_what_is_being_committed_takes_nothing_and_does_not_go_back(transport: Broker) -> None:
    session, _ = await begun(transport, 1)
    for step in (transport.sessions.add(session, "a", events(3)), transport.sessions.roll_back(session)):
        with pytest.raises(WrongState) as refused:
            await step
        assert refused.value.status == "COMMITTING"
    again, _ = await transport.sessions.begin(session, await transport.sessions.register(session))
    assert again.status is SessionStatus.COMMITTING


async def test_what_is_committed_stays_as_it_is(transport: Broker) -> None:
    session, _ = await begun(transport, 1, 2)
    committed = await transport.sessions.finish(session, 3, ["order"])
    assert (committed.status, committed.published, committed.batches) == (SessionStatus.COMMITTED, 2, 3)
    assert committed.streams == ["order"]
    assert await transport.sessions.finish(session, 9, []) == committed
    again, _ = await transport.sessions.begin(session, await transport.sessions.register(session))
    assert again == committed
    for step in (transport.sessions.add(session, "a", events(3)), transport.sessions.roll_back(session)):
        with pytest.raises(WrongState):
            await step


async def test_nothing_is_finished_that_has_not_begun(transport: Broker) -> None:
    session = await started(transport, 1)
    with pytest.raises(WrongState):
        await transport.sessions.finish(session, 0, [])
    assert await status(transport, session) is SessionStatus.ACTIVE


async def test_its_time_is_over_and_later_nobody_knows_it(transport: Broker) -> None:
    async def ends_after(seconds: float) -> None:
        session = await started(transport, 1, seconds=seconds)
        acknowledged = datetime.now(UTC)
        await asyncio.sleep(seconds + 0.02)
        assert await status(transport, session) is SessionStatus.EXPIRED
        note = await transport.sessions.register(session)
        for step in (
            partial(transport.sessions.add, session, "a", events(2)),
            partial(transport.sessions.begin, session, note),
            partial(transport.sessions.roll_back, session),
        ):
            with pytest.raises(WrongState) as refused:
                await step()
            assert refused.value.status == "EXPIRED"
        assert await transport.sessions.active("acme") == 0
        in_time = await transport.sessions.add(session, "b", events(2), acknowledged)
        assert in_time.event_count == 2, "what was acknowledged in time counts"
        await asyncio.sleep(seconds)
        assert await transport.sessions.find(session) is None

    await in_a_span(ends_after)


async def test_what_is_being_committed_has_no_end(transport: Broker) -> None:
    async def is_begun_within(seconds: float) -> None:
        session = await started(transport, 1, seconds=seconds)
        await transport.sessions.begin(session, await transport.sessions.register(session))
        await asyncio.sleep(seconds + 0.02)
        assert await status(transport, session) is SessionStatus.COMMITTING
        assert len(await transport.sessions.events(session, 0, 10)) == 1
        with pytest.raises(WrongState):
            await transport.sessions.add(session, "a", events(2), datetime.now(UTC) - timedelta(seconds=1))

    await in_a_span(is_begun_within)


async def test_the_active_ones_are_counted(transport: Broker) -> None:
    assert await transport.sessions.active("acme") == 0
    first, second, third = [await started(transport) for _ in range(3)]
    assert await transport.sessions.active("acme") == 3
    await started(transport, seconds=0.05)
    await transport.sessions.roll_back(first)
    await transport.sessions.begin(second, await transport.sessions.register(second))
    await asyncio.sleep(0.06)
    assert await transport.sessions.active("acme") == 1
    assert await status(transport, third) is SessionStatus.ACTIVE


# Publishing -----------------------------------------------------------------------------------------------------------


async def test_portions_are_appended_once_and_in_order_however_often_they_are_sent(transport: Broker) -> None:
    sent = events(*range(10))
    _, run = await begun(transport)
    assert await transport.sessions.publish(run, portion(sent, 0, 4)) == 0
    assert await transport.sessions.publish(run, portion(sent, 0, 4)) == 4
    assert await transport.sessions.publish(run, portion(sent, 4, 10)) == 4
    for since, until in ((0, 4), (4, 10), (0, 10), (2, 6)):
        assert await transport.sessions.publish(run, portion(sent, since, until)) == 10
    assert await stored(transport) == list(range(10))


async def test_who_cuts_it_otherwise_appends_what_lacks(transport: Broker) -> None:
    sent = events(*range(10))
    _, run = await begun(transport)
    await transport.sessions.publish(run, portion(sent, 0, 4))
    assert await transport.sessions.publish(run, portion(sent, 0, 7)) == 4
    assert await stored(transport) == list(range(7))


async def test_nothing_is_appended_behind_a_gap(transport: Broker) -> None:
    sent = events(*range(10))
    _, run = await begun(transport)
    assert await transport.sessions.publish(run, portion(sent, 4, 10)) == 0
    assert await stored(transport) == []


async def test_each_goes_into_the_lane_of_its_priority(transport: Broker) -> None:
    _, run = await begun(transport)
    sent = [envelope(priority, priority=priority) for priority in (10, 5, 1)]
    await transport.sessions.publish(run, portion(sent, 0, 3))
    assert sorted(numbers(await receive(transport, ANN, 3))) == [1, 5, 10]
    [state] = await transport.inspect(["order"])
    assert state.length == 3


# Notes ----------------------------------------------------------------------------------------------------------------


async def test_a_note_stands_until_it_is_taken_back_and_is_told_to_one_at_a_time(transport: Broker) -> None:
    session, _ = await begun(transport, 1)
    other = SessionId("umbrella", uuid7())
    await transport.sessions.register(other)
    assert await transport.sessions.unfinished(60.0, 0.001) == []
    await asyncio.sleep(0.01)
    told = await asyncio.gather(*(transport.sessions.unfinished(0.005, 0.2) for _ in range(5)))
    assert sorted(len(found) for found in told) == [0, 0, 0, 0, 2]
    notes = next(found for found in told if found)
    assert [note.session for note in notes] == [session, other]
    assert all(0.005 <= note.age < 5 for note in notes)
    await transport.sessions.forget(session, ["order"])
    await asyncio.sleep(0.21)
    assert [note.session for note in await transport.sessions.unfinished(0.0, 0.001)] == [other]


async def test_an_old_note_is_no_ground_to_begin_on(transport: Broker) -> None:
    session = await started(transport, 1)
    note = await transport.sessions.register(session)
    with pytest.raises(Stale):
        await transport.sessions.begin(session, note - 31_000)
    assert await status(transport, session) is SessionStatus.ACTIVE
    assert (await transport.sessions.begin(session, note - 29_000))[0].status is SessionStatus.COMMITTING


async def test_a_run_of_yesterday_appends_nothing(transport: Broker) -> None:
    """Somebody who slept until the cursors were gone must not publish all of it again."""
    _, run = await begun(transport)
    with pytest.raises(Stale):
        await transport.sessions.publish(run._replace(began=run.began - 86_401_000), portion(events(1), 0, 1))
    assert await stored(transport) == []


# Redis alone ----------------------------------------------------------------------------------------------------------


async def test_keys_have_their_ends(redis_transport: RedisTransport, raw: Links) -> None:
    await raw.execute("FLUSHDB")
    session, run = await begun(redis_transport, 1)
    keys, cursor = session_keys("eb", session), f"eb:{{order}}:session:acme:{session.id}"
    await redis_transport.sessions.publish(run, portion(events(1), 0, 1))
    assert [await raw.execute("PTTL", key) for key in (keys.state, keys.events, keys.additions, cursor)] == [-1] * 4
    await redis_transport.sessions.finish(session, 1, ["order"])
    await redis_transport.sessions.forget(session, ["order"])
    day = 86_400_000
    for key in (keys.state, keys.events, keys.additions):
        assert day - 5_000 < await raw.execute("PTTL", key) <= day
    assert 2 * day - 5_000 < await raw.execute("PTTL", cursor) <= 2 * day
    left = {key.decode() for key in await raw.execute("KEYS", "*")}
    assert left == {keys.state, keys.events, keys.additions, cursor, "eb:{order}:stream"}


async def test_a_full_server_does_nothing_by_halves(redis_transport: RedisTransport, raw: Links) -> None:
    await raw.execute("FLUSHDB")
    session = await started(redis_transport, 1, 2)
    committing, run = await begun(redis_transport, 1, 2)
    note = await redis_transport.sessions.register(session)
    before = {key: await raw.execute("DUMP", key) for key in await raw.execute("KEYS", "*")}
    await raw.execute("CONFIG", "SET", "maxmemory", "1")
    try:
        for step in (
            redis_transport.sessions.start(acme(), {}, 60.0),
            redis_transport.sessions.add(session, "a", events(3)),
            redis_transport.sessions.register(acme()),
            redis_transport.sessions.begin(session, note),
            redis_transport.sessions.publish(run, portion(events(1, 2), 0, 2)),
            redis_transport.sessions.finish(committing, 1, ["order"]),
            redis_transport.sessions.unfinished(0.0, 1.0),
        ):
            with pytest.raises(Full):
                await step
        assert {key: await raw.execute("DUMP", key) for key in await raw.execute("KEYS", "*")} == before
        rolled_back = await redis_transport.sessions.roll_back(session)
        assert rolled_back.status is SessionStatus.ROLLED_BACK, "it gives memory back"
    finally:
        await raw.execute("CONFIG", "SET", "maxmemory", "0")
    assert await redis_transport.sessions.publish(run, portion(events(1, 2), 0, 2)) == 0
    assert await stored(redis_transport) == [1, 2]
