"""Where deliveries of a group with limits wait until they may start, and how far is read ahead meanwhile.

When a limit by key is reached, its deliveries are put off until it is their turn, with no attempt spent. They rest in
the pending list, and others pass. While all that is read is put off, more and more is read at once: behind the backlog
of one key, events of other keys are soon found. A limit over the whole group stops reading: what is in hand waits.
"""

import asyncio
import heapq
from collections.abc import Callable, Sequence

from eventbus.consuming.limit_admission import Admission, Verdict
from eventbus.contract.delivery import Delivery, Snooze
from eventbus.errors import Unavailable
from eventbus.process.safe_logging import get_logger

LOOK_AHEAD = 500  # deliveries that are read at once to find others behind those of a key that has reached its limit
RESTING_LIMIT = 250_000  # deliveries that limits by key may have put off in one process before it reads no more
HOLD_LIMIT = 5.0  # seconds at most between two tries of what waits for a limit over the whole group
NUDGING = 10.0  # seconds after deliveries were given back in which they are looked for as soon as there is room
RETRY_PAUSE = 0.2  # seconds, while the server is away
ERROR_PAUSE = 5.0  # seconds that a delivery is put off when the server cannot say what its limits allow
ERROR_INTERVAL = 60.0  # seconds between two log lines about that

log = get_logger("eventbus.admission")


class Gate:
    """`put` deliveries into it; `run` lets them through.

    admit    starts those that may
    put_off  lets one rest
    fail     is called with a delivery whose key could not be found, and the error
    slots    how many may start now, as far as the process is concerned
    nudge    is called when it is worth looking for deliveries that were given back
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
        self._short = False  # whether a delivery waits for nothing but a slot
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
        """Take out all that wait; the caller gives them back."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def withdraw(self, delivery: Delivery) -> bool:
        """Take out a delivery, so that it does not start; False if it does not wait here."""
        if delivery not in self._waiting:
            return False
        self._waiting = [waiting for waiting in self._waiting if waiting is not delivery]
        return True

    def room(self, free: int) -> int:
        """How many more deliveries may be taken in hand where there are `free` slots; more than that to look ahead."""
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
        """For ever. After an error it logs and tries again: a gate that ends takes the whole group with it."""
        if self._waiting:  # left by a run that ended
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
        """Seconds after which to ask again for what still waits; None: when `_wanted` is set."""
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
        """Deal with a delivery that does not start. Returns whether a limit by key has put it off."""
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
        """Give back what waits beyond `in_hand`. It was read ahead, and waits for a slot or for a limit over the whole
        group: another process may have slots for it."""
        most = self._admission.in_hand
        surplus, self._waiting = self._waiting[most:], self._waiting[:most]
        for delivery in surplus:
            self._put_off(delivery, Snooze(0.0))
        if surplus:
            self._nudging_until = asyncio.get_running_loop().time() + NUDGING

    def _tell(self, reason: str, error: Exception | None = None) -> None:
        if isinstance(error, Unavailable):  # the broken connection was logged already
            log.debug("asking again soon", reason=reason)
            return
        now = asyncio.get_running_loop().time()
        if now >= self._told_at + ERROR_INTERVAL:
            self._told_at = now
            log.error("a limit cannot be asked for", group=self._admission.group_name, error=reason, exc_info=error)


def _waits(verdict: Verdict) -> bool:
    """Whether the delivery waits in hand, for a limit over the whole group or for a free slot."""
    _, answer, failure = verdict
    if failure is not None or answer.admitted or answer.error is not None:
        return False
    return answer.refused is None or answer.refused.limit.by is None
