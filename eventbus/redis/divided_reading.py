"""Reading a stream with partitions: all its logs, over one connection to each server.

Every worker reads every log, so that none needs an owner, and it is nobody's turn to notice that an owner is gone. A
log at which nothing stirs costs nothing: the server tells when it does, see eventbus.redis.bells.

stirring  it has, or may have, what was not looked at: it is looked at in the next round, or in one of the next
due       something may be there to be reclaimed: a retry, what was scheduled, a lease that can have run out
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from eventbus.contract.delivery import Delivery, Reclaimed
from eventbus.errors import EventBusError
from eventbus.process.safe_logging import get_logger
from eventbus.redis import scripts
from eventbus.redis.bells import Bell, Bells
from eventbus.redis.commands import creation
from eventbus.redis.keys import group_keys, stream_keys
from eventbus.redis.links import Links, Reply, ReplyError
from eventbus.redis.reading import Reader

INTERVAL = 1.0  # seconds between looks at a log that cannot be watched, or where something is in hand
TURN = 0.05  # seconds that a log which has more than is wanted goes on being looked at first
LONG = 300.0  # seconds between looks at a log that is watched, and where nothing was left: in case that a ring was lost
_PAUSES = (0.0, 0.02, 0.1, 0.5, INTERVAL)  # seconds between rounds that find nothing though something stirs

logger = get_logger("eventbus.redis")

Reclaim = Callable[[Reader, int], Awaitable[Reclaimed]]


class _Log:
    """One log, as one consumer sees it."""

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
        self._wake = wake

    def stirs(self, now: float) -> bool:
        return (self._seen != self._rings or self.reader.unsure) and now >= self.away_until

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
        rings, full = self._rings, self.expected > share
        # Sent before the look, so that what comes in between is told. Where there will be more it is too early.
        watch = None if full else self._bell.watch(self.watched, self._ring)
        found = await self.reader.look(share)
        if _holds(watch) and self.reader.dry:
            self._seen = rings
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
        and nothing is in hand, at rest or scheduled, nothing can come due without a ring."""
        loop = asyncio.get_running_loop()
        watching, self.reclaim_at = self.watching, math.inf
        pause = INTERVAL
        try:
            found = await reclaim(self.reader, share)
            self.due = None if found.next_due is None else loop.time() + found.next_due
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

    def leave(self) -> None:
        """Nobody reads it here any more."""
        if self._bell is not None:
            self._bell.forget(self.watched, self._ring)


