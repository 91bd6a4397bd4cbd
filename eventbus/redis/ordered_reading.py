"""Reading for an ordered group: only the first event of a key that is not settled is handed out.

look    a script reads, and lets those wait that have another of their key before them
wait    a read that blocks would hand out more than that. So it blocks in a plain XREAD, behind what the group has read,
        and takes nothing: the next look does
"""

import asyncio

from eventbus.contract.delivery import Delivery, Subscription
from eventbus.contract.priorities import shares
from eventbus.redis import scripts
from eventbus.redis.keys import order_key
from eventbus.redis.link import Link
from eventbus.redis.links import Command, Links, ReplyError
from eventbus.redis.reading import Entry, Reader
from eventbus.redis.router import Router

NEARLY = 0.9  # of the time that a read waits; one that ends before with nothing was interrupted


class OrderedReader(Reader):
    """See Reader."""

    def __init__(self, subscription: Subscription, namespace: str, link: Link, others: Router) -> None:
        super().__init__(subscription, namespace, link, others)
        self._order = order_key(namespace, subscription.log, subscription.group)
        self._last: list[str] = []  # the last id of each lane that the group has read, once there was nothing more

    async def touch(self) -> list[Delivery]:
        """See Reader. A plain read would hand out more than may begin."""
        return await self.look(1)

    async def _look(self, credit: int) -> list[Entry]:
        return await self._take(self.link, credit)

    async def _take(self, links: Links, credit: int) -> list[Entry]:
        _, group, consumer, *_ = self.subscription
        command = scripts.READ((*self._lanes, self._order), group, consumer, credit, *shares(credit))
        taken, read, last = await scripts.call(links, command)
        self._last = [each.decode() for each in last]
        self._dry = read < credit and len(self._last) == len(self._lanes)
        return [(entry.decode(), fields) for entry, fields in taken]

    async def _wait(self, count: int, wait: float) -> list[Entry]:
        if self._dry:  # else there may be more, and all that was read waits in line
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                blocking: Command = ("XREAD", "COUNT", 1, "BLOCK", max(1, scripts.ms(wait)), "STREAMS")
                reply = await self.link.execute(*blocking, *self._lanes, *self._last)
                if reply is None and loop.time() - began < wait * NEARLY:
                    return []  # interrupted: nothing is wanted any more
            except ReplyError as error:
                if not str(error).startswith("UNBLOCKED"):
                    raise
            self._dry = False
        return await self._look(count)
