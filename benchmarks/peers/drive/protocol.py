"""The command line of a driver, and what it says: JSON lines on stdout. benchmarks.contenders.driver tells what is in
them."""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import ClassVar, Protocol

TASKS = ("publish", "consume", "both", "latency", "alone")
STALLED = 60.0  # seconds without any event done, after which a driver gives up

Result = Mapping[str, object]
Done = Callable[[int], None]  # called with the number of events done so far


class Unsupported(Exception):
    """The library cannot do this task: why, in one sentence."""


def unheard(_done: int) -> None:
    return


class Progress:
    """Lines on stdout, five a second at most; the process ends if nothing is done for long."""

    def __init__(self, say: Callable[[Result], None]) -> None:
        self._say, self._said, self._done, self._moved = say, 0.0, 0, time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self, done: int) -> None:
        self._done = done
        if done % 100 == 0 and (now := time.monotonic()) - self._said >= 0.2:
            self._said = now
            self._say({"progress": done})

    def _watch(self) -> None:
        seen = -1
        while time.monotonic() - self._moved < STALLED:
            if self._done != seen:
                seen, self._moved = self._done, time.monotonic()
            time.sleep(1)
        print(f"{seen} events are done, and none for {STALLED:.0f} s: giving up", file=sys.stderr, flush=True)
        os._exit(1)


class Described(Protocol):
    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    settings: ClassVar[str]
    guarantees: ClassVar[str]


def describe(kind: type[Described]) -> Result:
    library, *others = kind.packages
    versions = ", ".join([version(library), *(f"{name} {version(name)}" for name in others)])
    said = {"settings": kind.settings, "guarantees": kind.guarantees}
    return {"name": kind.name, "version": versions, "language": "Python", **said}


def program(kind: type[Described], run: Callable[[argparse.Namespace, Progress], Result]) -> None:
    """Stdout is for the protocol alone: whatever a library prints there comes out on stderr."""
    options = arguments()
    with os.fdopen(os.dup(1), "w", buffering=1) as stdout:
        os.dup2(2, 1)

        def say(line: Result) -> None:
            print(json.dumps(line), file=stdout, flush=True)

        if options.task == "describe":
            say(describe(kind))
            return
        try:
            say(run(options, Progress(say)))
        except Unsupported as why:
            say({"unsupported": str(why)})


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One task of the benchmark; JSON lines on stdout.")
    parser.add_argument("task", choices=(*TASKS, "describe"))
    parser.add_argument("--url", help="of a Redis that holds nothing, or what `publish` left there")
    for option, kind, default in _options():
        parser.add_argument(option, type=kind, default=default, help="default: %(default)s")
    options = parser.parse_args(argv)
    if options.task != "describe" and not options.url:
        parser.error("--url is missing")
    return options


def _options() -> Iterator[tuple[str, Callable[[str], float], float]]:
    yield "--count", int, 10_000
    yield "--tasks", int, 500
    yield "--concurrency", int, 100
    yield "--wait-ms", float, 0.0
    yield "--rate", float, 500.0
    yield "--seconds", float, 10.0
