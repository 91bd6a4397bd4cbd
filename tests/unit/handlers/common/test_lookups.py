"""A look into PostgreSQL ends in time, whatever the server does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eventbus import Connection, EventBus, Unavailable
from handlers.common import deadline, lookups
from handlers.common.lookups import look
from tests.waiting import PATIENCE


class Bus:
    """Its transactions end, even cancelled, when they are let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        try:
            yield SimpleNamespace(connection="connection")
        finally:
            await self.let_go.wait()


async def answer(connection: Connection) -> str:
    return f"asked by {connection}"


async def test_it_is_answered() -> None:
    bus = Bus()
    bus.let_go.set()
    assert await look(cast(EventBus, bus), answer) == "asked by connection"


async def test_who_does_not_answer_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "TIMEOUT", 0.05)
    bus = Bus()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unavailable, match=r"no answer for 0\.05 s"):
            await look(cast(EventBus, bus), answer)
    assert len(deadline._left_behind) == 1
    bus.let_go.set()
    await asyncio.wait(deadline._left_behind)
    await asyncio.sleep(0)
    assert not deadline._left_behind


async def test_who_is_cancelled_does_not_wait_for_it() -> None:
    bus = Bus()
    looker = asyncio.create_task(look(cast(EventBus, bus), answer))
    await asyncio.sleep(0)
    looker.cancel()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(asyncio.CancelledError):
            await looker
    bus.let_go.set()
