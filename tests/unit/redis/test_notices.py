"""Listening where nobody lets one in."""

import asyncio

from eventbus.redis.notices import listen
from eventbus.redis.where import locate
from tests.waiting import PATIENCE, until

TRIES = 120


async def test_who_stops_listening_to_a_server_that_hangs_up_has_stopped() -> None:
    """Before Python 3.12, a cancellation can be lost where a client connects, and each try ends in an error."""
    stopped: list[bool] = []
    lives = 0  # turns of the loop that a connection lasts
    serving: set[asyncio.StreamWriter] = set()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(writer)
        for _turn in range(lives):
            await asyncio.sleep(0)
        writer.close()
        serving.remove(writer)

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for number in range(TRIES):
        lives = number % 8

        async def hear() -> None:
            async for _ in listen(locate(f"redis://127.0.0.1:{port}/0"), "news"):
                pass

        hearing = asyncio.create_task(hear())
        for _ in range(number // 4):
            await asyncio.sleep(0)
        hearing.cancel()
        ended, _ = await asyncio.wait([hearing], timeout=PATIENCE)
        stopped.append(ended == {hearing} and hearing.cancelled())
    server.close()
    await server.wait_closed()
    await until(lambda: not serving)
    assert stopped == [True] * TRIES
