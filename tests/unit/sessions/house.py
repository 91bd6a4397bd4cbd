"""A bus in memory whose sessions can be away, full or silent, or lose replies."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from eventbus import Event, EventBus, Full, Unavailable
from eventbus.contract.codec import envelop
from eventbus.contract.session_store import Ledger
from eventbus.event import Envelope
from eventbus.memory import MemoryTransport
from tests.samples import consumer

STEPS = {"start", "add", "roll_back", "register", "begin", "publish", "finish", "forget", "find", "events", "active"}


class Counted(Event, type="order.counted"):
    number: int


class Moody(MemoryTransport):
    """Its ledger is as `mood` says: well, away, full, silent, or forgetful: it loses the next reply."""

    def __init__(self) -> None:
        super().__init__()
        self.mood = "well"
        self.asked: list[str] = []
        self.sessions = _Moody(self, self.sessions)  # type: ignore[assignment]

    async def connect(self) -> None:
        if self.mood in {"away", "silent"}:
            raise Unavailable("Redis at home", "connection refused")


class _Moody:
    def __init__(self, house: Moody, ledger: Ledger) -> None:
        self._house = house
        self._ledger = ledger

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        assert name in STEPS, name
        step = getattr(self._ledger, name)

        async def ask(*arguments: Any) -> Any:
            self._house.asked.append(name)
            match self._house.mood:
                case "away":
                    raise Unavailable("Redis at home", "connection refused")
                case "full":
                    raise Full("Redis at home is full: OOM")
                case "silent":
                    await asyncio.sleep(3600)
                case "forgetful":
                    self._house.mood = "well"
                    await step(*arguments)
                    raise Unavailable("Redis at home", "the reply was lost")
            return await step(*arguments)

        return ask


def bus_on(transport: Moody, spool: Path | None, timeout: float = 5.0) -> EventBus:
    bus = EventBus("memory://", spool=spool, publish_timeout=timeout)
    bus.transport = transport
    return bus


def counted(*found: int) -> list[Envelope]:
    return [envelop(Counted(number=number)) for number in found]


async def published(transport: MemoryTransport) -> list[int]:
    found = await transport.read(consumer(), 1000, 0.001)
    for delivery in found:
        assert delivery.fields[b"type"] == b"order.counted"
    return [Counted.model_validate_json(delivery.fields[b"data"]).number for delivery in found]
