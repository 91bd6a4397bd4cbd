"""Keeping the leases of what a consumer has in hand.

Four times in a lease everything is renewed that was not just read. So while the server answers, no lease is older than
a third, and a silence of the server that ends before the lease does costs nothing. A renewal that failed is tried again
at once, and not a quarter of a lease later, because the leases run on meanwhile.

A process may be stopped for longer than a lease: by its machine, or by whoever sends SIGSTOP. The leases of what it
held, or had asked for without an answer, have run out then, and another worker may have taken over. `sure` asks the
server before any of these deliveries begins.
"""

import asyncio
import math
from collections.abc import Callable, Container
from typing import NamedTuple

from eventbus.consuming.limit_admission import Admission
from eventbus.contract.delivery import Delivery, Outcome, Release
from eventbus.contract.transport import Transport
from eventbus.errors import Unavailable
from eventbus.process.safe_logging import get_logger

ROUNDS = 4  # in a lease
FRESH = 1 / 12  # of a lease: what was read so recently can wait for the next round. 1/12 + 1/4 = a third
AGAIN = 1 / 40  # of a lease, the pause between tries while the server is away
LONGEST_AGAIN = 0.25  # seconds
ELSEWHERE = "not begun here; it runs on another worker"
TELL_EVERY = 60.0  # seconds between lines about a renewal that the server refuses

log = get_logger("eventbus.renewal")


class Hand(NamedTuple):
    """What a consumer has in hand.

    held      every delivery, and since when it is known to be ours: when it was asked for, or last renewed, by `now`
    running   the deliveries that have begun
    withdraw  keeps a delivery from beginning; False if it has begun, or has its outcome
    finish    ends a delivery with an outcome
    now       a clock, in seconds. It goes on while the process is stopped, and within a turn of the event loop, unlike
              the loop's own clock
    """

    lease: float
    held: dict[Delivery, float]
    running: Container[Delivery]
    withdraw: Callable[[Delivery], bool]
    finish: Callable[[Delivery, Outcome], None]
    now: Callable[[], float]


class Renewal:
    """`run()` until it is cancelled. `admission`: its places under limits are renewed together with the leases."""

    def __init__(self, transport: Transport, admission: Admission, hand: Hand) -> None:
        self._transport = transport
        self._admission = admission
        self._lease, self._held, self._running, self._withdraw, self._finish, self._now = hand
        self._told_at: float | None = None
        self._round = asyncio.Lock()
        self._asking: set[Delivery] = set()  # are in `running`, but have not begun: see `sure`

    async def run(self) -> None:
        pause = interval = self._lease / ROUNDS
        while True:
            await asyncio.sleep(pause)
            pause = interval
            try:
                async with self._round:
                    await self._renew()
            except Unavailable:
                pause = min(self._lease * AGAIN, LONGEST_AGAIN)
            except Exception as error:  # noqa: BLE001 - without renewals every long handler would run twice
                self._tell_refused(error)

    async def sure(self, delivery: Delivery) -> bool:
        """Whether a delivery that is about to begin is still ours. If its lease has run out, asks the server until it
        answers; False if the answer is an error."""
        self._asking.add(delivery)
        try:
            while self._has_run_out(delivery):
                try:
                    async with self._round:  # the first of many renews for all
                        if self._has_run_out(delivery):
                            await self._renew()
                except Unavailable:
                    await asyncio.sleep(min(self._lease * AGAIN, LONGEST_AGAIN))
        except Exception as error:  # noqa: BLE001 - as below; what cannot be known does not begin
            self._tell_refused(error)
            return False
        finally:
            self._asking.discard(delivery)
        delivery.catch_up()
        return delivery in self._held

    def _has_run_out(self, delivery: Delivery) -> bool:
        return self._now() - self._held.get(delivery, math.inf) >= self._lease

    async def _renew(self) -> None:
        now, fresh = self._now(), self._lease * FRESH
        old = [delivery for delivery, since in self._held.items() if now - since >= fresh]
        if not old:
            return
        for delivery in await self._transport.renew(old):
            self._let_go(delivery)
        for delivery in old:
            if delivery in self._held:
                self._held[delivery] = now
        await self._admission.stay()

    def _let_go(self, delivery: Delivery) -> None:
        """The lease of a delivery is lost. If the delivery has its outcome, it is settled or being settled: no loss."""
        if delivery in self._asking:
            self._held.pop(delivery, None)
            log.warning("lease lost", **delivery.named(), consequence=ELSEWHERE)
        elif delivery in self._running:
            self._held.pop(delivery, None)
            log.warning(
                "lease lost", **delivery.named(), consequence="its handler runs on; another worker may run it too"
            )
        elif self._withdraw(delivery):
            self._finish(delivery, Release())  # changes nothing for its new owner
            log.warning("lease lost", **delivery.named(), consequence=ELSEWHERE)

    def _tell_refused(self, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if self._told_at is None or now - self._told_at >= TELL_EVERY:
            self._told_at = now
            log.error("leases are not renewed", error=str(error), exc_info=error)
