"""Leases on Redis: what the script's clock, its size and its moment have to do with them."""

from eventbus.redis import RedisTransport, transport
from eventbus.redis.link import Link
from eventbus.transport import Ack
from tests.samples import consumer, numbers, outgoing, receive, settle

ANN = consumer("ann", lease=0.3)


async def test_thousands_are_renewed_in_scripts_of_a_bounded_size(redis_transport: RedisTransport, raw: Link) -> None:
    count = 2 * transport.RENEW_BATCH + 3
    await redis_transport.append(outgoing(*range(count)))
    deliveries = await receive(redis_transport, ANN, count)
    await settle(redis_transport, [deliveries[0], deliveries[-1]], Ack())
    before = await calls_of_evalsha(raw)
    assert numbers(await redis_transport.renew(deliveries)) == [0, count - 1]
    assert await calls_of_evalsha(raw) - before == 3


async def calls_of_evalsha(raw: Link) -> int:
    lines = (await raw.execute("INFO", "commandstats")).decode().splitlines()
    counts = [line.partition("calls=")[2].partition(",")[0] for line in lines if line.startswith("cmdstat_eval")]
    return sum(map(int, counts))
