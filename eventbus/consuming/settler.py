"""Handing outcomes back to the transport: all that have gathered since the last round trip in one call.

What the transport has settled is let go of at once. A settlement that it refuses is set aside: it is logged once, tried
again alone and ever more slowly, and holds up no other. A settlement for which the server has no memory stays in the
line, and so does everything while the server is away.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from eventbus.consuming.limit_admission import Admission
from eventbus.contract.delivery import Refusal, Settlement
from eventbus.contract.transport import Transport
from eventbus.errors import Full, Unavailable
from eventbus.process import crash_points
from eventbus.process.safe_logging import get_logger

UNSETTLED_LIMIT = 1_000  # outcomes that may wait to be settled before nothing more is taken
ASIDE_LIMIT = 1_000  # settlements that may be set aside; what is refused beyond that is left to its lease
FIRST_REST, LONGEST_REST = 1.0, 60.0  # seconds between two tries of what is set aside

log = get_logger("eventbus.settler")


@dataclass(slots=True, eq=False)
class _Aside:
    """A settlement that was refused. `due`: when it is tried again, by the loop's clock. `told`: it is in the log."""

    settlement: Settlement
    due: float
    tries: int = 0
    told: bool = False


class Settler:
    """`run()` until it is cancelled. Whoever has an outcome puts it into `line`, and sets `due`.

    let_go  is told what has been settled, and what is given up
    pause   waits for as long as the n-th failure in a row asks for, and returns how many there have been
    """

    def __init__(
        self,
        transport: Transport,
        admission: Admission,
        let_go: Callable[[Sequence[Settlement]], None],
        pause: Callable[[int, Exception], Awaitable[int]],
    ) -> None:
        self._transport = transport
        self._admission = admission
        self._let_go = let_go
        self._pause = pause
        self.line: list[Settlement] = []  # always the same list: whoever adds to it may hold on to it
        self.due = asyncio.Event()
        self._aside: list[_Aside] = []
        self._aside_changed = asyncio.Event()
        self._ending = False
        self.asked = 0.0  # when the last call was made: what it frees in an ordered group may be ours since then
        self.given_up = 0  # deliveries that this process holds and will not settle any more

    @property
    def full(self) -> bool:
        """Whether so much waits to be settled that nothing more is to be taken."""
        return len(self.line) >= UNSETTLED_LIMIT

    def end(self) -> None:
        """Try what is set aside once more, now, and then give it up: the worker stops."""
        self._ending = True
        self._aside_changed.set()

    async def run(self) -> None:
        """For ever. If it has ended and is run again, it goes on with what is in the line."""
        if self.line:
            self.due.set()
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._settle_line())
            loops.create_task(self._settle_aside())

    # The line ---------------------------------------------------------------------------------------------------------

    async def _settle_line(self) -> None:
        failures = 0
        while True:
            await self.due.wait()
            self.due.clear()
            batch = self.line[:]
            del self.line[: len(batch)]
            try:
                crash_points.point("consumer.settle")
                self.asked = monotonic()
                refusals = await self._transport.settle(batch)
                crash_points.point("consumer.settled")
            except asyncio.CancelledError:
                self.line[:0] = batch  # for whoever settles what is left
                self.due.set()
                raise
            except Unavailable as error:
                refusals = [Refusal(settlement, error) for settlement in batch]
            except Exception as error:  # noqa: BLE001 - one of them may be the reason, and the others must not wait for it
                failures = await self._pause(failures, error)
                await self._set_aside([_Aside(settlement, 0.0) for settlement in batch])
                continue
            if not refusals:
                failures = 0
                self._let_go(batch)
                await self._leave(batch)
            else:
                failures = await self._part(batch, refusals, failures)

    async def _part(self, batch: list[Settlement], refusals: Sequence[Refusal], failures: int) -> int:
        """Let go of what was settled, and set aside what was refused. What met a server that is full or away goes back
        into the line: the server may take it any moment."""
        refused = {id(refusal.settlement.delivery) for refusal in refusals}
        waiting = [refusal for refusal in refusals if isinstance(refusal.error, Full | Unavailable)]
        settled = [settlement for settlement in batch if id(settlement.delivery) not in refused]
        self._let_go(settled)
        # In front of all that has come meanwhile. Acks among that are not held up: they go out with the next call.
        self.line[:0] = [refusal.settlement for refusal in waiting]
        if settled:
            await self._leave(settled)
        await self._set_aside([self._refused(refusal) for refusal in refusals if refusal not in waiting])
        if not waiting:
            return 0
        self.due.set()
        return await self._pause(failures, waiting[0].error)

    async def _leave(self, batch: Sequence[Settlement]) -> None:
        """Give back the places of deliveries under limits. They stay settled if that fails: the places are then free
        after a lease."""
        try:
            await self._admission.leave([delivery for delivery, _ in batch])
        except Unavailable:
            return  # the broken connection was logged already
        except Exception:
            log.exception("places under a limit were not given back: they are free after a lease")

    # Set aside --------------------------------------------------------------------------------------------------------

    def _refused(self, refusal: Refusal) -> _Aside:
        aside = _Aside(refusal.settlement, asyncio.get_running_loop().time() + FIRST_REST, tries=1)
        _tell(aside, refusal.error)
        return aside

    async def _set_aside(self, refused: Sequence[_Aside]) -> None:
        """Set them aside, and give back their places under limits: their handlers have ended."""
        if not refused:
            return
        self._aside += refused
        beyond = [each.settlement for each in self._aside[ASIDE_LIMIT:]]
        del self._aside[ASIDE_LIMIT:]
        self._aside_changed.set()
        for delivery, _ in beyond:
            log.error("too many settlements are refused: this one is left to its lease", **delivery.named())
        self._let_go(beyond)
        await self._leave([each.settlement for each in refused])

    async def _settle_aside(self) -> None:
        """One at a time, so that none can be the reason for another's refusal."""
        loop = asyncio.get_running_loop()
        while True:
            self._aside_changed.clear()
            due = [each for each in self._aside if self._ending or each.due <= loop.time()]
            for each in due:
                await self._try_alone(each)
            if self._ending:
                self.given_up += len(self._aside)
                self._aside.clear()
            first = min((each.due for each in self._aside), default=None)
            try:
                async with asyncio.timeout_at(first):
                    await self._aside_changed.wait()
            except TimeoutError:
                continue

    async def _try_alone(self, aside: _Aside) -> None:
        error: Exception
        try:
            refusals = await self._transport.settle([aside.settlement])
        except Exception as raised:  # noqa: BLE001 - it concerns this settlement alone: the next one has its turn
            error = raised
        else:
            if not refusals:
                self._aside.remove(aside)
                if aside.told:
                    log.info("a refused outcome is settled now", tries=aside.tries, **aside.settlement.delivery.named())
                self._let_go([aside.settlement])
                return
            error = refusals[0].error
        if not isinstance(error, Full | Unavailable):
            aside.tries += 1
            _tell(aside, error)
        rest = min(FIRST_REST * 2.0 ** min(aside.tries, 10), LONGEST_REST)
        aside.due = asyncio.get_running_loop().time() + rest


def _tell(aside: _Aside, error: Exception) -> None:
    """Log it once, however often it is tried."""
    if aside.told:
        return
    aside.told = True
    delivery, outcome = aside.settlement
    log.error(
        "an event cannot be settled, and is set aside: it stays in hand and is tried again alone, up to once a minute",
        **delivery.named(),
        outcome=type(outcome).__name__.lower(),
        reason=str(error) or type(error).__name__,
        error_type=type(error).__name__,
    )
