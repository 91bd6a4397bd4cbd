"""Running a program on the fastest event loop that is there, and ending it even if some task does not want to end."""

import asyncio
import gc
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

from eventbus.process.safe_logging import get_logger

T = TypeVar("T")


YOUNG = 10_000  # objects made and not freed since the last collection that make another one due; Python's own: 700
END_GRACE = 5.0  # seconds that tasks which are left when the program ends have to end, too

log = get_logger("eventbus.loop")


def run(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, on uvloop where it is installed (it is not on Windows and PyPy).

    A task that swallows its cancellation would keep asyncio.run for ever: here it is abandoned after END_GRACE."""
    keep_standard_files()
    with asyncio.Runner(loop_factory=_factory()) as runner:
        return runner.run(_ended(main))


async def _ended(main: Coroutine[Any, Any, T]) -> T:
    try:
        return await main
    finally:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            _, stubborn = await asyncio.wait(left, timeout=END_GRACE)
            for task in stubborn:
                log.error("a task does not end: abandoned", task=repr(task.get_coro()))
                abandon(task)


def keep_standard_files() -> None:
    """A process may be started without stdin, stdout or stderr. What it opens next would take that place: whoever means
    the standard file would write into it, and uvloop aborts the process when it closes a file of its own there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def begin(coroutine: Coroutine[Any, Any, T], context: Context) -> asyncio.Task[T]:
    """A task that runs in `context`, which nothing else may be running in.

    Works with any task factory that the program has set: some know no `context=`. With some, the coroutine has begun,
    and may even have ended, before this returns."""
    return context.run(asyncio.get_running_loop().create_task, coroutine)


def abandon(task: asyncio.Task[Any]) -> None:
    """Have done with a task that swallows its cancellation: its coroutine is closed where it waits.

    One that goes on even then cannot be ended from inside of this process."""
    coroutine = task.get_coro()
    if isinstance(coroutine, Coroutine):
        with suppress(Exception):  # it goes on awaiting, or fails as it is closed
            coroutine.close()
    task.add_done_callback(_forget)
    task.cancel()


def _forget(task: asyncio.Task[Any]) -> None:
    """A closed coroutine cannot even be cancelled: keep asyncio from reporting the error of that."""
    if not task.cancelled():
        task.exception()


def collect_seldom() -> None:
    """For a server that is up. Objects made so far stay for good, and are not looked through any more. Requests in work
    hold more objects than Python's own threshold, so that every few of them would be looked through in vain."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


def _factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - absent on some platforms
    except ImportError:
        return None
    return uvloop.new_event_loop
