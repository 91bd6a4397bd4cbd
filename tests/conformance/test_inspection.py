"""What an inspection says of a stream agrees with what was done to it."""

import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.delivery import Ack, Dead, Retry, Settlement, Snooze
from eventbus.contract.inspection import GroupState, StreamState
from eventbus.contract.outgoing import Outgoing
from eventbus.event import uuid7
from eventbus.redis import RedisTransport
from eventbus.redis.inspection import find_streams, read_streams
from eventbus.redis.keys import stream_keys
from eventbus.redis.links import Links
from tests.samples import FAILED, STREAM, consumer, envelope, outgoing, receive, settle

ANN, BOB = consumer("ann"), consumer("bob")


async def inspect(links: Links, stream: str = STREAM) -> StreamState:
    [state] = await read_streams(links, "eb", [stream])
    return state


async def group(links: Links) -> GroupState:
    [state] = (await inspect(links)).groups
    return state


async def test_nothing_is_known_of_what_is_not_there(raw: Links) -> None:
    assert await read_streams(raw, "eb") == []
    assert await read_streams(raw, "eb", ["lead"]) == [StreamState("lead", 0, 0, 0)]


async def test_every_event_is_counted_where_it_is(transport: Broker) -> None:
    await transport.append(outgoing(*range(10)))
    await transport.append([Outgoing(envelope(priority=priority)) for priority in (1, 10, 10)])
    await transport.append(outgoing(10, 11, delay=60))
    one, two, three, four, *_ = await receive(transport, ANN, 6)
    await receive(transport, BOB, 1)
    await transport.settle(
        [
            Settlement(one, Ack()),
            Settlement(two, Retry(60, FAILED)),
            Settlement(three, Snooze(60)),
            Settlement(four, Dead(FAILED, 1)),
        ]
    )
    await receive(transport, consumer("eve", group="audit"), 13)
    assert await transport.find_streams() == [STREAM]
    nothing, state = await transport.inspect([STREAM, "lead"])
    assert nothing == StreamState("lead", 0, 0, 0)
    assert (state.name, state.length, state.scheduled, state.dead) == (STREAM, 13, 2, 1)
    audit, billing = state.groups
    assert (audit.name, audit.lag, audit.backlog, audit.pending, audit.delayed) == ("audit", 0, 0, 13, 0)
    assert audit.oldest_undelivered is None
    assert (billing.name, billing.lag, billing.backlog) == ("billing", 6, 6)
    assert (billing.pending, billing.delayed) == (5, 2)
    assert [(one.name, one.pending) for one in billing.consumers] == [("ann", 2), ("bob", 1)]
    for age in (billing.oldest_undelivered, billing.oldest_unacked, audit.oldest_unacked):
        assert age is not None
        assert 0 <= age < 20


async def test_the_lag_stays_known_when_what_is_settled_is_trimmed(redis_transport: RedisTransport, raw: Links) -> None:
    await redis_transport.append(outgoing(*range(5)))
    await settle(redis_transport, await receive(redis_transport, ANN, 3), Ack())
    await raw.execute("XTRIM", stream_keys("eb", STREAM).stream, "MAXLEN", "=", 2)
    found = await group(raw)
    assert (found.lag, found.backlog, found.pending) == (2, 2, 0)


async def test_the_oldest_are_as_old_as_they_are(redis_transport: RedisTransport, raw: Links) -> None:
    await redis_transport.append(outgoing(1))
    first = await receive(redis_transport, ANN)
    now = (await raw.execute("TIME"))[0]
    assert (await group(raw)).oldest_undelivered is None
    old = stream_keys("eb", "old").stream
    for seconds in (100, 50):  # as if stored so long ago: the id of an entry says when that was
        await raw.execute("XADD", old, f"{int(now) - seconds}000-0", "id", uuid7())
    await raw.execute("XGROUP", "CREATE", old, "billing", "0")
    state = (await inspect(raw, "old")).groups[0]
    assert state.oldest_undelivered == pytest.approx(100, abs=5)
    assert state.oldest_unacked is None
    await raw.execute("XREADGROUP", "GROUP", "billing", "ann", "COUNT", 1, "STREAMS", old, ">")
    state = (await inspect(raw, "old")).groups[0]
    assert state.oldest_undelivered == pytest.approx(50, abs=5)
    assert state.oldest_unacked == pytest.approx(100, abs=5)
    await settle(redis_transport, first, Ack())
    assert (await group(raw)).oldest_unacked is None


async def test_a_lag_that_the_server_cannot_tell_is_unknown_and_the_backlog_counted(
    redis_transport: RedisTransport, raw: Links
) -> None:
    await redis_transport.append(outgoing(*range(5)))
    await receive(redis_transport, ANN, 1)
    key = stream_keys("eb", STREAM).stream
    entries = await raw.execute("XRANGE", key, "-", "+")
    await raw.execute("XDEL", key, entries[3][0])
    found = await group(raw)
    assert (found.lag, found.backlog) == (None, 3)


async def test_streams_are_found_by_whatever_they_have(redis_transport: RedisTransport, raw: Links) -> None:
    await redis_transport.append(outgoing(1, stream="lead"))
    await redis_transport.append(outgoing(2, stream="mail", delay=60))
    await redis_transport.append(outgoing(3, stream="task"))
    await settle(redis_transport, await receive(redis_transport, consumer(stream="task")), Dead(FAILED, 1))
    await raw.execute("DEL", stream_keys("eb", "task").stream)
    # None of ours: another namespace, a group whose name begins as a key does, a key of somebody else.
    await raw.execute("SET", "other:{lead}:stream", 1)
    await raw.execute("SET", "eb:{ghost}:stream-sync:retry", 1)
    await raw.execute("SET", "eb:{ghost}:deadline:failures", 1)
    await raw.execute("SET", b"eb:{\xff}:x", 1)
    assert await find_streams(raw, "eb") == ["lead", "mail", "task"]
    assert [(s.name, s.length, s.scheduled, s.dead) for s in await read_streams(raw, "eb")] == [
        ("lead", 1, 0, 0),
        ("mail", 0, 1, 0),
        ("task", 0, 0, 1),
    ]
    assert await find_streams(raw, "e*") == []


async def test_an_inspection_changes_nothing(redis_transport: RedisTransport, raw: Links) -> None:
    await redis_transport.append(outgoing(1, 2))
    await receive(redis_transport, ANN, 1)
    await read_streams(raw, "eb")
    before = await raw.execute("DUMP", stream_keys("eb", STREAM).stream)
    await read_streams(raw, "eb")
    assert await raw.execute("DUMP", stream_keys("eb", STREAM).stream) == before
