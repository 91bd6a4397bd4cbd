"""Whatever the engine asks of the machine, answered from the seed and the simulation's clock."""

import gc
import os
import random
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any
from unittest import mock

from eventbus import event
from eventbus.process import crash_points
from tests.simulation.loop import Loop, current
from tests.simulation.server.server import EPOCH

_REAL = {"perf_counter": time.perf_counter, "monotonic": time.monotonic, "time": time.time, "time_ns": time.time_ns}


@lru_cache(1)
def _own_names() -> list[tuple[ModuleType, str, str]]:
    """Where modules of the engine have taken a clock by its name: module, name there, name in `time`."""
    return [
        (module, name, real)
        for title, module in sorted(sys.modules.items())
        if title.startswith("eventbus.")
        for name, value in sorted(vars(module).items(), key=lambda item: item[0])
        for real, function in _REAL.items()
        if value is function
    ]


@contextmanager
def deterministic(loop: Loop, seed: str, crash_point: Callable[[str], None]) -> Iterator[None]:
    """Inside, two runs with the same seed are the same."""
    rng = random.Random(f"{seed}/bytes")
    state = random.getstate()

    def now() -> float:
        process = current()
        return EPOCH + loop.now + (process.skew if process is not None else 0.0)

    clocks: dict[str, Callable[[], Any]] = {
        "perf_counter": lambda: loop.now,
        "monotonic": lambda: loop.now,
        "time": now,
        "time_ns": lambda: int(now() * 1e9),
    }
    with ExitStack() as stack:

        def put(target: object, name: str, value: object) -> None:
            stack.enter_context(mock.patch.object(target, name, value))

        for name, clock in clocks.items():
            put(time, name, clock)
        for module, name, real in _own_names():
            put(module, name, clocks[real])
        put(os, "urandom", rng.randbytes)
        put(os, "getpid", lambda: process.number if (process := current()) is not None else 0)
        put(secrets, "token_hex", lambda size=32: rng.randbytes(size).hex())
        put(socket, "gethostname", lambda: "simulated")
        put(crash_points, "point", crash_point)
        put(event, "_ms", 0)
        put(event, "_tails", [])
        random.seed(f"{seed}/random")
        gc_was_on = gc.isenabled()
        gc.disable()  # what is collected is closed, at a moment that nobody chose
        try:
            yield
        finally:
            random.setstate(state)
            if gc_was_on:
                gc.enable()
