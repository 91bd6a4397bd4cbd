"""What all processes share, inside one process: circuits and recent things. The rules of Redis."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from eventbus.circuits import FORGET_AFTER, Circuit, CircuitState


@dataclass(slots=True)
class _State:
    failures: int = 0
    open_until: float = 0.0
    probed_until: float = 0.0
    touched: float = 0.0


class MemoryCircuits:
    """See eventbus.circuits.Circuits."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._states: dict[str, _State] = {}

    async def ask(self, circuit: Circuit) -> float:
        state, now = self._states.get(circuit.name), self._clock()
        if state is None or not state.open_until:
            return 0.0
        wait = max(state.open_until, state.probed_until) - now
        if wait > 0:
            return wait
        state.probed_until = now + circuit.probe
        return 0.0

    async def failed(self, circuit: Circuit) -> bool:
        now = self._clock()
        state = self._states.setdefault(circuit.name, _State())
        if now - state.touched > FORGET_AFTER and not state.open_until:
            state.failures = 0
        state.failures += 1
        state.touched = now
        if state.open_until <= now and (state.open_until or state.failures >= circuit.failures):
            state.open_until, state.probed_until = now + circuit.pause, 0.0
        return state.open_until > 0

    async def succeeded(self, circuit: Circuit) -> None:
        self._states.pop(circuit.name, None)

    async def troubled(self) -> list[CircuitState]:
        now = self._clock()
        return sorted(
            CircuitState(
                name,
                state.failures,
                state.open_until > 0,
                max(0.0, state.open_until - now, state.probed_until - now) if state.open_until else 0.0,
            )
            for name, state in self._states.items()
        )


class MemoryRecent:
    """See eventbus.recent.Recent."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lists: dict[str, tuple[float, dict[bytes, int]]] = {}  # until when, and items by position

    async def add(self, name: str, items: Mapping[bytes, int], *, keep: int, seconds: float) -> None:
        if not items:
            return
        kept = {**self._present(name), **items}
        last = sorted(kept, key=lambda item: (kept[item], item))[-keep:]
        self._lists[name] = (self._clock() + seconds, {item: kept[item] for item in last})

    async def read(self, name: str) -> list[bytes]:
        return list(self._present(name))

    def _present(self, name: str) -> Mapping[bytes, int]:
        until, items = self._lists.get(name, (0.0, {}))
        return items if until > self._clock() else {}
