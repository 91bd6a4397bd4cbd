"""`python -m benchmarks.regress`: the processor time that an event costs this process, beside what it costs the raw
client. A guard against regressions.

Both take turns in one process, on one server. The time is this process' own, so that neither the server nor other work
on the machine counts. The least of several rounds is compared, since disturbance only ever adds; while a bound is
exceeded, more rounds follow, up to MOST_ROUNDS. The bounds are what was measured on a quiet machine and about a third.
What an event costs in commands and writes is exact, and guarded in tests/integration/test_costs.py.
"""

import time
from collections.abc import Awaitable, Callable

from benchmarks.contenders import ours, raw
from benchmarks.running.measure import Figure, Tick
from benchmarks.running.servers import flush, server
from eventbus.process.logs import configure
from eventbus.process.loop import run

EVENTS, ROUNDS, MOST_ROUNDS = 4_000, 5, 40
BOUNDS = {
    "publish": 1.5,  # times the raw client's pipelines; measured: 0.9 to 1.2
    "consume": 8.0,  # times XREADGROUP and XACK by hundreds, without an envelope; measured: 5.2 to 6.8
}

Work = Callable[[str, int, Tick], Awaitable[Figure]]


async def seconds(work: Work, url: str) -> float:
    began = time.process_time()
    await work(url, EVENTS, lambda _: None)
    return time.process_time() - began


async def ratios(url: str) -> dict[str, float]:
    """Our time divided by the raw client's, each at its best. Returns when all ratios are within their bounds, or after
    MOST_ROUNDS."""
    spent: dict[str, list[float]] = {"publish, raw": [], "publish": [], "consume, raw": [], "consume": []}
    found: dict[str, float] = {}
    for number in range(1, MOST_ROUNDS + 1):
        await flush(url)
        for name, work in zip(spent, (raw.publish, ours.publish, raw.consume, ours.consume), strict=True):
            spent[name].append(await seconds(work, url))
        found = {name: min(spent[name]) / min(spent[f"{name}, raw"]) for name in BOUNDS}
        if number >= ROUNDS and all(found[name] <= bound for name, bound in BOUNDS.items()):
            break
    return found


def main() -> None:
    """Exit 1 if one is out of its bound."""
    configure("console", level=50)
    with server() as url:
        found = run(ratios(url))
    for name, bound in BOUNDS.items():
        print(f"{name}: {found[name]:.2f} times the raw client's, bound {bound}")
    if any(found[name] > bound for name, bound in BOUNDS.items()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
