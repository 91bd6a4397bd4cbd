"""Bugs to plant, each of which the search must find: a check that has never failed proves nothing."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

from eventbus.consuming.consumer import Consumer
from eventbus.consuming.lease_renewal import Renewal
from eventbus.contract.delivery import Ack, Delivery, Settlement
from eventbus.contract.outgoing import Outgoing
from eventbus.event import Status
from eventbus.postgres import relay, relay_decisions
from eventbus.postgres.relay_decisions import Relaying
from eventbus.publishing.publisher import Publisher
from eventbus.redis import link, scripts, transport
from eventbus.redis.publishing import Publishing
from eventbus.redis.pulse import Pulse
from eventbus.redis.reading import Reader
from tests.simulation.plan import Fault, Work


class Plant(NamedTuple):
    """`put` plants it; `found`: what the search says of it, one of these; `faults` and `work`: what is to happen in
    each schedule beside what is drawn, so that few are needed."""

    put: Callable[[ExitStack], None]
    found: tuple[str, ...]
    faults: tuple[Fault, ...]
    work: tuple[Work, ...]


Put = Callable[[ExitStack], None]

PLANTS: dict[str, Plant] = {}


def plant(*found: str, faults: tuple[Fault, ...] = (), work: tuple[Work, ...] = ()) -> Callable[[Put], Put]:
    def register(put: Put) -> Put:
        PLANTS[put.__name__.replace("_", " ")] = Plant(put, found, faults, work)
        return put

    return register


@contextmanager
def planted(name: str) -> Iterator[Plant]:
    with ExitStack() as stack:
        chosen = PLANTS[name]
        chosen.put(stack)
        yield chosen


def rewrite(stack: ExitStack, script: scripts.Script, *changes: tuple[str, str]) -> None:
    """Another text for a script. Each change must find what it changes."""
    text = script.text
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    stack.enter_context(mock.patch.object(script, "text", text))
    stack.enter_context(mock.patch.object(script, "digest", digest))
    stack.enter_context(mock.patch.dict(scripts._texts, {digest: text}))


ALONE, FINAL = "lives and was not held up, runs it", "had done it"
TWICE, LOST, UNDRAINED = "in the stream more than once", "neither done nor dead", "not drained"


@plant(ALONE)
def leases_are_not_renewed(stack: ExitStack) -> None:
    rewrite(stack, scripts.RENEW, ("redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'JUSTID')", ""))


@plant(ALONE)
def a_reclaim_looks_at_no_lease(stack: ExitStack) -> None:
    rewrite(stack, scripts.RECLAIM, ("tonumber(ARGV[3])", "0"))


@plant(TWICE)
def a_promotion_leaves_it_in_the_schedule(stack: ExitStack) -> None:
    rewrite(
        stack,
        scripts.PROMOTE,
        ("redis.call('HDEL', KEYS[12], id)", ""),
        ("redis.call('ZREM', KEYS[11], id)", "redis.call('ZADD', KEYS[11], now + 1000, id)"),
    )


@plant("due at")
def a_promotion_is_early(stack: ExitStack) -> None:
    rewrite(stack, scripts.PROMOTE, ("'-inf', now", "'-inf', now + 2000"))


@plant("due at")
def a_retry_is_early(stack: ExitStack) -> None:
    rewrite(stack, scripts.RECLAIM, ("'-inf', now, 'LIMIT'", "'-inf', now + 400, 'LIMIT'"))


@plant(UNDRAINED, FINAL)
def settling_forgets_some(stack: ExitStack) -> None:
    real = transport.RedisTransport.settle

    async def settle(self: transport.RedisTransport, settlements: Sequence[Settlement]) -> None:
        await real(self, [each for each in settlements if not each.delivery.entry_id.endswith(("3-0", "7-0"))])

    stack.enter_context(mock.patch.object(transport.RedisTransport, "settle", settle))


@plant("the counts miss", faults=(Fault("lost reply", 0, 0.0, 0.0, "ack", "after", 2),))
def what_is_acknowledged_again_is_counted_again(stack: ExitStack) -> None:
    rewrite(stack, scripts.ACK, ("if done > 0 then", "if true then done = #ARGV - 2"))


@plant("scheduled events")
def what_is_promoted_is_not_counted(stack: ExitStack) -> None:
    rewrite(stack, scripts.PROMOTE, ("redis.pcall('HINCRBY', KEYS[14], name, count)", ""))


@plant("the counts miss")
def a_dead_letter_is_not_counted(stack: ExitStack) -> None:
    rewrite(stack, scripts.BURY, ("redis.pcall('HINCRBY', KEYS[6], ARGV[4], done)", ""))


@plant(LOST)
def what_is_read_is_acknowledged_at_once(stack: ExitStack) -> None:
    real = Consumer._take

    def take(self: Consumer, deliveries: list[Delivery], asked: float) -> None:
        real(self, deliveries, asked)
        self._outcomes += [Settlement(delivery, Ack()) for delivery in deliveries]
        self._settle_due.set()

    stack.enter_context(mock.patch.object(Consumer, "_take", take))


@plant(LOST, faults=(Fault("lost request", 0, 0.0, 0.0, "XADD", "before"),))
def a_publish_answers_before_it_is_stored(stack: ExitStack) -> None:
    async def append(self: Publisher, outgoing: Sequence[Outgoing]) -> list[Status]:
        for item in outgoing:
            if self.transport.begin(item) is None:
                return await self.transport.append(outgoing)
        return [Status.STORED] * len(outgoing)

    stack.enter_context(mock.patch.object(Publisher, "append", append))


@plant(TWICE)
def a_repeated_publish_does_not_look_back(stack: ExitStack) -> None:
    def repeat(self: Publishing, outgoing: Sequence[Outgoing]) -> Any:
        return self.append(outgoing)

    stack.enter_context(mock.patch.object(Publishing, "repeat", repeat))


@plant("is waiting since", faults=(Fault("lost reply", 0, 0.0, 0.0, "SERVED", "after", 2),))
def own_entries_are_not_read_after_a_reconnect(stack: ExitStack) -> None:
    async def read_own(self: Reader, credit: int) -> list[Delivery]:
        self._epoch = self.link.epoch
        return []

    stack.enter_context(mock.patch.object(Reader, "_read_own", read_own))


@plant("is tried again", "is no poison", ALONE, faults=(Fault("freeze", 0, 7.0, 12.0), Fault("freeze", 1, 12.0, 11.0)))
def who_fails_late_is_not_asked_whether_it_is_his(stack: ExitStack) -> None:
    rewrite(stack, scripts.PARK, ("id, id, 1, ARGV[2])", "id, id, 1)"))
    rewrite(stack, scripts.BURY, ("id, id, 1, ARGV[2])", "id, id, 1)"))


# Cures of what the search has found, taken out again -----------------------------------------------------------------

SILENT = Fault("freeze server", 0, 13.0, 12.0)
LONG = Work(0, 6.0, 0, 25.0, 0, 0.0, 5, "direct", 0.0)
QUICK = Work(0, 8.5, 0, 0.0, 0, 0.0, 5, "direct", 0.0)
ROW = Work(0, 10.5, 0, 0.0, 0, 0.0, 5, "outbox", 0.0)


@plant(ALONE, faults=(SILENT,))
def a_reclaim_that_is_late_takes_leases_all_the_same(stack: ExitStack) -> None:
    rewrite(stack, scripts.RECLAIM, ("math.max(0, now - (tonumber(ARGV[8]) or now))", "0"))


@plant(ALONE, faults=(SILENT._replace(kind="kill server", at=8.0),), work=(LONG,))
def a_lease_runs_while_nobody_can_renew_it(stack: ExitStack) -> None:
    stack.enter_context(mock.patch.object(Pulse, "age_needed", lambda _self, lease: lease))


@plant(TWICE, faults=(Fault("lost reply", 0, 10.4, 0.0, "XADD", "after", 1),), work=(ROW, ROW))
def a_relay_in_doubt_looks_once(stack: ExitStack) -> None:
    """At the first batch, and not until the outbox was seen empty. Two rows are sent together, and then one by one."""
    stack.enter_context(mock.patch.object(relay, "BATCH", 2))
    stack.enter_context(mock.patch.object(relay, "IN_DOUBT", 0.5))

    def begin(self: Relaying, _highest: int) -> None:
        self._tried_to = 1

    def must_look(self: Relaying, *_: object) -> bool:
        doubt, self._tried_to = self._tried_to > 0, 0
        return doubt

    stack.enter_context(mock.patch.object(Relaying, "begin", begin))
    stack.enter_context(mock.patch.object(Relaying, "must_look", must_look))


@plant(TWICE, faults=(Fault("sleep", 0, 8.0, 6.0, "PROVE", "after"),), work=(ROW,))
def a_relay_that_slept_goes_on_where_it_was(stack: ExitStack) -> None:
    stack.enter_context(mock.patch.object(relay_decisions, "STALE", float("inf")))


@plant(
    TWICE,
    faults=(Fault("late", -1, 8.0, 3.0, odds=(0.1, 0.9)), Fault("reset", -1, 9.5, 0.0, odds=(0.9, 0.9))),
    work=(QUICK,),
)
def a_connection_leaves_the_one_before_it_alone(stack: ExitStack) -> None:
    async def name_of(_replies: object) -> tuple[str, ...]:
        return ()

    stack.enter_context(mock.patch.object(link, "_name_of", name_of))


@plant(ALONE, faults=(Fault("freeze", 0, 7.0, 13.0),), work=(QUICK._replace(seconds=25.0),))
def who_was_stopped_begins_what_it_had(stack: ExitStack) -> None:
    async def sure(_self: Renewal, _delivery: Delivery) -> bool:
        return True

    stack.enter_context(mock.patch.object(Renewal, "sure", sure))


@plant("and has failed", faults=(Fault("kill server", 0, 0.0, 1.0, "park", "after"),))
def a_failure_that_is_told_again_counts_again(stack: ExitStack) -> None:
    """As when who has it in hand is taken to know what his own failure has made of it."""
    real = Reader.hand_out

    def hand_out(self: Reader, deliveries: list[Delivery]) -> list[Delivery]:
        new = real(self, deliveries)
        for delivery in self.held.values():
            delivery.catch_up()
        return new

    stack.enter_context(mock.patch.object(Reader, "hand_out", hand_out))
