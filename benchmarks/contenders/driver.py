"""The command line of a driver: one task of one contender in a process of its own, JSON lines on stdout.

    DRIVER describe
    DRIVER publish | consume | both | latency | alone  --url URL …

`{"progress": n}` now and then, at the end one result: `{"events", "seconds"}`, for latency `{"events", "rate", "p50",
"p95", "p99", "max"}` in milliseconds, or `{"unsupported": "why"}`. Whatever is said to people goes to stderr; an exit
code other than 0 is a failure. The drivers of the peers (benchmarks/peers) speak the same.
"""

import argparse
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict

from benchmarks.running.measure import Figure, Latency, Tick
from eventbus.process.logs import configure
from eventbus.process.loop import run

Task = Callable[[argparse.Namespace, Tick], Awaitable[Figure | Latency]]

PROGRESS_INTERVAL = 0.25  # seconds between two lines of progress


class Unsupported(Exception):
    """This contender cannot do that; the text says why, in a sentence."""


def parser(tasks: Sequence[str]) -> argparse.ArgumentParser:
    """The options that every driver knows; a driver may add its own."""
    options = argparse.ArgumentParser()
    options.add_argument("task", choices=["describe", *tasks])
    options.add_argument("--url", default="", help="of the Redis server")
    options.add_argument("--count", type=int, default=0, help="events")
    options.add_argument(
        "--tasks", type=int, default=500, help="that publish, each awaiting one receipt after the other"
    )
    options.add_argument("--concurrency", type=int, default=100, help="handlers at a time")
    options.add_argument("--wait-ms", type=float, default=0.0, help="milliseconds that a handler waits")
    options.add_argument("--rate", type=float, default=500.0, help="events per second of the open loop")
    options.add_argument("--seconds", type=float, default=10.0, help="how long the open loop goes on")
    return options


def main(
    tasks: Mapping[str, Task],
    describe: Callable[[], Mapping[str, str]],
    options: argparse.ArgumentParser | None = None,
) -> None:
    """Do what the command line asks for, and print what came of it."""
    wanted = (options or parser(list(tasks))).parse_args()
    if wanted.task == "describe":
        _say(describe())
        return
    configure("console", level=50)
    try:
        _say(run(_perform(tasks[wanted.task], wanted)))
    except Unsupported as error:
        _say({"unsupported": str(error)})


async def _perform(task: Task, wanted: argparse.Namespace) -> Mapping[str, object]:
    result = asdict(await task(wanted, _progress()))
    return {name: value for name, value in result.items() if name not in {"contender", "task"}}


def _progress() -> Tick:
    done, said = 0, time.monotonic()

    def tick(events: int) -> None:
        nonlocal done, said
        done += events
        if (now := time.monotonic()) - said > PROGRESS_INTERVAL:
            said = now
            _say({"progress": done})

    return tick


def _say(line: Mapping[str, object]) -> None:
    print(json.dumps(line), flush=True)
