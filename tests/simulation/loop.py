"""An event loop for several processes whose time is made up.

Nothing ever waits: when nobody has anything to do, the clock goes on to the next moment at which something happens. The
callbacks of one process run in the order in which they came, as on any loop. Whose turn it is among processes that
could all run now is drawn from the seed.

A process can be frozen, which holds back all that it would do, and killed, after which it does nothing any more. What
belongs to a process is told by a context variable, which tasks and callbacks inherit.
"""

import asyncio
import heapq
import random
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any

MOST_STEPS = 400_000  # callbacks in one simulation: more are a loop without end

_process: ContextVar["Process"] = ContextVar("process")


class Livelock(Exception):
    """So much happens that it will never end."""


class Killed(BaseException):
    """Unwinds what a process was doing when it died; nothing that it does on the way has an effect."""


class Process:
    """Something that runs, and can die alone."""

    def __init__(self, loop: "Loop", name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.alive = True
        self.frozen = False
        self.skew = 0.0  # seconds by which its clock of the day is wrong
        self.ready: deque[asyncio.Handle] = deque()
        self.queued = False  # whether it is among those whose turn may be next
        self.held: list[asyncio.Handle] = []  # what came while it was frozen
        self.tasks: list[asyncio.Task[Any]] = []  # kept, so that nothing of it is collected, and closed, too early
        self.ended: list[Callable[[], None]] = []  # told when it dies
        self._loop = loop
        self._context = copy_context()
        self._context.run(_process.set, self)

    def spawn(self, main: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this process."""
        return self._loop.create_task(main, context=self._context.copy())

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Something has reached it from outside."""
        self._loop.put(self, asyncio.Handle(callback, args, self._loop, self._context.copy()))

    def kill(self) -> None:
        if self.alive:
            self.alive, self.frozen = False, False
            self.ready.clear()
            self.held.clear()
            for tell in self.ended:
                tell()

    def freeze(self) -> None:
        self.frozen = self.alive

    def thaw(self) -> None:
        if self.frozen:
            self.frozen = False
            held, self.held = self.held, []
            for handle in held:
                self._loop.put(self, handle)


def current() -> "Process | None":
    """The process whose code runs now."""
    return _process.get(None)


class _Event:
    """Something that happens outside of all processes."""

    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop(asyncio.BaseEventLoop):
    """`at` for what fate does; `simulate` until somebody calls `finish`."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self.now = 0.0
        self._number = 0
        self._heap: list[tuple[float, int, _Event | asyncio.TimerHandle]] = []
        self._busy: list[Process] = []  # those that have something ready
        self._over = False
        self.processes: list[Process] = []
        self.steps = 0
        self.failures: list[str] = []  # what nobody caught
        self.connect: Callable[[Process, Callable[[], asyncio.Protocol]], Coroutine[Any, Any, Any]] | None = None

    # What asyncio asks for --------------------------------------------------------------------------------------------

    def time(self) -> float:
        return self.now

    def call_soon(  # type: ignore[override]  # typeshed ties the arguments to the callback
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        process = _process.get(None) if context is None else context.get(_process)
        if process is not None:
            self.put(process, handle)
        return handle

    def call_at(  # type: ignore[override]  # as above
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """They are passed over when their time comes."""

    def create_task(self, coro: Any, *, name: object = None, context: Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(
            coro, loop=self, name=None if name is None else str(name), context=context
        )
        process = _process.get(None) if context is None else context.get(_process)
        if process is not None:
            process.tasks.append(task)
        return task

    async def create_connection(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        process = current()
        assert process is not None
        assert self.connect is not None
        return await self.connect(process, protocol_factory)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Killed):
            self.failures.append(f"{context.get('message')}: {error!r}")

    def get_debug(self) -> bool:
        return False

    # Running ----------------------------------------------------------------------------------------------------------

    def process(self, name: str) -> Process:
        process = Process(self, name, len(self.processes) + 1)
        self.processes.append(process)
        return process

    def put(self, process: Process, handle: asyncio.Handle) -> None:
        if process.frozen:
            process.held.append(handle)
        elif process.alive:
            process.ready.append(handle)
            if not process.queued:
                process.queued = True
                self._busy.append(process)

    def at(self, when: float, callback: Callable[[], None]) -> _Event:
        """Call this when it is that time."""
        event = _Event(callback)
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, event))
        return event

    def finish(self) -> None:
        self._over = True

    def simulate(self) -> None:
        """Until `finish`, or until nothing can happen any more."""
        events._set_running_loop(self)
        try:
            while not self._over:
                if self._busy:
                    self._give_turn()
                elif self._heap:
                    self._go_on()
                else:
                    return
        finally:
            events._set_running_loop(None)

    def _give_turn(self) -> None:
        """One tick of one process."""
        busy = self._busy
        process = busy.pop(self._rng.randrange(len(busy)) if len(busy) > 1 else 0)
        ready = process.ready
        number = len(ready)
        self.steps += number
        if self.steps > MOST_STEPS:
            raise Livelock(f"{process.name}: {list(ready)[:3]}")
        for _ in range(number):
            if not ready or process.frozen:
                break
            handle = ready.popleft()
            if not handle._cancelled:  # as asyncio's own loops do
                handle._run()
        if process.frozen:
            process.held[:0] = ready
            ready.clear()
        process.queued = bool(ready)
        if ready:
            busy.append(process)

    def _go_on(self) -> None:
        when, _, event = heapq.heappop(self._heap)
        if isinstance(event, _Event):
            if not event.cancelled:
                self.now = max(self.now, when)
                event.callback()
        elif not event._cancelled:
            process = event._context.get(_process)  # type: ignore[attr-defined]
            if process is not None and process.alive:
                self.now = max(self.now, when)
                self.put(process, event)

    def end(self) -> None:
        """Close what was left in the middle, in the order in which it was made."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            for task in process.tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    coroutine = task.get_coro()
                    if isinstance(coroutine, Coroutine):
                        with suppress(BaseException):  # whatever it says to that, nobody is there any more
                            coroutine.close()
                elif not task.cancelled():
                    task.exception()
        self._heap.clear()
        self.close()
