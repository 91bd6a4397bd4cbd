"""Fault 21: task.cancel() at every await of a publish. No reply goes to the wrong caller, nothing leaks."""

import asyncio
import random
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from eventbus import Event, EventBus, Status
from eventbus.redis.keys import stream_keys
from eventbus.redis.link import Link
from tests.proxy import Proxy
from tests.servers import OwnRedis
from tests.waiting import PATIENCE, until

KEY = stream_keys("eb", "parcel").stream


class Sent(Event, type="parcel.sent"):
    number: int


async def publish_and_cancel(bus: EventBus, steps: int, number: int) -> Status | None:
    """Cancelled when the loop has turned so often; None if that came first."""
    task = asyncio.create_task(bus.publish(Sent(number=number), delay=60.0 if number % 3 == 0 else None))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    try:
        return (await task).status
    except asyncio.CancelledError:
        return None


async def stored(url: str) -> list[str]:
    """The event ids in the stream."""
    async with Redis.from_url(url, socket_timeout=PATIENCE) as client:
        entries: Any = await client.xrange(KEY)
    return [fields[b"id"].decode() for _, fields in entries]


async def test_at_every_await_no_reply_goes_to_the_wrong_caller(any_redis_url: str) -> None:
    """Replies differ by kind: an entry id, 1 or 0 for a schedule, an echo. One place off, and each of them shows."""
    link = Link(any_redis_url, timeout=5, name="test")
    async with EventBus(any_redis_url) as bus:
        bus.transport._publishing._links = link  # type: ignore[attr-defined]  # one connection for all of it
        chance, number, kept = random.Random(21), 0, []

        async def neighbour(n: int) -> bool:
            if n % 2:
                return bool(await link.execute("ECHO", n) == str(n).encode())
            wanted = Status.SCHEDULED if n % 4 else Status.STORED
            return (await bus.publish(Sent(number=-1), delay=60.0 if n % 4 else None)).status is wanted

        for round_ in range(60):
            cancelled = []
            neighbours = []
            for _ in range(30):
                number += 1
                steps = chance.randrange(12)
                cancelled.append(asyncio.create_task(publish_and_cancel(bus, steps, number)))
                neighbours.append(asyncio.create_task(neighbour(round_ * 30 + number)))
            async with asyncio.timeout(PATIENCE):  # who got another's reply leaves somebody without one
                assert all(await asyncio.gather(*neighbours))
                kept += [status for status in await asyncio.gather(*cancelled) if status]
            assert len(bus.in_flight) == 0
        assert len(bus.in_flight) == 0
        assert set(kept) <= {Status.STORED, Status.SCHEDULED}
    await link.close()


async def test_while_replies_are_lost_and_few_may_publish_no_place_is_lost(redis_url: str) -> None:
    """Three places for thirty publishers, on a network that breaks: waiting for a place, for a turn, for a reply."""
    chance = random.Random(21)
    async with Proxy(redis_url) as proxy, EventBus(proxy.url, max_publishes=3, publish_timeout=10.0) as bus:

        async def impatient(number: int) -> None:
            try:
                async with asyncio.timeout(chance.choice((0.0, 0.001, 0.01, 0.1))):
                    await bus.publish(Sent(number=number))
            except TimeoutError:
                return

        for round_ in range(15):
            publishing = [asyncio.create_task(impatient(round_ * 30 + n)) for n in range(30)]
            await asyncio.sleep(0.005)
            proxy.cut()
            await asyncio.gather(*publishing)
        assert len(bus.in_flight) == 0
        receipts = await asyncio.gather(*(bus.publish(Sent(number=1000 + n)) for n in range(30)))
        assert len(bus.in_flight) == 0
    ids = await stored(redis_url)
    assert len(ids) == len(set(ids))
    assert {receipt.id for receipt in receipts} <= set(ids)


async def test_into_the_spool_what_was_answered_is_kept(own_redis: OwnRedis, tmp_path: Path) -> None:
    server = own_redis()
    async with EventBus(server.url, spool=tmp_path / "spool", publish_timeout=10.0) as bus:
        assert bus.spool is not None
        spool = bus.spool
        await bus.publish(Sent(number=0))
        server.kill()
        assert (await bus.publish(Sent(number=0))).status is Status.SPOOLED
        answers = await asyncio.gather(*(publish_and_cancel(bus, n % 40, n * 3 + 1) for n in range(200)))
        late = await asyncio.gather(*(bus.publish(Sent(number=n)) for n in range(20)))
        assert {receipt.status for receipt in late} == {Status.SPOOLED}
        assert len(bus.in_flight) == 0
        await asyncio.to_thread(server.start)
        await until(lambda: spool.file.size() == 0)
        ids = await stored(server.url)
    assert len(ids) == len(set(ids))
    assert len(ids) >= 22 + sum(answer is not None for answer in answers)
    assert {receipt.id for receipt in late} <= set(ids)
