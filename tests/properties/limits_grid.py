"""Every count and span, on real servers in virtual time: `python -m tests.properties.limits_grid [valkey|redis|rule]`.

For each the group goes on, another key is admitted at once, no span sees more than the count, and over ten spans the
rate is met within 5 %.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import count as count_up
from pathlib import Path

from eventbus.contract.limiting import Bound, Request, Scope
from eventbus.contract.limits import RateLimit
from eventbus.embedded import EmbeddedRedis
from tests import servers
from tests.properties.crowd import Crowd, check_rates
from tests.properties.turnstiles import Asked, Rule, on_server

COUNTS = range(1, 201)
SPANS = (0.5, 1.0, 2.5, 60.0, 3600.0)
ROUNDS = 10  # spans
_groups = count_up()


async def rate(asked: Asked, count: int, per: float) -> float:
    """How much of its rate a key gets that always has something to start: 1.0 is all. Fails where a rule is broken."""
    limit, group = RateLimit(count, per=per, by="organization"), next(_groups)

    def of(number: int, key: str) -> Request:
        return Request(f"s/{number}-0", [Bound(Scope(f"g{group}", 0, key), limit)], 10.0)

    crowd = Crowd(asked)
    begin, span = crowd.now, round(per * 1000)
    await crowd.ask([of(number, "flood") for number in range(count * (ROUNDS + 2))])
    for part in range(1, ROUNDS + 1):
        await crowd.until(begin + part * span)
        assert await crowd.ask([of(-part, f"other-{part}")]), "another key is admitted at once"
    flood = [(at, request) for at, request in crowd.starts if request.bounds[0].scope.key == "flood"]
    check_rates(flood)
    order = [int(request.member[2:-2]) for _, request in flood]
    assert order == sorted(order), "nobody overtakes"
    return len(flood) / (count * ROUNDS)


async def go_through(asked: Asked, cells: Iterable[tuple[int, float]]) -> dict[tuple[int, float], float]:
    return {(count, per): await rate(asked, count, per) for count, per in cells}


async def _main(name: str) -> None:
    cells = [(count, per) for per in SPANS for count in COUNTS]
    started = time.monotonic()
    if name == "rule":
        rates = await go_through(Rule(), cells)
    else:
        with EmbeddedRedis(Path(tempfile.mkdtemp()), binary=servers.redis_binaries()[name]) as server:
            async with on_server(server.url) as asked:
                rates = await go_through(asked, cells)
    for per in SPANS:
        found = {count: share for (count, span), share in rates.items() if span == per}
        low, high = min(found, key=lambda count: found[count]), max(found, key=lambda count: found[count])
        print(f"{name} per={per:g}: {found[low]:.3f} (count={low}) to {found[high]:.3f} (count={high}) of the rate")
    missed = {cell: round(share, 3) for cell, share in rates.items() if share < 0.95}
    print(f"{name}: {len(rates)} cells in {time.monotonic() - started:.0f} s; below 95 %: {missed or 'none'}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1] if len(sys.argv) > 1 else "valkey"))
