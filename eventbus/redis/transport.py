"""The six verbs on Redis Streams. See eventbus.transport for the contract and scripts/ for the transitions."""

import asyncio
import math
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from datetime import datetime

import structlog

from eventbus.codec import encode, pairs
from eventbus.dedupe import Once
from eventbus.errors import ConfigurationError
from eventbus.event import Envelope, Status
from eventbus.inspection import EventStanding, StreamState
from eventbus.lanes import shares
from eventbus.redis import dead, dedupe, explaining, inspection, limiting, scripts, settling
from eventbus.redis.keeper import Keeper
from eventbus.redis.keys import PARKED, control_key, entry_name, fired_key, group_keys, stream_keys
from eventbus.redis.link import Link, Reply, ReplyError
from eventbus.redis.notices import listen
from eventbus.redis.publishing import Publishing, promotion
from eventbus.redis.scripts import Command, moment, ms, unix
from eventbus.redis.tracking import RedisRecords
from eventbus.retention import Retention
from eventbus.states import Records
from eventbus.transport import (
    SUSPECT_FROM,
    DeadLetter,
    Delivery,
    LastFiring,
    Outgoing,
    Reclaimed,
    Request,
    Settlement,
    Subscription,
    Tidied,
)

COMMAND_TIMEOUT = 5.0  # seconds without any reply after which a connection is given up
KEEP_AT_LEAST = 10_000  # ms; a publish is repeated within a few seconds, and must find what it stored
CONSUMER_TTL = 3_600_000  # ms until an idle consumer without entries is forgotten
QUIET_MARGIN = 0.4  # seconds after the end of a lease; G7 allows one second
LOOK_INTERVAL = 1.0  # seconds between looks at a schedule; another process may have put something in

Entry = tuple[str, list[bytes]]  # its name, see eventbus.redis.keys, and field, value, …

log = structlog.get_logger("eventbus.redis")


