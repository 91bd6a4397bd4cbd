"""Outcomes to commands: the one place that ends deliveries in Redis."""

from collections.abc import Sequence

from eventbus.redis import dead, scripts
from eventbus.redis.keys import PARKED, group_keys, stream_keys
from eventbus.redis.scripts import Command, ms
from eventbus.transport import Ack, Dead, Delivery, Release, Retry, Settlement, Snooze, Subscription

ACK_BATCH = 500  # Lua unpacks at most some 8,000 values

Acks = dict[Subscription, list[str]]


def commands(namespace: str, settlements: Sequence[Settlement]) -> list[Command]:
    """Acks first and in batches; every other outcome is a script of its own, which looks who the owner is."""
    clean: Acks = {}
    marked: Acks = {}
    others: list[Command] = []
    for delivery, outcome in settlements:
        match outcome:
            case Ack():
                acks = marked if delivery.failures or delivery.crashes else clean
                acks.setdefault(delivery.subscription, []).append(delivery.entry_id)
            case Retry(delay):
                others.append(_park(namespace, delivery, delay, delivery.failures + 1))
            case Snooze(delay):
                others.append(_park(namespace, delivery, delay, ""))
            case Release():
                others.append(_park(namespace, delivery, 0.0, ""))
            case Dead():
                others.append(_bury(namespace, delivery, outcome))
    return _acks(namespace, clean, marked) + others


def _acks(namespace: str, clean: Acks, marked: Acks) -> list[Command]:
    """`marked` have records of failures or crashes, which go with them."""
    found: list[Command] = []
    for subscription, ids in clean.items():
        key = stream_keys(namespace, subscription.stream).stream
        found += [("XACK", key, subscription.group, *ids[i : i + ACK_BATCH]) for i in range(0, len(ids), ACK_BATCH)]
    for subscription, ids in marked.items():
        keys = group_keys(namespace, subscription.stream, subscription.group)
        found += [scripts.ACK(keys, subscription.group, *ids[i : i + ACK_BATCH]) for i in range(0, len(ids), ACK_BATCH)]
    return found


def _park(namespace: str, delivery: Delivery, delay: float, failures: int | str) -> Command:
    subscription = delivery.subscription
    keys = group_keys(namespace, subscription.stream, subscription.group)
    owner = (subscription.group, subscription.consumer, delivery.entry_id)
    return scripts.PARK(keys, *owner, ms(delay), failures, PARKED)


def _bury(namespace: str, delivery: Delivery, outcome: Dead) -> Command:
    subscription = delivery.subscription
    keys = group_keys(namespace, subscription.stream, subscription.group)
    grave = stream_keys(namespace, subscription.stream).dead
    owner = (subscription.group, subscription.consumer, delivery.entry_id)
    return scripts.BURY((*keys, grave), *owner, *dead.fields_of(delivery, outcome))
