"""A loop whose time passes only while everything waits: hours take no time, and no machine is too slow for them."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class _Leaping(selectors.DefaultSelector):
    """Instead of waiting for the next timer it moves the clock to it."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits, and no timer will wake it"
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.now

    def pass_time(self, seconds: float) -> None:
        """As when a handler keeps the loop for so long."""
        self._leaping.now += seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run. `main` may wait for timers and for what runs in the same loop, and for nothing else."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Makes a plain test of an async one: `@in_virtual_time`."""

    @functools.wraps(test)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return wrapped


def loop() -> VirtualLoop:
    """The one that runs now."""
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running
