"""The six verbs on Redis Streams. See eventbus.transport for the contract and scripts/ for the transitions."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import structlog

from eventbus.codec import pairs
from eventbus.errors import ConfigurationError, Full
from eventbus.event import Status
from eventbus.redis import dead, scripts, settling
from eventbus.redis.keys import PARKED, group_keys, stream_keys
from eventbus.redis.link import Link, ReplyError
from eventbus.redis.notices import listen
from eventbus.redis.publishing import Publishing, promotion
from eventbus.redis.scripts import Command, ms
from eventbus.transport import (
    SUSPECT_FROM,
    DeadLetter,
    Delivery,
    Outgoing,
    Reclaimed,
    Settlement,
    Subscription,
)

COMMAND_TIMEOUT = 5.0  # seconds without any reply after which a connection is given up
CONSUMER_TTL = 3_600_000  # ms until an idle consumer without entries is forgotten

T = TypeVar("T")

log = structlog.get_logger("eventbus.redis")


class RedisTransport:
    """One connection for all writes, and one for the blocking reads of each subscription."""

    def __init__(self, url: str, *, namespace: str = "eb", timeout: float = COMMAND_TIMEOUT) -> None:
        self._url = url
        self._namespace = namespace
        self._link = Link(url, timeout=timeout, name="eventbus-write")
        self._readers: dict[Subscription, _Reader] = {}
        self._publishing = Publishing(self._link, namespace)

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

    async def append(self, outgoing: Sequence[Outgoing], *, again: bool = False) -> list[Status]:
        if again:
            return await self._publishing.repeat(outgoing)
        return await self._publishing.append(outgoing)

    # Consuming --------------------------------------------------------------------------------------------------------

    async def read(self, subscription: Subscription, credit: int, wait: float) -> list[Delivery]:
        reader = self._reader(subscription, wait)
        if credit < 1:  # COUNT 0 means all to Redis
            return []
        if reader.epoch != reader.link.epoch and (found := await self._read_own(reader, credit)):
            return found
        key = stream_keys(self._namespace, subscription.stream).stream
        try:
            reply = await reader.link.execute(
                *("XREADGROUP", "GROUP", subscription.group, subscription.consumer, "COUNT", credit),
                *("BLOCK", max(1, ms(wait)), "STREAMS", key, ">"),  # BLOCK 0 means for ever
            )
        except ReplyError as error:
            await self._create_group(subscription, error)
            return []
        if reply is None:
            return []
        return reader.hand_out(
            [Delivery(subscription, entry_id.decode(), pairs(fields)) for entry_id, fields in reply[0][1]]
        )

    async def _read_own(self, reader: "_Reader", credit: int) -> list[Delivery]:
        """After a reconnect: entries that are ours in Redis but whose reply never came.

        It looks through the connection that also settles and reclaims: its order tells what is in hand by now."""
        subscription, epoch = reader.subscription, reader.link.epoch
        key = stream_keys(self._namespace, subscription.stream).stream
        try:
            reply = await self._link.execute(
                *("XREADGROUP", "GROUP", subscription.group, subscription.consumer),
                *("COUNT", len(reader.held) + credit, "STREAMS", key, "0"),
            )
        except ReplyError as error:
            await self._create_group(subscription, error)
            return []
        lost = [(i.decode(), fields) for i, fields in reply[0][1] if fields and i.decode() not in reader.held]
        if not lost:
            reader.epoch = epoch
            return []
        keys = group_keys(self._namespace, subscription.stream, subscription.group)
        ids = [entry_id for entry_id, _ in lost[:credit]]
        failures, crashes = await scripts.run_all(
            self._link, [("HMGET", keys.failures, *ids), ("HMGET", keys.crashes, *ids)]
        )
        log.warning("found deliveries whose reply was lost", group=subscription.group, count=len(ids))
        return reader.hand_out(
            [
                Delivery(subscription, entry_id, pairs(fields), _count(failed), int(crashed or 0))
                for (entry_id, fields), failed, crashed in zip(lost[:credit], failures, crashes, strict=True)
            ]
        )

    async def reclaim(self, subscription: Subscription, credit: int, *, suspect: bool = False) -> Reclaimed:
        keys = group_keys(self._namespace, subscription.stream, subscription.group)
        await self._link.ready()
        # Whoever was cut off with us must be able to renew first: leases ran on while the server was away.
        link = self._link
        young = link.epoch > 1 and asyncio.get_running_loop().time() - link.connected_at < subscription.lease
        promoted, reclaimed = await scripts.run(
            self._link,
            [
                promotion(self._namespace, subscription.stream),
                scripts.RECLAIM(
                    keys,
                    *(subscription.group, subscription.consumer, ms(subscription.lease), 1 if suspect else credit),
                    *(SUSPECT_FROM, int(suspect), PARKED, int(young), CONSUMER_TTL, subscription.condemned_from),
                ),
            ],
        )
        if isinstance(reclaimed, ReplyError):
            await self._create_group(subscription, reclaimed)
            return Reclaimed(next_due=0.0)
        if isinstance(promoted, Full):  # its publisher is told; what was taken over must not be dropped for it
            promoted = -1
        next_due, suspects, taken = scripts.checked([promoted, reclaimed])[1]
        dues = [due / 1000 for due in (promoted, next_due) if due >= 0]
        deliveries = [
            Delivery(subscription, entry_id.decode(), pairs(fields), _count(failures), crashes)
            for entry_id, fields, failures, crashes in taken
        ]
        deliveries = self._reader(subscription).hand_out(deliveries)
        return Reclaimed(deliveries, min(dues) if dues else None, bool(suspects))

    async def _create_group(self, subscription: Subscription, error: ReplyError) -> None:
        """At 0: a group that was lost, with its stream or alone, misses nothing when it comes back."""
        if not str(error).startswith(("NOGROUP", "UNBLOCKED", "ERR no such key")):
            raise error
        key = stream_keys(self._namespace, subscription.stream).stream
        try:
            await self._link.execute("XGROUP", "CREATE", key, subscription.group, "0", "MKSTREAM")
        except ReplyError as refused:
            if not str(refused).startswith("BUSYGROUP"):
                raise
            return
        log.warning("group created", stream=subscription.stream, group=subscription.group)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        grouped = _by_subscription(deliveries)
        replies = await scripts.run_all(self._link, [self._renewal(s, mine) for s, mine in grouped.items()])
        lost = []
        for mine, reply in zip(grouped.values(), replies, strict=True):
            gone = {entry_id.decode() for entry_id in reply}
            # They stay in hand until they are settled: an outcome whose reply was lost must not meet the next delivery.
            lost += [delivery for delivery in mine if delivery.entry_id in gone]
        return lost

    def _renewal(self, subscription: Subscription, deliveries: list[Delivery]) -> Command:
        key = stream_keys(self._namespace, subscription.stream).stream
        ids = [delivery.entry_id for delivery in deliveries]
        return scripts.RENEW((key,), subscription.group, subscription.consumer, *ids)

    # Settling ---------------------------------------------------------------------------------------------------------

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await scripts.run_all(self._link, settling.commands(self._namespace, settlements))
        for delivery, _ in settlements:
            self._reader(delivery.subscription).held.discard(delivery.entry_id)

    # Dead letters and notices -----------------------------------------------------------------------------------------

    async def dead_letters(self, stream: str, *, after: str = "", limit: int = 100) -> list[DeadLetter]:
        return await dead.read(self._link, self._namespace, stream, after, limit)

    async def streams(self) -> list[str]:
        return await dead.streams(self._link, self._namespace)

    async def replay(self, letter: DeadLetter) -> bool:
        return await dead.replay(self._link, self._namespace, letter)

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


class _Reader:
    """A subscription's own connection, and what it has handed out and not seen settled."""

    def __init__(self, subscription: Subscription, link: Link) -> None:
        self.subscription = subscription
        self.link = link
        self.epoch = 0
        self.held: set[str] = set()

    def hand_out(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Those that are not in hand already: a lease may run out while its holder is busy with the event."""
        new = [delivery for delivery in deliveries if delivery.entry_id not in self.held]
        self.held.update(delivery.entry_id for delivery in new)
        return new


def _by_subscription(deliveries: Sequence[Delivery]) -> dict[Subscription, list[Delivery]]:
    grouped: dict[Subscription, list[Delivery]] = {}
    for delivery in deliveries:
        grouped.setdefault(delivery.subscription, []).append(delivery)
    return grouped


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
