"""Reading new entries: what RedisTransport.read does.

look    takes what is there and does not wait. A script does so fairly, lane by lane. While one lane alone is full, the
        usual case, two plain commands do: entries that pass through a script cost the server ten times as much
wait    blocks until there is something; it cannot tell the lanes apart
"""

import asyncio
from collections.abc import Sequence

from eventbus.contract.codec import pairs
from eventbus.contract.delivery import Delivery, Release, Settlement, Subscription
from eventbus.contract.priorities import LANES, shares
from eventbus.process.safe_logging import get_logger
from eventbus.redis import scripts, settling
from eventbus.redis.commands import creation
from eventbus.redis.keys import entry_mark, group_keys, priority_of, stream_keys
from eventbus.redis.link import Link
from eventbus.redis.links import Links, Redirected, Reply, ReplyError
from eventbus.redis.router import Router

GIVEN_BACK = 10_000  # entries of a lane that a cancelled worker gives back at the most; the leases of the rest run out
ON_THE_WAY = 0.1  # seconds between looks at a stream that is being moved to another node
_ENOUGH = 3 * len(LANES)  # a credit of which one event of each other lane is a small part

Entry = tuple[str, Sequence[bytes]]  # its name, see eventbus.redis.keys, and field, value, …

log = get_logger("eventbus.redis")


