"""Where something was opened: in which event loop, and in which process. It can be used nowhere else.

A future of one loop is never done in another: whoever waits for it there waits for ever. And a process that was forked
shares the sockets of its parent: what it writes goes out in the parent's name, and each gets the other's replies.
"""

import asyncio
import os
import weakref
from typing import NamedTuple

from eventbus.errors import ConfigurationError


class _Elsewhere(NamedTuple):
    """Stands for the parent's loop in a process that was forked, where that loop does not run."""

    process: int
    loop: str


class Affinity:
    """Of one bus, or of a part of one. The hot path compares `loop` with the running one; if it is another, `check`
    says why that cannot work. `admitted`: whether the server has accepted the login once.

    must_be_open: whether it cannot be used before `enter`"""

    def __init__(self, *, must_be_open: bool = False) -> None:
        self.loop: asyncio.AbstractEventLoop | _Elsewhere | None = None
        self.closed = False
        self.admitted = False
        self._must_be_open = must_be_open
        self._process = os.getpid()
        _all.add(self)

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one that it was made in."""
        return isinstance(self.loop, _Elsewhere)

    def enter(self) -> None:
        """It is opened here. Raises ConfigurationError if it was opened before, or in a parent process."""
        if self.forked:
            self.check()
        if self.closed or self.loop is not None:
            state = "was closed" if self.closed else "is open already"
            raise ConfigurationError(f"this EventBus {state}, and opens once: make another one, `EventBus(…)`")
        self.loop = asyncio.get_running_loop()

    def leave(self) -> None:
        """It is closed."""
        self.closed, self.loop = True, None

    def check(self) -> None:
        """Raises ConfigurationError if it cannot be used here and now, and says why."""
        if isinstance(self.loop, _Elsewhere):
            raise ConfigurationError(
                f"this EventBus belongs to process {self.loop.process}, and process {os.getpid()} was forked from it: "
                "open another one there, `async with EventBus(…)`"
            )
        if self.closed:
            raise ConfigurationError("this EventBus was closed: make another one, `async with EventBus(…)`")
        if self.loop is None:
            if self._must_be_open:
                raise ConfigurationError("this EventBus is not open: use `async with EventBus(…)`")
            return
        running = asyncio.get_running_loop()
        if running is not self.loop:
            raise ConfigurationError(
                f"this EventBus was opened in the event loop {_named(self.loop)}, and is used in {_named(running)}: "
                "open another one there, `async with EventBus(…)`"
            )


def _named(loop: asyncio.AbstractEventLoop) -> str:
    return f"{type(loop).__name__} {id(loop):#x}{' (closed)' if loop.is_closed() else ''}"


_all: "weakref.WeakSet[Affinity]" = weakref.WeakSet()


def _move_out() -> None:
    for one in _all:
        if not one.forked:
            process = one._process
            one.loop = _Elsewhere(process, "" if one.loop is None else _named(one.loop))  # type: ignore[arg-type]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_move_out)
