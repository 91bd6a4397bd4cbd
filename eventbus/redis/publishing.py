"""Appending to streams and schedules: at once, after a delay, and again when a reply was lost."""

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import suppress

from eventbus.codec import encode
from eventbus.errors import EventBusError
from eventbus.event import Envelope, Status, stream_of, unix_ms
from eventbus.redis import dedupe, scripts
from eventbus.redis.keys import due_pattern, lane_key, stream_keys, stream_of_due
from eventbus.redis.link import Link, Reply
from eventbus.redis.repeats import Lane, Repeats
from eventbus.redis.scripts import Command, ms, unix
from eventbus.transport import Outgoing

LOOK_BACK = 20_000  # newest entries that a repeated append looks through for its own
LOOK_BACK_MARGIN = 60_000  # ms that a repeated append looks further back: who made the event may have a fast clock
PROMOTE_BATCH = 500
SOON = 1_100  # ms; a worker looks at the schedule at least once a second, and may miss what is due sooner
TICK = 0.05  # seconds
_AT_ONCE = (0, 0)  # see _due


class Publishing:
    """What RedisTransport.append does."""

    def __init__(self, link: Link, namespace: str) -> None:
        self._link = link
        self._namespace = namespace
        self._repeats = Repeats(self._append_missing)
        self._seen = Repeats(self._look_for)
        self._ticks: set[tuple[str, int]] = set()
        self._promotions: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """The workers promote what is still scheduled."""
        for promoting in self._promotions:
            promoting.cancel()

    def begin(self, item: Outgoing) -> asyncio.Future[Reply] | None:
        """The hot path: one command, and no coroutine around its reply."""
        if item.later:
            return None
        if item.once is None:
            return self._link.begin(*self._xadd(item))
        return scripts.begin(self._link, dedupe.command(self._namespace, item, item.once, _AT_ONCE))

    async def append(self, outgoing: Sequence[Outgoing]) -> list[Status]:
        """In one write."""
        waits = await self._append_all(outgoing)
        self._promote_in_time(outgoing, waits)
        return [fate(wait) for wait in waits]

    async def repeat(self, outgoing: Sequence[Outgoing]) -> list[Status]:
        """Only what is not there yet: see eventbus.redis.repeats."""
        plain = iter(await self._repeats.append([item for item in outgoing if item.once is None]))
        keyed = iter(await self._repeat_once([item for item in outgoing if item.once is not None]))
        waits = [next(plain) if item.once is None else next(keyed) for item in outgoing]
        self._promote_in_time(outgoing, waits)
        return [fate(wait) for wait in waits]

    async def _append_all(self, outgoing: Sequence[Outgoing]) -> list[int]:
        replies = await scripts.run_all(self._link, [self._command(item) for item in outgoing])
        return [
            reply if item.later or item.once is not None else 0 for item, reply in zip(outgoing, replies, strict=True)
        ]

    async def _repeat_once(self, outgoing: list[Outgoing]) -> list[int]:
        """An event that is there was stored by an earlier try, though its key may have expired since then."""
        seen = await self._seen.append(outgoing)
        missing = iter(await self._append_all([item for item, wait in zip(outgoing, seen, strict=True) if wait < 0]))
        return [wait if wait >= 0 else next(missing) for wait in seen]

    async def _look_for(self, lane: Lane, outgoing: list[Outgoing]) -> list[int]:
        stream, priority = lane
        keys = stream_keys(self._namespace, stream)
        age = max((_age(item.envelope) for item in outgoing), default=0)
        ids = [item.envelope.id for item in outgoing]
        command = scripts.SEEN((keys.lane(priority), keys.due), LOOK_BACK, age, *ids)
        waits: list[int] = await scripts.call(self._link, command)
        return waits

    async def _append_missing(self, lane: Lane, outgoing: list[Outgoing]) -> list[int]:
        stream, priority = lane
        keys = stream_keys(self._namespace, stream)
        age = max((_age(item.envelope) for item in outgoing), default=0)
        fields = [part for item in outgoing for part in (*_due(item), *encode(item.envelope))]
        where = (keys.lane(priority), keys.due, keys.scheduled)
        command = scripts.APPEND_AGAIN(where, LOOK_BACK, age, priority, *fields)
        waits: list[int] = await scripts.call(self._link, command)
        return waits

    def _command(self, item: Outgoing) -> Command:
        if item.once is not None:
            return dedupe.command(self._namespace, item, item.once, _due(item) if item.later else _AT_ONCE)
        return self._schedule(item) if item.later else self._xadd(item)

    def _xadd(self, item: Outgoing) -> Command:
        envelope = item.envelope
        lane = lane_key(self._namespace, stream_of(envelope.type), envelope.priority)
        return ("XADD", lane, "*", *encode(envelope))

    def _schedule(self, item: Outgoing) -> Command:
        keys = stream_keys(self._namespace, item.envelope.stream)
        envelope = item.envelope
        where = (keys.lane(envelope.priority), keys.due, keys.scheduled)
        return scripts.SCHEDULE(where, *_due(item), envelope.id, envelope.priority, *encode(envelope))

    async def cancel(self, event_id: str, stream: str | None) -> bool:
        names = [stream] if stream is not None else await self._scheduling()
        keys = [stream_keys(self._namespace, name) for name in names]
        taken = await scripts.run_all(self._link, [scripts.CANCEL((k.due, k.scheduled), event_id) for k in keys])
        return any(taken)

    async def _scheduling(self) -> list[str]:
        """The streams that have something scheduled."""
        found: set[str] = set()
        cursor = "0"
        while True:
            cursor, keys = await self._link.execute(
                "SCAN", cursor, "MATCH", due_pattern(self._namespace), "COUNT", 1000
            )
            found.update(stream_of_due(self._namespace, key.decode()) for key in keys)
            if int(cursor) == 0:
                return sorted(found)

    def _promote_in_time(self, outgoing: Sequence[Outgoing], waits: Sequence[int]) -> None:
        """What is due before every worker has had a look at the schedule is promoted from here, if we live so long."""
        loop = asyncio.get_running_loop()
        for item, wait in zip(outgoing, waits, strict=True):
            tick = (item.envelope.stream, math.ceil((loop.time() + wait / 1000 + 0.002) / TICK))
            if 0 < wait <= SOON and tick not in self._ticks:
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


def _due(item: Outgoing) -> tuple[int, int]:
    """Delay in ms and ms since the epoch, as the scripts take them: what is later counts."""
    return ms(max(0.0, item.delay)), 0 if item.at is None else unix(item.at)


def fate(wait: int) -> Status:
    """What a script's answer, ms until an event is due, says of it."""
    if wait < 0:
        return Status.DUPLICATE
    return Status.SCHEDULED if wait else Status.STORED


def _age(envelope: Envelope) -> int:
    """ms before which an event cannot have been stored. An age, because the server's clock may be another."""
    # The two clocks may differ by about what they seem to, whoever of us is behind.
    return abs(time.time_ns() // 1_000_000 - unix_ms(envelope.id)) + LOOK_BACK_MARGIN
