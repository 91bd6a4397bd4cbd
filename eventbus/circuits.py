"""Circuit breakers for services outside: while one fails, nobody calls it. All processes share a circuit's state.

closed     everybody calls; failures in a row are counted, whoever meets them
open       so many in a row: nobody calls, for a pause
half open  then one caller is let through: it closes the circuit, or opens it for another pause

    N8N = Circuit("n8n", failures=3, pause=5.0, on=(Unreachable,))

    async with ctx.guarded(N8N):
        await call(…)

An event that meets an open circuit is snoozed, and so is one whose failure leaves it open: an outage spends no
attempts. It cannot be told whether the event is to blame or the service, so what is older than `patience` does fail.
"""

import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import structlog

from eventbus.errors import ConfigurationError, EventBusError, RetryLater, SnoozeFor

T = TypeVar("T")

JITTER = 0.1  # share of a wait: those that were put off together do not come back together
FORGET_AFTER = 600.0  # seconds after which a failure is not followed by another one "in a row"

log = structlog.get_logger("eventbus.circuits")


@dataclass(frozen=True, slots=True)
class Circuit:
    """A service that may fail as a whole.

    failures  in a row, over all processes, that open it
    pause     seconds that it is open until one caller is let through
    probe     seconds that this one has; whoever asks later is let through as well
    patience  seconds that an event is put off for its own failures at the most
    on        the exceptions that are failures of the service; any other that it raises is an answer
    """

    name: str
    failures: int = 5
    pause: float = 5.0
    probe: float = 15.0
    patience: float = 3_600.0
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        numbers = {"failures": self.failures, "pause": self.pause, "probe": self.probe}
        wrong = [f"{name}={number} must be above 0" for name, number in numbers.items() if number <= 0]
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
        """0.0: call; otherwise the seconds after which to ask again. Who is let through while it is open must tell."""

    async def failed(self, circuit: Circuit) -> bool:
        """One more failure; whether the circuit is open now."""

    async def succeeded(self, circuit: Circuit) -> None:
        """The service has answered: closed, and nothing counted."""

    async def troubled(self) -> list[CircuitState]:
        """Those that have failures in a row, sorted by name."""


@asynccontextmanager
async def guarded(circuits: Circuits, circuit: Circuit, age: float) -> AsyncIterator[None]:
    """Around a call to the service, made for an event of this age in seconds. Raises SnoozeFor: see above."""
    wait = await circuits.ask(circuit)
    if wait > 0:
        raise SnoozeFor(wait * (1 + random.uniform(0, JITTER)), f"the circuit of {circuit.name} is open")  # noqa: S311
    try:
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


async def _told(telling: Awaitable[T], otherwise: T) -> T:
    """What the service answered is worth more than who knows of it."""
    try:
        return await telling
    except EventBusError as error:
        log.warning("a circuit was not told", reason=str(error))
        return otherwise
