"""Reading a stream with partitions: all its logs, over one connection to each server.

Every worker reads every log, so that none needs an owner, and it is nobody's turn to notice that an owner is gone. A
log at which nothing stirs costs nothing: the server tells when it does, see eventbus.redis.bells.
"""

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from eventbus.contract.delivery import Delivery, Reclaimed
from eventbus.process.safe_logging import get_logger
from eventbus.redis import scripts
from eventbus.redis.bells import Bells
from eventbus.redis.commands import creation
from eventbus.redis.links import Links
from eventbus.redis.reading import Reader
from eventbus.redis.watched_log import INTERVAL, Reclaim, WatchedLog

TURN = 0.05  # seconds that a log which has more than is wanted goes on being looked at first
LATE = 0.5  # seconds without an answer of a log after which the others go on; longer where answers take long
LONGEST = 5.0  # seconds; by then a link that says nothing is given up
_PAUSES = (0.0, 0.02, 0.1, 0.5, INTERVAL)  # seconds between rounds that find nothing though something stirs

T = TypeVar("T")

log = get_logger("eventbus.redis")


Late = dict[WatchedLog, asyncio.Task[T]]  # those that are not waited for any more


class DividedReader:
    """What RedisTransport.read and reclaim do for a stream with partitions. `read` is not to be called twice at a time,
    nor is `reclaim`."""

    def __init__(self, bells: Bells, links: Links, namespace: str) -> None:
        self._bells = bells
        self._links = links
        self._begun = 0  # logs in which the group is
        self._namespace = namespace
        self._logs: list[WatchedLog] = []
        self._woken = asyncio.Event()
        self._round = 0
        self._interrupted = False
        self._patience = LATE
        self._looks: Late[list[Delivery]] = {}
        self._reclaims: Late[Reclaimed] = {}

    @property
    def readers(self) -> Sequence[Reader]:
        return [log.reader for log in self._logs]

    def cover(self, readers: Iterable[Reader]) -> None:
        """Read these logs, too: all that there are, in their order."""
        self._logs += [WatchedLog(reader, self._namespace, self._woken.set) for reader in readers]

    def interrupt(self) -> None:
        """The read that waits ends, with nothing."""
        self._interrupted = True
        self._woken.set()

    def leave(self) -> None:
        """Nothing is read any more."""
        for log in self._logs:
            log.leave()
        for late in (self._looks, self._reclaims):
            for log, task in late.items():
                log.reader.cut = True
                task.cancel()

    # Reading ----------------------------------------------------------------------------------------------------------

    async def read(self, credit: int, wait: float) -> list[Delivery]:
        """At most `credit` events; waits for the first. Raises what a log's reader raises, if none could be read."""
        await self._begin()
        loop = asyncio.get_running_loop()
        until, fruitless, since = loop.time() + wait, 0, self._round
        self._interrupted = False
        while not self._interrupted:
            self._woken.clear()
            if found := await self._look(credit, loop.time()):
                return found
            now = loop.time()
            if now >= until:
                return await self._touch()
            stirring = [log for log in self._answering(self._looks) if log.stirs(now)]
            if any(log.looked <= since for log in stirring):  # it has not had its turn
                continue
            pause = _PAUSES[min(fruitless, len(_PAUSES) - 1)] if stirring else INTERVAL
            fruitless, since = fruitless + 1, self._round
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
            made = [
                reply for reply in await scripts.each(self._links, commands) if isinstance(reply, int) and reply > 0
            ]
            if made:
                log.warning("group created", stream=new[0].stream, group=new[0].group, partitions=len(made))
            self._begun += len(new)  # where it was refused, or a node is away, the log's own look makes it

    async def _look(self, credit: int, now: float) -> list[Delivery]:
        self._round += 1
        shares = self._share_out(credit, now)
        found = await self._answers({log: log.look(self._bells, share) for log, share in shares}, self._looks)
        for log, _ in shares:
            log.away_until = 0.0 if log in found else asyncio.get_running_loop().time() + INTERVAL
            log.turn_until = log.turn_until or now + TURN
            if now >= log.turn_until or log.reader.dry:
                log.looked, log.turn_until = self._round, 0.0
        return [delivery for each in found.values() for delivery in each]

    async def _touch(self) -> list[Delivery]:
        first = [log for log in self._answering(self._looks) if log is self._logs[0]]
        found = await self._answers({log: log.touch() for log in first}, self._looks)
        return [delivery for each in found.values() for delivery in each]

    def _answering(self, late: Mapping[WatchedLog, object]) -> list[WatchedLog]:
        """The logs of servers that nobody waits for."""
        silent = {log.reader.link for log in late}
        return [log for log in self._logs if log.reader.link not in silent] if silent else self._logs

    # Waiting for answers ----------------------------------------------------------------------------------------------

    async def _answers(
        self, asked: Mapping[WatchedLog, Coroutine[None, None, T]], late: Late[T]
    ) -> dict[WatchedLog, T]:
        """Of those that answered: whatever is wrong with others, what was handed out must reach its consumer. Raises if
        no log of the stream has. A server that says nothing is found out after seconds: its logs are left to `late`."""
        tasks = {log: asyncio.create_task(asking) for log, asking in asked.items()}
        try:
            if tasks:
                await asyncio.wait(tasks.values(), timeout=self._patience)
        except asyncio.CancelledError:  # what has been answered is dropped
            for log, task in tasks.items():
                log.reader.cut = True
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            raise
        failed: dict[WatchedLog, BaseException] = {}
        answers: dict[WatchedLog, T] = {}
        for log, task in tasks.items():
            if not task.done():
                late[log] = task
                task.add_done_callback(partial(self._answered_late, log, late))
            elif (error := task.exception()) is not None:
                failed[log] = error
            else:
                answers[log] = task.result()
        if len(failed) == len(self._logs):
            raise next(iter(failed.values()))
        for log, error in failed.items():
            log.note(error)
        return answers

    def _answered_late(self, log: WatchedLog, late: Late[T], task: asyncio.Task[T]) -> None:
        """What it has handed out since is read again, with leases that begin anew. If that is late as well, the others
        wait for longer from now on."""
        del late[log]
        self._woken.set()
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.away_until = asyncio.get_running_loop().time() + INTERVAL
            log.note(error)
            return
        log.away_until = 0.0
        answer = task.result()
        dropped = answer.deliveries if isinstance(answer, Reclaimed) else answer
        assert isinstance(dropped, list), "what looks and reclaims return"
        for delivery in dropped:
            log.reader.held.pop(delivery.entry_id, None)
        if dropped:
            log.reader.doubt()
            self._patience = min(2 * self._patience, LONGEST)

    def _share_out(self, credit: int, now: float) -> list[tuple[WatchedLog, int]]:
        """Which logs are looked at, and for how many events each: those that have waited longest, as many as are needed
        to find so many. A look costs about the same for one event as for thirty, and so does an acknowledgement of
        what is from one log: so one that has much keeps its turn for a while."""
        stirring = (log for log in self._answering(self._looks) if log.stirs(now))
        waiting = sorted(stirring, key=lambda log: log.looked)
        chosen: list[WatchedLog] = []
        expected = 0
        for log in waiting:
            if expected >= credit or len(chosen) >= credit:
                break
            chosen.append(log)
            expected += log.expected
        shares: list[tuple[WatchedLog, int]] = []
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
            for log in self._answering(self._reclaims):
                told = await self._answers({log: log.reclaim(reclaim, credit)}, self._reclaims)
                if any(each.deliveries for each in told.values()):
                    return self._summed(told.values())
            return self._summed([])
        asking = (log for log in self._answering(self._reclaims) if now >= log.reclaim_at)
        due = sorted(asking, key=lambda log: log.reclaim_at)
        found = list[Reclaimed]()
        while due:  # with little credit one after the other: whoever is asked for nothing may have something
            some, due = due[: credit or len(due)], due[credit or len(due) :]
            shares = [len(range(place, credit, len(some))) for place in range(len(some))]
            asked = {log: log.reclaim(reclaim, share) for log, share in zip(some, shares, strict=True)}
            answers = await self._answers(asked, self._reclaims)
            found += answers.values()
            credit -= sum(len(each.deliveries) for each in answers.values())
            if credit == 0 and any(each.deliveries for each in answers.values()):
                break
        return self._summed(found)

    def _summed(self, found: Collection[Reclaimed]) -> Reclaimed:
        now = asyncio.get_running_loop().time()
        dues = [log.due for log in self._logs if log.due is not None]
        soonest = max(0.0, min(dues) - now) if dues else None
        deliveries = [delivery for each in found for delivery in each.deliveries]
        return Reclaimed(deliveries, soonest, any(each.suspects for each in found))
