"""What a process has asked for and is told of only after its lease: another may have it by then."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from eventbus import Context, Event, EventBus, Group
from eventbus.consuming.lease_renewal import ELSEWHERE
from eventbus.contract.broker import Broker
from eventbus.contract.delivery import Reclaimed
from tests.samples import consumer, receive
from tests.waiting import until
from tests.working import working

T = TypeVar("T")

LEASE = 0.4
DEAD = consumer("dead", group="post", stream="letter", lease=LEASE)


class Posted(Event, type="letter.posted"):
    pass


class Stopped:
    """As a process that is stopped when its transport has found something: it is told of that, and asks for more, only
    when `told` is set. `found`: there is something to tell."""

    def __init__(self, transport: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found, self.told = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(transport, "read", partial(self._ask, transport.read))
        monkeypatch.setattr(transport, "reclaim", partial(self._ask, transport.reclaim))

    async def _ask(self, verb: Callable[..., Awaitable[T]], *arguments: Any, **options: Any) -> T:
        if self.found.is_set():
            await self.told.wait()
        answer = await verb(*arguments, **options)
        if answer.deliveries if isinstance(answer, Reclaimed) else answer:
            self.found.set()
            await self.told.wait()
        return answer


@pytest.mark.parametrize("verb", ["read", "reclaim"])
async def test_what_ran_out_on_its_way_begins_with_its_new_owner_alone(
    verb: str, any_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    go_on = asyncio.Event()

    def group(process: str) -> Group:
        group = Group("post", lease=LEASE)

        @group.on(Posted)
        async def post(event: Posted, ctx: Context) -> None:
            begun.append(process)
            await go_on.wait()

        return group

    async with EventBus(any_redis_url) as late, EventBus(any_redis_url) as other:
        stopped = Stopped(late.transport, monkeypatch)
        if verb == "reclaim":
            await receive(other.transport, DEAD, 0)
        await other.publish(Posted())
        if verb == "reclaim":
            await receive(other.transport, DEAD)
        with capture_logs() as logs:
            async with working(late, group("late")):
                await stopped.found.wait()
                async with working(other, group("other")):
                    await until(lambda: begun)
                    stopped.told.set()
                    await until(lambda: [line for line in logs if line.get("consequence") == ELSEWHERE])
                    go_on.set()
    assert begun == ["other"]


async def test_what_is_still_its_own_begins_however_late_it_was_told(
    any_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    group = Group("post", lease=LEASE)

    @group.on(Posted)
    async def post(event: Posted, ctx: Context) -> None:
        begun.append(1)

    async with EventBus(any_redis_url) as bus:
        stopped = Stopped(bus.transport, monkeypatch)
        await bus.publish(Posted())
        async with working(bus, group):
            await stopped.found.wait()
            await asyncio.sleep(LEASE * 1.2)
            stopped.told.set()
            await until(lambda: begun)
            assert begun == [1]
