import asyncio

from redis.asyncio import Redis

from eventbus.redis.clients import client_of
from tests.servers import redis_client
from tests.waiting import eventually

NAME = "asked-and-left"


async def test_who_is_cancelled_while_he_leaves_has_left(redis_url: str) -> None:
    """redis-py's own closing would not even begin, and the connection stay open for as long as somebody has it."""
    kept: list[Redis] = []

    async def ask() -> None:
        async with client_of(redis_url, retries=0, client_name=NAME) as client:
            await client.ping()
            kept.append(client)
            asyncio.get_running_loop().call_soon(asking.cancel)

    asking = asyncio.create_task(ask())
    await asyncio.wait([asking])
    with redis_client(redis_url) as looking:

        async def gone() -> bool:
            return NAME not in {client["name"] for client in looking.client_list()}

        await eventually(gone)
    assert kept
