"""Taking over what is due: retries, entries whose lease ran out, and what was scheduled."""

import asyncio
import math
from collections.abc import Sequence

from eventbus.contract.codec import pairs
from eventbus.contract.delivery import Delivery, Reclaimed, Subscription
from eventbus.process.safe_logging import get_logger
from eventbus.redis import scripts
from eventbus.redis.keys import PARKED, QUEUED, group_keys, order_key, stream_keys
from eventbus.redis.links import Command, Links, Reply, ReplyError
from eventbus.redis.publishing import promoted, promotion
from eventbus.redis.pulse import Pulse, Pulses
from eventbus.redis.reading import Reader, create_group, failure_count
from eventbus.redis.scripts import ms

QUIET_MARGIN = 0.4  # seconds after the end of a lease; G7 allows one second
LOOK_INTERVAL = 1.0  # seconds between looks at a schedule; another process may have put something in
LEFT_ALONE = 1_000  # entries that a reclaim is told to leave to others, at the most
LOOKED_AT = 100  # that wait in an ordered group, in each look for those that wait for nothing
RESTART_PAGE = 500  # entries in one script

log = get_logger("eventbus.redis")


class Reclaiming:
    """What RedisTransport.reclaim does, for all subscriptions of a process."""

    def __init__(self, links: Links, namespace: str, pulses: Pulses, timeout: float) -> None:
        """`timeout`: seconds after which nobody waits for an answer any more."""
        self._links = links
        self._pulses = pulses
        self._timeout = timeout
        self._namespace = namespace
        self._schedules: dict[str, _Schedule] = {}

    async def reclaim(self, reader: Reader, credit: int, *, suspect: bool = False) -> Reclaimed:
        """What RedisTransport.reclaim does."""
        subscription = reader.subscription
        key = stream_keys(self._namespace, subscription.log).stream
        await self._links.ready(key)
        pulse = self._pulses.of(key)
        now = asyncio.get_running_loop().time()
        schedule = self._schedules.setdefault(subscription.log, _Schedule(subscription.log))
        promoting = now >= schedule.look_at  # one look serves all groups of the stream
        quiet = now < reader.quiet_until and (not promoting or schedule.due is None)
        if quiet and not await self._peek(subscription, schedule if promoting else None):
            next_due = None if schedule.due is None else max(0.0, schedule.due - now)
            return Reclaimed(next_due=next_due, quiet=reader.quiet_until - now)
        await self._bring_back(reader, pulse)
        commands = [self._reclamation(subscription, pulse, credit, suspect, sorted(reader.lost)[:LEFT_ALONE])]
        commands += [promotion(self._namespace, subscription.log)] if promoting else []
        mending = [self._mending(subscription)] if subscription.ordered else []
        try:
            replies = await scripts.run(self._links, [*mending, *commands])
        except BaseException:  # cancelled, too
            reader.cut = True
            raise
        reclaimed, *answers = replies[len(mending) :]
        self._tell_mended(subscription, replies[: len(mending)])
        for answer in answers:
            schedule.note(answer, now)
        if isinstance(reclaimed, ReplyError):
            await create_group(self._links, self._namespace, subscription, reclaimed)
            reader.doubt()  # nobody rings for what the new group has not seen
            return Reclaimed(next_due=0.0)
        due_ms, suspects, taken, pending = scripts.checked([reclaimed])[0]
        # Nothing is pending: leases that begin from now on hold until then, and a peek finds what is parked meanwhile.
        reader.quiet_until = now + subscription.lease + QUIET_MARGIN if not pending else 0.0
        deliveries = [
            Delivery(subscription, entry.decode(), pairs(fields), failure_count(failures), crashes)
            for entry, fields, failures, crashes in taken
        ]
        dues = [schedule.due - now] if schedule.due is not None else []
        dues += [due_ms / 1000] if due_ms >= 0 else []
        soonest = max(0.0, min(dues)) if dues else None
        left = max(0.0, reader.quiet_until - now)
        return Reclaimed(reader.hand_out(deliveries), soonest, bool(suspects), left, idle=not pending)

    def forget(self, stream: str) -> None:
        """Nobody here reads it any more."""
        self._schedules.pop(stream, None)

    def _reclamation(
        self, subscription: Subscription, pulse: Pulse, credit: int, suspect: bool, left_alone: Sequence[str]
    ) -> Command:
        stream, group = stream_keys(self._namespace, subscription.log), subscription.group
        age, meant = pulse.age_needed(subscription.lease), pulse.server_ms()
        known = age is not None and meant is not None
        return scripts.RECLAIM(
            (*stream.lanes, *group_keys(self._namespace, subscription.log, group)),
            *(group, subscription.consumer, ms(age or 0) if known else "", credit),
            *(subscription.suspect_from, int(suspect), PARKED, "" if meant is None else meant),
            *(subscription.condemned_from, ms(self._timeout)),
            *left_alone,
        )

    async def _bring_back(self, reader: Reader, pulse: Pulse) -> None:
        """Restarts leases that end too late. When a server's clock is set back, leases that were renewed before seem to
        be renewed in the future, and so last too long. Each process looks for them when it begins, and whenever it sees
        the clock set back, or meets another server's."""
        seen = pulse, pulse.steps_back
        if reader.brought_back != seen:
            restarted = await restart_leases(self._links, self._namespace, reader.subscription)
            reader.brought_back = seen
            if restarted and pulse.steps_back:
                log.info("leases dated in the future begin now", group=reader.subscription.group, count=restarted)

    def _mending(self, subscription: Subscription) -> Command:
        """Whoever waits behind an event that somebody else has settled, or removed, must not wait for ever."""
        stream, group = stream_keys(self._namespace, subscription.log), subscription.group
        order = order_key(self._namespace, subscription.log, group)
        retry = group_keys(self._namespace, subscription.log, group).retry
        return scripts.MEND_ORDER((*stream.lanes, retry, order), group, PARKED, LOOKED_AT)

    @staticmethod
    def _tell_mended(subscription: Subscription, replies: Sequence[Reply]) -> None:
        if mended := sum(reply for reply in replies if isinstance(reply, int)):
            told = "events waited behind others that are gone: they are due now"
            log.warning(told, stream=subscription.log, group=subscription.group, count=mended)

    async def _peek(self, subscription: Subscription, schedule: "_Schedule | None") -> bool:
        """Whether there is a reason to look closer: a group with nothing to do must cost next to nothing."""
        keys = [group_keys(self._namespace, subscription.log, subscription.group).retry]
        if schedule is not None:
            keys.append(stream_keys(self._namespace, subscription.log).due)
        something = await self._links.execute("EXISTS", *keys)
        if schedule is not None and not something:
            schedule.note([-1, []], asyncio.get_running_loop().time())
        return bool(something)


async def restart_leases(links: Links, namespace: str, subscription: Subscription) -> int:
    """Let the leases that end too late begin now, whosever they are; returns how many."""
    restarted, group = 0, subscription.group
    lanes = stream_keys(namespace, subscription.log).lanes
    summaries = await links.pipeline([("XPENDING", lane, group) for lane in lanes])
    for lane, summary in zip(lanes, summaries, strict=True):
        holders = [] if isinstance(summary, Exception) else summary[3] or []  # no group yet: whoever reads makes it
        for consumer, _ in holders:
            start = b"" if consumer.decode() in {PARKED, QUEUED} else b"-"
            while start:
                command = scripts.RESTART((lane,), group, consumer, start, RESTART_PAGE)
                start, found = await scripts.call(links, command)
                restarted += found
    return restarted


class _Schedule:
    """When this process looks next at what a stream has scheduled."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._refused: str | None = None
        self.look_at = 0.0
        self.due: float | None = None  # when the first is due, by the loop's clock

    def note(self, answer: Reply, now: float) -> None:
        """`answer`: the promotion's reply, or why it was refused (want of memory, say). A refusal is logged once, until
        promotion works again."""
        refused = str(answer) if isinstance(answer, Exception) else None
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
