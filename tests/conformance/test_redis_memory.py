"""A server that is full, that would drop events, or that is too old; and what an event costs it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import hiredis
import pytest

from eventbus.contract.codec import envelop
from eventbus.contract.delivery import Ack, Dead, Outcome, Release, Retry, Settlement, Snooze
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import ConfigurationError, Full
from eventbus.event import Envelope, Event, Origin, Status, uuid7
from eventbus.redis import RedisTransport
from eventbus.redis.keys import group_keys, stream_keys
from eventbus.redis.look_back import PAGE
from tests.conformance.reach import Everywhere
from tests.samples import FAILED, STREAM, consumer, nothing_left, numbers, outgoing, receive, reclaim, settle
from tests.servers import OwnRedis

KEYS = stream_keys("eb", STREAM)
GROUP = group_keys("eb", STREAM, "billing")
ANN = consumer("ann")


class Server:
    """A transport and a raw connection to a server of one's own."""

    def __init__(self, url: str, namespace: str = "eb") -> None:
        self.transport = RedisTransport(url, namespace=namespace)
        self.raw = Everywhere(url, timeout=5, name="test")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.transport.close()
        await self.raw.close()

    async def fill(self) -> None:
        await self.raw.execute("CONFIG", "SET", "maxmemory", "1mb")

    async def make_room(self) -> None:
        await self.raw.execute("CONFIG", "SET", "maxmemory", "0")

    async def lengths(self) -> list[int]:
        commands = [("XLEN", KEYS.stream), ("ZCARD", KEYS.due), ("HLEN", KEYS.scheduled), ("XLEN", KEYS.dead)]
        return await self.raw.pipeline([*commands, *(("EXISTS", key) for key in GROUP)])


@pytest.fixture
async def server(own_redis: OwnRedis, redis_binary: Path) -> AsyncIterator[Server]:
    async with Server(own_redis(binary=redis_binary).url) as server:
        yield server


# Full -----------------------------------------------------------------------------------------------------------------


async def test_a_full_server_takes_no_event_and_says_so(server: Server) -> None:
    await server.transport.append(outgoing(1) + outgoing(2, delay=60.0))
    before = await server.lengths()
    await server.fill()
    for items in (outgoing(3), outgoing(3, 4), outgoing(3, delay=60.0)):
        for again in (False, True):
            with pytest.raises(Full):
                await server.transport.append(items, again=again)
    assert await server.lengths() == before


@pytest.mark.parametrize(
    "outcome",
    [Retry(60.0, FAILED), Snooze(60.0), Release(), Dead(FAILED, 1)],
    ids=lambda outcome: type(outcome).__name__,
)
async def test_what_cannot_be_kept_moves_not_at_all(server: Server, outcome: Outcome) -> None:
    """dramatiq#431: the delayed copy was stored and the ack lost, or the other way about."""
    await server.transport.append(outgoing(1, 2, 3))
    deliveries = await receive(server.transport, ANN, 3)
    before = await server.lengths()
    await server.fill()
    [refusal] = await server.transport.settle(
        [Settlement(*pair) for pair in zip(deliveries, [Ack(), outcome, Ack()], strict=True)]
    )
    assert refusal.settlement.outcome == outcome
    assert isinstance(refusal.error, Full)
    assert set(server.transport._readers[ANN].held) == {refusal.settlement.delivery.entry_id}
    assert await server.lengths() == before
    assert await server.transport.renew(deliveries) == [deliveries[0], deliveries[2]], "acks pass, and free memory"
    await server.make_room()
    await settle(server.transport, deliveries[1:2], outcome)
    assert await server.lengths() != before


async def test_a_full_server_can_be_drained(server: Server) -> None:
    await server.transport.append(outgoing(*range(10)))
    in_hand = await receive(server.transport, consumer("died", lease=0.1), 3)
    await settle(server.transport, in_hand[:1], Retry(0.0, FAILED))
    await server.fill()
    heir = consumer("heir", lease=0.1)
    deliveries = await reclaim(server.transport, heir, 3) + await receive(server.transport, ANN, 7)
    assert sorted(numbers(deliveries)) == list(range(10))
    await settle(server.transport, deliveries, Ack())
    assert await nothing_left(server.transport, heir)


async def test_a_full_server_keeps_its_schedule_and_hands_out_retries_beside_it(server: Server) -> None:
    await server.transport.append(outgoing(1) + outgoing(2, delay=0.01))
    await settle(server.transport, await receive(server.transport, ANN), Retry(0.01, FAILED))
    await server.fill()
    await asyncio.sleep(0.02)
    retried = await reclaim(server.transport, ANN)
    assert numbers(retried) == [1]
    await server.make_room()
    await server.transport.reclaim(ANN, 10)
    assert numbers(await receive(server.transport, ANN)) == [2]


async def test_a_full_server_that_lost_its_due_times_still_hands_out_the_rest(server: Server) -> None:
    await server.transport.append(outgoing(1, 2))
    one, _ = await receive(server.transport, consumer("died", lease=0.1), 2)
    await settle(server.transport, [one], Retry(0.0, FAILED))
    await server.raw.execute("DEL", GROUP.retry)
    await server.fill()
    assert numbers(await reclaim(server.transport, consumer(lease=0.1))) == [2]
    await server.make_room()
    assert numbers(await reclaim(server.transport, consumer(lease=0.1))) == [1]


