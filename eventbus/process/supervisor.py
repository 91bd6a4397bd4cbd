"""Several processes of one command, kept running until a signal.

A process that dies is started again: after half a second, and after twice as long each time that it dies young, up to
half a minute. Each death is one line of log. Processes are started, never forked: a loop that runs cannot be copied.

Nobody outlives the supervisor. Each process holds the reading end of a pipe that only the supervisor could write to;
when it is closed, by whatever end the supervisor came to, the process drains and goes (`follow`).
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress

from eventbus.process import signals
from eventbus.process.safe_logging import get_logger
from eventbus.process.supervision import Background

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between a death and the next start
STEADY = 10.0  # seconds; a process that has lived so long did not die young
MARGIN = 10.0  # seconds beyond the grace, after which a process that does not end is killed

_PIPE = "EVENTBUS_SUPERVISOR_FD"

log = get_logger("eventbus.supervisor")


class Supervisor:
    """`await Supervisor([sys.executable, …], 4, grace=30.0).run()`.

    grace     seconds that the processes have to drain; one that takes 10 s longer is killed
    changes   if given, each item that it yields restarts all processes, which drain first; and a process that fails
              is not started again before the next change
    environment  variables of the n-th process, from 1 on, beside those of this one
    """

    def __init__(
        self,
        command: Sequence[str],
        processes: int,
        *,
        grace: float,
        changes: AsyncIterator[object] | None = None,
        environment: Callable[[int], Mapping[str, str]] | None = None,
    ) -> None:
        self._command = list(command)
        self._environment = environment or (lambda _number: {})
        self._grace = grace
        self._changes = changes
        self._children: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._told = [asyncio.Event() for _ in range(processes)]  # that it is to go, one for each process
        self._pipe, self._held = os.pipe()

    async def run(self) -> int:
        """Until SIGTERM or SIGINT; a second one is passed on as well. The exit code: 0 if all processes drained, 1 if
        one had to be killed or failed while it stopped."""
        with signals.told(self._on_signal):
            codes = await self._keep_all()
        failed = [code for code in codes if code not in {0, -signal.SIGTERM}]  # SIGTERM: it may not have been up yet
        log.info("all workers stopped", failed=len(failed))
        return 1 if failed else 0

    async def _keep_all(self) -> list[int]:
        watching = Background("supervisor").start(self._watch(), "changes")
        try:
            return await asyncio.gather(*(self._keep(number, told) for number, told in enumerate(self._told, start=1)))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            os.close(self._held)
            os.close(self._pipe)

    def _on_signal(self, number: int) -> None:
        log.info("stopping all workers", signal=signal.Signals(number).name)
        self._stopping.set()
        self._tell()

    def _tell(self) -> None:
        for told in self._told:
            told.set()
        for child in self._children.values():
            if child.returncode is None:
                child.terminate()

    async def _keep(self, number: int, told: asyncio.Event) -> int:
        """Start, wait, start again. Returns the last exit code."""
        pause, code = FIRST_PAUSE, 0
        while not self._stopping.is_set():
            told.clear()
            try:
                child, started = await self._start(number, told), time.monotonic()
            except OSError:  # the system has no process to give now
                log.exception("a worker process cannot be started", worker=number, again=f"in {pause:g} s")
                code = 1
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await told.wait()
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            code = await self._wait(child, told)
            if told.is_set():
                pause = FIRST_PAUSE
                continue
            lived = time.monotonic() - started
            pause = FIRST_PAUSE if lived >= STEADY else pause
            waits = self._changes is not None and code > 0
            log.error(
                "worker died",
                worker=number,
                pid=child.pid,
                code=code,
                seconds=round(lived, 1),
                again="when a file changes" if waits else f"in {pause:g} s",
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(None if waits else pause):
                    await told.wait()
            pause = min(pause * 2, LONGEST_PAUSE)
        return code

    async def _start(self, number: int, told: asyncio.Event) -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            *self._command,
            env={**os.environ, **self._environment(number), _PIPE: str(self._pipe)},
            pass_fds=[self._pipe],
            start_new_session=True,  # Ctrl-C is for the supervisor, which tells the others once
        )
        self._children[number] = child
        log.info("worker process started", worker=number, pid=child.pid)
        if told.is_set():  # while it was being started
            child.terminate()
        return child

    async def _wait(self, child: asyncio.subprocess.Process, told: asyncio.Event) -> int:
        ended, telling = asyncio.create_task(child.wait()), asyncio.create_task(told.wait())
        await asyncio.wait([ended, telling], return_when=asyncio.FIRST_COMPLETED)
        telling.cancel()
        await asyncio.wait([ended], timeout=self._grace + MARGIN)
        if not ended.done():
            log.error("killed: it did not drain", pid=child.pid, seconds=self._grace + MARGIN)
            child.kill()
        return await ended

    async def _watch(self) -> None:
        if self._changes is None:
            return
        async for changed in self._changes:
            log.info("restarting all workers", changed=changed)
            self._tell()


def follow(grace: float) -> None:
    """Called by a process that a supervisor may have started: drain when the supervisor is gone, whatever ended it.

    From a thread: a handler that blocks the loop holds up the draining, but not the end after `grace` seconds."""
    pipe = os.environ.pop(_PIPE, None)
    if pipe is not None:
        threading.Thread(target=_await_end, args=(int(pipe), grace), name="supervisor", daemon=True).start()


def _await_end(pipe: int, grace: float) -> None:
    os.read(pipe, 1)  # nobody writes: it returns when the other end is closed
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace + MARGIN)
    os._exit(1)
