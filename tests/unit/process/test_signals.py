"""One signal ends all who asked for it, and the program's own handlers are told and stay what they were."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

import pytest
import uvloop

from eventbus import Context, Event, EventBus, Group, Worker
from eventbus.process.signals import told
from tests.waiting import PATIENCE, until

Main = Callable[[], Coroutine[Any, Any, None]]


class Rung(Event, type="bells.rung"):
    pass


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Main], None]]:
    """A program of its own, on either loop; the handlers are afterwards what they were before."""
    found = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in a program
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in found}

    def run(main: Main) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    yield run
    after = {number: signal.getsignal(number) for number in before}
    for number, handler in found.items():
        signal.signal(number, handler)
    assert after == before


def _group() -> Group:
    group = Group("bells")

    @group.on(Rung)
    async def hear(_event: Rung, _ctx: Context) -> None:
        return

    return group


def _send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_ends_all_workers_of_a_process(run: Callable[[Main], None], number: int) -> None:
    async def main() -> None:
        async with EventBus("memory://") as one, EventBus("memory://") as other:
            workers = [Worker(bus, [_group()]) for bus in (one, other, one)]
            running = [asyncio.create_task(worker.run()) for worker in workers]
            await until(lambda: len(one.metrics.in_process) == 2 and other.metrics.in_process)
            _send(number)
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*running)

    run(main)


def test_what_the_loop_was_given_is_told_and_stays(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        heard: list[int] = []
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, heard.append, 1)
        async with EventBus("memory://") as bus:
            first, second = [asyncio.create_task(Worker(bus, [_group()]).run()) for _ in range(2)]
            await until(lambda: len(bus.metrics.in_process) == 2)
            first.cancel()
            await asyncio.wait([first])
            _send(signal.SIGINT)
            async with asyncio.timeout(PATIENCE):
                await second
            await until(lambda: heard == [1])
            _send(signal.SIGINT)
            await until(lambda: heard == [1, 1])
        loop.remove_signal_handler(signal.SIGINT)

    run(main)


def test_what_signal_was_given_is_told_and_stays(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        heard: list[int] = []

        def hear(number: int, _frame: FrameType | None) -> None:
            heard.append(number)

        before = signal.signal(signal.SIGTERM, hear)
        async with EventBus("memory://") as bus:
            running = asyncio.create_task(Worker(bus, [_group()]).run())
            await until(lambda: bus.metrics.in_process)
            _send(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                await running
        assert heard == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is hear
        signal.signal(signal.SIGTERM, before)

    run(main)


def test_who_comes_meanwhile_is_left_there_and_told_by_the_next(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        heard: list[str] = []
        before = signal.getsignal(signal.SIGTERM)
        with told(lambda _number: heard.append("first")):
            ours = signal.getsignal(signal.SIGTERM)

            def program(number: int, frame: FrameType | None) -> None:
                heard.append("program")
                assert callable(ours)
                ours(number, frame)

            signal.signal(signal.SIGTERM, program)
            with told(lambda _number: heard.append("second")):
                _send(signal.SIGTERM)
                await until(lambda: {"first", "second", "program"} <= set(heard))
                assert len(heard) == 3
            assert signal.getsignal(signal.SIGTERM) is not before
        assert signal.getsignal(signal.SIGTERM) is program
        signal.signal(signal.SIGTERM, before)

    run(main)


def test_python_s_own_end_waits_for_the_worker_s(run: Callable[[Main], None]) -> None:
    """asyncio.run cancels its main task at the first SIGINT, and raises KeyboardInterrupt at the second."""

    async def main() -> None:
        heard: list[int] = []
        with told(heard.append):
            for count in (1, 2, 3):
                _send(signal.SIGINT)
                await until(lambda count=count: len(heard) == count)  # type: ignore[misc]
        _send(signal.SIGINT)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 1
        task.uncancel()

    run(main)


_FORKING = """
import asyncio, os, signal, sys
from eventbus.process.signals import told

async def main():
    with told(print):
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(7)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM, status
        await asyncio.sleep(0.05)
        print("unharmed")

asyncio.run(main())
"""


def test_a_child_that_was_forked_is_ended_as_any_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FORKING], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert done.stdout == "unharmed\n"
