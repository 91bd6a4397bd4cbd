"""Runs a driver in a process of its own, and reads what it says."""

import asyncio
import json
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from benchmarks.contenders.driver import Unsupported
from benchmarks.contenders.registry import ROOT

Result = Mapping[str, Any]

END_GRACE = 5.0  # seconds
SILENCE = 90.0  # seconds without a word from a driver, after which it counts as stuck


class DriverFailed(Exception):
    """A driver ended with an error, without a result, or not at all; the text says which and with what last words."""


async def drive(argv: Sequence[str], progress: Callable[[int], None], silence: float = SILENCE) -> Result:
    """The result of one task. `progress` is called with the number of events done so far.

    Raises Unsupported as the driver says, DriverFailed. The process and what it started are gone afterwards."""
    async with started(argv) as (process, said):
        result = await _listen(process, progress, said, silence)
        try:
            code = await asyncio.wait_for(process.wait(), silence)
        except TimeoutError:
            raise DriverFailed(f"{_task(argv)}: it did not end for {silence:g} s after its result") from None
    if code:
        raise DriverFailed(f"{_task(argv)}: exit code {code}: {_words(said)}")
    if result is None:
        raise DriverFailed(f"{_task(argv)}: it ended without a result: {_words(said)}")
    if "unsupported" in result:
        raise Unsupported(str(result["unsupported"]))
    return result


@asynccontextmanager
async def started(argv: Sequence[str]) -> AsyncIterator[tuple[asyncio.subprocess.Process, "deque[str]"]]:
    """A process in a group of its own, with the last lines that it says on stderr."""
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    said: deque[str] = deque(maxlen=5)
    hearing = asyncio.create_task(_hear(process, said))
    try:
        yield process, said
    finally:
        with suppress(ProcessLookupError):  # workers that a peer's driver started, too
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(TimeoutError):  # something that it started in another group holds on to its pipes
            await asyncio.wait_for(process.wait(), END_GRACE)
        await asyncio.wait([hearing], timeout=1.0)  # its last words
        hearing.cancel()


async def _listen(
    process: asyncio.subprocess.Process, progress: Callable[[int], None], said: "deque[str]", silence: float
) -> Result | None:
    assert process.stdout is not None
    while True:
        try:
            line = await asyncio.wait_for(process.stdout.readline(), silence)
        except TimeoutError:
            raise DriverFailed(f"said nothing for {silence:g} s, and was ended: {_words(said)}") from None
        if not line:
            return None
        message = _message(line)
        if message is None:
            continue
        if "progress" in message:
            progress(int(message["progress"]))
        else:
            return message


def _message(line: bytes) -> Result | None:
    """None for what is no JSON object: some library prints a greeting."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


async def _hear(process: asyncio.subprocess.Process, said: "deque[str]") -> None:
    assert process.stderr is not None
    async for line in process.stderr:
        if text := line.decode(errors="replace").strip():
            said.append(text)


def _words(said: "deque[str]") -> str:
    return " / ".join(said)[-400:] or "nothing on stderr"


def _task(argv: Sequence[str]) -> str:
    """The task, which is what follows the driver's file or module."""
    return next((word for word in argv[1:] if word in TASKS), argv[-1])


TASKS = frozenset({"publish", "consume", "both", "latency", "alone", "work"})