async def test_a_replay_into_a_full_server_leaves_the_dead_letter(server: Server) -> None:
    await server.transport.append(outgoing(1))
    await settle(server.transport, await receive(server.transport, ANN), Dead(FAILED, 1))
    [letter] = await server.transport.dead_letters(STREAM)
    await server.fill()
    with pytest.raises(Full):
        await server.transport.replay(letter)
    await server.make_room()
    assert await server.transport.replay(letter)


# Refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
async def test_a_server_that_would_drop_streams_is_refused(server: Server, policy: str) -> None:
    await server.raw.execute("CONFIG", "SET", "maxmemory-policy", policy)
    with pytest.raises(ConfigurationError, match=f"{policy}.*\n?.*noeviction"):
        await server.transport.connect()


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru"])
async def test_a_server_that_keeps_keys_without_expiry_will_do(server: Server, policy: str) -> None:
    await server.raw.execute("CONFIG", "SET", "maxmemory-policy", policy)
    await server.transport.connect()


async def test_a_server_that_is_too_old_is_refused() -> None:
    async with old_server() as url, Server(url) as server:
        with pytest.raises(ConfigurationError, match=r"Redis 6\.2\.14 is too old: 7\.0"):
            await server.transport.connect()


@asynccontextmanager
async def old_server() -> AsyncIterator[str]:
    """Enough of one to say how old it is."""
    info = b"# Server\r\nredis_version:6.2.14\r\nmaxmemory_policy:noeviction\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while said := await reader.read(1000):
            commands.feed(said)
            while command := commands.gets():
                writer.write(b"$%d\r\n%b\r\n" % (len(info), info) if command[0] == b"INFO" else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_a_crowd_that_repeats_itself_does_not_keep_the_server(server: Server) -> None:
    """After an outage all publishers try again at once, and each would have to look through a busy stream."""
    for _ in range(20):
        await server.transport.append(outgoing(*range(500)))
    crowd = [outgoing(number, delay=60.0 * (number % 2)) for number in range(500)]
    await server.raw.execute("CONFIG", "RESETSTAT")
    fates = await asyncio.gather(*(server.transport.append(items, again=True) for items in crowd))
    assert [fate for [fate] in fates] == [Status.STORED, Status.SCHEDULED] * 250
    stats = (await server.raw.execute("INFO", "commandstats")).decode()
    scripts = sum(int(calls) for calls in re.findall(r"cmdstat_eval(?:sha)?:calls=(\d+)", stats))
    assert scripts <= 3 * (10_000 // PAGE + 2), "three looks at the most, each of some pages and one append"
    fates = await asyncio.gather(*(server.transport.append(items, again=True) for items in crowd))
    assert [fate for [fate] in fates] == [Status.DUPLICATE] * 500


# Keys and bytes -------------------------------------------------------------------------------------------------------


async def test_keys_of_one_stream_live_on_one_node_of_a_cluster(any_redis_url: str) -> None:
    async with Server(any_redis_url, "app") as server:
        await server.transport.append(outgoing(*range(4)) + outgoing(4, delay=60.0))
        await receive(server.transport, consumer("died", lease=0.1), 4)
        deliveries = await reclaim(server.transport, consumer(lease=0.1), 4)
        await settle(server.transport, deliveries[:1], Retry(60.0, FAILED))
        await settle(server.transport, deliveries[1:2], Dead(FAILED, 1))
        names = {key.decode() for key in await server.raw.execute("KEYS", "*")}
    keys = stream_keys("app", STREAM)
    assert names == {*keys, *keys.lanes, *group_keys("app", STREAM, "billing")}
    assert all(name.startswith(f"app:{{{STREAM}}}:") for name in names)


class Measured(Event, type="order.measured"):
    order_id: str
    organization_id: str
    text: str


@pytest.mark.parametrize("correlated", [False, True])
async def test_what_a_queued_event_costs(any_redis_url: str, correlated: bool) -> None:
    """10,000 events with 100 bytes of data, an organization and a key."""
    origin = Origin(correlation_id=uuid7()) if correlated else Origin()
    async with Server(any_redis_url) as server:
        for start in range(0, 10_000, 500):
            items = [Outgoing(measured(number, origin)) for number in range(start, start + 500)]
            await server.transport.append(items)
        used: int = await server.raw.execute("MEMORY", "USAGE", KEYS.stream, "SAMPLES", 0)
        valkey = b"valkey_version" in await server.raw.execute("INFO", "server")
    print(f"bytes an event{' with a correlation id' if correlated else ''}: {used / 10_000:.0f}")
    limits = (232, 300) if valkey else (256, 330)  # Redis 7.0 allocates its stream nodes less tightly
    assert used / 10_000 <= limits[correlated]


def measured(number: int, origin: Origin) -> Envelope:
    fields: dict[str, Any] = {"order_id": f"order-{number:06}", "organization_id": "org-0001", "text": ""}
    missing = 100 - len(envelop(Measured(**fields)).data)
    envelope = envelop(Measured(**{**fields, "text": "x" * missing}), origin, key=fields["order_id"])
    assert len(envelope.data) == 100
    return envelope
