"""What a gateway runs in the background ends by an unexpected exception: that is told, and it begins again."""

import asyncio
import functools
from typing import Any

import pytest
from structlog.testing import capture_logs

from eventbus import EventBus
from eventbus.sessions import Recovery
from gateway.socket import websocket
from gateway.socket.waiting_answers import Responses
from tests.gateway.client import running
from tests.gateway.test_websocket import push, receive
from tests.waiting import until

TIMES = 2


def plant(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> str:
    left, method, place = TIMES, getattr(owner, name), f"planted in {name} of {owner.__name__}"

    @functools.wraps(method)
    async def raising(*args: Any) -> None:
        nonlocal left
        if left > 0:
            left -= 1
            raise LookupError(place)
        await method(*args)

    monkeypatch.setattr(owner, name, raising)
    return place


async def test_each_is_told_and_begun_again(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = [(websocket, "_listen"), (Responses, "run"), (Recovery, "run")]
    places = [plant(monkeypatch, owner, name) for owner, name in owners]
    with capture_logs() as lines:
        async with running(bus) as gateway:

            def all_told() -> bool:
                errors = [str(line) for line in lines if line["log_level"] == "error"]
                return all(sum(place in line for line in errors) == TIMES for place in places)

            await until(all_told)
            async with gateway.caller("ann", "acme").socket() as socket:
                await receive(socket)
                waiting = asyncio.create_task(receive(socket))
                while not waiting.done():
                    await push(bus)
                    await asyncio.wait({waiting}, timeout=0.05)
                assert waiting.result()["type"] == "notification"
