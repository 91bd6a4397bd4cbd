"""What is trimmed, and above all what is not."""

import asyncio
import time

import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.codec import encode
from eventbus.contract.delivery import Ack, Dead, Failure, Retry, Subscription
from eventbus.contract.outgoing import Outgoing
from eventbus.contract.retention import Retention
from eventbus.contract.upkeep import Tidied
from eventbus.redis import RedisTransport
from eventbus.redis.keys import stream_keys
from eventbus.redis.links import Links
from tests.samples import STREAM, consumer, envelope, numbers, outgoing, receive, reclaim, settle

ANN = consumer("ann")
BOB = consumer("bob")._replace(group="shipping")
FAILED = Failure("ValueError: no")
NOTHING = Retention(settled=0.0, settled_count=0)
KEYS = stream_keys("eb", STREAM)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishers that might repeat themselves are not waited for."""
    monkeypatch.setattr("eventbus.redis.tidying.KEEP_AT_LEAST", 0)


async def tidied(transport: Broker) -> int:
    await asyncio.sleep(0.002)  # entries are as old as a millisecond
    return (await transport.tidy(STREAM, NOTHING)).entries


async def test_what_all_groups_have_settled_goes(transport: Broker) -> None:
    """safe-decoder#329: acknowledged entries were never trimmed."""
    await transport.append(outgoing(*range(10)))
    await settle(transport, await receive(transport, ANN, 10), Ack())
    assert await tidied(transport) == 10
    await transport.append(outgoing(10))
    assert numbers(await receive(transport, ANN)) == [10], "and the group goes on behind it"


@pytest.mark.parametrize(("quick", "slow"), [(ANN, BOB), (BOB, ANN)])
async def test_what_a_group_has_not_read_stays(transport: Broker, quick: Subscription, slow: Subscription) -> None:
    await transport.read(slow, 1, 0.01)
    await transport.append(outgoing(*range(10)))
    await settle(transport, await receive(transport, quick, 10), Ack())
    assert await tidied(transport) == 0
    await settle(transport, await receive(transport, slow, 4), Ack())
    assert await tidied(transport) == 4
    assert numbers(await receive(transport, slow, 6)) == list(range(4, 10))


async def test_what_a_group_holds_stays_with_all_behind_it(transport: Broker) -> None:
    await transport.append(outgoing(*range(10)))
    deliveries = await receive(transport, ANN, 10)
    await settle(transport, deliveries[:3] + deliveries[4:], Ack())
    assert await tidied(transport) == 3
    await settle(transport, deliveries[3:4], Retry(0.0, FAILED))
    assert await tidied(transport) == 0
    [again] = await reclaim(transport, ANN)
    assert numbers([again]) == [3]
    await settle(transport, [again], Ack())
    assert await tidied(transport) == 7


async def test_each_priority_is_trimmed_by_itself(transport: Broker) -> None:
    await transport.append([Outgoing(envelope(n)._replace(priority=p)) for n, p in ((1, 1), (2, 5), (3, 10))])
    deliveries = await receive(transport, ANN, 3)
    await settle(transport, [d for d in deliveries if numbers([d]) != [2]], Ack())
    assert await tidied(transport) == 2


async def test_a_stream_that_nobody_reads_stays(transport: Broker) -> None:
    await transport.append(outgoing(*range(10)))
    assert await tidied(transport) == 0


async def test_a_forgotten_group_holds_nothing_up(transport: Broker) -> None:
    await transport.append(outgoing(1))
    await transport.read(BOB, 1, 0.01)
    await settle(transport, await receive(transport, ANN), Ack())
    assert await tidied(transport) == 0
    assert await transport.forget_group(STREAM, "shipping")
    assert not await transport.forget_group(STREAM, "shipping")
    assert await tidied(transport) == 1


# In Redis -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def redis(redis_transport: RedisTransport) -> RedisTransport:
    return redis_transport


async def test_a_lost_group_finds_everything_when_it_comes_back(redis: RedisTransport, raw: Links) -> None:
    """G5: destroyed by accident, it will be created again at the beginning."""
    await redis.append(outgoing(1, 2))
    await settle(redis, await receive(redis, ANN, 2), Ack())
    await settle(redis, await receive(redis, BOB, 1), Ack())
    await raw.execute("XGROUP", "DESTROY", KEYS.stream, "shipping")
    await asyncio.sleep(0.002)
    assert await redis.tidy(STREAM, NOTHING) == Tidied(missing_groups=["shipping"], left=2)
    assert numbers(await receive(redis, BOB, 2)) == [1, 2]


async def test_settled_entries_are_kept_for_a_while(redis: RedisTransport) -> None:
    await redis.append(outgoing(*range(100)))
    await settle(redis, await receive(redis, ANN, 100), Ack())
    await asyncio.sleep(0.002)
    assert (await redis.tidy(STREAM, Retention(settled=60.0))).entries == 0
    await asyncio.sleep(0.02)
    assert (await redis.tidy(STREAM, Retention(settled=0.01))).entries == 100


