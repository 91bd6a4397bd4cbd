"""Taking over what is due: retries, entries whose lease ran out, and what was scheduled."""

import asyncio
import math

import structlog

from eventbus.codec import pairs
from eventbus.redis import scripts
from eventbus.redis.keys import PARKED, group_keys, stream_keys
from eventbus.redis.link import Link, Reply, ReplyError
from eventbus.redis.publishing import promoted, promotion
from eventbus.redis.reading import Reader, create_group, failure_count
from eventbus.redis.scripts import Command, ms
from eventbus.transport import Delivery, Reclaimed, Subscription

QUIET_MARGIN = 0.4  # seconds after the end of a lease; G7 allows one second
LOOK_INTERVAL = 1.0  # seconds between looks at a schedule; another process may have put something in

log = structlog.get_logger("eventbus.redis")


class Reclaiming:
    """What RedisTransport.reclaim does, for all subscriptions of a process."""

    def __init__(self, link: Link, namespace: str) -> None:
        self._link = link
        self._namespace = namespace
        self._schedules: dict[str, _Schedule] = {}

    async def reclaim(self, reader: Reader, credit: int, *, suspect: bool = False) -> Reclaimed:
        """What RedisTransport.reclaim does."""
        await self._link.ready()
        subscription = reader.subscription
        now = asyncio.get_running_loop().time()
        schedule = self._schedules.setdefault(subscription.stream, _Schedule(subscription.stream))
        promoting = now >= schedule.look_at  # one look serves all groups of the stream
        quiet = now < reader.quiet_until and (not promoting or schedule.due is None)
        if quiet and not await self._peek(subscription, schedule if promoting else None):
            next_due = None if schedule.due is None else max(0.0, schedule.due - now)
            return Reclaimed(next_due=next_due, quiet=reader.quiet_until - now)
        commands = [self._reclamation(subscription, 1 if suspect else credit, suspect, now)]
        commands += [promotion(self._namespace, subscription.stream)] if promoting else []
        try:
            reclaimed, *answers = await scripts.run(self._link, commands)
        except BaseException:  # cancelled, too
            reader.cut = True
            raise
        for answer in answers:
            schedule.note(answer, now)
        if isinstance(reclaimed, ReplyError):
            await create_group(self._link, self._namespace, subscription, reclaimed)
            return Reclaimed(next_due=0.0)
        due_ms, suspects, taken, pending = scripts.checked([reclaimed])[0]
        # What is delivered from now on keeps its lease for so long, and what is parked meanwhile a peek finds.
        reader.quiet_until = now + subscription.lease + QUIET_MARGIN if not pending else 0.0
        deliveries = [
            Delivery(subscription, entry.decode(), pairs(fields), failure_count(failures), crashes)
            for entry, fields, failures, crashes in taken
        ]
        dues = [schedule.due - now] if schedule.due is not None else []
        dues += [due_ms / 1000] if due_ms >= 0 else []
        soonest = max(0.0, min(dues)) if dues else None
        return Reclaimed(reader.hand_out(deliveries), soonest, bool(suspects), max(0.0, reader.quiet_until - now))

    def forget(self, stream: str) -> None:
        """Nobody here reads it any more."""
        self._schedules.pop(stream, None)

    def _reclamation(self, subscription: Subscription, credit: int, suspect: bool, now: float) -> Command:
        stream, group = stream_keys(self._namespace, subscription.stream), subscription.group
        # Whoever was cut off with us must be able to renew first: leases ran on while the server was away.
        young = self._link.epoch > 1 and now - self._link.connected_at < subscription.lease
        return scripts.RECLAIM(
            (*stream.lanes, *group_keys(self._namespace, subscription.stream, group)),
            *(group, subscription.consumer, ms(subscription.lease), credit),
            *(subscription.suspect_from, int(suspect), PARKED, int(young), subscription.condemned_from),
        )

    async def _peek(self, subscription: Subscription, schedule: "_Schedule | None") -> bool:
        """Whether there is a reason to look closer: a group with nothing to do must cost next to nothing."""
        keys = [group_keys(self._namespace, subscription.stream, subscription.group).retry]
        if schedule is not None:
            keys.append(stream_keys(self._namespace, subscription.stream).due)
        something = await self._link.execute("EXISTS", *keys)
        if schedule is not None and not something:
            schedule.note([-1, []], asyncio.get_running_loop().time())
        return bool(something)


class _Schedule:
    """When this process looks next at what a stream has scheduled."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._refused: str | None = None
        self.look_at = 0.0
        self.due: float | None = None  # when the first is due, by the loop's clock

    def note(self, answer: Reply, now: float) -> None:
        """`answer`: of the promotion, or why it was refused (want of memory, say); told once, until it works."""
        refused = str(answer) if isinstance(answer, ReplyError) else None
        if refused is None:
            wait = promoted(self._stream, answer)
            self.due = now + wait / 1000 if wait >= 0 else None
            self.look_at = min(now + LOOK_INTERVAL, self.due or math.inf)
        else:
            self.due, self.look_at = None, now
        if refused is not None and self._refused is None:
            log.error("what is scheduled cannot be delivered", stream=self._stream, reason=refused)
        elif refused is None and self._refused is not None:
            log.info("what is scheduled is delivered again", stream=self._stream)
        self._refused = refused
