"""Appending to streams and schedules: at once, after a delay, and again when a reply was lost."""

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import suppress

from eventbus.codec import encode
from eventbus.errors import EventBusError
from eventbus.event import Envelope, Status, unix_ms
from eventbus.redis import dedupe, scripts
from eventbus.redis.keys import stream_keys
from eventbus.redis.link import Link, Reply
from eventbus.redis.repeats import Lane, Repeats
from eventbus.redis.scripts import Command, ms
from eventbus.transport import Outgoing

LOOK_BACK = 20_000  # newest entries that a repeated append looks through for its own
LOOK_BACK_MARGIN = 60_000  # ms that a repeated append looks further back: who made the event may have a fast clock
PROMOTE_BATCH = 500
SOON = 1.1  # seconds; a worker looks at the schedule at least once a second, and may miss what is due sooner
TICK = 0.05  # seconds


class Publishing:
    """What RedisTransport.append does."""

    def __init__(self, link: Link, namespace: str) -> None:
        self._link = link
        self._namespace = namespace
        self._repeats = Repeats(self._append_missing)
        self._unseen = Repeats(self._find_missing)
        self._ticks: set[tuple[str, int]] = set()
        self._promotions: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """The workers promote what is still scheduled."""
        for promoting in self._promotions:
            promoting.cancel()

    async def append(self, outgoing: Sequence[Outgoing]) -> list[Status]:
        """In one write."""
        if len(outgoing) == 1 and outgoing[0].delay <= 0 and outgoing[0].once is None:  # the hot path of publish()
            await self._link.execute(*self._xadd(outgoing[0]))
            return [Status.STORED]
        replies = await scripts.run_all(self._link, [self._command(item) for item in outgoing])
        self._promote_in_time(outgoing)
        return [_status(item, reply) for item, reply in zip(outgoing, replies, strict=True)]

    async def repeat(self, outgoing: Sequence[Outgoing]) -> list[Status]:
        """Only what is not there yet: see eventbus.redis.repeats."""
        plain = [item for item in outgoing if item.once is None]
        keyed = [item for item in outgoing if item.once is not None]
        missing = iter(await self._repeats.append(plain))
        statuses = iter(await self._repeat_once(keyed))
        self._promote_in_time(outgoing)
        return [_fate(item, known=not next(missing)) if item.once is None else next(statuses) for item in outgoing]

    async def _repeat_once(self, outgoing: list[Outgoing]) -> list[Status]:
        """An event that is there was stored by an earlier try, though its key may have expired since then."""
        missing = await self._unseen.append(outgoing)
        wanted = [item for item, is_missing in zip(outgoing, missing, strict=True) if is_missing]
        statuses = iter(await self.append(wanted) if wanted else [])
        return [
            next(statuses) if is_missing else _fate(item, known=False)
            for item, is_missing in zip(outgoing, missing, strict=True)
        ]

    async def _find_missing(self, lane: Lane, outgoing: list[Outgoing]) -> list[bool]:
        stream, priority = lane
        keys = stream_keys(self._namespace, stream)
        age = max((_age(item.envelope) for item in outgoing), default=0)
        ids = [item.envelope.id for item in outgoing]
        where = (keys.lane(priority), keys.due)
        return [not seen for seen in await scripts.call(self._link, scripts.SEEN(where, LOOK_BACK, age, *ids))]

    async def _append_missing(self, lane: Lane, outgoing: list[Outgoing]) -> list[bool]:
        stream, priority = lane
        keys = stream_keys(self._namespace, stream)
        age = max((_age(item.envelope) for item in outgoing), default=0)
        fields = [part for item in outgoing for part in (ms(item.delay), *encode(item.envelope))]
        where = (keys.lane(priority), keys.due, keys.scheduled)
        replies = await scripts.call(self._link, scripts.APPEND_AGAIN(where, LOOK_BACK, age, priority, *fields))
        return [bool(stored) for stored in replies]

    def _command(self, item: Outgoing) -> Command:
        if item.once is not None:
            return dedupe.command(self._namespace, item, item.once)
        return self._schedule(item) if item.delay > 0 else self._xadd(item)

    def _xadd(self, item: Outgoing) -> Command:
        envelope = item.envelope
        return ("XADD", stream_keys(self._namespace, envelope.stream).lane(envelope.priority), "*", *encode(envelope))

    def _schedule(self, item: Outgoing) -> Command:
        keys = stream_keys(self._namespace, item.envelope.stream)
        envelope, delay = item.envelope, ms(item.delay)
        return scripts.SCHEDULE((keys.due, keys.scheduled), delay, envelope.id, envelope.priority, *encode(envelope))

    def _promote_in_time(self, outgoing: Sequence[Outgoing]) -> None:
        """What is due before every worker has had a look at the schedule is promoted from here, if we live so long."""
        loop = asyncio.get_running_loop()
        for envelope, delay, _ in outgoing:
            tick = (envelope.stream, math.ceil((loop.time() + delay + 0.002) / TICK))
            if 0 < delay <= SOON and tick not in self._ticks:
                self._ticks.add(tick)
                loop.call_at(tick[1] * TICK, self._start_promotion, tick)

    def _start_promotion(self, tick: tuple[str, int]) -> None:
        self._ticks.discard(tick)
        promoting = asyncio.create_task(self._promote(tick[0]))
        self._promotions.add(promoting)
        promoting.add_done_callback(self._promotions.discard)

    async def _promote(self, stream: str) -> None:
        with suppress(EventBusError):  # the workers will do it
            await scripts.call(self._link, promotion(self._namespace, stream))


def promotion(namespace: str, stream: str) -> Command:
    """Moves what is due from the schedule into its lanes."""
    keys = stream_keys(namespace, stream)
    return scripts.PROMOTE((*keys.lanes, keys.due, keys.scheduled), PROMOTE_BATCH)


def _status(item: Outgoing, reply: Reply) -> Status:
    """What the reply to its command says of it."""
    if item.once is not None:
        return dedupe.status(reply)
    return _fate(item, known=item.delay > 0 and not reply)


def _fate(item: Outgoing, known: bool) -> Status:
    if known:
        return Status.DUPLICATE
    return Status.SCHEDULED if item.delay > 0 else Status.STORED


def _age(envelope: Envelope) -> int:
    """ms before which an event cannot have been stored. An age, because the server's clock may be another."""
    return max(0, time.time_ns() // 1_000_000 - unix_ms(envelope.id)) + LOOK_BACK_MARGIN
