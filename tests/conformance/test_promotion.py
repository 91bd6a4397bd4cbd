"""What was scheduled and cannot be delivered is set aside and told, and keeps no other back."""

from collections.abc import Sequence
from typing import Any

from structlog.testing import capture_logs

from eventbus.event import uuid7
from eventbus.memory import MemoryTransport
from eventbus.redis import RedisTransport
from eventbus.redis.keys import stream_keys
from eventbus.redis.links import Links
from tests.samples import STREAM, consumer, envelope, numbers, outgoing
from tests.waiting import eventually

READER = consumer()
ASIDE = "a scheduled event cannot be delivered, and is set aside"

# What is kept of a scheduled event, by a program of another version, or by hand: msgpack of a lane, and fields.
LANE_BETWEEN = b"\x93\xcb@\x04\x00\x00\x00\x00\x00\x00\xa2id\xa11"  # 2.5
LANE_OF_A_KEY_THAT_IS_NONE = b"\x93\x0b\xa2id\xa11"  # 11, which is the schedule itself
LANE_UNKNOWN = b"\x93\xc0\xa2id\xa11"
A_TABLE_AS_A_FIELD = b"\x93\x05\xa2id\x91\x01"
GARBAGE = [b"", b"\xc1", b"no msgpack", b"\x05", b"\x92\x05\xa2id", b"\x99\x05", A_TABLE_AS_A_FIELD]
KEPT = [LANE_BETWEEN, LANE_OF_A_KEY_THAT_IS_NONE, LANE_UNKNOWN, *GARBAGE]


async def deliver(transport: RedisTransport | MemoryTransport, count: int) -> list[int]:
    """What is due, in the hands of a reader."""
    found: list[int] = []

    async def enough() -> bool:
        await transport.reclaim(READER, 10)
        found.extend(numbers(await transport.read(READER, 100, 0.1)))
        return len(found) >= count

    await eventually(enough)
    return found


async def test_what_cannot_be_delivered_keeps_no_other_back(redis_transport: RedisTransport, raw: Links) -> None:
    keys = stream_keys("eb", STREAM)
    wrong = [uuid7() for _ in KEPT]
    for event_id, kept in zip(wrong, KEPT, strict=True):
        await raw.execute("HSET", keys.scheduled, event_id, kept)
        await raw.execute("ZADD", keys.due, 1, event_id)
    with capture_logs() as logs:
        await redis_transport.append(outgoing(1, 2, 3, delay=0.05))
        assert await deliver(redis_transport, 3) == [1, 2, 3]
        await eventually(lambda: _has(redis_transport, len(wrong)))
    assert [line["event_id"] for line in logs if line["event"] == ASIDE] == wrong
    letters = await redis_transport.dead_letters(STREAM)
    assert all("it was scheduled, and cannot be delivered" in letter.error for letter in letters)
    assert [letter.fields for letter in letters[:2]] == [{b"id": b"1"}] * 2
    assert await raw.execute("EXISTS", keys.due, keys.scheduled) == 0
    assert await raw.execute("EXISTS", keys.dead) == 1


async def test_a_lane_that_takes_nothing_keeps_back_no_other_lane(redis_transport: RedisTransport, raw: Links) -> None:
    keys = stream_keys("eb", STREAM)
    urgent = outgoing(1, delay=0.05)[0]
    urgent = urgent._replace(envelope=urgent.envelope._replace(priority=1))
    await redis_transport.append([urgent, *outgoing(2, delay=0.06)])
    await raw.execute("SET", keys.lane(1), "a string")
    with capture_logs() as logs:

        async def aside() -> bool:  # promoted by its publisher: nobody can read while a lane is no stream
            return len(await redis_transport.dead_letters(STREAM)) == 1

        await eventually(aside)
        [letter] = await redis_transport.dead_letters(STREAM)
    assert "WRONGTYPE" in letter.error
    assert letter.envelope == urgent.envelope
    assert [line["event_id"] for line in logs if line["event"] == ASIDE] == [urgent.envelope.id]
    await raw.execute("DEL", keys.lane(1))
    assert await redis_transport.replay(letter)  # for every group: it died in none
    assert sorted(await deliver(redis_transport, 2)) == [1, 2]


async def test_where_no_dead_letter_can_be_written_the_others_go_on(
    redis_transport: RedisTransport, raw: Links
) -> None:
    keys, event_id = stream_keys("eb", STREAM), uuid7()
    await raw.execute("SET", keys.dead, "a string")
    await raw.execute("HSET", keys.scheduled, event_id, LANE_BETWEEN)
    await raw.execute("ZADD", keys.due, 1, event_id)
    await redis_transport.append(outgoing(1, 2, delay=0.05))
    assert await deliver(redis_transport, 2) == [1, 2]
    assert await raw.execute("HGET", keys.scheduled, event_id) == LANE_BETWEEN  # and is tried again


async def test_a_refused_promotion_is_told_once_until_it_works(redis_transport: RedisTransport, raw: Links) -> None:
    keys = stream_keys("eb", STREAM)
    await redis_transport.read(READER, 1, 0.01)
    await raw.execute("SET", keys.due, "a string")

    def told(logs: Sequence[Any]) -> list[object]:
        return [line["event"] for line in logs if "scheduled" in str(line["event"])]

    with capture_logs() as logs:

        async def is_told(count: int) -> bool:
            await redis_transport.reclaim(READER, 10)
            return len(told(logs)) == count

        await eventually(lambda: is_told(1))
        for _ in range(3):
            await redis_transport.reclaim(READER, 10)
        await raw.execute("DEL", keys.due)
        await eventually(lambda: is_told(2))
    assert told(logs) == ["what is scheduled cannot be delivered", "what is scheduled is delivered again"]


async def test_in_memory_as_well() -> None:
    transport = MemoryTransport()
    wrong = envelope(7, priority=2.5)
    with capture_logs() as logs:
        [right, *_] = outgoing(1, delay=0.02)
        await transport.append([right._replace(envelope=wrong), right])
        assert await deliver(transport, 1) == [1]
    [letter] = await transport.dead_letters(STREAM)
    assert (letter.group, letter.envelope) == ("", None)
    assert [line["event_id"] for line in logs if line["event"] == ASIDE] == [wrong.id]


async def _has(transport: RedisTransport, count: int) -> bool:
    await transport.reclaim(READER, 10)
    return len(await transport.dead_letters(STREAM)) == count
