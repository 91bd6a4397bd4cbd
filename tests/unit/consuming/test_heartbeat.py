"""A blocked loop keeps its leases from a thread, for as long as its groups' policy allows."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from eventbus.consuming.heartbeat import LOOKS, InHand, Lifeline
from eventbus.contract.delivery import Delivery
from eventbus.errors import Unavailable
from eventbus.group import Group
from tests.samples import consumer
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE, in_a_span, until

LEASE = 0.2


class Renewals:
    """A keeper that notes what it is asked for, and when; the first `failing` calls fail."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, list[str]]] = []
        self.threads: set[int] = set()
        self.failing = 0
        self.closed = 0

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        self.asked.append((time.monotonic(), [delivery.entry_id for delivery in deliveries]))
        self.threads.add(threading.get_ident())
        if len(self.asked) <= self.failing:
            raise Unavailable("Redis", "no answer")

    def close(self) -> None:
        self.closed += 1


class Hands:
    """One consumer."""

    def __init__(self, name: str = "gardener", timeout: float | None = 60.0, lease: float = LEASE) -> None:
        self.group = Group(name, lease=lease, timeout=timeout)
        self.held: dict[Delivery, float] = {}
        self.running: dict[Delivery, asyncio.Task[None]] = {}

    def take(self, entry_id: str) -> Delivery:
        subscription = consumer(group=self.group.name, lease=self.group.lease)
        delivery = Delivery(subscription, entry_id, {b"id": f"event-{entry_id}".encode()})
        self.held[delivery] = 0.0
        return delivery

    def in_hand(self) -> InHand:
        return InHand(self.group, self.held.copy(), self.running.copy())


@pytest.fixture
def renewals() -> Renewals:
    return Renewals()


