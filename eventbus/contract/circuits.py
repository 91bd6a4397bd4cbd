"""Circuit breakers for services outside: while one fails, nobody calls it. All processes share a circuit's state.

closed     everybody calls; failures in a row are counted, whoever meets them
open       after so many in a row: nobody calls, for a pause
half open  then one caller is let through: it closes the circuit, or opens it for another pause

    N8N = Circuit("n8n", failures=3, pause=5.0, on=(Unreachable,))

    async with ctx.guarded(N8N):
        await call(…)

An event that meets an open circuit is snoozed, and so is one whose failure leaves it open: an outage spends no
attempts. Nobody can tell whether the event is to blame or the service, so an event that is older than `patience` is
not snoozed for a failure of its own: it fails.

A service that hangs fails late. With `slow_after`, a process in which so many calls of a circuit have gone without an
answer for so long makes no more of them meanwhile, and snoozes their events: they would only hang as well.
"""

import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from eventbus.checks.numbers import count_faults, seconds_faults
from eventbus.errors import ConfigurationError, EventBusError, RetryLater, SnoozeFor
from eventbus.process.safe_logging import get_logger

T = TypeVar("T")

JITTER = 0.1  # share of a wait: those that were put off together do not come back together
FORGET_AFTER = 600.0  # seconds; failures that are further apart are not "in a row"

log = get_logger("eventbus.circuits")


@dataclass(frozen=True, slots=True)
class Circuit:
    """A service that may fail as a whole.

    failures  in a row, over all processes, that open it
    pause     seconds that it is open until one caller is let through
    probe     seconds that this caller has to tell how it went; then the next that asks is let through as well
    patience  seconds that an event is put off for its own failures at the most
    on        the exceptions that are failures of the service; any other that it raises is an answer
    slow_after  seconds after which a call without an answer is slow; None: it may take any time
    slow_calls  so many slow calls of a process keep it from making more
    """

    name: str
    failures: int = 5
    pause: float = 5.0
    probe: float = 15.0
    patience: float = 3_600.0
    on: tuple[type[Exception], ...] = (Exception,)
    slow_after: float | None = None
    slow_calls: int = 5

    def __post_init__(self) -> None:
        counts = {"failures": self.failures, "slow_calls": self.slow_calls}
        times = {"pause": self.pause, "probe": self.probe}
        times |= {} if self.slow_after is None else {"slow_after": self.slow_after}
        wrong = [fault for name, number in counts.items() for fault in count_faults(name, number)]
        wrong += [fault for name, number in times.items() for fault in seconds_faults(name, number, least=0.001)]
        wrong += seconds_faults("patience", self.patience, most=math.inf)
        if wrong:
            raise ConfigurationError(f"Circuit({self.name!r}): " + "; ".join(wrong))


class CircuitState(NamedTuple):
    """A circuit that has met failures. `retry_in`: seconds until somebody is let through, if it is open."""

    name: str
    failures: int
    is_open: bool
    retry_in: float


class Circuits(Protocol):
    """Where the state is, for all processes. Every call raises Unavailable."""

    async def ask(self, circuit: Circuit) -> float:
        """0.0: call; otherwise the seconds after which to ask again. If it is open and lets a caller through, that
        caller must tell how it went."""

    async def failed(self, circuit: Circuit) -> bool:
        """Count one more failure; returns whether the circuit is open now."""

    async def succeeded(self, circuit: Circuit) -> None:
        """The service has answered: the circuit is closed, and its failures are forgotten."""

    async def troubled(self) -> list[CircuitState]:
        """Those that have failures in a row, sorted by name."""


class Calls:
    """The calls of this process that are under way, by circuit."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: dict[str, dict[object, float]] = {}

    def slow(self, circuit: Circuit) -> int:
        """How many calls have gone without an answer for `slow_after` seconds."""
        if circuit.slow_after is None:
            return 0
        until = self._clock() - circuit.slow_after
        return sum(began <= until for began in self._began.get(circuit.name, {}).values())

    @contextmanager
    def under_way(self, circuit: Circuit) -> Iterator[None]:
        call = object()
        began = self._began.setdefault(circuit.name, {})
        began[call] = self._clock()
        try:
            yield
        finally:
            del began[call]
            if not began:  # names come from people: none is kept for ever
                self._began.pop(circuit.name, None)


@asynccontextmanager
async def guarded(circuits: Circuits, calls: Calls, circuit: Circuit, age: float) -> AsyncIterator[None]:
    """Around a call to the service, made for an event of this age in seconds. Raises SnoozeFor: see above."""
    slow = calls.slow(circuit)
    if slow >= circuit.slow_calls:
        raise _put_off(circuit.pause, f"{circuit.name} has left {slow} calls unanswered for {circuit.slow_after} s")
    wait = await circuits.ask(circuit)
    if wait > 0:
        raise _put_off(wait, f"the circuit of {circuit.name} is open")
    try:
        with calls.under_way(circuit):
            yield
    except circuit.on as error:
        is_open = await _told(circuits.failed(circuit), otherwise=False)
        if is_open:
            log.warning("circuit open", circuit=circuit.name, reason=str(error))
        if is_open and age < circuit.patience:
            # Twice the pause: the next to be let through is another event, if there is one. This one may be to blame.
            asked = error.delay if isinstance(error, RetryLater) else 0.0
            raise SnoozeFor(max(2 * circuit.pause, asked), f"{error} (its circuit is open)") from error
        raise
    except Exception:
        await _told(circuits.succeeded(circuit), otherwise=None)
        raise
    await _told(circuits.succeeded(circuit), otherwise=None)


def _put_off(seconds: float, reason: str) -> SnoozeFor:
    return SnoozeFor(seconds * (1 + random.uniform(0, JITTER)), reason)  # noqa: S311


async def _told(telling: Awaitable[T], otherwise: T) -> T:
    """Tell a circuit. If that fails, it is logged, for the answer of the service is worth more; returns `otherwise`."""
    try:
        return await telling
    except EventBusError as error:
        log.warning("a circuit was not told", reason=str(error))
        return otherwise
