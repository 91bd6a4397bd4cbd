"""What all processes share, inside one process: circuits, recent things, counts. The rules of Redis."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import orjson

from eventbus.contract.activity_stats import FAILURES, MINUTES, DeadEvent, Found, Share, Sums, minute_of
from eventbus.contract.circuits import FORGET_AFTER, Circuit, CircuitState


@dataclass(slots=True)
class _State:
    failures: int = 0
    open_until: float = 0.0
    probed_until: float = 0.0
    touched: float = 0.0


class MemoryCircuits:
    """See eventbus.contract.circuits.Circuits."""

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
    """See eventbus.contract.recent_cache.Recent."""

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


@dataclass(slots=True)
class _Kept:
    minutes: dict[int, tuple[int, Sums]] = field(default_factory=dict)  # by place in the ring
    failures: list[DeadEvent] = field(default_factory=list)
    last: dict[str, int] = field(default_factory=dict)  # the number of each writer's last addition


class MemoryTallies:
    """See eventbus.contract.activity_stats.Tallies. Counts are kept for as long as the process lives: it never has more
    organizations than fit."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._kept: dict[str, _Kept] = {}

    async def add(self, writer: str, number: int, shares: Sequence[Share]) -> None:
        now = self._now()
        minute = minute_of(now)
        for share in shares:
            kept = self._kept.setdefault(share.organization or "", _Kept())
            if kept.last.get(writer) == number:
                continue
            kept.last[writer] = number
            known, sums = kept.minutes.get(minute % MINUTES, (minute, Sums()))
            kept.minutes[minute % MINUTES] = minute, (sums if known == minute else Sums()).plus(share.sums)
            for packed in share.failures:
                told = orjson.loads(packed)
                told["event_id"] = told.pop("eventId")
                kept.failures.insert(0, DeadEvent(**told, at=now))
            del kept.failures[FAILURES:]

    async def read(self, organization: str | None, minutes: int) -> Found:
        now = self._now()
        kept = self._kept.get(organization or "", _Kept())
        sums = Sums()
        for minute, counted in kept.minutes.values():
            if 0 <= minute_of(now) - minute <= minutes:
                sums = sums.plus(counted)
        return Found(now, sums, list(kept.failures))
