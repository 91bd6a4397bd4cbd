"""Being told that something has changed, over one connection for any number of streams.

A read that blocks keeps a connection to itself, and in a cluster it can wait at one slot only. So whoever waits at many
logs asks the server once for each (any command that reads a key does), and is told when the first of its keys changes:
once, until it asks again. What has changed is then looked at. In RESP3 the server says so over the same connection.
"""

import asyncio
from collections.abc import Callable, Sequence

from eventbus.process.affinity import Affinity
from eventbus.process.safe_logging import get_logger
from eventbus.redis.link import Link
from eventbus.redis.links import Reply
from eventbus.redis.router import Router

_INVALIDATE = b"invalidate"

log = get_logger("eventbus.redis")


class Bell:
    """At one server. `link` takes other commands as well: what is sent over it behind `watch` is answered later."""

    def __init__(self, router: Router, key: str, timeout: float, affinity: Affinity) -> None:
        where = router.at(key).where
        self.link = Link(where, timeout=timeout, name="eventbus-watch", affinity=affinity, told=self._told)
        self._rings: dict[bytes, set[Callable[[], None]]] = {}  # several groups may wait at one log
        self._refused = False

    def watch(self, keys: Sequence[str], ring: Callable[[], None]) -> asyncio.Future[Reply] | None:
        """Call `ring` when one of these keys changes, which are of one slot, or when that will not be told any more.
        It holds once the future is done without an error; None means that it does not hold."""
        if not self.link.connected:
            return None
        if not self.link.listens:
            self._note_refused()
            return None
        for key in keys:
            self._rings.setdefault(key.encode(), set()).add(ring)
        asked = self.link.begin(("EXISTS", *keys))
        if asked is not None:
            asked.add_done_callback(_heard)
        return asked

    def forget(self, keys: Sequence[str], ring: Callable[[], None]) -> None:
        """It is not to be called for these any more."""
        for key in map(str.encode, keys):
            rings = self._rings.get(key, set())
            rings.discard(ring)
            if not rings:
                self._rings.pop(key, None)

    def _told(self, message: Reply) -> None:
        if message is None:
            self.ring_all()
        elif message[0] == _INVALIDATE:
            if message[1] is None:  # all keys are gone
                self.ring_all()
            for key in message[1] or ():
                for ring in self._rings.get(key, ()):
                    ring()

    def ring_all(self) -> None:
        """Whoever waits is to look."""
        for ring in {ring for rings in self._rings.values() for ring in rings}:
            ring()

    def _note_refused(self) -> None:
        if not self._refused:
            self._refused = True
            told = "this login may not use CLIENT TRACKING: streams with partitions are looked at once a second"
            log.error(told, server=self.link.name)


def _heard(asked: asyncio.Future[Reply]) -> None:
    """The look that goes with it tells what is wrong: keep asyncio from reporting its exception."""
    if not asked.cancelled():
        asked.exception()


class Bells:
    """One for each server that has something of a stream with partitions."""

    def __init__(self, router: Router, timeout: float, affinity: Affinity) -> None:
        self._router = router
        self._timeout = timeout
        self._affinity = affinity
        self._of: dict[Link, Bell] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, key: str) -> Bell:
        """At the server that has this key, as far as is known."""
        link = self._router.at(key)
        bell = self._of.get(link)
        if bell is None:
            for gone in [each for each in self._of if each.closed]:
                self.let_go(self._of.pop(gone).link)
            bell = self._of[link] = Bell(self._router, key, self._timeout, self._affinity)
        return bell

    def let_go(self, link: Link) -> None:
        """Close a link that nobody uses any more."""
        task = asyncio.create_task(link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def follow(self) -> None:
        """See Link.follow."""
        for bell in self._of.values():
            bell.link.follow()
            bell.ring_all()  # what was watched may be at another server

    async def close(self) -> None:
        await asyncio.gather(*(bell.link.close() for bell in self._of.values()), *self._closing)
