"""Events of one key are handled one at a time and in order, though the processes that do it are killed."""

import asyncio
from collections import defaultdict
from pathlib import Path

import pytest

from eventbus import EventBus
from tests.faults.fleet import Fleet
from tests.faults.history import Reader
from tests.faults.talking import STUMBLES, Said
from tests.servers import OwnRedis
from tests.waiting import eventually

KEYS = 40
COUNT = 4_000
KILLS = 3


def inversions(lines: list[dict[str, object]]) -> list[object]:
    """Events that were begun after a later one of their key, or while another one of it was at work."""
    wrong: list[object] = []
    latest: dict[object, int] = {}
    ended: set[tuple[object, int]] = set()
    for line in lines:
        who, number = line["who"], int(str(line["number"]))
        before = latest.get(who, -1)
        if line["what"] == "ended":
            ended.add((who, number))
        elif number < before:
            wrong.append((who, number, "behind", before))
        elif number > before >= 0 and (who, before) not in ended:
            wrong.append((who, number, "begun before the end of", before))
        latest[who] = max(before, number)
    return wrong


@pytest.mark.parametrize(("ordered", "partitions"), [(True, 1), (True, 8), (False, 1)])
async def test_not_one_inversion_while_workers_are_killed(
    ordered: bool, partitions: int, own_redis: OwnRedis, redis_binary: Path, tmp_path: Path
) -> None:
    """Without order the same run has some: else it would prove nothing."""
    url = own_redis(binary=redis_binary).url
    history = tmp_path / "history"
    history.mkdir()
    fleet = Fleet(tmp_path, "tests.faults.talking", {"FAULTS_REDIS": url, "FAULTS_HISTORY": str(history)})
    written = Reader(history)
    try:
        async with EventBus(url, partitions={"talk": partitions}) as bus:
            for _ in range(3):
                fleet.start(*([] if ordered else ["plain"]))
            for start in range(0, COUNT, 400):
                events = [Said(who=f"key-{number % KEYS}", number=number) for number in range(start, start + 400)]
                await asyncio.gather(*(bus.publish(event, key=event.who) for event in events))
            for kill in range(1, KILLS + 1):

                async def busy(share: int = kill) -> bool:
                    return written.count("ended") > COUNT * share // (KILLS + 2)

                await eventually(busy)
                fleet.kill(fleet.processes[0])
                fleet.start(*([] if ordered else ["plain"]))

            async def done() -> bool:
                return len({line["number"] for line in written.lines() if line["what"] == "ended"}) == COUNT

            await eventually(done)
    finally:
        fleet.end()
    wrong = inversions(written.lines())
    assert (wrong == []) is ordered, wrong[:10]
    if ordered:
        attempts: dict[object, int] = defaultdict(int)
        for line in written.lines():
            attempts[line["number"]] += line["what"] == "begun"
        assert all(attempts[number] >= 3 for number in range(0, COUNT, STUMBLES)), "each of them fails twice"
