"""One log of a stream with partitions, as one consumer sees it: whether something stirs in it, and when it is due.

stirring  it has, or may have, what was not looked at: it is looked at in the next round, or in one of the next
due       something may be there to be reclaimed: a retry, what was scheduled, a lease that can have run out
"""

import asyncio
import math
from collections.abc import Callable, Coroutine

from eventbus.contract.delivery import Delivery, Reclaimed
from eventbus.errors import Unavailable
from eventbus.process.safe_logging import get_logger
from eventbus.redis.bells import Bell, Bells
from eventbus.redis.keys import group_keys, stream_keys
from eventbus.redis.links import Redirected, Reply, ReplyError
from eventbus.redis.reading import Reader
from eventbus.redis.reclaiming import LOOK_INTERVAL

INTERVAL = 1.0  # seconds between looks at a log that cannot be watched, or where something is in hand
LONG = 300.0  # seconds between looks at a log that is watched, and where nothing was left: in case that a ring was lost
TOLD_AGAIN = 60.0  # seconds

Reclaim = Callable[[Reader, int], Coroutine[None, None, Reclaimed]]

log = get_logger("eventbus.redis")


class WatchedLog:
    """`wake` is called when something has changed in it."""

    def __init__(self, reader: Reader, namespace: str, wake: Callable[[], None]) -> None:
        self.reader = reader
        subscription = reader.subscription
        keys = stream_keys(namespace, subscription.log)
        self.key = keys.stream
        self.watched = (*keys.lanes, keys.due, group_keys(namespace, subscription.log, subscription.group).retry)
        self.expected = 8  # events that the next look will find; nobody knows, to begin with
        self.looked = 0  # in which round its last turn ended
        self.turn_until = 0.0  # loop time; 0.0 if it is not its turn
        self.away_until = 0.0  # loop time; its server is away
        self.reclaim_at = 0.0  # loop time
        self.due: float | None = None  # loop time, of the first retry or scheduled event
        self._bell: Bell | None = None
        self._rings = 1  # how often something was said to have changed
        self._seen = 0  # up to which ring all has been read
        self._armed_at = math.inf  # loop time, at which it began to be watched again
        self._wake = wake
        self._told = ("", 0.0)  # what was last said to be wrong with it, and the loop time

    def stirs(self, now: float) -> bool:
        changed = self._seen != self._rings or self.reader.unsure or now >= self._armed_at + LONG
        return changed and now >= self.away_until

    @property
    def watching(self) -> bool:
        """Whether it will be told of what changes from now on."""
        return self._seen == self._rings

    def _ring(self) -> None:
        self._rings += 1
        self.reclaim_at = 0.0
        self._wake()

    async def look(self, bells: Bells, share: int) -> list[Delivery]:
        """At most `share` events. Raises what the reader raises."""
        self._find_bell(bells)
        assert self._bell is not None, "found just now"
        rings, full, now = self._rings, self.expected > share, asyncio.get_running_loop().time()
        # Sent before the look, so that what comes in between is told. Where there will be more it is too early.
        watch = None if full else self._bell.watch(self.watched, self._ring)
        found = await self.reader.look(share)
        if _holds(watch) and self.reader.dry:
            self._seen, self._armed_at = rings, now
        self.expected = max(1, len(found)) if self.reader.dry else 4 * share
        return found

    def _find_bell(self, bells: Bells) -> None:
        bell = bells.of(self.key)
        if bell is self._bell:
            return
        if self._bell is not None:
            self._bell.forget(self.watched, self._ring)
        elif self.reader.link is not bell.link:
            bells.let_go(self.reader.link)  # it was its own, while the stream had one log
        self._bell = bell
        self.reader.move_to(bell.link)

    async def reclaim(self, reclaim: Reclaim, share: int) -> Reclaimed:
        """What is due in it. Notes when to ask again: at once if something changed meanwhile. If all was read before,
        and nothing is in hand, at rest or scheduled, nothing can come due without a ring. What was scheduled before it
        was watched is not known until then: the groups of a process share their looks at a schedule."""
        loop = asyncio.get_running_loop()
        watching = self.watching and loop.time() >= self._armed_at + LOOK_INTERVAL
        self.due, self.reclaim_at = None, math.inf
        pause = INTERVAL
        try:
            found = await reclaim(self.reader, share)
            if found.next_due is not None:
                self.due = loop.time() + found.next_due
            if found.deliveries or found.suspects:
                pause = 0.0
            elif found.next_due is not None:
                pause = min(found.next_due, INTERVAL)
            elif watching:
                pause = LONG if found.idle else max(found.quiet, INTERVAL)
        finally:
            if self.reclaim_at == math.inf:
                self.reclaim_at = loop.time() + pause
        return found

    async def touch(self) -> list[Delivery]:
        """So that operators see who reads though nothing comes: the server notes who has asked."""
        try:
            return await self.reader.touch()
        except ReplyError:  # it is somewhere else, or its group is gone: a look knows what to do
            self._rings += 1
            return []

    def note(self, error: BaseException) -> None:
        """What it was asked has failed. The others go on, so that nobody else tells: when it begins, and then once a
        minute. Links tell themselves who is away."""
        if isinstance(error, (Unavailable, Redirected)):
            return
        now = asyncio.get_running_loop().time()
        kind, (known, told_at) = str(error).partition(" ")[0], self._told  # servers begin with a word for the kind
        if kind != known or now >= told_at + TOLD_AGAIN:
            self._told = kind, now
            told = "a log of a stream with partitions is left out: it is tried again every second"
            where = self.reader.subscription
            log.error(told, stream=where.log, group=where.group, reason=str(error), exc_info=error)

    def leave(self) -> None:
        """Nobody reads it here any more."""
        if self._bell is not None:
            self._bell.forget(self.watched, self._ring)


def _holds(watch: "asyncio.Future[Reply] | None") -> bool:
    """Whether what was to be watched is."""
    return watch is not None and watch.done() and not watch.cancelled() and watch.exception() is None
