"""Envelopes to send around and consumers to receive them, for tests of transports and of what stands on them."""

from collections.abc import Iterable
from typing import Any

from eventbus.contract.broker import Broker
from eventbus.contract.delivery import Delivery, Failure, Reclaimed, Settlement, Subscription
from eventbus.contract.outgoing import Outgoing
from eventbus.event import Envelope, uuid7
from tests.waiting import eventually

STREAM = "order"
FAILED = Failure("ValueError: no", "Traceback …")


def envelope(number: int = 0, *, stream: str = STREAM, **attributes: Any) -> Envelope:
    """An envelope whose data is a number, to tell it by."""
    whole: dict[str, Any] = {"id": uuid7(), "type": f"{stream}.placed", "data": str(number).encode(), **attributes}
    return Envelope(**whole)


def outgoing(*numbers: int, stream: str = STREAM, delay: float = 0.0) -> list[Outgoing]:
    return [Outgoing(envelope(number, stream=stream), delay) for number in numbers]


def consumer(
    name: str = "ann", *, group: str = "billing", stream: str = STREAM, lease: float = 30.0, crash_budget: int = 3
) -> Subscription:
    return Subscription(stream, group, name, lease, crash_budget)


def numbers(deliveries: Iterable[Delivery]) -> list[int]:
    return [int(delivery.fields[b"data"]) for delivery in deliveries]


async def receive(transport: Broker, subscription: Subscription, count: int = 1) -> list[Delivery]:
    """Read until `count` deliveries have come."""
    received: list[Delivery] = []

    async def enough() -> bool:
        received.extend(await transport.read(subscription, count - len(received), 0.5))
        return len(received) == count

    await eventually(enough)
    return received


async def reclaim(
    transport: Broker, subscription: Subscription, count: int = 1, *, suspect: bool = False
) -> list[Delivery]:
    """Reclaim until `count` deliveries have come."""
    found: list[Delivery] = []

    async def enough() -> bool:
        found.extend((await transport.reclaim(subscription, count - len(found), suspect=suspect)).deliveries)
        return len(found) == count

    await eventually(enough)
    return found


async def settle(transport: Broker, deliveries: Iterable[Delivery], outcome: Any) -> None:
    """The same outcome for all, and none is refused."""
    for refusal in await transport.settle([Settlement(delivery, outcome) for delivery in deliveries]):
        raise refusal.error


async def nothing_left(transport: Broker, subscription: Subscription) -> bool:
    """Nothing is there to read, and nothing to reclaim now or later."""
    fresh = await transport.read(subscription, 100, 0.02)
    return not fresh and await transport.reclaim(subscription, 100) == Reclaimed()
