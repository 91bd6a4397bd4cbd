"""Recent things: a sorted set that expires."""

from collections.abc import Mapping

from eventbus.redis import scripts
from eventbus.redis.keys import recent_key
from eventbus.redis.links import Argument, Links
from eventbus.redis.scripts import ms


class RedisRecent:
    """See eventbus.contract.recent_cache.Recent."""

    def __init__(self, links: Links, namespace: str) -> None:
        self._links = links
        self._namespace = namespace

    async def add(self, name: str, items: Mapping[bytes, int], *, keep: int, seconds: float) -> None:
        if not items:
            return
        flat: list[Argument] = [part for item, position in items.items() for part in (position, item)]
        command = scripts.RECENT((recent_key(self._namespace, name),), keep, ms(seconds), *flat)
        await scripts.call(self._links, command)

    async def read(self, name: str) -> list[bytes]:
        found: list[bytes] = await self._links.execute("ZRANGE", recent_key(self._namespace, name), 0, -1)
        return found
