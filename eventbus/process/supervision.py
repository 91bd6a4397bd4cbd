"""Background tasks that cannot end in silence.

supervise   what runs for as long as its owner does: begun again when it ends, after a pause and with a line of the log
Background  what is begun and left to itself: held until it ends, and what it raises is told
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from eventbus.errors import TaskFailed, described
from eventbus.process.safe_logging import get_logger

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0  # seconds between an end and the next beginning; three times as long each time
STEADY = 60.0  # seconds; what has run for so long is begun again as if it had never ended
DEATHS = 5  # in a row, within 4 seconds, after which a task that its owner cannot do without takes the owner along

log = get_logger("eventbus.supervision")

Run = Callable[[], Awaitable[None]]


class _Deaths:
    """Of all supervised tasks of this process."""

    def __init__(self) -> None:
        self.count = 0


_deaths = _Deaths()


def deaths() -> int:
    """How often a background task of this process ended and was begun again. May be asked from any thread."""
    return _deaths.count


async def supervise(name: str, run: Run, *, vital: bool = False, endless: bool = True) -> None:
    """Await `run()`; when it ends, whatever it raises, tell of it and begin again after a pause.

    vital    its owner cannot do without it: after DEATHS ends in a row, raises what it raised, or TaskFailed
    endless  it never returns: if it does, that is an end like any other. If not endless, this returns when it does
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    died, pause = 0, FIRST_PAUSE
    while True:
        began = loop.time()
        try:
            await run()
            if not endless:
                return
            error: BaseException | None = None
        except asyncio.CancelledError as cancelled:  # of this task; or of something that it awaited
            if task is None or task.cancelling():
                raise
            error = cancelled
        except Exception as raised:  # noqa: BLE001 - whatever it is, nobody else would notice
            error = raised
        if loop.time() - began >= STEADY:
            died, pause = 0, FIRST_PAUSE
        died += 1
        _deaths.count += 1
        reason = "it returned" if error is None else described(error)
        if vital and died >= DEATHS:
            log.error("a background task ends again and again, and its process with it", task=name, reason=reason)
            failed = TaskFailed(name, died, reason)
            if isinstance(error, Exception):
                error.add_note(str(failed))
                raise error
            raise failed from error
        log.error("a background task ends and begins again", task=name, reason=reason, pause=pause, exc_info=error)
        await asyncio.sleep(pause)
        pause = min(3 * pause, LONGEST_PAUSE)


class Background:
    """Tasks that nobody awaits. `owner`: what the log calls who has begun them."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str | None = None) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        """Those that have not ended."""
        return tuple(self._tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed", owner=self._owner, task=task.get_name(), exc_info=error)
