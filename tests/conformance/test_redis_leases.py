"""Leases on Redis: what the script's clock, its size and its moment have to do with them."""

from eventbus.contract.delivery import Ack, Delivery, Retry, Settlement
from eventbus.redis import RedisTransport, transport
from eventbus.redis.links import Links
from tests.conformance.reach import connected, steady
from tests.samples import FAILED, consumer, numbers, outgoing, receive, reclaim, settle
from tests.waiting import eventually

ANN = consumer("ann", lease=0.3)


async def test_thousands_are_renewed_in_scripts_of_a_bounded_size(redis_transport: RedisTransport, raw: Links) -> None:
    count = 2 * transport.RENEW_BATCH + 3
    await redis_transport.append(outgoing(*range(count)))
    deliveries = await receive(redis_transport, ANN, count)
    await settle(redis_transport, [deliveries[0], deliveries[-1]], Ack())
    before = await calls_of_evalsha(raw)
    assert numbers(await redis_transport.renew(deliveries)) == [0, count - 1]
    assert await calls_of_evalsha(raw) - before == 3


async def calls_of_evalsha(raw: Links) -> int:
    lines = (await raw.execute("INFO", "commandstats")).decode().splitlines()
    counts = [line.partition("calls=")[2].partition(",")[0] for line in lines if line.startswith("cmdstat_eval")]
    return sum(map(int, counts))


async def test_who_is_handed_again_what_he_holds_learns_how_often_it_failed_meanwhile(any_redis_url: str) -> None:
    """Else he begins with a first attempt where there are none left."""
    bob = consumer("bob", lease=0.3)
    async with connected(any_redis_url) as slow, steady(any_redis_url, bob) as other:
        await slow.append(outgoing(1))
        [held] = await receive(slow, ANN)
        for failures in (1, 2):
            found = await reclaim(other, bob)
            await settle(other, found, Retry(0.0, FAILED))
            assert found[0].failures == failures - 1
        await eventually(lambda: handed_again(slow, held))
        assert held.attempt == 1, "it may have begun, and is told of as what it began as"
        held.catch_up()
        assert (held.failures, held.attempt) == (2, 3)


async def handed_again(transport: RedisTransport, held: Delivery) -> bool:
    assert (await transport.reclaim(ANN, 10)).deliveries == [], "he has it in hand"
    return held.again is not None


async def test_a_failure_that_is_told_again_counts_once_also_where_others_have_failed_since(any_redis_url: str) -> None:
    ann, bob = consumer("ann", lease=30.0), consumer("bob", lease=30.0)
    async with connected(any_redis_url) as first, connected(any_redis_url) as second:
        await first.append(outgoing(1))
        lost = [Settlement(delivery, Retry(0.0, FAILED)) for delivery in await receive(first, ann)]
        await first.settle(lost)  # its reply does not arrive
        found = await reclaim(second, bob)
        assert found[0].failures == 1
        await settle(second, found, Retry(0.0, FAILED))
        assert (await reclaim(first, ann))[0].failures == 2
        await first.settle(lost)
        assert (await reclaim(second, bob))[0].failures == 2
