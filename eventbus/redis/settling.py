"""Outcomes to commands: the one place that ends deliveries in Redis."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from eventbus.contract.codec import pairs
from eventbus.contract.delivery import Ack, Dead, Delivery, Refusal, Release, Retry, Settlement, Snooze, Subscription
from eventbus.errors import LONGEST_DELAY, EventBusError, Unavailable
from eventbus.event import NORMAL_PRIORITY
from eventbus.redis import dead_letters, scripts
from eventbus.redis.keys import PARKED, group_keys, order_key, priority_of, stream_keys
from eventbus.redis.links import Command, Links, Reply, ReplyError
from eventbus.redis.scripts import ms

ACK_BATCH = 500  # Lua unpacks at most some 8,000 values
REST_BATCH = 100  # entries that are put off for a limit's sake, in one call

_TYPES = {"retry": "zset", "failures": "hash", "crashes": "hash", "counts": "hash"}  # by the last part of a key

Lane = tuple[Subscription, int]
Acks = dict[Lane, list[str]]


class Step(NamedTuple):
    """A command, and what it settles: some settlements, or the acknowledged entries of a lane. `frees`: what its reply
    hands out, where the group is ordered."""

    command: Command
    settlements: Sequence[Settlement] = ()
    lane: Lane | None = None
    entries: Sequence[str] = ()
    frees: Callable[[Reply], Sequence[Reply]] | None = None


class Settled(NamedTuple):
    """`refusals`: what was refused, each for itself. `freed`: what was handed out instead, in ordered groups."""

    refusals: list[Refusal]
    freed: list[Delivery]


async def settle(links: Links, namespace: str, settlements: Sequence[Settlement]) -> Settled:
    """In one write. What has no reply, because its node of a cluster is away, is refused with Unavailable. Raises that
    if nothing has one."""
    steps, refusals = _steps(namespace, settlements)
    freed: list[Delivery] = []
    replies = await _run(links, [step.command for step in steps])
    if replies and all(isinstance(reply, Unavailable) for reply in replies):
        raise replies[0]
    for step, reply in zip(steps, replies, strict=True):
        if isinstance(reply, Exception):
            error = await _explained(links, step, reply)
            refusals += [Refusal(settlement, error) for settlement in _settled_by(step, settlements)]
        elif step.frees is not None:
            subscription = step.settlements[0].delivery.subscription
            freed += [Delivery(subscription, entry.decode(), pairs(fields)) for entry, fields in step.frees(reply)]
    return Settled(refusals, freed)


async def _explained(links: Links, step: Step, error: Exception) -> Exception:
    """The error to tell: it names the keys if some are of a wrong type. Somebody else has put these there, and only an
    operator can move them away."""
    if not isinstance(error, ReplyError) or "WRONGTYPE" not in str(error):
        return error
    keys = [str(key) for key in step.command[3 : 3 + int(step.command[2])]]
    types: list[bytes | Exception] = await scripts.run(links, [("TYPE", key) for key in keys])
    foreign = [
        f"{key} is a {found.decode()} and should be a {_type_of(key)}: "
        f"move it away, e.g. with RENAME {key} {key}:foreign"
        for key, found in zip(keys, types, strict=True)
        if isinstance(found, bytes) and found.decode() not in {"none", _type_of(key)}
    ]
    return ReplyError("; ".join(foreign)) if foreign else error


def _type_of(key: str) -> str:
    return _TYPES.get(key.rpartition(":")[2], "stream")


async def _run(links: Links, commands: list[Command]) -> list[Reply]:
    """Replies in order, an error in place of each that was refused or has none."""
    try:
        return await scripts.each(links, commands)
    except EventBusError:
        raise
    except Exception as error:  # noqa: BLE001 - it is the reason of a refusal
        # One of them could not be made into bytes, and so none was sent.
        return [error] if len(commands) == 1 else [reply for each in commands for reply in await _run(links, [each])]


def _settled_by(step: Step, settlements: Sequence[Settlement]) -> Iterator[Settlement]:
    if step.settlements:
        yield from step.settlements
        return
    entries = set(step.entries)
    for settlement in settlements:
        delivery, outcome = settlement
        lane = delivery.subscription, priority_of(delivery.entry_id)
        if isinstance(outcome, Ack) and lane == step.lane and delivery.entry_id in entries:
            yield settlement


def by_lane(deliveries: Iterable[Delivery]) -> dict[Lane, list[str]]:
    """Their entries, by subscription and priority: a command deals with one lane."""
    grouped: dict[Lane, list[str]] = {}
    lane, entries = None, []  # of the delivery before: most are of the same lane, and a look-up costs more
    for delivery in deliveries:
        entry, subscription = delivery.entry_id, delivery.subscription
        priority = priority_of(entry) if "@" in entry else NORMAL_PRIORITY
        if lane is None or lane[0] is not subscription or lane[1] != priority:
            lane = subscription, priority
            entries = grouped.setdefault(lane, [])
        entries.append(entry)
    return grouped


def _steps(namespace: str, settlements: Sequence[Settlement]) -> tuple[list[Step], list[Refusal]]:
    """Acks come first, in batches, then what limits keep waiting, also in batches; every other outcome is a script of
    its own. All scripts but that of acks check that the consumer still owns the entries.

    A settlement that no command can be made of is refused here."""
    done: list[Delivery] = []
    in_order: dict[Subscription, list[Settlement]] = {}
    resting: dict[Lane, list[tuple[Settlement, int]]] = {}
    others: list[Step] = []
    refusals: list[Refusal] = []
    for settlement in settlements:
        delivery, outcome = settlement
        if isinstance(outcome, Ack):
            if delivery.subscription.ordered:
                in_order.setdefault(delivery.subscription, []).append(settlement)
            else:
                done.append(delivery)
            continue
        if isinstance(outcome, Snooze) and outcome.at is not None:
            lane = delivery.subscription, priority_of(delivery.entry_id)
            resting.setdefault(lane, []).append((settlement, outcome.at))
            continue
        try:
            frees = _after_burial if isinstance(outcome, Dead) and delivery.subscription.ordered else None
            others.append(Step(_command(namespace, settlement), [settlement], frees=frees))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the others are settled
            refusals.append(Refusal(settlement, error))
    acks = [*_acks(namespace, by_lane(done)), *_acks_in_order(namespace, in_order)]
    return [*acks, *_rests(namespace, resting), *others], refusals


def _command(namespace: str, settlement: Settlement) -> Command:
    delivery, outcome = settlement
    match outcome:
        case Retry(delay):
            return _park(namespace, delivery, delay, delivery.failures)
        case Snooze(delay):
            return _park(namespace, delivery, delay, "")
        case Dead():
            return _bury(namespace, delivery, outcome)
        case Release():
            return _park(namespace, delivery, 0.0, "")
    raise TypeError(f"{outcome!r} is no outcome")


def _acks(namespace: str, acks: Acks) -> Iterator[Step]:
    for lane, entries in acks.items():
        subscription, priority = lane
        keys = (*_keys(namespace, subscription, priority), stream_keys(namespace, subscription.log).counts)
        count = f"acked:{priority}:{subscription.group}"
        for start in range(0, len(entries), ACK_BATCH):
            some = entries[start : start + ACK_BATCH]
            yield Step(scripts.ACK(keys, subscription.group, count, *some), lane=lane, entries=some)


def _acks_in_order(namespace: str, done: dict[Subscription, list[Settlement]]) -> Iterator[Step]:
    for subscription, settlements in done.items():
        keys = stream_keys(namespace, subscription.log)
        names = group_keys(namespace, subscription.log, subscription.group)
        where = (*keys.lanes, *names, keys.counts, order_key(namespace, subscription.log, subscription.group))
        for start in range(0, len(settlements), REST_BATCH):
            some = settlements[start : start + REST_BATCH]
            entries = [settlement.delivery.entry_id for settlement in some]
            command = scripts.ACK_IN_ORDER(where, subscription.group, subscription.consumer, *entries)
            yield Step(command, some, frees=lambda reply: reply)


def _after_burial(reply: Reply) -> Sequence[Reply]:
    return reply[1:] if reply else ()


def _rests(namespace: str, resting: dict[Lane, list[tuple[Settlement, int]]]) -> Iterator[Step]:
    for (subscription, priority), put_off in resting.items():
        keys = _keys(namespace, subscription, priority)[:2]
        for start in range(0, len(put_off), REST_BATCH):
            some = put_off[start : start + REST_BATCH]
            dues = [value for settlement, at in some for value in (settlement.delivery.entry_id, at)]
            command = scripts.REST(keys, subscription.group, subscription.consumer, PARKED, *dues)
            yield Step(command, [settlement for settlement, _ in some])


def _keys(namespace: str, subscription: Subscription, priority: int) -> tuple[str, ...]:
    lane = stream_keys(namespace, subscription.log).lane(priority)
    return (lane, *group_keys(namespace, subscription.log, subscription.group))


def _park(namespace: str, delivery: Delivery, delay: float, failures: int | str) -> Command:
    subscription, entry = delivery.subscription, delivery.entry_id
    keys = _keys(namespace, subscription, priority_of(entry))
    wait = ms(min(delay, LONGEST_DELAY))
    return scripts.PARK(keys, subscription.group, subscription.consumer, entry, wait, failures, PARKED)


def _bury(namespace: str, delivery: Delivery, outcome: Dead) -> Command:
    subscription, entry = delivery.subscription, delivery.entry_id
    priority, stream = priority_of(entry), stream_keys(namespace, subscription.log)
    keys = (*_keys(namespace, subscription, priority), stream.dead, stream.counts)
    if subscription.ordered:
        keys = (*keys, order_key(namespace, subscription.log, subscription.group), *stream.lanes)
    count = f"buried:{priority}:{subscription.group}"
    fields = dead_letters.fields_of(delivery, outcome)
    return scripts.BURY(keys, subscription.group, subscription.consumer, entry, count, *fields)
