"""Workers whose logs cannot be written, for a while, beside a Redis that is killed and started again:

    python -m tests.soak.logs                    a minute
    python -m tests.soak.logs --seconds 10

closed   stderr was closed before the process began      full     a disk that is full
gone     a pipe whose reader has ended                   logging  structlog's fields are handed to the standard library
raising  the program's own handler raises for every line

What must hold for each: a sound event is handled, once; a faulty one is tried as often as its policy says, with its
rests, and becomes one dead letter; what recurs goes on after the restart; a stop ends the process with 0.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from eventbus import EventBus
from eventbus.embedded import EmbeddedRedis
from tests.soak.unlogged import ATTEMPTS, BACKOFF, STREAMS, types_of
from tests.waiting import PATIENCE, eventually

DOWN = 2.0  # seconds
EVERY = 0.5  # seconds between events


class Figures(NamedTuple):
    """Of one worker."""

    mode: str
    sound: int
    handled: int
    faulty: int
    runs: Counter[int]  # of faulty events, by attempt
    shortest_rest: float  # seconds between two attempts at one event
    dead: int
    recurred: int  # after the restart
    code: int

    def faults(self) -> list[str]:
        """What must hold and does not."""
        expected = dict.fromkeys(range(1, ATTEMPTS + 1), self.faulty)
        holds = {
            f"{self.handled} of {self.sound} handled": self.handled == self.sound,
            f"runs by attempt {dict(self.runs)}, not {expected}": self.runs == expected,
            f"a rest of {self.shortest_rest:.3f} s": self.shortest_rest >= BACKOFF * 0.95,
            f"{self.dead} of {self.faulty} dead letters": self.dead == self.faulty,
            "nothing recurred after the restart": self.recurred > 0,
            f"exit code {self.code}": self.code == 0,
        }
        return [f"{self.mode}: {said}" for said, held in holds.items() if not held]


class Unlogged:
    """One worker process, and what it wrote down."""

    def __init__(self, mode: str, folder: Path, url: str) -> None:
        self.mode = mode
        self.written = folder / mode
        environment = {**os.environ, "SOAK_REDIS": url, "SOAK_WRITTEN": str(self.written)}
        redirected = {"closed": "2>&-", "full": "2>/dev/full", "logging": "2>/dev/full", "raising": "2>/dev/full"}
        program = f'exec "$0" -m tests.soak.unlogged {mode} {redirected.get(mode, "")}'
        reading, writing = os.pipe()
        os.close(reading)
        self.process = subprocess.Popen(["sh", "-c", program, sys.executable], env=environment, stderr=writing)
        os.close(writing)

    def lines(self) -> list[tuple[str, int, int, float]]:
        if not self.written.exists():
            return []
        found = [line.split() for line in self.written.read_text(encoding="utf-8").splitlines()]
        return [(kind, int(number), int(attempt), float(at)) for kind, number, attempt, at in found]

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, PATIENCE)

    def figures(self, published: int, dead: int, restarted_at: float, code: int) -> Figures:
        lines = self.lines()
        runs: dict[int, list[float]] = {}
        for kind, number, _, at in lines:
            if kind == "faulty":
                runs.setdefault(number, []).append(at)
        rests = [later - earlier for times in runs.values() for earlier, later in pairwise(times)]
        return Figures(
            self.mode,
            sound=published,
            handled=sum(kind == "sound" for kind, *_ in lines),
            faulty=published,
            runs=Counter(attempt for kind, _, attempt, _ in lines if kind == "faulty"),
            shortest_rest=min(rests, default=0.0),
            dead=dead,
            recurred=sum(kind == "recurred" and at > restarted_at for kind, _, _, at in lines),
            code=code,
        )


async def measure(folder: Path, seconds: float, binary: Path | None = None) -> list[Figures]:
    """What became of each worker."""
    loop = asyncio.get_running_loop()
    with EmbeddedRedis(folder / "redis", binary=binary) as redis:
        workers = [Unlogged(mode, folder, redis.url) for mode in STREAMS]
        try:
            async with EventBus(redis.url) as bus:
                until, published = loop.time() + seconds / 2, 0
                published = await _publish(bus, until, published)
                await eventually(lambda: _all_began(workers))
                redis.kill()
                await asyncio.sleep(DOWN)
                await asyncio.to_thread(redis.start)
                restarted_at = max((line[3] for worker in workers for line in worker.lines()), default=0.0)
                published = await _publish(bus, loop.time() + seconds / 2, published)

                async def all_ended() -> dict[str, int] | None:
                    states = {state.name: state.dead for state in await bus.transport.inspect(STREAMS)}
                    sound = [sum(kind == "sound" for kind, *_ in worker.lines()) for worker in workers]
                    recurred = [
                        any(kind == "recurred" and at > restarted_at for kind, *_, at in worker.lines())
                        for worker in workers
                    ]
                    done = min(states.values()) >= published <= min(sound) and all(recurred)
                    return states if done else None

                try:
                    dead = await eventually(all_ended)
                except TimeoutError:  # the figures tell what is lacking
                    dead = {state.name: state.dead for state in await bus.transport.inspect(STREAMS)}
                assert dead is not None
                return [
                    worker.figures(published, dead.get(worker.mode, 0), restarted_at, await worker.stop())
                    for worker in workers
                ]
        finally:
            for worker in workers:
                if worker.process.poll() is None:
                    worker.process.kill()
                    worker.process.wait()


async def _all_began(workers: list[Unlogged]) -> bool:
    """Or ended, which the figures tell."""
    return all(worker.lines() or worker.process.poll() is not None for worker in workers)


async def _publish(bus: EventBus, until: float, number: int) -> int:
    while True:
        for sound, faulty in map(types_of, STREAMS):
            await bus.publish(sound(number=number))
            await bus.publish(faulty(number=number))
        number += 1
        if asyncio.get_running_loop().time() >= until:
            return number
        await asyncio.sleep(EVERY)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(Path(folder), seconds))
    for each in figures:
        print(each)
    faults = [fault for each in figures for fault in each.faults()]
    print("\n".join(faults) or "all as ever")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
