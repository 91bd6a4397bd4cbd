"""The six verbs on Redis Streams. See eventbus.contract.transport for the contract and scripts/ for the transitions."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from eventbus.contract.activity_stats import Tallies
from eventbus.contract.circuits import Circuits
from eventbus.contract.codec import encode, pairs
from eventbus.contract.dead_letters import DeadLetter
from eventbus.contract.dedupe import Once
from eventbus.contract.delivery import Delivery, Reclaimed, Refusal, Settlement, Subscription
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
from eventbus.errors import ConfigurationError, EventBusError, Unavailable
from eventbus.event import Envelope, Status
from eventbus.process.affinity import Affinity
from eventbus.process.safe_logging import get_logger
from eventbus.process.supervision import supervise
from eventbus.redis import dead_letters, explaining, inspection, limiting, related, scripts, settling
from eventbus.redis.bells import Bells
from eventbus.redis.blocking_renewal import Keeper
from eventbus.redis.circuits import RedisCircuits
from eventbus.redis.divided_reading import DividedReader
from eventbus.redis.keys import (
    channel_name,
    control_key,
    fired_key,
    group_keys,
    order_key,
    quota_key,
    stream_keys,
)
from eventbus.redis.link import Link
from eventbus.redis.links import Command, ReplyError
from eventbus.redis.notices import listen
from eventbus.redis.ordered_reading import OrderedReader
from eventbus.redis.partitions import Partitions
from eventbus.redis.publishing import Publishing, fate
from eventbus.redis.pulse import Pulses
from eventbus.redis.reading import Reader
from eventbus.redis.recent import RedisRecent
from eventbus.redis.reclaiming import Reclaiming
from eventbus.redis.records import RedisRecords
from eventbus.redis.replication import Replicas, warn_unguarded
from eventbus.redis.router import Router
from eventbus.redis.scripts import moment, ms, unix
from eventbus.redis.sentinels import Sentinels
from eventbus.redis.sessions import RedisLedger
from eventbus.redis.tallies import RedisTallies
from eventbus.redis.tidying import Tidying

COMMAND_TIMEOUT = 5.0  # seconds without any reply after which a connection is given up
GIVE_BACK_TIMEOUT = 1.0  # seconds that a cancelled worker may take to give back what it has not seen
RENEW_BATCH = 500  # entries in one script, some 5 ms: the server has a turn for others in between

log = get_logger("eventbus.redis")


class RedisTransport:
    """One connection to each server for all writes, and one for the blocking reads of each subscription."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "eb",
        timeout: float = COMMAND_TIMEOUT,
        affinity: Affinity | None = None,
        partitions: Mapping[str, int] = {},
    ) -> None:
        self._watching: list[asyncio.Task[None]] = []
        self._affinity = affinity or Affinity()
        self._namespace = namespace
        self._router = Router(url, timeout=timeout, name="eventbus-write", affinity=self._affinity)
        self._readers: dict[Subscription, Reader] = {}
        self._told_of_refusal = False
        self._pulses = Pulses(self._router)
        self._reclaiming = Reclaiming(self._router, namespace, self._pulses, timeout)
        self._partitions = Partitions(self._router, namespace, partitions)
        self.sessions: Ledger = RedisLedger(self._router, namespace, self._partitions)
        self._publishing = Publishing(self._router, namespace, self._partitions)
        self._tidying = Tidying(self._router, namespace, self._partitions)
        self._divided: dict[Subscription, DividedReader] = {}
        self._bells = Bells(self._router, COMMAND_TIMEOUT, self._affinity)
        self.records: Records = RedisRecords(self._router, namespace)
        self.circuits: Circuits = RedisCircuits(self._router, namespace)
        self.recent: Recent = RedisRecent(self._router, namespace)
        self.tallies: Tallies = RedisTallies(self._router, namespace)
        self._replicas = Replicas(self._router, namespace, self._affinity)

    async def connect(self) -> None:
        nodes = await self._router.nodes()
        await asyncio.gather(*(_check(node) for node in nodes))
        where = self._router.where
        await warn_unguarded(nodes[0], where.name, watched=isinstance(where, Sentinels))
        await self._partitions.declare()
        watch = partial(self._router.watch, self._follow)
        self._watching = [
            asyncio.create_task(supervise("servers", watch, endless=False), name="servers"),
            asyncio.create_task(supervise("partitions", self._partitions.watch), name="partitions"),
        ]

    def _follow(self) -> None:
        """Something is where it was not before: what an old primary still acknowledges, it will lose."""
        self._router.follow()
        self._replicas.follow()
        self._bells.follow()
        for reader in self._readers.values():
            reader.link.follow()

    async def close(self) -> None:
        for watching in self._watching:
            watching.cancel()
        if self._watching:
            await asyncio.wait(self._watching)
        self._publishing.close()
        await self._pulses.close()
        await self._bells.close()
        await asyncio.gather(*(reader.link.close() for reader in self._readers.values()), self._router.close())
        await self._replicas.close()

    # Publishing -------------------------------------------------------------------------------------------------------

    def begin(self, outgoing: Outgoing, /) -> asyncio.Future[object] | None:
        return self._publishing.begin(outgoing)

    def begun(self, reply: Any, /) -> Status:
        return fate(reply)

    def append(self, outgoing: Sequence[Outgoing], *, again: bool = False) -> Coroutine[None, None, list[Status]]:
        return self._publishing.repeat(outgoing) if again else self._publishing.append(outgoing)

    async def holder(self, envelope: Envelope, once: Once) -> str | None:
        return await self._publishing.holder(envelope, once)

    async def cancel(self, event_id: str, stream: str | None = None) -> bool:
        return await self._publishing.cancel(event_id, stream)

    @property
    def primary(self) -> str:
        return self._router.server_id

    async def replicated(self, count: int, streams: Collection[str]) -> int:
        logs = self._partitions.all_logs(streams)
        return await self._replicas.have(count, {stream_keys(self._namespace, each).stream for each in logs})

    # Consuming --------------------------------------------------------------------------------------------------------

    async def read(self, subscription: Subscription, credit: int, wait: float) -> list[Delivery]:
        if credit < 1:  # COUNT 0 means all to Redis
            return []
        divided = self._divided_reader(subscription)
        return await (self._reader(subscription) if divided is None else divided).read(credit, wait)

    async def interrupt(self, subscriptions: Sequence[Subscription]) -> None:
        for divided in [self._divided[s] for s in subscriptions if s in self._divided]:
            divided.interrupt()
        # Among them those that wait since before their stream grew.
        readers = [self._readers[s] for s in subscriptions if s in self._readers and not self._readers[s].shares]
        ends: dict[Link, list[Command]] = {}
        for reader in readers:
            ends.setdefault(self._router.beside(reader.link), []).append(("CLIENT", "UNBLOCK", reader.link.client_id))
        for replies in await asyncio.gather(*(link.pipeline(commands) for link, commands in ends.items())):
            self._note_refusal(next((reply for reply in replies if isinstance(reply, ReplyError)), None))

    def _note_refusal(self, refusal: ReplyError | None) -> None:
        """One line: this is asked every few milliseconds until the last read has ended, by itself if need be."""
        if refusal is not None and not self._told_of_refusal:
            told = "this login may not end waiting reads: stopping and pausing take seconds, see `eventbus doctor`"
            log.error(told, reason=str(refusal))
            self._told_of_refusal = True

    async def unsubscribe(self, subscriptions: Sequence[Subscription], *, give_back: bool = True) -> None:
        for divided in [self._divided.pop(each) for each in subscriptions if each in self._divided]:
            divided.leave()
        mine = {each._replace(partition=0) for each in subscriptions}
        gone = [each for each in self._readers if each._replace(partition=0) in mine]
        readers = [self._readers.pop(each) for each in gone]
        read = {subscription.log for subscription in self._readers}
        for subscription in gone:
            if subscription.log not in read:
                self._reclaiming.forget(subscription.log)
        try:
            if give_back and readers:
                async with asyncio.timeout(GIVE_BACK_TIMEOUT):
                    given = await asyncio.gather(*(each.give_back() for each in readers), return_exceptions=True)
                for error in given:  # one node that is away keeps nothing from going back at others
                    if error is not None:
                        raise error
        except (EventBusError, TimeoutError) as error:
            log.debug("leases will run out", reason=str(error))
        finally:
            await asyncio.gather(*(reader.link.close() for reader in readers if not reader.shares))

    async def reclaim(self, subscription: Subscription, credit: int, *, suspect: bool = False) -> Reclaimed:
        divided = self._divided_reader(subscription)
        if divided is None:
            return await self._reclaiming.reclaim(self._reader(subscription), credit, suspect=suspect)
        return await divided.reclaim(partial(self._reclaiming.reclaim, suspect=suspect), credit, suspect=suspect)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        slices = _slices(deliveries)
        replies = await scripts.run_all(self._router, [self._renewal(lane, entries) for lane, entries in slices])
        gone = {
            (subscription, entry.decode())
            for ((subscription, _), _), lost in zip(slices, replies, strict=True)
            for entry in lost
        }
        # Lost deliveries stay in hand until they are settled: an outcome that is sent again, since its reply was lost,
        # must not meet the next delivery of the entry. Nor does this consumer reclaim them meanwhile: their handlers
        # run on here, and others are free to run them.
        for subscription, entry in gone:
            if (reader := self._readers.get(subscription)) is not None and entry in reader.held:
                reader.lost.add(entry)
        return [delivery for delivery in deliveries if (delivery.subscription, delivery.entry_id) in gone]

    def keeper(self) -> Keeper:
        return Keeper(self._router, self._renewals)

    def _renewals(self, deliveries: Sequence[Delivery]) -> list[Command]:
        """Called from the keeper's thread as well: it reads nothing that changes."""
        return [self._renewal(lane, entries) for lane, entries in _slices(deliveries)]

    def _renewal(self, lane: settling.Lane, entries: list[str]) -> Command:
        subscription, priority = lane
        key = stream_keys(self._namespace, subscription.log).lane(priority)
        return scripts.RENEW((key,), subscription.group, subscription.consumer, *entries)

    # Settling ---------------------------------------------------------------------------------------------------------

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Refusal]:
        try:
            refusals, freed = await settling.settle(self._router, self._namespace, settlements)
        except BaseException:  # cancelled, too
            self._doubt(settlements)
            raise
        self._doubt([settlement for settlement, error in refusals if isinstance(error, Unavailable)])
        refused = {id(refusal.settlement.delivery) for refusal in refusals}
        if self._divided:
            self._tidying.note({delivery.subscription for delivery, _ in settlements})
        reader = None
        for delivery, _ in settlements:
            if reader is None or reader.subscription is not delivery.subscription:
                reader = self._readers.get(delivery.subscription)  # None if it is not read any more
            if reader is None or (refused and id(delivery) in refused):
                continue
            reader.held.pop(delivery.entry_id, None)
            if reader.lost:
                reader.lost.discard(delivery.entry_id)
        for delivery in freed:
            if (reader := self._readers.get(delivery.subscription)) is not None:  # else its lease runs out
                reader.freed += reader.hand_out([delivery])
        return refusals

    def _doubt(self, settlements: Sequence[Settlement]) -> None:
        """What these have freed may have been handed out by a reply that was lost."""
        for subscription in {delivery.subscription for delivery, _ in settlements if delivery.subscription.ordered}:
            if (reader := self._readers.get(subscription)) is not None:
                reader.doubt()

    def freed(self, subscription: Subscription) -> list[Delivery]:
        divided = self._divided.get(subscription)
        readers = [self._readers.get(subscription)] if divided is None else divided.readers
        freed: list[Delivery] = []
        for reader in readers:
            if reader is not None and reader.freed:
                freed, reader.freed = freed + reader.freed, []
        return freed

    # Limits and controls ----------------------------------------------------------------------------------------------

    async def admit(self, requests: Sequence[Request], most: int) -> list[Answer]:
        return await limiting.admit(self._router, self._namespace, requests, most)

    async def stay(self, requests: Sequence[Request]) -> None:
        await limiting.stay(self._router, self._namespace, requests)

    async def leave(self, requests: Sequence[Request]) -> None:
        await limiting.leave(self._router, self._namespace, requests)

    async def spend(self, quota: str, limit: RateLimit, wanted: int) -> Spent:
        return await limiting.spend(self._router, quota_key(self._namespace, quota), limit, wanted)

    async def control(self, name: str, value: bytes | None) -> bool:
        key = control_key(self._namespace)
        if value is None:
            return bool(await self._router.execute("HDEL", key, name))
        return not await self._router.execute("HSET", key, name, value)

    async def controls(self) -> Mapping[str, bytes]:
        flat = await self._router.execute("HGETALL", control_key(self._namespace))
        return {name.decode(errors="backslashreplace"): value for name, value in pairs(flat).items()}

    # Housekeeping -----------------------------------------------------------------------------------------------------

    async def tidy(self, stream: str, retention: Retention, *, consumers: bool = True) -> Tidied:
        return await self._tidying.tidy(stream, retention, consumers=consumers)

    async def forget_group(self, stream: str, group: str) -> bool:
        calls: list[Command] = []
        for each in self._partitions.logs(stream):
            keys = stream_keys(self._namespace, each)
            where = (*keys.lanes, keys.groups, *group_keys(self._namespace, each, group), keys.counts)
            calls.append(scripts.FORGET_GROUP((*where, order_key(self._namespace, each, group)), group))
        return any(await scripts.run_all(self._router, calls))

    # Recurrence -------------------------------------------------------------------------------------------------------

    async def last_firing(self, stream: str, name: str) -> LastFiring:
        command = scripts.LAST_FIRING((fired_key(self._namespace, stream),), name, ms(FIRED_AHEAD))
        now, due, instead = await scripts.call(self._router, command)
        if instead:
            log.error(IMPOSSIBLE_FIRING, stream=stream, function=name, record=repr(instead), now=str(moment(now)))
        return LastFiring(moment(now), moment(due))

    async def fire(self, firing: Envelope, name: str, due: datetime) -> bool:
        keys = (stream_keys(self._namespace, firing.stream).stream, fired_key(self._namespace, firing.stream))
        return bool(await scripts.call(self._router, scripts.FIRE(keys, name, unix(due), *encode(firing))))

    # Dead letters, inspection and notices -----------------------------------------------------------------------------

    async def dead_letters(self, stream: str, *, after: str = "", limit: int = 100) -> list[DeadLetter]:
        return await dead_letters.read(self._router, self._namespace, stream, after, limit)

    async def dead_letter(self, stream: str, letter_id: str) -> DeadLetter | None:
        return await dead_letters.find(self._router, self._namespace, stream, letter_id)

    async def streams(self) -> list[str]:
        return await dead_letters.streams(self._router, self._namespace)

    async def replay(self, letter: DeadLetter) -> bool:
        return await dead_letters.replay(self._router, self._namespace, letter)

    async def find_streams(self) -> list[str]:
        return await inspection.find_streams(self._router, self._namespace)

    async def inspect(self, streams: Collection[str]) -> list[StreamState]:
        return await inspection.read_streams(self._router, self._namespace, streams)

    async def locate(self, event_id: str, streams: Collection[str] | None = None) -> EventStanding:
        return await explaining.explain(self._router, self._namespace, event_id, streams)

    async def related(self, correlation_id: str, streams: Collection[str] | None = None) -> list[Related]:
        return await related.related(self._router, self._namespace, correlation_id, streams)

    async def pending(self, stream: str, group: str, entry: str) -> GroupStanding | None:
        return await explaining.pending(self._router, self._namespace, stream, group, entry)

    async def discard(self, letter: DeadLetter) -> bool:
        return await dead_letters.discard(self._router, self._namespace, letter)

    async def broadcast(self, channel: str, message: bytes) -> None:
        await self._router.execute("PUBLISH", self._channel(channel), message)

    def listen(self, channel: str, joined: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
        self._affinity.check()
        return listen(self._router.anywhere(), self._channel(channel), joined)

    def _channel(self, channel: str) -> str:
        return channel_name(self._namespace, self._router.database, channel)

    def _divided_reader(self, subscription: Subscription) -> DividedReader | None:
        """None where the stream has one log alone."""
        if not self._partitions.divisions or (count := len(self._partitions.logs(subscription.stream))) == 1:
            return None
        divided = self._divided.get(subscription)
        if divided is None:
            divided = self._divided[subscription] = DividedReader(self._bells, self._router, self._namespace)
        known = len(divided.readers)
        divided.cover(self._reader(subscription._replace(partition=number)) for number in range(known, count))
        return divided

    def _reader(self, subscription: Subscription) -> Reader:
        reader = self._readers.get(subscription)
        if reader is None:
            name = f"eventbus-read-{subscription.group}"
            key = stream_keys(self._namespace, subscription.log).stream
            where = self._router.where_is(key)
            link = Link(where, timeout=COMMAND_TIMEOUT, name=name, affinity=self._affinity)
            made = OrderedReader if subscription.ordered else Reader
            reader = self._readers[subscription] = made(subscription, self._namespace, link, self._router)
            self._pulses.watch(key, subscription.lease)
        return reader


def _slices(deliveries: Sequence[Delivery]) -> list[tuple[settling.Lane, list[str]]]:
    """Entries of one lane each, and not too many at a time."""
    return [
        (lane, entries[start : start + RENEW_BATCH])
        for lane, entries in settling.by_lane(deliveries).items()
        for start in range(0, len(entries), RENEW_BATCH)
    ]


async def _check(node: Link) -> None:
    """Raises ConfigurationError for a server that cannot be relied on."""
    server, memory = await scripts.run_all(node, [("INFO", "server"), ("INFO", "memory")])
    version, policy = _info(server, "redis_version"), _info(memory, "maxmemory_policy")
    if int(version.partition(".")[0] or 0) < 7:
        raise ConfigurationError(f"Redis {version} is too old: 7.0 or any Valkey is needed")
    if policy.startswith("allkeys"):
        raise ConfigurationError(
            f"maxmemory-policy is {policy!r}: Redis would drop whole streams without a word. "
            "Set it with: redis-cli CONFIG SET maxmemory-policy noeviction"
        )


def _info(section: bytes, name: str) -> str:
    """One value of an INFO section, '' if it is not there."""
    for line in section.decode().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value
    return ""
