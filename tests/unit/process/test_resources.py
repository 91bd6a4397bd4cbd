"""Resources: opened once, when first used, and closed with the bus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import anyio
import pytest
import structlog

from eventbus import ConfigurationError, Context, Event, EventBus, Group, Resource, Use
from eventbus.testing import MemoryBus
from tests.waiting import until


class Wired(Event, type="wire.laid"):
    pass


class Journal:
    """Notes what is opened and closed; `gate` holds an opening up, `fail` makes that many of them fail."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail = 0

    def resource(self, name: str, *needs: Resource[str], closes: bool = True) -> Resource[str]:
        @asynccontextmanager
        async def opened(use: Use) -> AsyncIterator[str]:
            for need in needs:
                await use(need)
            self.notes.append(f"open {name}")
            await self.gate.wait()
            if self.fail:
                self.fail -= 1
                raise OSError(f"{name} cannot be opened")
            yield name.upper()
            self.notes.append(f"close {name}")
            if not closes:
                raise OSError(f"{name} does not close")

        return Resource(name, opened)


async def test_one_for_all_who_use_it_and_closed_with_the_bus() -> None:
    journal = Journal()
    wire = journal.resource("wire")
    async with EventBus("memory://") as bus:
        assert journal.notes == []
        assert await asyncio.gather(*(bus.resources.use(wire) for _ in range(5))) == ["WIRE"] * 5
        assert await bus.resources.use(wire) == "WIRE"
        assert journal.notes == ["open wire"]
    assert journal.notes == ["open wire", "close wire"]
    with pytest.raises(ConfigurationError, match="wire cannot be opened: this bus is closed"):
        await bus.resources.use(wire)


async def test_what_a_resource_stands_on_is_opened_before_and_closed_behind_it() -> None:
    journal = Journal()
    pole = journal.resource("pole")
    async with EventBus("memory://") as bus:
        await bus.resources.use(journal.resource("wire", pole))
        await bus.resources.use(pole)
    assert journal.notes == ["open pole", "open wire", "close wire", "close pole"]


async def test_a_failure_is_everybodys_who_waited_and_is_not_remembered() -> None:
    journal = Journal()
    journal.fail = 1
    wire = journal.resource("wire")
    async with EventBus("memory://") as bus:
        failures = await asyncio.gather(bus.resources.use(wire), bus.resources.use(wire), return_exceptions=True)
        assert [type(failure) for failure in failures] == [OSError, OSError]
        assert await bus.resources.use(wire) == "WIRE"
    assert journal.notes == ["open wire", "open wire", "close wire"]


async def test_who_is_cancelled_cancels_it_for_nobody_else() -> None:
    journal = Journal()
    journal.gate.clear()
    wire = journal.resource("wire")
    async with EventBus("memory://") as bus:
        first, second = asyncio.create_task(bus.resources.use(wire)), asyncio.create_task(bus.resources.use(wire))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first})
        journal.gate.set()
        assert await second == "WIRE"


async def test_a_bus_that_closes_does_not_wait_for_an_opening() -> None:
    journal = Journal()
    journal.gate.clear()
    async with EventBus("memory://") as bus:
        opening = asyncio.create_task(bus.resources.use(journal.resource("wire")))
        while not journal.notes:
            await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await opening


async def test_one_that_does_not_close_keeps_no_other_open() -> None:
    journal = Journal()
    async with EventBus("memory://") as bus:
        await bus.resources.use(journal.resource("pole"))
        await bus.resources.use(journal.resource("wire", closes=False))
    assert journal.notes[-1] == "close pole"


async def test_a_value_that_is_provided_is_used_and_nothing_opened() -> None:
    journal = Journal()
    wire = journal.resource("wire")
    async with EventBus("memory://") as bus:
        bus.resources.provide(wire, "string")
        assert await bus.resources.use(wire) == "string"
        with pytest.raises(ConfigurationError, match="wire is in use already"):
            bus.resources.provide(wire, "rope")
    assert journal.notes == []


async def test_handlers_use_it_through_their_context() -> None:
    journal = Journal()
    wire, seen = journal.resource("wire"), []
    group = Group("layers")

    @group.on(Wired)
    async def lay(event: Wired, ctx: Context) -> None:
        seen.append(await ctx.use(wire))

    bus = MemoryBus([group])
    await bus.publish(Wired())
    await bus.publish(Wired())
    await bus.drain()
    assert seen == ["WIRE", "WIRE"]
    assert journal.notes == ["open wire"]
    await bus.close()
    assert journal.notes == ["open wire", "close wire"]


async def test_it_is_closed_in_the_task_and_the_context_in_which_it_was_opened() -> None:
    opened: ContextVar[bool] = ContextVar("opened", default=False)
    tasks: list[object] = []

    @asynccontextmanager
    async def scoped(_use: Use) -> AsyncIterator[str]:
        tasks.append(asyncio.current_task())
        token = opened.set(True)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            with anyio.CancelScope():
                yield "scoped"
            group.cancel_scope.cancel()
        opened.reset(token)
        tasks.append(asyncio.current_task())

    with structlog.testing.capture_logs() as lines:
        async with EventBus("memory://") as bus:
            assert await asyncio.create_task(bus.resources.use(Resource("scope", scoped))) == "scoped"
    assert lines == []
    assert len(tasks) == 2
    assert tasks[0] is tasks[1]


async def test_one_that_ends_while_it_is_in_use_is_told_of_and_opened_again() -> None:
    fail = asyncio.Event()
    notes: list[str] = []

    async def child() -> None:
        await fail.wait()
        raise OSError("the cable is cut")

    @asynccontextmanager
    async def cabled(_use: Use) -> AsyncIterator[str]:
        notes.append("open")
        async with asyncio.TaskGroup() as group:
            children = [group.create_task(child())]
            yield "cable"
            children[0].cancel()
        notes.append("close")

    cable = Resource("cable", cabled)
    with structlog.testing.capture_logs() as lines:
        async with EventBus("memory://") as bus:
            await bus.resources.use(cable)
            fail.set()
            await until(lambda: lines)
            fail.clear()
            assert await bus.resources.use(cable) == "cable"
    assert [(line["event"], line["resource"]) for line in lines] == [("a resource ended while it was in use", "cable")]
    assert notes == ["open", "open", "close"]
