"""SIGTERM and SIGINT for whoever wants to be told, several at a time, beside handlers that the program has itself.

    with signals.told(on_signal):
        …                      # on_signal(number) is called in the loop that runs here, for each signal that comes

A signal has one handler in a process, and asyncio adds one for each loop. So here is one registry: every one in it is
told, in whatever order they come and go, and then the handler that the program had installed before, with
`signal.signal` or with `loop.add_signal_handler`. When the last one has gone, the program's handler is put back.

The handler is installed with `signal.signal`, not in the loop. What the program has given to `loop.add_signal_handler`
is still called by the loop, which the interpreter wakes for every signal by writing to a file. A handler of the loop's
could not be put back: only the program itself knows what it was.
"""

import asyncio
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

NUMBERS = (signal.SIGTERM, signal.SIGINT)

OnSignal = Callable[[int], None]


class _Told(NamedTuple):
    loop: asyncio.AbstractEventLoop
    on_signal: OnSignal


_told: list[_Told] = []
_handing_on: set[int] = set()
_before: dict[int, object] = {}  # what `signal.getsignal` knew; None: it was not installed from Python


@contextmanager
def told(on_signal: OnSignal) -> Iterator[None]:
    """Call it for each SIGTERM and SIGINT, in the loop that runs now. Outside of the main thread, to which alone Python
    hands signals, they are left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    entry = _Told(asyncio.get_running_loop(), on_signal)
    _install()
    _told.append(entry)
    try:
        yield
    finally:
        if entry in _told:  # in a process that was forked meanwhile it is not
            _told.remove(entry)
            if not _told:
                _restore()


def _install() -> None:
    for number in NUMBERS:
        handler = signal.getsignal(number)
        if handler is not _on_signal:  # else it is there already
            _before[number] = handler
            signal.signal(number, _on_signal)


def _restore() -> None:
    for number in NUMBERS:
        before = _before.get(number)
        # A handler that the program has installed meanwhile stays. One that came from C cannot be put back.
        if signal.getsignal(number) is _on_signal and before is not None:
            signal.signal(number, before)  # type: ignore[arg-type]  # it is what getsignal gave


def _on_signal(number: int, frame: FrameType | None) -> None:
    if number in _handing_on:  # the program's handler calls the one that it replaced, which was ours
        return
    for entry in tuple(_told):
        if not entry.loop.is_closed():
            entry.loop.call_soon_threadsafe(entry.on_signal, number)
    before = _before.get(number)
    if not _told and before == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    elif callable(before) and not (_told and _only_ends(before)):
        _handing_on.add(number)
        try:
            before(number, frame)
        finally:
            _handing_on.discard(number)


def _only_ends(handler: object) -> bool:
    """Whether it is the default of Python or of asyncio.run, which would cut short what is being ended in order."""
    if isinstance(handler, functools.partial):
        return isinstance(getattr(handler.func, "__self__", None), asyncio.Runner)
    return handler is signal.default_int_handler


def _forget() -> None:
    """In a forked child, signals end the process as usual: what its parent had registered does not run there."""
    _told.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
