"""Redis falls silent for a while, again and again, under two busy workers: does a handler of the living run twice?

    python -m tests.soak.freezes                                  250 silences with leases of 1 s, some minutes
    python -m tests.soak.freezes --lease 10 --silences 3 4.5 6 9 12 --times 50 --lanes 6
    python -m tests.soak.freezes --how proxy --server redis

A silence is a server that gets no turn (SIGSTOP), or a network that holds all bytes back (`--how proxy`). It begins at
a random moment. The workers write down when each handler begins and ends; a second beginning while the first runs is a
fault. `--lanes` servers go through it side by side.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from eventbus import EventBus, EventBusError
from eventbus.embedded import EmbeddedRedis
from eventbus.redis import transport
from tests.faults.fleet import Fleet
from tests.lines import whole_lines
from tests.proxy import Proxy
from tests.servers import redis_binaries
from tests.soak.busy import USUAL_LEASE, Held
from tests.waiting import eventually

IN_WORK = 60  # events that are published and not done, about
START = 180.0  # seconds that two processes may take on a busy machine
SILENCES = (0.3, 0.45, 0.6, 0.9, 1.2)  # of a lease


@dataclass
class Report:
    """What happened in one lane, or in all."""

    silences: Counter[float] = field(default_factory=Counter)
    begun: int = 0
    twice: list[tuple[float, str]] = field(default_factory=list)  # begun while it ran: when, and which event
    again: int = 0  # begun a second time when it had ended
    lost: int = 0  # leases that workers told to be lost
    untold: int = 0  # of those that were begun while they ran: nobody told that their lease was lost

    def add(self, other: "Report") -> None:
        self.silences += other.silences
        self.begun += other.begun
        self.again += other.again
        self.lost += other.lost
        self.untold += other.untold
        self.twice += other.twice

    def __str__(self) -> str:
        silences = ", ".join(f"{seconds:g} s: {times}" for seconds, times in sorted(self.silences.items()))
        return (
            f"silences {silences}; handlers begun {self.begun}; begun a second time while they ran {len(self.twice)} "
            f"(untold: {self.untold}); "
            f"run again after their end {self.again}; leases told to be lost {self.lost}"
        )


class Lane:
    """One server and its two workers, in a folder of their own."""

    def __init__(self, folder: Path, binary: Path, lease: float, how: str, chance: random.Random) -> None:
        self._folder = folder
        self._server = EmbeddedRedis(folder / "redis", binary=binary, options={"save": "", "appendonly": "no"})
        self._lease = lease
        self._how = how
        self._chance = chance
        self._history = folder / "history"

    async def run(self, silences: Sequence[float]) -> Report:
        """Fall silent for so many seconds each, with time to recover in between."""
        async with AsyncExitStack() as stack:
            stack.enter_context(self._server)
            proxy = await stack.enter_async_context(Proxy(self._server.url))
            url = proxy.url if self._how == "proxy" else self._server.url
            environment = {"SOAK_REDIS": url, "SOAK_LEASE": str(self._lease), "SOAK_HISTORY": str(self._history)}
            fleet = Fleet(self._folder, "tests.soak.busy", environment)
            stack.callback(fleet.end)
            for _ in range(2):
                fleet.start()
            bus = await stack.enter_async_context(EventBus(url, publish_timeout=transport.COMMAND_TIMEOUT))
            load = asyncio.create_task(self._load(bus))
            stack.callback(load.cancel)
            await eventually(self._both_are_busy, START)
            for seconds in silences:
                await asyncio.sleep(self._lease * self._chance.uniform(0.5, 1.0))
                await self._silence(proxy, seconds)
                await asyncio.sleep(self._lease)
            report = self._report(fleet.log())
        report.silences.update(silences)
        return report

    async def _both_are_busy(self) -> bool:
        await asyncio.sleep(0.1)
        return len({line.split()[2] for line in self._lines()}) == 2

    async def _silence(self, proxy: Proxy, seconds: float) -> None:
        silence, sound = (
            (proxy.freeze, proxy.thaw) if self._how == "proxy" else (self._server.pause, self._server.resume)
        )
        silence()
        try:
            await asyncio.sleep(seconds)
        finally:
            sound()

    async def _load(self, bus: EventBus) -> None:
        """Keep both workers busy with handlers that take up to three leases."""
        while True:
            lines = [line.split() for line in self._lines()]
            ended = {line[1] for line in lines if line[0] == "e"}
            in_work = len({line[1] for line in lines} - ended)
            with suppress(EventBusError):
                for _ in range(IN_WORK - in_work):
                    await bus.publish(Held(seconds=self._lease * self._chance.uniform(0.02, 3.0)))
            await asyncio.sleep(self._lease / 5)

    def _lines(self) -> list[str]:
        return whole_lines(self._history) if self._history.exists() else []

    def _report(self, log: str) -> Report:
        report, running, seen = Report(), Counter[str](), set[str]()
        for line in self._lines():
            what, event_id, _, at = line.split()
            if what == "e":
                running[event_id] -= 1
                continue
            report.begun += 1
            if running[event_id] > 0:
                report.twice.append((float(at), event_id))
            elif event_id in seen:
                report.again += 1
            running[event_id] += 1
            seen.add(event_id)
        lost = [json.loads(line)["event_id"] for line in log.splitlines() if '"lease lost"' in line]
        report.lost = len(lost)
        report.untold = len({event_id for _, event_id in report.twice} - set(lost))
        return report


@dataclass(frozen=True)
class Plan:
    """Each silence so many times, in random order, spread over the lanes."""

    binary: Path
    lease: float
    silences: Sequence[float]
    times: int
    how: str = "stop"
    lanes: int = 2
    seed: int = 0

    async def carry_out(self, folder: Path) -> Report:
        chance = random.Random(self.seed)
        order = [seconds for seconds in self.silences for _ in range(self.times)]
        chance.shuffle(order)
        runs = []
        for number in range(self.lanes):
            place = folder / f"lane-{number}"
            place.mkdir()
            lane = Lane(place, self.binary, self.lease, self.how, random.Random(chance.random()))
            runs.append(lane.run(order[number :: self.lanes]))
        whole = Report()
        for report in await asyncio.gather(*runs):
            whole.add(report)
        return whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lease", type=float, default=1.0, help="seconds")
    parser.add_argument("--silences", type=float, nargs="*", help="seconds; default: 0.3, 0.45, 0.6, 0.9, 1.2 leases")
    parser.add_argument("--times", type=int, default=50, help="of each silence")
    parser.add_argument("--how", choices=["stop", "proxy"], default="stop")
    parser.add_argument("--server", choices=sorted(redis_binaries()), default="valkey")
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    silences = options.silences or [share * options.lease for share in SILENCES]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(
            *(redis_binaries()[options.server], options.lease, silences, options.times),
            *(options.how, options.lanes, options.seed),
        )
        report = asyncio.run(plan.carry_out(Path(folder)))
    print(f"leases of {options.lease:g} s, {options.server}, {options.how}, seed {options.seed}: {report}")
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if report.twice else 0


if __name__ == "__main__":
    transport.COMMAND_TIMEOUT = USUAL_LEASE / 2
    sys.exit(main())
