"""Looking through all keys, on all servers: in small steps, and not to be called often."""

from collections.abc import AsyncIterator

from eventbus.redis.links import Links

STEP = 1_000  # keys that a server looks at in one step


async def keys_like(links: Links, pattern: str) -> AsyncIterator[list[bytes]]:
    """Page by page. A key may be found twice, and one that is made or moved meanwhile not at all."""
    for node in await links.nodes():
        cursor = "0"
        while True:
            cursor, keys = await node.execute("SCAN", cursor, "MATCH", pattern, "COUNT", STEP)
            yield keys
            if int(cursor) == 0:
                break
