"""Keeping the leases of what a consumer has in hand.

Four times in a lease everything is renewed that was not just read, so that no entry is ever older than a third of its
lease while the server answers: a silence that ends before the lease does costs nothing. A renewal that failed is tried
again at once, and not a quarter of a lease later, because the leases run on meanwhile.
"""

import asyncio
from collections.abc import Callable, Container
from typing import NamedTuple

from eventbus.admission import Admission
from eventbus.errors import Unavailable
from eventbus.telling import get_logger
from eventbus.transport import Delivery, Outcome, Release, Transport

ROUNDS = 4  # in a lease
FRESH = 1 / 12  # of a lease: what was read so recently can wait for the next round. 1/12 + 1/4 = a third
AGAIN = 1 / 40  # of a lease, between tries while the server is away
LONGEST_AGAIN = 0.25  # seconds
TELL_EVERY = 60.0  # seconds between lines about a renewal that the server refuses

log = get_logger("eventbus.renewal")


class Hand(NamedTuple):
    """What a consumer has in hand.

    held      all of it, and since when by the loop's clock
    running   what of it has begun
    withdraw  keeps one that has not begun from beginning; False if it has begun, or has its outcome
    finish    ends a delivery with an outcome
    """

    lease: float
    held: dict[Delivery, float]
    running: Container[Delivery]
    withdraw: Callable[[Delivery], bool]
    finish: Callable[[Delivery, Outcome], None]


class Renewal:
    """`run()` until it is cancelled. `admission`: has places that are kept in the same way."""

    def __init__(self, transport: Transport, admission: Admission, hand: Hand) -> None:
        self._transport = transport
        self._admission = admission
        self._lease, self._held, self._running, self._withdraw, self._finish = hand
        self._told_at: float | None = None

    async def run(self) -> None:
        pause = interval = self._lease / ROUNDS
        while True:
            await asyncio.sleep(pause)
            pause = interval
            try:
                await self._renew()
            except Unavailable:
                pause = min(self._lease * AGAIN, LONGEST_AGAIN)
            except Exception as error:  # noqa: BLE001 - without renewals every long handler would run twice
                self._tell_refused(error)

    async def _renew(self) -> None:
        now, fresh = asyncio.get_running_loop().time(), self._lease * FRESH
        old = [delivery for delivery, since in self._held.items() if now - since >= fresh]
        if not old:
            return
        for delivery in await self._transport.renew(old):
            self._let_go(delivery)
        await self._admission.stay()

    def _let_go(self, delivery: Delivery) -> None:
        """A lease is lost. One that has its outcome was settled meanwhile, or is being settled: that is no loss."""
        if delivery in self._running:
            self._held.pop(delivery, None)
            log.warning(
                "lease lost", **delivery.named(), consequence="its handler runs on; another worker may run it too"
            )
        elif self._withdraw(delivery):
            self._finish(delivery, Release())  # changes nothing for its new owner
            log.warning("lease lost", **delivery.named(), consequence="not begun here; it runs on another worker")

    def _tell_refused(self, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if self._told_at is None or now - self._told_at >= TELL_EVERY:
            self._told_at = now
            log.error("leases are not renewed", error=str(error), exc_info=error)
