"""Appending to streams and schedules: at once, after a delay, and again when a reply was lost."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress

from eventbus.contract.dedupe import Once
from eventbus.contract.outgoing import Outgoing, statuses
from eventbus.errors import EventBusError
from eventbus.event import Envelope, Status, stream_of
from eventbus.process.safe_logging import get_logger
from eventbus.process.supervision import Background
from eventbus.redis import dedupe, scripts
from eventbus.redis.append_again import Repeating
from eventbus.redis.commands import command, xadd
from eventbus.redis.keys import due_pattern, stream_keys, stream_of_due
from eventbus.redis.links import Command, Links, Reply
from eventbus.redis.partitions import Partitions
from eventbus.redis.scanning import keys_like
from eventbus.redis.scripts import ms
from eventbus.redis.shared_look import Placed, Wait

PROMOTE_BATCH = 500
ASIDE = 60.0  # seconds until an event that can neither be delivered nor become a dead letter is tried again
SOON = 1_100  # ms; a worker looks at the schedule at least once a second, and may miss what is due sooner
TICK = 0.05  # seconds

log = get_logger("eventbus.redis")


class Publishing:
    """What RedisTransport.append does."""

    def __init__(self, links: Links, namespace: str, partitions: Partitions) -> None:
        self._links = links
        self._namespace = namespace
        self._partitions = partitions
        self._repeating = Repeating(links, namespace)
        self._ticks: set[tuple[str, int]] = set()
        self._promotions = Background("promotions")

    def close(self) -> None:
        """The workers promote what is still scheduled."""
        for promoting in self._promotions.tasks:
            promoting.cancel()

    def begin(self, item: Outgoing) -> asyncio.Future[Reply] | None:
        """The hot path: one command, and no coroutine around its reply."""
        if item.later:
            return None
        envelope, divided = item.envelope, self._partitions.divisions
        place = self._partitions.log_of(envelope, item.once) if divided else stream_of(envelope.type)
        if item.once is None:
            return self._links.begin(xadd(self._namespace, envelope, place))
        if divided and self._partitions.former_log_of(item) is not None:
            return None
        return scripts.begin(self._links, command(self._namespace, item, place))

    async def append(self, outgoing: Sequence[Outgoing]) -> list[Status]:
        """In one write."""
        placed = await self._place(outgoing)
        replies = await scripts.each(self._links, [command(self._namespace, item, place) for place, item in placed])
        return self._told(placed, [0 if isinstance(reply, bytes) else reply for reply in replies])

    async def repeat(self, outgoing: Sequence[Outgoing]) -> list[Status]:
        """Only what is not there yet: see eventbus.redis.append_again. The first try may have been before the stream
        grew."""
        placed = await self._place(outgoing)
        formers = [self._partitions.former_log_of(item) for item in outgoing]
        moved = [(former, item) for former, item in zip(formers, outgoing, strict=True) if former is not None]
        before = iter(await self._repeating.find(moved) if moved else ())
        waits = [-1 if former is None else next(before) for former in formers]
        missing = [each for each, wait in zip(placed, waits, strict=True) if wait == -1]
        appended = iter(await self._repeating.append(missing))
        return self._told(placed, [next(appended) if wait == -1 else wait for wait in waits])

    async def _place(self, outgoing: Sequence[Outgoing]) -> list[Placed]:
        """Each behind the log that it belongs to. Whose dedupe key is held in another, from before its stream grew, is
        judged there."""
        placed = [(self._partitions.log_of(item.envelope, item.once), item) for item in outgoing]
        if not self._partitions.divisions:
            return placed
        moved = [
            (i, former, dedupe.holder_key(self._namespace, former, item.envelope, item.once))
            for i, item in enumerate(outgoing)
            if item.once is not None and (former := self._partitions.former_log_of(item)) is not None
        ]
        holders = await scripts.run_all(self._links, [("GET", key) for _, _, key in moved]) if moved else ()
        for (i, former, _), holder in zip(moved, holders, strict=True):
            if holder is not None:
                placed[i] = former, outgoing[i]
        return placed

    def _told(self, placed: Sequence[Placed], waits: Sequence[Wait]) -> list[Status]:
        self._promote_in_time(placed, waits)
        return statuses([wait if isinstance(wait, EventBusError) else fate(wait) for wait in waits])

    async def holder(self, envelope: Envelope, once: Once) -> str | None:
        """The id of the event that holds its dedupe key."""
        item = Outgoing(envelope, once=once)
        logs = (self._partitions.former_log_of(item), self._partitions.log_of(envelope, once))
        keys = [dedupe.holder_key(self._namespace, each, envelope, once) for each in logs if each is not None]
        found: list[bytes | None] = await scripts.run_all(self._links, [("GET", key) for key in keys])
        return next((holder.decode() for holder in found if holder is not None), None)

    async def cancel(self, event_id: str, stream: str | None) -> bool:
        names = self._partitions.logs(stream) if stream is not None else await self._scheduling()
        keys = [stream_keys(self._namespace, name) for name in names]
        where = [(each.due, each.scheduled, each.counts) for each in keys]
        taken = await scripts.run_all(self._links, [scripts.CANCEL(each, event_id) for each in where])
        return any(taken)

    async def _scheduling(self) -> list[str]:
        """The logs that have something scheduled."""
        pages = keys_like(self._links, due_pattern(self._namespace))
        return sorted({stream_of_due(self._namespace, key.decode()) async for keys in pages for key in keys})

    def _promote_in_time(self, placed: Sequence[Placed], waits: Sequence[Wait]) -> None:
        """Promotes from here, if this process lives so long, events that are due before a worker may next look at the
        schedule."""
        loop = asyncio.get_running_loop()
        for (place, _), wait in zip(placed, waits, strict=True):
            if isinstance(wait, EventBusError):
                continue
            tick = (place, math.ceil((loop.time() + wait / 1000 + 0.002) / TICK))
            if 0 < wait <= SOON and tick not in self._ticks:
                self._ticks.add(tick)
                loop.call_at(tick[1] * TICK, self._start_promotion, tick)

    def _start_promotion(self, tick: tuple[str, int]) -> None:
        self._ticks.discard(tick)
        self._promotions.start(self._promote(tick[0]), f"promote:{tick[0]}")

    async def _promote(self, stream: str) -> None:
        with suppress(EventBusError):  # the workers will do it
            promoted(stream, await scripts.call(self._links, promotion(self._namespace, stream)))


def promotion(namespace: str, stream: str) -> Command:
    """Moves what is due from the schedule into its lanes."""
    keys = stream_keys(namespace, stream)
    return scripts.PROMOTE((*keys.lanes, keys.due, keys.scheduled, keys.dead, keys.counts), PROMOTE_BATCH, ms(ASIDE))


def promoted(stream: str, reply: Reply) -> int:
    """Reads the reply to `promotion`: ms until the next event is due, or -1. Logs the events that were set aside."""
    wait, aside = reply
    for event_id, reason in zip(aside[::2], aside[1::2], strict=True):
        log.error(
            "a scheduled event cannot be delivered, and is set aside",
            stream=stream,
            event_id=event_id.decode(errors="backslashreplace"),
            reason=reason.decode(errors="backslashreplace"),
        )
    return int(wait)


def fate(wait: int) -> Status:
    """The status that a script's answer means: ms until the event is due, 0 if it is stored, -1 for a duplicate."""
    if wait < 0:
        return Status.DUPLICATE
    return Status.SCHEDULED if wait else Status.STORED
