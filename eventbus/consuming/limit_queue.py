"""Where deliveries of a group with limits wait until they may start, and how far is read ahead meanwhile.

A limit by key that is reached puts its deliveries off, no attempt spent, until it is their turn; they rest in the
pending list, and others pass. While all that comes is put off, more and more is read at once: behind the backlog of one
key the others are found within a moment. A limit over the whole group stops its reading: what is in hand waits.
"""

import asyncio
import heapq
from collections.abc import Callable, Sequence

from eventbus.consuming.limit_gate import Admission, Verdict
from eventbus.contract.delivery import Delivery, Snooze
from eventbus.errors import Unavailable
from eventbus.process.telling import get_logger

LOOK_AHEAD = 500  # deliveries that are read at once to find others behind those of a key that has reached its limit
RESTING_LIMIT = 250_000  # deliveries that one process may have put off for a key's sake before it reads no more
HOLD_LIMIT = 5.0  # seconds until what waits for the whole group asks again, though it was told to wait for longer
NUDGING = 10.0  # seconds for which what was given back is looked for as soon as there is room for it
RETRY_PAUSE = 0.2  # seconds, while the server is away
ERROR_PAUSE = 5.0  # seconds until a delivery asks again whose limits the server cannot tell
ERROR_INTERVAL = 60.0  # seconds between two log lines about that

log = get_logger("eventbus.admission")


class Gate:
    """`put` deliveries into it; `run` lets them through.

    admit    starts those that may
    put_off  lets one rest
    fail     is told of one whose key could not be told, and why
    slots    how many may start now, as far as the process is concerned
    nudge    is called when it is worth looking for what has been given back
    """

    def __init__(
        self,
        admission: Admission,
        *,
        admit: Callable[[list[Delivery]], None],
        put_off: Callable[[Delivery, Snooze], None],
        fail: Callable[[Delivery, BaseException], None],
        slots: Callable[[], int],
        nudge: Callable[[], None],
    ) -> None:
        self._admission = admission
        self._admit = admit
        self._put_off = put_off
        self._fail = fail
        self._slots = slots
        self._nudge = nudge
        self._nudging_until = 0.0  # by the loop's clock
        self._waiting: list[Delivery] = []
        self._resting: list[float] = []  # a heap: until when, by the loop's clock
        self._ahead = 0
        self._short = False  # whether something waits that nothing but a slot keeps from starting
        self._wanted = asyncio.Event()
        self._told_at = -ERROR_INTERVAL

    def put(self, deliveries: Sequence[Delivery]) -> None:
        self._waiting += deliveries
        self._wanted.set()

    def look(self) -> None:
        """A slot may have become free."""
        if self._short and self._slots() > 0:
            self._wanted.set()
        elif self._nudging_until and not self._waiting and self._slots() > 0:
            if asyncio.get_running_loop().time() > self._nudging_until:
                self._nudging_until = 0.0
            self._nudge()

    def clear(self) -> list[Delivery]:
        """What waits, to be given back."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def withdraw(self, delivery: Delivery) -> bool:
        """One that waits is not to start; False if it does not wait here."""
        if delivery not in self._waiting:
            return False
        self._waiting = [waiting for waiting in self._waiting if waiting is not delivery]
        return True

    def room(self, free: int) -> int:
        """How many more may be taken in hand, of those for which there are free slots."""
        if self._waiting or free < 1 or self._crowded():
            return 0
        return max(min(free, self._admission.appetite), self._ahead)

    def _crowded(self) -> bool:
        resting = self._resting
        if len(resting) >= RESTING_LIMIT:
            now = asyncio.get_running_loop().time()
            while resting and resting[0] <= now:
                heapq.heappop(resting)
        return len(resting) >= RESTING_LIMIT

    async def run(self) -> None:
        """For ever. What it meets is logged, and tried again: a gate that ends takes the whole group with it."""
        if self._waiting:  # it is begun again
            self._wanted.set()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._waiting:
                try:
                    pause = await self._ask(list(self._waiting))
                except Exception as error:  # noqa: BLE001 - see above
                    self._tell(str(error), error)
                    pause = RETRY_PAUSE
                if pause is None:
                    break
                await asyncio.sleep(min(pause, HOLD_LIMIT))

    async def _ask(self, asked: list[Delivery]) -> float | None:
        """Seconds after which to ask again for what still waits; None: when it is wanted."""
        verdicts = await self._admission.ask(asked, max(0, self._slots()))
        still = set(self._waiting)  # a stop or a pause may have given them back meanwhile
        here = [verdict for verdict in verdicts if verdict.delivery in still]
        held = [verdict for verdict in here if _waits(verdict)]
        kept = {verdict.delivery for verdict in held}
        decided = still.difference(kept).intersection(verdict.delivery for verdict in here)
        self._waiting = [delivery for delivery in self._waiting if delivery not in decided]
        put_off = sum(self._decide(verdict) for verdict in here)
        self._look_ahead(put_off, len(asked))
        self._admit([delivery for delivery, answer, failure in here if answer.admitted and failure is None])
        self._give_back_surplus()
        self._short = any(answer.refused is None for _, answer, _ in held)
        await self._admission.leave([verdict.delivery for verdict in verdicts if verdict.delivery not in still])
        return min((answer.wait for _, answer, _ in held if answer.refused is not None), default=None)

    def _decide(self, verdict: Verdict) -> bool:
        """Deals with what does not start. Whether it was put off for its key's sake."""
        delivery, answer, failure = verdict
        if failure is not None:
            self._fail(delivery, failure)
        elif answer.error is not None:
            self._tell(answer.error)
            self._put_off(delivery, Snooze(ERROR_PAUSE))
        elif answer.refused is not None and not _waits(verdict):
            heapq.heappush(self._resting, asyncio.get_running_loop().time() + answer.wait)
            self._put_off(delivery, Snooze(answer.wait, answer.at))
            return True
        return False

    def _look_ahead(self, put_off: int, asked: int) -> None:
        grown = min(LOOK_AHEAD, 2 * max(self._ahead, asked))
        self._ahead = grown if put_off >= asked * 0.9 else self._ahead // 4

    def _give_back_surplus(self) -> None:
        """What was read ahead and may start, or waits for the whole group: another process may have slots for it."""
        most = self._admission.in_hand
        surplus, self._waiting = self._waiting[most:], self._waiting[:most]
        for delivery in surplus:
            self._put_off(delivery, Snooze(0.0))
        if surplus:
            self._nudging_until = asyncio.get_running_loop().time() + NUDGING

    def _tell(self, reason: str, error: Exception | None = None) -> None:
        if isinstance(error, Unavailable):  # whose connection broke has said so
            log.debug("asking again soon", reason=reason)
            return
        now = asyncio.get_running_loop().time()
        if now >= self._told_at + ERROR_INTERVAL:
            self._told_at = now
            log.error("a limit cannot be asked for", group=self._admission.group_name, error=reason, exc_info=error)


def _waits(verdict: Verdict) -> bool:
    """In hand, for the whole group's sake or for a free slot."""
    _, answer, failure = verdict
    if failure is not None or answer.admitted or answer.error is not None:
        return False
    return answer.refused is None or answer.refused.limit.by is None
