"""Seconds that the code under test took, without those in which the machine kept it from running.

A bound in time must tell right from wrong, and not a quick machine from a slow one. So what counts here is the time
that has passed, less the time that this process and those it has started waited for a processor, or the machine for its
disks: the kernel counts both. Code that waits for what it should not wait for is found on any machine, however busy.
"""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_PROC = Path("/proc")


class Stopwatch:
    """Runs from when it is made; `with Stopwatch() as watch:` stops it at the end of the block.

    `seconds`: what the code is to be blamed for. `passed`: by the clock. `kept_waiting`: what the machine is to be
    blamed for; the sum over all threads, so it may be more than has passed.
    """

    def __init__(self) -> None:
        self._waits, self._stalled = _waits(), _disk_stalls()
        self._began = time.monotonic()
        self._ended: tuple[float, float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = self.passed, self.kept_waiting

    @property
    def seconds(self) -> float:
        return max(0.0, self.passed - self.kept_waiting)

    @property
    def passed(self) -> float:
        return time.monotonic() - self._began if self._ended is None else self._ended[0]

    @property
    def kept_waiting(self) -> float:
        if self._ended is not None:
            return self._ended[1]
        waited = sum(waits - self._waits.get(thread, 0.0) for thread, waits in _waits().items())
        return waited + _disk_stalls() - self._stalled


def _waits() -> dict[str, float]:
    """For each thread of this process and of those below it: seconds that it has waited for a processor."""
    found: dict[str, float] = {}
    waiting = [str(os.getpid())]
    while waiting:
        for thread in _threads(waiting.pop()):
            counted = _words(thread / "schedstat")
            found[thread.name] = int(counted[1]) / 1e9 if counted else 0.0
            waiting += _words(thread / "children")
    return found


def _threads(process: str) -> list[Path]:
    try:
        return list((_PROC / process / "task").iterdir())
    except OSError:  # it has ended
        return []


def _words(path: Path) -> list[str]:
    """None if the thread has ended, or the kernel does not tell."""
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []


def _disk_stalls() -> float:
    """Seconds, since the machine started, in which something waited for a disk; 0.0 where the kernel does not count."""
    try:
        lines = (_PROC / "pressure" / "io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return int(lines[0].rpartition("total=")[2]) / 1e6