class RedisTransport:
    """One connection for all writes, and one for the blocking reads of each subscription."""

    def __init__(self, url: str, *, namespace: str = "eb", timeout: float = COMMAND_TIMEOUT) -> None:
        self._url = url
        self._namespace = namespace
        self._link = Link(url, timeout=timeout, name="eventbus-write")
        self._readers: dict[Subscription, _Reader] = {}
        self._schedules: dict[str, _Schedule] = {}
        self._publishing = Publishing(self._link, namespace)
        self.records: Records = RedisRecords(self._link, url, namespace)

    async def connect(self) -> None:
        server = await self._link.execute("INFO", "server")
        memory = await self._link.execute("INFO", "memory")
        version = _info(server, "redis_version")
        if int(version.partition(".")[0] or 0) < 7:
            raise ConfigurationError(f"Redis {version} is too old: 7.0 or any Valkey is needed")
        policy = _info(memory, "maxmemory_policy")
        if policy.startswith("allkeys"):
            raise ConfigurationError(
                f"maxmemory-policy is {policy!r}: Redis would drop whole streams without a word. "
                "Set it with: redis-cli CONFIG SET maxmemory-policy noeviction"
            )

    async def close(self) -> None:
        self._publishing.close()
        await asyncio.gather(*(reader.link.close() for reader in self._readers.values()), self._link.close())

    # Publishing -------------------------------------------------------------------------------------------------------

    def begin(self, outgoing: Outgoing, /) -> asyncio.Future[object] | None:
        return self._publishing.begin(outgoing)

    def append(self, outgoing: Sequence[Outgoing], *, again: bool = False) -> Coroutine[None, None, list[Status]]:
        return self._publishing.repeat(outgoing) if again else self._publishing.append(outgoing)

    async def holder(self, envelope: Envelope, once: Once) -> str | None:
        found: bytes | None = await self._link.execute("GET", dedupe.holder_key(self._namespace, envelope, once))
        return None if found is None else found.decode()

    async def cancel(self, event_id: str, stream: str | None = None) -> bool:
        return await self._publishing.cancel(event_id, stream)

    # Consuming --------------------------------------------------------------------------------------------------------

    async def read(self, subscription: Subscription, credit: int, wait: float) -> list[Delivery]:
        """A look takes what is there, fairly, lane by lane. Where that was less than it asked for, the next read waits:
        that one cannot tell the lanes apart, and may take its COUNT from each that was filled in between."""
        reader = self._reader(subscription, wait)
        if credit < 1:  # COUNT 0 means all to Redis
            return []
        if reader.epoch != reader.link.epoch and (found := await self._read_own(reader, credit)):
            return found
        try:
            entries = [] if reader.dry else await self._look(reader, credit)
            reader.dry = len(entries) < credit
            if not entries:
                count = max(1, credit // 2)
                entries = await self._wait(reader, count, wait)
                reader.dry = len(entries) < count
        except ReplyError as error:
            await self._create_group(subscription, error)
            return []
        return reader.hand_out([Delivery(subscription, entry, pairs(fields)) for entry, fields in entries])

    async def _look(self, reader: "_Reader", credit: int) -> list[Entry]:
        _, group, consumer, *_ = reader.subscription
        lanes = stream_keys(self._namespace, reader.subscription.stream).lanes
        command = scripts.READ(lanes, group, consumer, credit, *shares(credit))
        return [(entry.decode(), fields) for entry, fields in await scripts.call(reader.link, command)]

    async def _wait(self, reader: "_Reader", count: int, wait: float) -> list[Entry]:
        lanes = stream_keys(self._namespace, reader.subscription.stream).lanes
        reply = await reader.link.execute(
            *("XREADGROUP", "GROUP", reader.subscription.group, reader.subscription.consumer, "COUNT", count),
            *("BLOCK", max(1, ms(wait)), "STREAMS"),  # BLOCK 0 means for ever
            *(lanes + (">",) * len(lanes)),
        )
        return [
            (entry_name(lane.decode(), entry_id.decode()), fields)
            for lane, entries in reply or ()
            for entry_id, fields in entries
        ]

    async def _read_own(self, reader: "_Reader", credit: int) -> list[Delivery]:
        """After a reconnect: entries that are ours in Redis but whose reply never came.

        It looks through the connection that also settles and reclaims: its order tells what is in hand by now."""
        subscription, epoch = reader.subscription, reader.link.epoch
        lanes = stream_keys(self._namespace, subscription.stream).lanes
        try:
            reply = await self._link.execute(
                *("XREADGROUP", "GROUP", subscription.group, subscription.consumer),
                *("COUNT", len(reader.held) + credit, "STREAMS"),
                *(lanes + ("0",) * len(lanes)),
            )
        except ReplyError as error:
            await self._create_group(subscription, error)
            return []
        entries = [
            (entry_name(lane.decode(), entry_id.decode()), fields)
            for lane, entries in reply
            for entry_id, fields in entries
            if fields
        ]
        lost = [(entry, fields) for entry, fields in entries if entry not in reader.held]
        if not lost:
            reader.epoch, reader.dry = epoch, False
            return []
        keys = group_keys(self._namespace, subscription.stream, subscription.group)
        names = [entry for entry, _ in lost[:credit]]
        failures, crashes = await scripts.run_all(
            self._link, [("HMGET", keys.failures, *names), ("HMGET", keys.crashes, *names)]
        )
        log.warning("found deliveries whose reply was lost", group=subscription.group, count=len(names))
        return reader.hand_out(
            [
                Delivery(subscription, entry, pairs(fields), _count(failed), int(crashed or 0))
                for (entry, fields), failed, crashed in zip(lost[:credit], failures, crashes, strict=True)
            ]
        )

    async def interrupt(self, subscriptions: Sequence[Subscription]) -> None:
        readers = [self._readers[s] for s in subscriptions if s in self._readers]
        commands: list[Command] = [("CLIENT", "UNBLOCK", reader.link.client_id) for reader in readers]
        if commands:
            await self._link.pipeline(commands)

    async def reclaim(self, subscription: Subscription, credit: int, *, suspect: bool = False) -> Reclaimed:
        await self._link.ready()
        now = asyncio.get_running_loop().time()
        reader = self._reader(subscription)
        schedule = self._schedules.setdefault(subscription.stream, _Schedule())
        promoting = now >= schedule.look_at  # one look serves all groups of the stream
        quiet = now < reader.quiet_until and (not promoting or schedule.due is None)
        if quiet and not await self._peek(subscription, schedule if promoting else None):
            return Reclaimed(next_due=None if schedule.due is None else max(0.0, schedule.due - now))
        commands = [self._reclamation(subscription, 1 if suspect else credit, suspect, now)]
        commands += [promotion(self._namespace, subscription.stream)] if promoting else []
        reclaimed, *promoted = await scripts.run(self._link, commands)
        for reply in promoted:
            schedule.note(reply, now)
        if isinstance(reclaimed, ReplyError):
            await self._create_group(subscription, reclaimed)
            return Reclaimed(next_due=0.0)
        next_due, suspects, taken, pending = scripts.checked([reclaimed])[0]
        # What is delivered from now on keeps its lease for so long, and what is parked meanwhile a peek finds.
        reader.quiet_until = now + subscription.lease + QUIET_MARGIN if not pending else 0.0
        deliveries = [
            Delivery(subscription, entry.decode(), pairs(fields), _count(failures), crashes)
            for entry, fields, failures, crashes in taken
        ]
        dues = [schedule.due - now] if schedule.due is not None else []
        dues += [next_due / 1000] if next_due >= 0 else []
        return Reclaimed(reader.hand_out(deliveries), max(0.0, min(dues)) if dues else None, bool(suspects))

    def _reclamation(self, subscription: Subscription, credit: int, suspect: bool, now: float) -> Command:
        stream, group = stream_keys(self._namespace, subscription.stream), subscription.group
        # Whoever was cut off with us must be able to renew first: leases ran on while the server was away.
        young = self._link.epoch > 1 and now - self._link.connected_at < subscription.lease
        return scripts.RECLAIM(
            (*stream.lanes, *group_keys(self._namespace, subscription.stream, group)),
            *(group, subscription.consumer, ms(subscription.lease), credit),
            *(SUSPECT_FROM, int(suspect), PARKED, int(young), subscription.condemned_from),
        )

    async def _peek(self, subscription: Subscription, schedule: "_Schedule | None") -> bool:
        """Whether there is a reason to look closer: a group with nothing to do must cost next to nothing."""
        keys = [group_keys(self._namespace, subscription.stream, subscription.group).retry]
        if schedule is not None:
            keys.append(stream_keys(self._namespace, subscription.stream).due)
        something = await self._link.execute("EXISTS", *keys)
        if schedule is not None and not something:
            schedule.note(-1, asyncio.get_running_loop().time())
        return bool(something)

    async def _create_group(self, subscription: Subscription, error: ReplyError) -> None:
        """At 0: a group that was lost, with its stream or alone, misses nothing when it comes back."""
        if not str(error).startswith(("NOGROUP", "UNBLOCKED", "ERR no such key")):
            raise error
        keys = stream_keys(self._namespace, subscription.stream)
        made = await scripts.call(self._link, scripts.CREATE_GROUP((*keys.lanes, keys.groups), subscription.group))
        if made:
            log.warning("group created", stream=subscription.stream, group=subscription.group)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        replies = await scripts.run_all(self._link, self._renewals(deliveries))
        gone = {
            (subscription, entry.decode())
            for (subscription, _), lost in zip(settling.by_lane(deliveries), replies, strict=True)
            for entry in lost
        }
        # They stay in hand until they are settled: an outcome whose reply was lost must not meet the next delivery.
        return [delivery for delivery in deliveries if (delivery.subscription, delivery.entry_id) in gone]

    def keeper(self) -> Keeper:
        return Keeper(self._url, self._renewals)

    def _renewals(self, deliveries: Sequence[Delivery]) -> list[Command]:
        """One command for each lane. Called from the keeper's thread as well: it reads nothing that changes."""
        return [self._renewal(lane, entries) for lane, entries in settling.by_lane(deliveries).items()]

    def _renewal(self, lane: settling.Lane, entries: list[str]) -> Command:
        subscription, priority = lane
        key = stream_keys(self._namespace, subscription.stream).lane(priority)
        return scripts.RENEW((key,), subscription.group, subscription.consumer, *entries)

    # Settling ---------------------------------------------------------------------------------------------------------

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await scripts.run_all(self._link, settling.commands(self._namespace, settlements))
        for delivery, _ in settlements:
            self._reader(delivery.subscription).held.discard(delivery.entry_id)

    # Limits and controls ----------------------------------------------------------------------------------------------

    async def admit(self, requests: Sequence[Request]) -> list[list[float]]:
        return await limiting.admit(self._link, self._namespace, requests)

    async def stay(self, requests: Sequence[Request]) -> None:
        await limiting.stay(self._link, self._namespace, requests)

    async def leave(self, requests: Sequence[Request]) -> None:
        await limiting.leave(self._link, self._namespace, requests)

    async def control(self, name: str, value: bytes | None) -> bool:
        key = control_key(self._namespace)
        if value is None:
            return bool(await self._link.execute("HDEL", key, name))
        return not await self._link.execute("HSET", key, name, value)

    async def controls(self) -> Mapping[str, bytes]:
        flat = await self._link.execute("HGETALL", control_key(self._namespace))
        return {name.decode(): value for name, value in pairs(flat).items()}

    # Housekeeping -----------------------------------------------------------------------------------------------------

    async def tidy(self, stream: str, retention: Retention, *, consumers: bool = True) -> Tidied:
        keys = stream_keys(self._namespace, stream)
        entries, forgotten, dead_letters, missing, left = await scripts.call(
            self._link,
            scripts.TIDY(
                (*keys.lanes, keys.groups, keys.dead),
                *(ms(retention.settled), retention.settled_count, KEEP_AT_LEAST, CONSUMER_TTL, PARKED),
                *(ms(retention.dead), retention.dead_count, int(consumers)),
            ),
        )
        return Tidied(entries, forgotten, dead_letters, sorted(name.decode() for name in missing), left)

    async def forget_group(self, stream: str, group: str) -> bool:
        keys = stream_keys(self._namespace, stream)
        where = (*keys.lanes, keys.groups, *group_keys(self._namespace, stream, group))
        return bool(await scripts.call(self._link, scripts.FORGET_GROUP(where, group)))

    # Recurrence -------------------------------------------------------------------------------------------------------

    async def last_firing(self, stream: str, name: str) -> LastFiring:
        command = scripts.LAST_FIRING((fired_key(self._namespace, stream),), name)
        now, due = await scripts.call(self._link, command)
        return LastFiring(moment(now), moment(due))

    async def fire(self, firing: Envelope, name: str, due: datetime) -> bool:
        keys = (stream_keys(self._namespace, firing.stream).stream, fired_key(self._namespace, firing.stream))
        return bool(await scripts.call(self._link, scripts.FIRE(keys, name, unix(due), *encode(firing))))

    # Dead letters, inspection and notices -----------------------------------------------------------------------------

    async def dead_letters(self, stream: str, *, after: str = "", limit: int = 100) -> list[DeadLetter]:
        return await dead.read(self._link, self._namespace, stream, after, limit)

    async def dead_letter(self, stream: str, letter_id: str) -> DeadLetter | None:
        return await dead.find(self._link, self._namespace, stream, letter_id)

    async def streams(self) -> list[str]:
        return await dead.streams(self._link, self._namespace)

    async def replay(self, letter: DeadLetter) -> bool:
        return await dead.replay(self._link, self._namespace, letter)

    async def find_streams(self) -> list[str]:
        return await inspection.find_streams(self._link, self._namespace)

    async def inspect(self, streams: Collection[str]) -> list[StreamState]:
        return await inspection.read_streams(self._link, self._namespace, streams)

    async def locate(self, event_id: str, streams: Collection[str] | None = None) -> EventStanding:
        return await explaining.explain(self._link, self._namespace, event_id, streams)

    async def discard(self, letter: DeadLetter) -> bool:
        return await dead.discard(self._link, self._namespace, letter)

    async def broadcast(self, channel: str, message: bytes) -> None:
        await self._link.execute("PUBLISH", channel, message)

    def listen(self, channel: str) -> AsyncIterator[bytes]:
        return listen(self._url, channel)

    def _reader(self, subscription: Subscription, wait: float = 0.0) -> "_Reader":
        reader = self._readers.get(subscription)
        if reader is None:
            link = Link(self._url, timeout=wait + COMMAND_TIMEOUT, name=f"eventbus-read-{subscription.group}")
            reader = self._readers[subscription] = _Reader(subscription, link)
        return reader


class _Schedule:
    """When this process looks next at what a stream has scheduled."""

    def __init__(self) -> None:
        self.look_at = 0.0
        self.due: float | None = None  # when the first is due, by the loop's clock

    def note(self, promoted: Reply, now: float) -> None:
        """`promoted`: what the promotion answered. It may fail for want of memory: its publishers are told."""
        known = isinstance(promoted, int)
        self.due = now + promoted / 1000 if known and promoted >= 0 else None
        self.look_at = min(now + LOOK_INTERVAL, self.due or math.inf) if known else now


class _Reader:
    """A subscription's own connection, and what it has handed out and not seen settled."""

    def __init__(self, subscription: Subscription, link: Link) -> None:
        self.subscription = subscription
        self.link = link
        self.epoch = 0
        self.quiet_until = 0.0  # nothing of the group can come up for being reclaimed before, but for what is parked
        self.dry = False  # the last look or wait found less than it asked for: another look would find nothing
        self.held: set[str] = set()

    def hand_out(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Those that are not in hand already: a lease may run out while its holder is busy with the event."""
        new = [delivery for delivery in deliveries if delivery.entry_id not in self.held]
        self.held.update(delivery.entry_id for delivery in new)
        return new


def _count(record: bytes | None) -> int:
    """How many failures a record ('count first-failed-ms', or nothing) tells of."""
    return int(record.split(b" ")[0]) if record else 0


def _info(section: bytes, name: str) -> str:
    """One value of an INFO section, '' if it is not there."""
    for line in section.decode().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value
    return ""