class DividedReader:
    """What RedisTransport.read and reclaim do for a stream with partitions. `read` is not to be called twice at a time,
    nor is `reclaim`."""

    def __init__(self, bells: Bells, links: Links, namespace: str) -> None:
        self._bells = bells
        self._links = links
        self._begun = 0  # logs in which the group is
        self._namespace = namespace
        self._logs: list[_Log] = []
        self._woken = asyncio.Event()
        self._round = 0
        self._interrupted = False

    @property
    def readers(self) -> Sequence[Reader]:
        return [log.reader for log in self._logs]

    def cover(self, readers: Iterable[Reader]) -> None:
        """Read these logs, too: all that there are, in their order."""
        self._logs += [_Log(reader, self._namespace, self._woken.set) for reader in readers]

    def interrupt(self) -> None:
        """The read that waits ends, with nothing."""
        self._interrupted = True
        self._woken.set()

    def leave(self) -> None:
        """Nothing is read any more."""
        for log in self._logs:
            log.leave()

    # Reading ----------------------------------------------------------------------------------------------------------

    async def read(self, credit: int, wait: float) -> list[Delivery]:
        """At most `credit` events; waits for the first. Raises what a log's reader raises, if none could be read."""
        await self._begin()
        loop = asyncio.get_running_loop()
        until, fruitless = loop.time() + wait, 0
        self._interrupted = False
        while not self._interrupted:
            self._woken.clear()
            if found := await self._look(credit, loop.time()):
                return found
            now = loop.time()
            if now >= until:
                return await self._logs[0].touch()
            stirring = any(log.stirs(now) for log in self._logs)
            pause = _PAUSES[min(fruitless, len(_PAUSES) - 1)] if stirring else INTERVAL
            fruitless += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(min(pause, until - now)):
                    await self._woken.wait()
        return []

    async def _begin(self) -> None:
        """Creates the group in all logs before the first is read: until a log knows of it, it may be trimmed, and
        whoever is busy with one log may not come to another for hours."""
        new = [log.reader.subscription for log in self._logs[self._begun :]]
        if new:
            commands = [creation(self._namespace, each.log, each.group) for each in new]
            made = await scripts.run_all(self._links, commands)
            if any(made):
                count = sum(lanes > 0 for lanes in made)
                logger.warning("group created", stream=new[0].stream, group=new[0].group, partitions=count)
            self._begun += len(new)

    async def _look(self, credit: int, now: float) -> list[Delivery]:
        self._round += 1
        shares = self._share_out(credit, now)
        looks = [log.look(self._bells, share) for log, share in shares]
        found = await asyncio.gather(*looks, return_exceptions=True)
        failed = [each for each in found if isinstance(each, BaseException)]
        for (log, _), each in zip(shares, found, strict=True):
            log.away_until = now + INTERVAL if isinstance(each, BaseException) else 0.0
            log.turn_until = log.turn_until or now + TURN
            if now >= log.turn_until or log.reader.dry:
                log.looked, log.turn_until = self._round, 0.0
        for error in failed:
            if not isinstance(error, EventBusError) or len(failed) == len(self._logs):
                raise error
        return [delivery for each in found if not isinstance(each, BaseException) for delivery in each]

    def _share_out(self, credit: int, now: float) -> list[tuple[_Log, int]]:
        """Which logs are looked at, and for how many events each: those that have waited longest, as many as are needed
        to find so many. A look costs about the same for one event as for thirty, and so does an acknowledgement of
        what is from one log: so one that has much keeps its turn for a while."""
        waiting = sorted((log for log in self._logs if log.stirs(now)), key=lambda log: log.looked)
        chosen: list[_Log] = []
        expected = 0
        for log in waiting:
            if expected >= credit or len(chosen) >= credit:
                break
            chosen.append(log)
            expected += log.expected
        shares: list[tuple[_Log, int]] = []
        for number, log in enumerate(chosen, 1):
            behind = len(chosen) - number  # each of which gets one, at least
            share = max(1, min(credit * log.expected // expected, credit - behind))
            shares.append((log, share))
            credit, expected = credit - share, max(1, expected - log.expected)
        return shares

    # Reclaiming -------------------------------------------------------------------------------------------------------

    async def reclaim(self, reclaim: Reclaim, credit: int, *, suspect: bool) -> Reclaimed:
        """What is due in any log. With `suspect`, of one log alone: nothing else is to run beside that."""
        now = asyncio.get_running_loop().time()
        if suspect:
            for log in self._logs:
                if (found := await log.reclaim(reclaim, credit)).deliveries:
                    return found
            return self._summed([])
        self._round += 1
        due = [log for log in self._logs if now >= log.reclaim_at]
        start = self._round % max(1, len(due))  # another log is first each time, if the credit is less than they are
        due = due[start:] + due[:start]
        shares = [len(range(place, credit, len(due))) for place in range(len(due))]
        reclaims = [log.reclaim(reclaim, share) for log, share in zip(due, shares, strict=True)]
        results = await asyncio.gather(*reclaims, return_exceptions=True)
        failed = [each for each in results if isinstance(each, BaseException)]
        for error in failed:
            if not isinstance(error, EventBusError) or len(failed) == len(self._logs):
                raise error
        return self._summed([each for each in results if not isinstance(each, BaseException)])

    def _summed(self, found: Sequence[Reclaimed]) -> Reclaimed:
        now = asyncio.get_running_loop().time()
        dues = [log.due for log in self._logs if log.due is not None]
        soonest = max(0.0, min(dues) - now) if dues else None
        deliveries = [delivery for each in found for delivery in each.deliveries]
        return Reclaimed(deliveries, soonest, any(each.suspects for each in found))


def _holds(watch: "asyncio.Future[Reply] | None") -> bool:
    """Whether what was to be watched is."""
    return watch is not None and watch.done() and not watch.cancelled() and watch.exception() is None
