"""`python -m tests.simulation --schedules 100000 --processes 2 --seed 1`; `--replay SEED --trace` shows one."""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context

from tests.simulation.plan import Plan, draw
from tests.simulation.plants import PLANTS
from tests.simulation.world import forget, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule; the others follow")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--replay", type=int, metavar="SEED", help="one schedule")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="with this bug planted")
    parser.add_argument("--trace", action="store_true", help="with its history")
    options = parser.parse_args()
    with ExitStack() as stack:
        if options.plant:
            PLANTS[options.plant].put(stack)
        _, _, faults, work = PLANTS[options.plant] if options.plant else (None, None, (), ())
        drawn = partial(draw, extra=faults, also=work)
        if options.replay is not None:
            return replay(drawn(options.replay), trace=options.trace)
        return search(options.seed, options.schedules, options.processes, drawn)


def replay(plan: Plan, *, trace: bool) -> int:
    result = run(plan)
    print("\n".join(result.plan.told()))
    if trace:
        print("\n".join(result.history.lines))
    print("\n".join(result.wrong) or "nothing is wrong")
    return bool(result.wrong)


def search(first: int, number: int, processes: int, drawn: Callable[[int], Plan]) -> int:
    began, failed = time.monotonic(), 0
    seeds = range(first, first + number)
    with get_context("fork").Pool(processes) as pool:
        for done, (seed, wrong) in enumerate(pool.imap_unordered(partial(_judged, drawn), seeds, chunksize=10), 1):
            if wrong:
                failed += 1
                print(f"{seed}: {wrong[0]}" + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""))
                print(f"    python -m tests.simulation --replay {seed} --trace", flush=True)
            if done % 1000 == 0:
                print(f"{done} schedules, {failed} failed, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{number} schedules from seed {first}, {failed} failed, {time.monotonic() - began:.0f} s")
    return bool(failed)


def _judged(drawn: Callable[[int], Plan], seed: int) -> tuple[int, list[str]]:
    try:
        wrong = run(drawn(seed)).wrong
    except Exception as error:  # noqa: BLE001 - told with its seed
        wrong = [f"the simulation itself failed: {error!r}"]
    if seed % 20 == 0:
        forget()
    return seed, wrong


if __name__ == "__main__":
    sys.exit(main())
