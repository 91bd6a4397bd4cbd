"""The transport inside one process: the rules of Redis, for tests and first steps. Nothing survives the process.

Longer than other files: it is all of eventbus.contract.broker, and each method is a few lines.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from eventbus.contract.activity_stats import Tallies
from eventbus.contract.circuits import Circuits
from eventbus.contract.codec import decode, encode, pairs
from eventbus.contract.dead_letters import DeadLetter
from eventbus.contract.dedupe import Once
from eventbus.contract.delivery import (
    Ack,
    Dead,
    Delivery,
    Reclaimed,
    Refusal,
    Release,
    Retry,
    Settlement,
    Snooze,
    Subscription,
)
from eventbus.contract.firings import FIRED_AHEAD, IMPOSSIBLE_FIRING, LastFiring
from eventbus.contract.inspection import EventStanding, GroupStanding, Related, StreamState
from eventbus.contract.limiting import Answer, Request, Spent
from eventbus.contract.limits import RateLimit
from eventbus.contract.outgoing import Outgoing
from eventbus.contract.recent_cache import Recent
from eventbus.contract.retention import Retention
from eventbus.contract.session_store import Ledger
from eventbus.contract.states import Records
from eventbus.contract.upkeep import Tidied
from eventbus.errors import CodecError
from eventbus.event import Envelope, Status
from eventbus.memory import inspection
from eventbus.memory.limiting import MemoryLimits
from eventbus.memory.log import (
    Cursor,
    Log,
    Pending,
    claimable,
    following,
    half_of_the_suspects,
    may_begin,
    take_next,
    unread,
)
from eventbus.memory.records import MemoryRecords
from eventbus.memory.sessions import MemoryLedger
from eventbus.memory.shared import MemoryCircuits, MemoryRecent, MemoryTallies
from eventbus.process.safe_logging import get_logger

told = get_logger("eventbus.memory")


# Turns of the event loop before a lost lease is taken over. When the loop was blocked everything wakes up at once, and
# the renewals of leases must come first.
TURNS = 5


class MemoryTransport:
    """See eventbus.contract.broker. `clock` returns seconds and never goes back; tests may bring their own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._epoch = time.time() - clock()
        self._logs: dict[str, Log] = {}
        self.records: Records = MemoryRecords(clock)
        self.circuits: Circuits = MemoryCircuits(clock)
        self.recent: Recent = MemoryRecent(clock)
        self.tallies: Tallies = MemoryTallies(self._now)
        self.sessions: Ledger = MemoryLedger(self._now, self._store_collected)
        self._listeners: dict[str, set[asyncio.Queue[bytes]]] = {}
        self._limits = MemoryLimits(clock)
        self._controls: dict[str, bytes] = {}
        self._ids = iter(range(1, 2**63))

    async def connect(self) -> None:
        return

    async def close(self) -> None:
        return

    def begin(self, _outgoing: Outgoing, /) -> asyncio.Future[object] | None:
        return None

    def begun(self, _reply: object, /) -> Status:
        raise NotImplementedError("nothing begins here that append would not end at once")

    async def append(self, outgoing: Sequence[Outgoing], *, again: bool = False) -> list[Status]:
        return [self._append(item, self._delay(item), again) for item in outgoing]

    def _delay(self, item: Outgoing) -> float:
        """Seconds from now until the event is due; not above 0 if it is already."""
        return item.delay if item.at is None else (item.at - self._now()).total_seconds()

    def _append(self, item: Outgoing, delay: float, again: bool) -> Status:
        envelope, once = item.envelope, item.once
        log = self._log(envelope.stream)
        known = envelope.id in log.scheduled or (again and envelope.id in log.event_ids)
        if once is not None:
            if known:  # a publish that is repeated is no duplicate of itself
                return Status.SCHEDULED if delay > 0 else Status.STORED
            if not self._hold(log, envelope, delay, once):
                return Status.DUPLICATE
        elif known:
            return Status.DUPLICATE
        if delay > 0:
            due = self._clock() + delay
            log.scheduled[envelope.id] = (due, envelope)
            log.next_due = min(log.next_due, due)
            log.news.set()  # a read that waits for news must not wait beyond this
            return Status.SCHEDULED
        self._store(log, envelope)
        return Status.STORED

    def _hold(self, log: Log, envelope: Envelope, delay: float, once: Once) -> bool:
        """Take the dedupe key for the event. False if another event holds it and is not to be replaced."""
        scope, now = once.scope(envelope), self._clock()
        holder, until = log.holders.get(scope, ("", now))
        if until > now and not (once.replace and holder in log.scheduled and holder < envelope.id):
            return False
        log.scheduled.pop(holder, None)
        log.holders[scope] = (envelope.id, now + max(0.0, delay) + once.window)
        return True

    async def holder(self, envelope: Envelope, once: Once) -> str | None:
        holder, until = self._log(envelope.stream).holders.get(once.scope(envelope), (None, 0.0))
        return holder if until > self._clock() else None

    def _store(self, log: Log, envelope: Envelope) -> None:
        entry_id = f"{next(self._ids)}-0"
        log.entries[entry_id] = pairs([part if isinstance(part, bytes) else part.encode() for part in encode(envelope)])
        log.lanes[envelope.priority].append(entry_id)
        log.stored_at[entry_id] = self._clock()
        log.event_ids.add(envelope.id)
        log.news.set()

    def _store_collected(self, envelope: Envelope) -> None:
        """An event of a session that is being committed."""
        self._store(self._log(envelope.stream), envelope)

    async def cancel(self, event_id: str, stream: str | None = None) -> bool:
        logs = self._logs.values() if stream is None else [self._log(stream)]
        return any(log.scheduled.pop(event_id, None) for log in logs)

    async def read(self, subscription: Subscription, credit: int, wait: float) -> list[Delivery]:
        log = self._log(subscription.stream)
        cursor = log.groups.setdefault(subscription.group, Cursor())
        self._promote(log, self._clock())
        batch = take_next(log, cursor, credit)
        if not batch and credit > 0:
            await self._wait_for_news(log, wait)
            batch = take_next(log, cursor, credit)
        handed: list[str] = []
        for entry_id in batch:
            begins = not subscription.ordered or may_begin(log, cursor, entry_id)
            cursor.pending[entry_id] = Pending(subscription.consumer, self._clock(), None if begins else math.inf)
            handed += [entry_id] if begins else []
        return [Delivery(subscription, entry_id, log.entries[entry_id]) for entry_id in handed]

    async def interrupt(self, subscriptions: Sequence[Subscription]) -> None:
        for subscription in subscriptions:
            self._log(subscription.stream).news.set()

    async def unsubscribe(self, subscriptions: Sequence[Subscription], *, give_back: bool = True) -> None:
        """Nothing to do: a read that is cancelled has taken nothing."""

    async def _wait_for_news(self, log: Log, wait: float) -> None:
        """Wait until something was stored or scheduled, or is due (the next read stores it), or for `wait` seconds."""
        log.news.clear()
        pause = log.next_due - self._clock() + 0.002  # event loops count in milliseconds, and round
        with suppress(TimeoutError):
            async with asyncio.timeout(min(wait, pause)):
                await log.news.wait()

    def due_at(self, group: str, streams: Iterable[str], held: Mapping[str, float] = {}) -> float | None:
        """When, by the clock, the group has something to do on these streams. A time in the past means now; handlers
        that run are something to do. None means never.

        held: by entry id, the time before which an entry in hand does not start. While all in hand are held, nothing of
        the group starts before the first of these times."""
        logs = [self._log(stream) for stream in streams]
        cursors = [log.groups.setdefault(group, Cursor()) for log in logs]
        pending = [(entry_id, entry.due) for cursor in cursors for entry_id, entry in cursor.pending.items()]
        in_hand = [held.get(entry_id, -math.inf) for entry_id, due in pending if due is None]
        if in_hand:
            return min(in_hand)
        if any(unread(log, cursor) for log, cursor in zip(logs, cursors, strict=True)):
            return -math.inf
        dues = [due for _, due in pending if due is not None and due < math.inf]
        dues += [due for log in logs for due, _ in log.scheduled.values()]
        return min(dues, default=None)

    async def reclaim(self, subscription: Subscription, credit: int, *, suspect: bool = False) -> Reclaimed:
        for _ in range(TURNS if self._lease_is_over(subscription) else 0):
            await asyncio.sleep(0)
        log, now = self._log(subscription.stream), self._clock()
        self._promote(log, now)
        cursor = log.groups.setdefault(subscription.group, Cursor())
        found = Reclaimed()
        candidates = (
            half_of_the_suspects(cursor, subscription, now) if suspect else claimable(cursor, subscription, now)
        )
        for entry_id, pending, crashes in candidates:
            dangerous = subscription.suspect_from <= crashes < subscription.condemned_from
            if dangerous and not suspect:
                found.suspects = True
            elif len(found.deliveries) < credit:
                pending.owner, pending.touched, pending.due, pending.crashes = subscription.consumer, now, None, crashes
                fields = log.entries[entry_id]
                found.deliveries.append(Delivery(subscription, entry_id, fields, pending.failures, crashes))
        dues = [due for due, _ in log.scheduled.values()]
        dues += [pending.due for pending in cursor.pending.values() if pending.due is not None and pending.due > now]
        soonest = min(dues, default=math.inf)
        found.next_due = soonest - now if soonest < math.inf else None  # who waits in line is never due
        return found

    def _lease_is_over(self, subscription: Subscription) -> bool:
        cursor = self._log(subscription.stream).groups.setdefault(subscription.group, Cursor())
        return any(pending.due is None for _, pending, _ in claimable(cursor, subscription, self._clock()))

    def _promote(self, log: Log, now: float) -> None:
        if now < log.next_due:
            return
        due = sorted((at, event_id) for event_id, (at, _) in log.scheduled.items() if at <= now)
        for _, event_id in due:
            envelope = log.scheduled.pop(event_id)[1]
            try:
                self._store(log, envelope)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
                self._set_aside(log, envelope, error)
        log.next_due = min((at for at, _ in log.scheduled.values()), default=math.inf)

    def _set_aside(self, log: Log, envelope: Envelope, error: Exception) -> None:
        """Make a scheduled event that cannot be delivered a dead letter of no group."""
        now, reason = datetime.now(UTC), f"it was scheduled, and cannot be delivered: {error!r}"
        told.error(
            "a scheduled event cannot be delivered, and is set aside",
            stream=envelope.stream,
            event_id=envelope.id,
            reason=repr(error),
        )
        letter = DeadLetter(f"{next(self._ids)}-0", envelope.stream, "", None, {}, reason, "", 0, 0, now, now)
        log.dead[letter.id] = letter

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        lost = []
        for delivery in deliveries:
            pending = self._owned(delivery)
            if pending is None:
                lost.append(delivery)
            else:
                pending.touched = self._clock()
        return lost

    def keeper(self) -> None:
        return None

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Refusal]:
        for delivery, outcome in settlements:
            pending = self._owned(delivery)
            if isinstance(outcome, Ack):
                if pending is not None or not delivery.subscription.ordered:
                    self._pending_of(delivery).pop(delivery.entry_id, None)
            elif pending is not None:
                self._settle_owned(delivery, pending, outcome)
            if pending is not None and isinstance(outcome, Ack | Dead) and delivery.subscription.ordered:
                self._free(delivery)
        return []

    def _free(self, delivery: Delivery) -> None:
        """Hand the next event of its key to whoever has settled this one."""
        subscription = delivery.subscription
        log = self._log(subscription.stream)
        cursor = log.groups[subscription.group]
        if (following_one := following(log, cursor, delivery.entry_id)) is not None:
            cursor.pending[following_one] = Pending(subscription.consumer, self._clock())
            cursor.freed.setdefault(subscription.consumer, []).append(following_one)

    def freed(self, subscription: Subscription) -> list[Delivery]:
        log = self._log(subscription.stream)
        cursor = log.groups.setdefault(subscription.group, Cursor())
        freed = cursor.freed.pop(subscription.consumer, [])
        return [Delivery(subscription, entry_id, log.entries[entry_id]) for entry_id in freed]

    def _settle_owned(self, delivery: Delivery, pending: Pending, outcome: Retry | Snooze | Release | Dead) -> None:
        now = self._clock()
        match outcome:
            case Retry(delay):
                pending.failures, pending.crashes = max(pending.failures, delivery.failures) + 1, 0
                pending.first_failed_at = pending.first_failed_at or time.time()
                pending.due = now + delay
            case Snooze(delay, at):
                pending.due = now + delay if at is None else at / 1000
            case Release():
                pending.due = now
            case Dead():
                self._bury(delivery, pending, outcome)

    def _bury(self, delivery: Delivery, pending: Pending, outcome: Dead) -> None:
        stream, group, *_ = delivery.subscription
        try:
            envelope = decode(delivery.fields)
        except CodecError:
            envelope = None
        died_at = datetime.now(UTC)
        dead = DeadLetter(
            id=f"{next(self._ids)}-0",
            stream=stream,
            group=group,
            envelope=envelope,
            fields=delivery.fields,
            error=outcome.failure.error,
            traceback=outcome.failure.traceback,
            attempts=outcome.attempts,
            crashes=delivery.crashes,
            first_failed_at=datetime.fromtimestamp(pending.first_failed_at or died_at.timestamp(), UTC),
            died_at=died_at,
        )
        self._log(stream).dead[dead.id] = dead
        del self._pending_of(delivery)[delivery.entry_id]

    async def admit(self, requests: Sequence[Request], most: int) -> list[Answer]:
        return self._limits.admit(requests, most)

    async def stay(self, requests: Sequence[Request]) -> None:
        self._limits.stay(requests)

    async def leave(self, requests: Sequence[Request]) -> None:
        self._limits.leave(requests)

    async def spend(self, quota: str, limit: RateLimit, wanted: int) -> Spent:
        return self._limits.spend(quota, limit, wanted)

    async def control(self, name: str, value: bytes | None) -> bool:
        known = self._controls.pop(name, None) is not None
        if value is not None:
            self._controls[name] = value
        return known

    async def controls(self) -> Mapping[str, bytes]:
        return dict(self._controls)

    async def tidy(
        self,
        stream: str,
        retention: Retention,  # noqa: ARG002 - the docstring says why
        *,
        consumers: bool = True,  # noqa: ARG002 - they are only names here
    ) -> Tidied:
        """Trim what all groups have settled. Ages do not matter: nobody reads the history of a process, and `append`
        with `again` need only find what is not settled."""
        log = self._log(stream)
        cursors = log.groups.values()
        dropped = 0
        for priority, lane in log.lanes.items():
            done = min((cursor.delivered[priority] for cursor in cursors), default=0)
            open_ = {i for i, entry in enumerate(lane[:done]) if any(entry in cursor.pending for cursor in cursors)}
            done = min(open_, default=done)
            for entry_id in lane[:done]:
                del log.stored_at[entry_id]
                log.event_ids.discard(log.entries.pop(entry_id).get(b"id", b"").decode())
            del lane[:done]
            for cursor in cursors:
                cursor.delivered[priority] -= done
            dropped += done
        return Tidied(dropped, left=len(log.entries))

    async def forget_group(self, stream: str, group: str) -> bool:
        return self._log(stream).groups.pop(group, None) is not None

    async def dead_letters(self, stream: str, *, after: str = "", limit: int = 100) -> list[DeadLetter]:
        behind = [dead for dead in self._log(stream).dead.values() if _number(dead.id) > _number(after)]
        return behind[:limit]

    async def dead_letter(self, stream: str, letter_id: str) -> DeadLetter | None:
        return self._log(stream).dead.get(letter_id)

    async def streams(self) -> list[str]:
        return sorted(name for name, log in self._logs.items() if log.dead)

    async def replay(self, letter: DeadLetter) -> bool:
        if letter.envelope is None:
            raise CodecError(f"dead letter {letter.id} is no envelope: it cannot be replayed")
        log = self._log(letter.stream)
        if log.dead.pop(letter.id, None) is None:
            return False
        self._store(log, letter.envelope._replace(only=letter.group or None, replayed=True))
        return True

    async def last_firing(self, stream: str, name: str) -> LastFiring:
        now, fired = self._now(), self._log(stream).fired
        due = fired.setdefault(name, now)
        if (due - now).total_seconds() > FIRED_AHEAD:
            told.error(IMPOSSIBLE_FIRING, stream=stream, function=name, record=str(due), now=str(now))
            due = fired[name] = now
        return LastFiring(now, due)

    async def fire(self, firing: Envelope, name: str, due: datetime) -> bool:
        log = self._log(firing.stream)
        if name in log.fired and log.fired[name] >= due:
            return False
        self._store(log, firing)
        log.fired[name] = due
        return True

    def _now(self) -> datetime:
        """The time of day, which goes on as the transport's own clock does. In whole milliseconds, as servers count."""
        return datetime.fromtimestamp(round(self._epoch + self._clock(), 3), UTC)

    async def find_streams(self) -> list[str]:
        return sorted(
            name for name, log in self._logs.items() if log.entries or log.groups or log.scheduled or log.dead
        )

    async def inspect(self, streams: Collection[str]) -> list[StreamState]:
        now = self._clock()
        return [inspection.inspect(name, self._logs.get(name, Log()), now) for name in sorted(set(streams))]

    async def locate(self, event_id: str, streams: Collection[str] | None = None) -> EventStanding:
        found = (
            inspection.locate(name, log, event_id, self._clock(), self._limits.in_lines)
            for name, log in self._logs.items()
            if streams is None or name in streams
        )
        return next(filter(None, found), EventStanding(event_id))

    async def related(self, correlation_id: str, streams: Collection[str] | None = None) -> list[Related]:
        logs = [log for name, log in self._logs.items() if streams is None or name in streams]
        return [found for log in logs for found in inspection.related(log, correlation_id, self._clock())]

    async def pending(self, stream: str, group: str, entry: str) -> GroupStanding | None:
        log = self._log(stream)
        cursor = log.groups.get(group, Cursor())
        return inspection.standing(log, group, cursor, entry, self._clock()) if entry in cursor.pending else None

    async def discard(self, letter: DeadLetter) -> bool:
        return self._log(letter.stream).dead.pop(letter.id, None) is not None

    @property
    def primary(self) -> str:
        return "memory"

    async def replicated(self, count: int, streams: Collection[str]) -> int:  # noqa: ARG002 - there are none
        return 0

    async def broadcast(self, channel: str, message: bytes) -> None:
        for queue in self._listeners.get(channel, ()):
            queue.put_nowait(message)

    async def listen(self, channel: str, joined: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._listeners.setdefault(channel, set()).add(queue)
        if joined is not None:
            joined()
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners[channel].discard(queue)

    def _log(self, stream: str) -> Log:
        return self._logs.setdefault(stream, Log())

    def _pending_of(self, delivery: Delivery) -> dict[str, Pending]:
        return self._log(delivery.subscription.stream).groups[delivery.subscription.group].pending

    def _owned(self, delivery: Delivery) -> Pending | None:
        pending = self._pending_of(delivery).get(delivery.entry_id)
        owns = pending is not None and pending.due is None and pending.owner == delivery.subscription.consumer
        return pending if owns else None


def _number(entry_id: str) -> int:
    return int(entry_id.partition("-")[0] or 0)
