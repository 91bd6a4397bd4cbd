"""When leases are renewed, and what is said of those that are lost. In virtual time."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise

from structlog.testing import capture_logs

from eventbus.consuming.lease_renewal import Hand, Renewal
from eventbus.consuming.limit_admission import Admission
from eventbus.contract.delivery import Ack, Delivery, Outcome, Release
from eventbus.errors import Unavailable
from eventbus.group import Group
from eventbus.memory import MemoryTransport
from tests import virtual
from tests.samples import consumer

LEASE = 12.0


class Kept(MemoryTransport):
    """Notes when it was asked to renew what; `trouble` may raise, `lost` is what others own by now."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[float, list[Delivery]]] = []
        self.trouble: Callable[[float], Exception | None] = lambda now: None
        self.lost: set[Delivery] = set()

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        now = asyncio.get_running_loop().time()
        self.asked.append((now, list(deliveries)))
        if (error := self.trouble(now)) is not None:
            raise error
        return [delivery for delivery in deliveries if delivery in self.lost]


class Hands:
    """What a consumer has in hand, and a renewal of it."""

    def __init__(self, transport: Kept) -> None:
        self.held: dict[Delivery, float] = {}
        self.outcomes: list[tuple[Delivery, Outcome]] = []
        self.running: set[Delivery] = set()
        self.waiting: list[Delivery] = []
        admission = Admission(transport, Group("gardener"))
        now = asyncio.get_running_loop().time
        hand = Hand(LEASE, self.held, self.running, self._withdraw, self._end, now)
        self.renewal = Renewal(transport, admission, hand)

    def take(self) -> Delivery:
        delivery = Delivery(consumer(lease=LEASE), f"{len(self.held) + 1}-0", {b"id": b"an-event"})
        self.held[delivery] = asyncio.get_running_loop().time()
        return delivery

    def _withdraw(self, delivery: Delivery) -> bool:
        waits = delivery in self.waiting
        self.waiting = [each for each in self.waiting if each is not delivery]
        return waits

    def _end(self, delivery: Delivery, outcome: Outcome) -> None:
        self.outcomes.append((delivery, outcome))


def renewed(transport: Kept, delivery: Delivery) -> list[float]:
    return [now for now, deliveries in transport.asked if delivery in deliveries]


def test_nothing_in_hand_is_older_than_a_third_of_its_lease() -> None:
    async def main() -> None:
        transport = Kept()
        hands = Hands(transport)
        running = asyncio.create_task(hands.renewal.run())
        taken = []
        for _ in range(100):  # at every moment of a round
            taken.append((asyncio.get_running_loop().time(), hands.take()))
            await asyncio.sleep(LEASE / 100)
        await asyncio.sleep(LEASE)
        running.cancel()
        for at, delivery in taken:
            moments = [at, *renewed(transport, delivery)]
            assert max(after - before for before, after in pairwise(moments)) <= LEASE / 3 + 0.001
            assert moments[-1] > asyncio.get_running_loop().time() - LEASE / 3

    virtual.run(main())


def test_what_is_in_hand_for_a_moment_costs_nothing() -> None:
    async def main() -> None:
        transport = Kept()
        hands = Hands(transport)
        running = asyncio.create_task(hands.renewal.run())
        for _ in range(100):
            hands.held.clear()
            hands.take()
            await asyncio.sleep(LEASE / 13)
        running.cancel()
        assert transport.asked == []

    virtual.run(main())


def test_a_renewal_that_failed_is_tried_again_as_soon_as_the_server_is_back() -> None:
    async def main() -> None:
        transport = Kept()
        transport.trouble = lambda now: Unavailable("Redis", "gone") if 5.0 < now < 10.0 else None
        hands = Hands(transport)
        delivery = hands.take()
        running = asyncio.create_task(hands.renewal.run())
        await asyncio.sleep(LEASE)
        running.cancel()
        first_after = min(at for at in renewed(transport, delivery) if at >= 10.0)
        assert first_after <= 10.3

    virtual.run(main())


def test_a_renewal_that_is_refused_is_told_once_a_minute_and_goes_on() -> None:
    async def main() -> None:
        transport = Kept()
        transport.trouble = lambda now: ValueError("WRONGTYPE")
        hands = Hands(transport)
        hands.take()
        running = asyncio.create_task(hands.renewal.run())
        await asyncio.sleep(119.0)
        running.cancel()
        assert len(transport.asked) == 39, "not more often than it would be renewed"

    with capture_logs() as logs:
        virtual.run(main())
    assert [line["event"] for line in logs] == ["leases are not renewed"] * 2


def test_a_lost_lease_is_told_with_what_comes_of_it() -> None:
    async def main() -> None:
        transport = Kept()
        hands = Hands(transport)
        runs, waits, ended = hands.take(), hands.take(), hands.take()
        hands.running.add(runs)
        hands.waiting.append(waits)
        hands.outcomes.append((ended, Ack()))
        transport.lost = {runs, waits, ended}
        running = asyncio.create_task(hands.renewal.run())
        await asyncio.sleep(LEASE / 3)
        running.cancel()
        assert runs not in hands.held, "its lease is not asked for again"
        assert hands.waiting == [], "another has it: it does not begin here"
        assert hands.outcomes == [(ended, Ack()), (waits, Release())]

    with capture_logs() as logs:
        virtual.run(main())
    assert [(line["event"], line["group"], line["event_id"], line["entry_id"]) for line in logs] == [
        ("lease lost", "billing", "an-event", "1-0"),
        ("lease lost", "billing", "an-event", "2-0"),
    ], "and nothing of what was settled meanwhile"
    assert ["its handler runs on" in line["consequence"] for line in logs] == [True, False]


def test_of_many_that_are_to_begin_the_first_asks_for_all_whether_they_are_still_ours() -> None:
    async def main() -> None:
        transport = Kept()
        transport.trouble = lambda now: Unavailable("Redis", "gone") if now < 2 * LEASE else None
        hands = Hands(transport)
        taken = [hands.take() for _ in range(50)]
        hands.running.update(taken)
        transport.lost = set(taken[::2])
        await asyncio.sleep(LEASE)
        sure = await asyncio.gather(*(hands.renewal.sure(delivery) for delivery in taken))
        assert sure == [False, True] * 25
        assert list(hands.held) == taken[1::2]
        answered = [deliveries for at, deliveries in transport.asked if at >= 2 * LEASE]
        assert answered == [taken], "once, when the server is back"
        assert await hands.renewal.sure(taken[1]), "without asking again"
        assert len(transport.asked) > 25, "they wait, and nothing begins, for as long as the server is away"

    with capture_logs() as logs:
        virtual.run(main())
    assert {line["consequence"] for line in logs} == {"not begun here; it runs on another worker"}


def test_what_the_server_refuses_to_renew_does_not_begin() -> None:
    async def main() -> None:
        transport = Kept()
        transport.trouble = lambda now: ValueError("WRONGTYPE")
        hands = Hands(transport)
        delivery = hands.take()
        await asyncio.sleep(LEASE)
        assert not await hands.renewal.sure(delivery)

    with capture_logs() as logs:
        virtual.run(main())
    assert [line["event"] for line in logs] == ["leases are not renewed"]