async def test_settled_entries_are_bounded_in_number(redis: RedisTransport, raw: Links) -> None:
    for number in range(300):
        await redis.append(outgoing(number))
    await settle(redis, await receive(redis, ANN, 300), Ack())
    for _ in range(10):
        await redis.tidy(STREAM, Retention(settled_count=100))
    # How many are left depends on when they came: a pause while they were appended is taken for many entries.
    assert 1 <= await raw.execute("XLEN", KEYS.stream) <= 110


async def test_what_may_be_published_again_is_not_trimmed(
    redis: RedisTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher whose reply was lost repeats itself: if the event were gone, it would be stored a second time."""
    monkeypatch.setattr("eventbus.redis.tidying.KEEP_AT_LEAST", 10_000)
    sent = outgoing(1)
    await redis.append(sent)
    await settle(redis, await receive(redis, ANN), Ack())
    assert await tidied(redis) == 0
    await redis.append(sent, again=True)
    assert await redis.read(ANN, 10, 0.05) == []


async def test_dead_letters_are_bounded_by_number_and_age(redis: RedisTransport) -> None:
    await redis.append(outgoing(*range(10)))
    await settle(redis, await receive(redis, ANN, 10), Dead(FAILED, 1))
    assert await redis.tidy(STREAM, Retention(dead_count=4)) == Tidied(0, 0, 6, [], 10)
    letters = await redis.dead_letters(STREAM)
    assert [letter.envelope and letter.envelope.data for letter in letters] == [b"6", b"7", b"8", b"9"]
    await asyncio.sleep(0.02)
    assert (await redis.tidy(STREAM, Retention(dead=0.01))).dead_letters == 4


async def test_one_groups_dead_letters_push_no_others_out(redis: RedisTransport, raw: Links) -> None:
    await redis.append(outgoing(*range(3)))
    await settle(redis, await receive(redis, BOB, 3), Dead(FAILED, 1))
    await redis.append(outgoing(*range(3, 700)))
    await settle(redis, await receive(redis, ANN, 700), Dead(FAILED, 1))
    dropped = 0
    for _ in range(5):  # some are looked at in each round
        dropped += (await redis.tidy(STREAM, Retention(dead_count=5))).dead_letters
    letters = await redis.dead_letters(STREAM, limit=1000)
    assert dropped == 695
    assert [letter.group for letter in letters].count("shipping") == 3
    mine = [letter.envelope and letter.envelope.data for letter in letters if letter.group == "billing"]
    assert mine == [b"695", b"696", b"697", b"698", b"699"]
    await raw.execute("XADD", KEYS.dead, "*", "by", "hand")
    assert (await redis.tidy(STREAM, Retention(dead_count=2))).dead_letters == 4, "one of nobody, who has but one"


async def test_an_entry_dated_ahead_keeps_no_stream_from_being_trimmed(redis: RedisTransport, raw: Links) -> None:
    """Entries that come behind it have its date: what is old is known by the order, and by the events' own ids."""
    await redis.append(outgoing(0))
    ahead = int(time.time() + 86_400) * 1000
    await raw.execute("XADD", KEYS.stream, f"{ahead}-0", *encode(envelope(1)))
    await redis.append(outgoing(*range(2, 1500)))
    await raw.execute("XADD", KEYS.stream, "*", "foreign", "entry")
    found = await receive(redis, ANN, 1501)
    await settle(redis, found[:700] + found[701:], Ack())
    await asyncio.sleep(0.01)
    assert (await redis.tidy(STREAM, Retention(settled=60.0))).entries == 0
    assert (await redis.tidy(STREAM, Retention(settled=60.0, settled_count=1000))).entries == 501
    assert (await redis.tidy(STREAM, Retention(settled=0.005))).entries == 199, "up to what is not settled"
    await settle(redis, found[700:701], Ack())
    assert await tidied(redis) == 801
    await redis.append(outgoing(7))
    assert numbers(await receive(redis, ANN)) == [7]


async def test_ahead_of_the_clock_what_may_be_published_again_is_kept(
    redis: RedisTransport, raw: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.redis.tidying.KEEP_AT_LEAST", 10_000)
    await raw.execute("XADD", KEYS.stream, f"{int(time.time() + 86_400) * 1000}-0", *encode(envelope(1)))
    sent = outgoing(2)
    await redis.append(sent)
    await settle(redis, await receive(redis, ANN, 2), Ack())
    assert await tidied(redis) == 0
    await redis.append(sent, again=True)
    assert await redis.read(ANN, 10, 0.05) == []


async def test_a_full_server_is_trimmed(redis: RedisTransport, raw: Links) -> None:
    await redis.append(outgoing(*range(100)))
    await settle(redis, await receive(redis, ANN, 100), Ack())
    before = (await raw.execute("CONFIG", "GET", "maxmemory"))[1]
    await raw.execute("CONFIG", "SET", "maxmemory", "1mb")
    try:
        assert await tidied(redis) == 100
    finally:
        await raw.execute("CONFIG", "SET", "maxmemory", before)
