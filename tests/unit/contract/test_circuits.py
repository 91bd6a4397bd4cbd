"""What a circuit makes of an exception: put off while it is open, the event's own failure otherwise."""

from contextlib import AsyncExitStack, nullcontext
from dataclasses import replace

import pytest

from eventbus import EventBus, Reject, RetryLater, SnoozeFor, Unavailable
from eventbus.contract.circuits import Calls, Circuit, guarded
from eventbus.memory import MemoryTransport
from eventbus.memory.shared import MemoryCircuits


class Down(Exception): ...


CRM = Circuit("crm", failures=2, pause=5.0, probe=7.0, patience=60.0, on=(Down, RetryLater))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def call(circuits: MemoryCircuits, error: Exception | None = None, age: float = 0.0) -> None:
    async with guarded(circuits, Calls(), CRM, age):
        if error is not None:
            raise error


async def test_a_failure_that_leaves_it_closed_is_the_events_own() -> None:
    with pytest.raises(Down):
        await call(MemoryCircuits(Clock()), Down())


async def test_one_that_opens_it_and_all_that_meet_it_open_are_put_off() -> None:
    circuits = MemoryCircuits(Clock())
    with pytest.raises(Down):
        await call(circuits, Down())
    with pytest.raises(SnoozeFor) as first:
        await call(circuits, Down("no route"))
    assert (first.value.delay, str(first.value)) == (10.0, "no route (its circuit is open)")
    with pytest.raises(SnoozeFor, match="the circuit of crm is open") as second:
        await call(circuits)
    assert 5.0 <= second.value.delay <= 5.5


async def test_who_is_asked_to_come_later_comes_as_late_as_that() -> None:
    circuits = MemoryCircuits(Clock())
    with pytest.raises(RetryLater):
        await call(circuits, RetryLater(90.0))
    with pytest.raises(SnoozeFor) as put_off:
        await call(circuits, RetryLater(90.0))
    assert put_off.value.delay == 90.0


async def test_what_is_old_fails_of_its_own_in_the_end() -> None:
    clock = Clock()
    circuits = MemoryCircuits(clock)
    for _ in range(2):
        with pytest.raises((Down, SnoozeFor)):
            await call(circuits, Down())
    with pytest.raises(SnoozeFor, match="is open"):
        await call(circuits, Down(), age=61.0)
    clock.now += 5.0
    with pytest.raises(Down):
        await call(circuits, Down(), age=61.0)
    assert (await circuits.troubled())[0].is_open


async def test_any_other_error_is_an_answer() -> None:
    circuits = MemoryCircuits(Clock())
    for error in (Down(), Reject("404"), Down(), None, Down(), KeyError("x")):
        with pytest.raises(Exception) if error else nullcontext():  # noqa: PT011 - whichever it was
            await call(circuits, error)
    assert await circuits.troubled() == []


async def test_who_cannot_tell_what_the_service_said_goes_on_with_that(capfd: pytest.CaptureFixture[str]) -> None:
    class Away(MemoryCircuits):
        async def failed(self, circuit: Circuit) -> bool:
            raise Unavailable("Redis", "gone")

        async def succeeded(self, circuit: Circuit) -> None:
            raise Unavailable("Redis", "gone")

    circuits = Away(Clock())
    await call(circuits)
    with pytest.raises(Down):
        await call(circuits, Down())
    assert capfd.readouterr().out.count("a circuit was not told") == 2


async def test_a_bus_has_circuits_and_recent_things() -> None:
    bus = EventBus("memory://")
    assert isinstance(bus.transport, MemoryTransport)
    async with bus:
        for _ in range(2):
            with pytest.raises((Down, SnoozeFor)):
                async with bus.shared.guarded(CRM):
                    raise Down
        with pytest.raises(SnoozeFor, match="is open"):
            async with bus.shared.guarded(CRM):
                raise AssertionError("nobody is called")
        await bus.shared.remember("searches", {b"umbrella": 1}, keep=2, seconds=1)
        assert await bus.shared.recall("searches") == [b"umbrella"]


async def test_so_many_slow_calls_keep_others_from_being_made() -> None:
    clock = Clock()
    circuits, calls = MemoryCircuits(clock), Calls(clock)
    flow = Circuit("flow", pause=5.0, slow_after=10.0, slow_calls=2)
    async with AsyncExitStack() as hanging:
        for _ in range(2):
            await hanging.enter_async_context(guarded(circuits, calls, flow, 0.0))
            clock.now += 6.0
        async with guarded(circuits, calls, flow, 0.0):
            pass  # one of them is slow so far
        clock.now += 6.0
        with pytest.raises(SnoozeFor, match=r"flow has left 2 calls unanswered for 10\.0 s") as put_off:
            await hanging.enter_async_context(guarded(circuits, calls, flow, 0.0))
        assert 5.0 <= put_off.value.delay <= 5.5
        async with guarded(circuits, calls, replace(flow, name="another"), 0.0):
            pass
    async with guarded(circuits, calls, flow, 0.0):
        pass  # they were answered


async def test_who_is_put_off_for_slow_calls_keeps_no_probe_to_himself() -> None:
    """Who is let through an open circuit must tell what came of it."""
    clock = Clock()
    circuits, calls = MemoryCircuits(clock), Calls(clock)
    flow = Circuit("flow", failures=1, pause=5.0, probe=1_000.0, slow_after=10.0, slow_calls=1)
    async with guarded(circuits, calls, flow, 0.0):
        with pytest.raises(SnoozeFor, match="Down"):
            async with guarded(circuits, calls, flow, 0.0):
                raise Down("Down")
        clock.now += 10.0
        with pytest.raises(SnoozeFor, match="unanswered"):
            async with guarded(circuits, calls, flow, 0.0):
                pass
    clock.now += 10.0
    async with guarded(circuits, calls, flow, 0.0):
        pass