@asynccontextmanager
async def guarding(renewals: Renewals, *hands: Hands) -> AsyncIterator[None]:
    lifeline = asyncio.create_task(Lifeline(renewals, [h.in_hand for h in hands], hands[0].group.lease).run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        lifeline.cancel()
        with suppress(asyncio.CancelledError):
            await lifeline
        assert "eventbus-lifeline" not in {thread.name for thread in threading.enumerate()}


def block(seconds: float) -> None:
    time.sleep(seconds)


async def test_while_the_loop_turns_nothing_is_renewed(renewals: Renewals) -> None:
    hands = Hands()
    hands.take("1-0")
    with capture_logs() as logs, Stopwatch() as watch:
        async with guarding(renewals, hands):
            await asyncio.sleep(LEASE * 2)
    if watch.kept_waiting < LEASE / LOOKS:  # a loop that gets no turn is not to be told from one that is blocked
        assert (renewals.asked, logs) == ([], [])


async def test_where_nothing_is_held_nobody_asks(renewals: Renewals) -> None:
    async with guarding(renewals, Hands()):
        block(LEASE * 2)
    assert renewals.asked == []


async def test_a_blocked_loop_keeps_its_leases() -> None:
    async def blocked_for_four_leases(seconds: float) -> None:
        lease, renewals = 2 * seconds, Renewals()
        hands = [Hands("gardener", lease=lease), Hands("watchman", lease=lease)]
        hands[0].take("1-0")
        hands[1].take("2-0")
        async with guarding(renewals, *hands):
            await asyncio.sleep(lease / 3)
            with Stopwatch() as watch:
                blocked_at = time.monotonic()
                block(lease * 4)
                back_at = time.monotonic()
                await until(lambda: renewals.closed)
        moments = [blocked_at, *(at for at, _ in renewals.asked)]
        gaps = [after - before for before, after in pairwise(moments)]
        late = watch.kept_waiting
        assert gaps[0] < lease / 3 + 0.1 + late, "what the loop would have renewed next has a third of its lease left"
        assert max(gaps) < lease * 2 / 3 + late
        assert len(gaps) <= (back_at - blocked_at) / (lease / 3) + 2, (
            "no more often than the loop would, and one to begin with"
        )
        assert moments[-1] < back_at + 0.01 + late
        assert {tuple(asked) for _, asked in renewals.asked} == {("1-0", "2-0")}
        assert threading.get_ident() not in renewals.threads

    await in_a_span(blocked_for_four_leases)


async def test_the_log_says_once_who_blocks_and_where_and_once_that_it_is_over(renewals: Renewals) -> None:
    hands = Hands()
    bystander, culprit = hands.take("1-0"), hands.take("2-0")
    go_on = asyncio.Event()

    async def handle() -> None:
        await go_on.wait()
        block(LEASE * 3)

    hands.running[bystander] = asyncio.create_task(asyncio.sleep(0))
    hands.running[culprit] = asyncio.create_task(handle())
    with capture_logs() as logs, Stopwatch() as watch:
        async with guarding(renewals, hands):
            await asyncio.sleep(0)
            go_on.set()
            await until(lambda: renewals.closed)
    blocked, over = logs[-2:]
    assert (blocked["event"], blocked["group"], blocked["event_id"]) == ("event loop blocked", "gardener", "event-2-0")
    assert "in handle" in blocked["stack"]
    assert "time.sleep(seconds)" in blocked["stack"]
    assert over["event"] == "event loop runs again"
    assert LEASE * 2.5 - watch.kept_waiting <= over["seconds"] <= LEASE * 3 + 1.0 + watch.kept_waiting


async def test_a_blocker_that_is_no_handler_is_sought_among_all_that_run(renewals: Renewals) -> None:
    hands = Hands()
    hands.running[hands.take("1-0")] = asyncio.create_task(asyncio.sleep(60))
    with capture_logs() as logs:
        async with guarding(renewals, hands):
            block(LEASE * 2)
            await until(lambda: renewals.closed)
    assert (logs[0]["groups"], logs[0]["event_ids"]) == (["gardener"], ["event-1-0"])
    hands.running.popitem()[1].cancel()


async def test_what_is_blocked_beyond_the_timeout_and_a_lease_is_let_go() -> None:
    async def blocked_for_eight_leases(seconds: float) -> None:
        lease, renewals = min(2 * seconds, 2.0), Renewals()
        timeouts = {"hasty": lease, "patient": lease * 4, "endless": None}
        hands = [Hands(name, timeout, lease=lease) for name, timeout in timeouts.items()]
        for place, each in enumerate(hands, start=1):
            each.take(f"{place}-0")
        async with guarding(renewals, *hands):
            with Stopwatch() as watch:
                blocked_at = time.monotonic()
                block(lease * 8)
                await until(lambda: renewals.closed)
        late = watch.kept_waiting
        last = {entry_id: at - blocked_at for at, asked in renewals.asked for entry_id in asked}
        assert lease * 1.3 - late < last["1-0"] < lease * 2 + 0.1 + late
        assert lease * 4.3 - late < last["2-0"] < lease * 5 + 0.1 + late
        assert last["3-0"] > lease * 7.3 - late

    await in_a_span(blocked_for_eight_leases)


async def test_a_server_that_is_away_is_asked_again_soon(renewals: Renewals) -> None:
    renewals.failing = 2
    hands = Hands()
    hands.take("1-0")
    async with guarding(renewals, hands):
        with Stopwatch() as watch:
            block(LEASE * 2)
            await until(lambda: renewals.closed)
    moments = [at for at, _ in renewals.asked]
    assert moments[2] - moments[0] < LEASE * 2 / 3 + watch.kept_waiting, "not after a third of a lease each"


async def test_the_end_does_not_wait_for_a_look(renewals: Renewals) -> None:
    lifeline = asyncio.create_task(Lifeline(renewals, [], 600.0).run())
    await asyncio.sleep(0.01)
    lifeline.cancel()
    await asyncio.wait_for(
        asyncio.wait([lifeline]), PATIENCE
    )  # a look comes after 75 s... the thread would wait for it


async def test_the_end_does_not_wait_for_a_sign_of_its_own_life(renewals: Renewals) -> None:
    """The loop waits for the thread, which was just about to ask the loop."""
    hands, looked, ending = Hands(), threading.Event(), threading.Event()
    hands.take("1-0")

    class Ended(threading.Event):
        def set(self) -> None:
            super().set()
            ending.set()

    def in_hand() -> InHand:
        looked.set()
        ending.wait(PATIENCE)
        return hands.in_hand()

    lifeline = Lifeline(renewals, [in_hand], LEASE)
    lifeline._ended = Ended()
    running = asyncio.create_task(lifeline.run())
    with capture_logs() as logs:
        await until(looked.is_set)
        running.cancel()
        await asyncio.wait([running])
    assert logs == [], "nothing was blocked"
