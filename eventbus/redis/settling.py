"""Outcomes to commands: the one place that ends deliveries in Redis."""

from collections.abc import Iterable, Sequence

from eventbus.event import NORMAL_PRIORITY
from eventbus.redis import dead, scripts
from eventbus.redis.keys import PARKED, group_keys, priority_of, stream_keys
from eventbus.redis.scripts import Command, ms
from eventbus.transport import Ack, Dead, Delivery, Release, Retry, Settlement, Snooze, Subscription

ACK_BATCH = 500  # Lua unpacks at most some 8,000 values

Lane = tuple[Subscription, int]
Acks = dict[Lane, list[str]]


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


def commands(namespace: str, settlements: Sequence[Settlement]) -> list[Command]:
    """Acks first and in batches; every other outcome is a script of its own, which looks who the owner is."""
    clean: list[Delivery] = []
    marked: list[Delivery] = []
    others: list[Command] = []
    for delivery, outcome in settlements:
        match outcome:
            case Ack():
                (marked if delivery.failures or delivery.crashes else clean).append(delivery)
            case Retry(delay):
                others.append(_park(namespace, delivery, delay, delivery.failures + 1))
            case Snooze(delay):
                others.append(_park(namespace, delivery, delay, ""))
            case Release():
                others.append(_park(namespace, delivery, 0.0, ""))
            case Dead():
                others.append(_bury(namespace, delivery, outcome))
    return _acks(namespace, by_lane(clean), by_lane(marked)) + others


def _acks(namespace: str, clean: Acks, marked: Acks) -> list[Command]:
    """`marked` have records of failures or crashes, which go with them."""
    found: list[Command] = []
    for (subscription, priority), ids in clean.items():
        key = stream_keys(namespace, subscription.stream).lane(priority)
        raw = ids if priority == NORMAL_PRIORITY else [entry_id.partition("@")[0] for entry_id in ids]
        found += [("XACK", key, subscription.group, *raw[i : i + ACK_BATCH]) for i in range(0, len(raw), ACK_BATCH)]
    for (subscription, priority), ids in marked.items():
        keys = _keys(namespace, subscription, priority)
        found += [scripts.ACK(keys, subscription.group, *ids[i : i + ACK_BATCH]) for i in range(0, len(ids), ACK_BATCH)]
    return found


def _keys(namespace: str, subscription: Subscription, priority: int) -> tuple[str, ...]:
    lane = stream_keys(namespace, subscription.stream).lane(priority)
    return (lane, *group_keys(namespace, subscription.stream, subscription.group))


def _park(namespace: str, delivery: Delivery, delay: float, failures: int | str) -> Command:
    subscription, entry = delivery.subscription, delivery.entry_id
    keys = _keys(namespace, subscription, priority_of(entry))
    return scripts.PARK(keys, subscription.group, subscription.consumer, entry, ms(delay), failures, PARKED)


def _bury(namespace: str, delivery: Delivery, outcome: Dead) -> Command:
    subscription, entry = delivery.subscription, delivery.entry_id
    keys = (*_keys(namespace, subscription, priority_of(entry)), stream_keys(namespace, subscription.stream).dead)
    return scripts.BURY(keys, subscription.group, subscription.consumer, entry, *dead.fields_of(delivery, outcome))