class Reader:
    """A subscription's own connection, and what it has handed out and not seen settled.

    link    the connection whose reads block
    others  the connections that settle and reclaim; a command over them sees the effect of all that were sent before it
    """

    def __init__(self, subscription: Subscription, namespace: str, link: Link, others: Router) -> None:
        self.subscription = subscription
        self.link = link
        self.quiet_until = 0.0  # loop time; before, nothing of the group can be reclaimed but what is parked
        self.brought_back: object = None  # see eventbus.redis.reclaiming
        self.held: dict[str, Delivery] = {}  # by its entry
        self.lost: set[str] = set()  # those of `held` that others may have by now: not renewed in time
        self.freed: list[Delivery] = []  # what settling has handed to it, in an ordered group
        self.shares = False  # the link is not its own
        self.cut = False  # a reply that may have handed something out was not waited for
        self._timeout = link.timeout  # on top of the time that a read waits
        self._others = others
        self._namespace = namespace
        self._lanes = stream_keys(namespace, subscription.log).lanes
        self._epoch = 0
        self._dry = False  # the last look or wait found less than it asked for: another look would find nothing
        self._full: int | None = None  # the priority of the only lane that has anything to read, if it is only one

    async def read(self, credit: int, wait: float) -> list[Delivery]:
        """If there was less than asked for, the next read waits at once. A read that waits may take half of the credit
        from each lane that was filled in between."""
        self.link.timeout = self._timeout + wait
        return await self._read(credit, wait)

    async def look(self, credit: int) -> list[Delivery]:
        """As `read`, without waiting. `dry` tells whether that was all."""
        self._dry = False
        return await self._read(credit, None)

    async def touch(self) -> list[Delivery]:
        """Read with as little as possible, so that the server notes who has asked."""
        _, group, consumer, *_ = self.subscription
        start = ("XREADGROUP", "GROUP", group, consumer, "COUNT", 1, "STREAMS")
        try:
            return self._deliveries(_named(await self.link.execute(*start, self._lanes[0], ">")))
        except asyncio.CancelledError:
            self.cut = True
            raise

    @property
    def dry(self) -> bool:
        return self._dry

    @property
    def unsure(self) -> bool:
        """A reply may have been lost that handed something out: a read looks for it."""
        return self._epoch != self.link.epoch

    def move_to(self, link: Link) -> None:
        """Read over this link, which others use as well."""
        self.link, self._epoch, self.shares = link, -1, True

    async def _read(self, credit: int, wait: float | None) -> list[Delivery]:
        if self._epoch != self.link.epoch and (lost := await self._read_own(credit)):
            return lost
        try:
            entries = [] if self._dry else await self._look(credit)
            if not entries and wait is not None:
                entries = await self._wait(max(1, credit // 2), wait)
        except asyncio.CancelledError:
            self.cut = True
            raise
        except Redirected as told:
            entries = await self._look_elsewhere(told, credit)
        except ReplyError as error:
            await create_group(self._others, self._namespace, self.subscription, error)
            return []
        return self._deliveries(entries)

    def _deliveries(self, entries: list[Entry]) -> list[Delivery]:
        subscription = self.subscription
        return self.hand_out([Delivery(subscription, entry, pairs(fields)) for entry, fields in entries])

    def hand_out(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Those that are not in hand already. A lease may run out while its holder is busy with the event, or before
        the reply has reached the holder: then the entry is handed to it again. The delivery in hand gets the new one as
        its `again`: the event may have failed elsewhere meanwhile."""
        held = self.held
        new = [delivery for delivery in deliveries if delivery.entry_id not in held]
        if len(new) < len(deliveries):
            for delivery in deliveries:
                if (known := held.get(delivery.entry_id)) is not None:
                    known.again = delivery
        held.update({delivery.entry_id: delivery for delivery in new})
        return new

    def doubt(self) -> None:
        """Something may have been handed to it by a reply that was lost: the next read looks."""
        self._epoch = -1

    async def give_back(self) -> None:
        """Gives all entries that are still this consumer's to others, if a reply may have been lost; else does
        nothing. Nothing is read any more. Raises what the link raises."""
        if not self.cut and self._epoch == self.link.epoch:
            return
        _, group, consumer, *_ = subscription = self.subscription
        if self.link.connected:
            await self._others.beside(self.link).execute("CLIENT", "UNBLOCK", self.link.client_id)
            await self.link.execute("PING")  # what was sent before has been answered when this is
        pages = await self._others.pipeline(
            [("XPENDING", lane, group, "-", "+", GIVEN_BACK, consumer) for lane in self._lanes]
        )
        names = [
            row[0].decode() + entry_mark(lane)
            for lane, rows in zip(self._lanes, pages, strict=True)
            for row in (() if isinstance(rows, Exception) else rows)  # NOGROUP: then nothing is anybody's
        ]
        left = [Settlement(Delivery(subscription, name, {}), Release()) for name in names]  # frees nothing
        await settling.settle(self._others, self._namespace, left)

    async def _look(self, credit: int) -> list[Entry]:
        if self._full is not None and credit >= _ENOUGH:
            return await self._look_at_one(self._full, credit)
        entries = await self._take(self.link, credit)
        self._dry = len(entries) < credit
        priorities = {priority_of(entry) for entry, _ in entries}
        self._full = priorities.pop() if len(priorities) == 1 and not self._dry else None
        return entries

    async def _take(self, links: Links, credit: int) -> list[Entry]:
        _, group, consumer, *_ = self.subscription
        command = scripts.READ(self._lanes, group, consumer, credit, *shares(credit))
        return [(entry.decode(), fields) for entry, fields in await scripts.call(links, command)]

    async def _look_elsewhere(self, told: Redirected, credit: int) -> list[Entry]:
        """The stream is on another node, or on its way there. The next read connects to whoever has it by then."""
        self._others.correct(told)
        if not self.shares:
            self.link.leave("the stream is on another node")
        self._dry, self._full = False, None
        entries = await self._take(self._others, credit)
        if not entries:
            await asyncio.sleep(ON_THE_WAY)
        return entries

    async def _look_at_one(self, priority: int, credit: int) -> list[Entry]:
        """Most of one lane, and one event of each other, so that none waits for longer than a look."""
        full = self._lanes[priority - 1]
        others = [lane for lane in self._lanes if lane != full]
        start = ("XREADGROUP", "GROUP", self.subscription.group, self.subscription.consumer, "COUNT")
        share = credit - len(others)
        replies = await self.link.pipeline(
            [(*start, 1, "STREAMS", *others, *(">" for _ in others)), (*start, share, "STREAMS", full, ">")]
        )
        refused = [reply for reply in replies if isinstance(reply, Exception)]
        elsewhere, here = ([] if isinstance(reply, Exception) else _named(reply) for reply in replies)
        if refused and not (elsewhere or here):
            raise refused[0]  # else what was read must be handed out, and the next look meets the error again
        if refused or elsewhere or len(here) < share:
            self._full = None
        self._dry = not (refused or elsewhere) and len(here) < share
        return elsewhere + here

    async def _wait(self, count: int, wait: float) -> list[Entry]:
        try:
            reply = await self.link.execute(
                *("XREADGROUP", "GROUP", self.subscription.group, self.subscription.consumer, "COUNT", count),
                *("BLOCK", max(1, scripts.ms(wait)), "STREAMS"),  # BLOCK 0 means for ever
                *(self._lanes + (">",) * len(self._lanes)),
            )
        except ReplyError as error:
            if not str(error).startswith("UNBLOCKED"):
                raise
            return await self._look(count)  # the key is gone, or on another node of a cluster: this tells which
        entries = _named(reply)
        self._dry = len(entries) < count
        return entries

    async def _read_own(self, credit: int) -> list[Delivery]:
        """After a reconnect: entries that are ours in Redis but whose reply never came."""
        subscription, epoch = self.subscription, self.link.epoch
        try:
            reply = await self._others.execute(
                *("XREADGROUP", "GROUP", subscription.group, subscription.consumer),
                *("COUNT", len(self.held) + credit, "STREAMS"),
                *(self._lanes + ("0",) * len(self._lanes)),
            )
        except ReplyError as error:
            await create_group(self._others, self._namespace, subscription, error)
            return []
        lost = [(entry, fields) for entry, fields in _named(reply) if fields and entry not in self.held]
        if not lost:
            self._epoch, self._dry = epoch, False
            return []
        keys = group_keys(self._namespace, subscription.log, subscription.group)
        names = [entry for entry, _ in lost[:credit]]
        failures, crashes = await scripts.run_all(
            self._others, [("HMGET", keys.failures, *names), ("HMGET", keys.crashes, *names)]
        )
        return self.hand_out(
            [
                Delivery(subscription, entry, pairs(fields), failure_count(failed), count_of(crashed))
                for (entry, fields), failed, crashed in zip(lost[:credit], failures, crashes, strict=True)
            ]
        )


def _named(reply: Reply) -> list[Entry]:
    """The entries of an XREADGROUP's reply, by their names. In RESP3 it is a map."""
    named: list[Entry] = []
    for lane, entries in reply.items() if isinstance(reply, dict) else reply or ():
        mark = entry_mark(lane.decode())
        named += [(entry_id.decode() + mark, fields) for entry_id, fields in entries]
    return named


def failure_count(record: bytes | None) -> int:
    """How many failures a record tells of: see park.lua."""
    return count_of((record or b"").partition(b" ")[0])


def first_failure(record: bytes | None) -> int | None:
    """ms at which the first failure was noted, as such a record tells; None if there was none."""
    ms = (record or b"").rpartition(b" ")[2]
    return int(ms) if failure_count(record) and ms.isdigit() else None


def count_of(value: bytes | None) -> int:
    """0 for a value that is no count: somebody else has written it."""
    return int(value) if value and value.isdigit() and len(value) < 10 else 0


async def create_group(links: Links, namespace: str, subscription: Subscription, error: ReplyError) -> None:
    """Creates the group at the beginning of each lane: one that was lost, with its stream or alone, misses nothing when
    it comes back. Raises `error` if it is not about a group that is missing."""
    if not str(error).startswith(("NOGROUP", "ERR no such key")):
        raise error
    made = await scripts.call(links, creation(namespace, subscription.log, subscription.group))
    if made:
        log.warning("group created", stream=subscription.log, group=subscription.group)
