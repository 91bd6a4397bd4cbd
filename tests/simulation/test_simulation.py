"""The simulation is deterministic, finds what is planted, and finds nothing in the engine."""

import os
import subprocess
import sys
from hashlib import sha256

import pytest

from tests.simulation.plan import draw
from tests.simulation.plants import PLANTS, planted
from tests.simulation.world import forget, run

SEEDS = (3, 109, 225, 38)
MOST = 150  # schedules in which a planted bug must show


def digest(seed: int) -> str:
    return sha256("\n".join(run(draw(seed)).history.lines).encode()).hexdigest()


def test_a_seed_tells_everything_that_happens() -> None:
    """In any order, and in a process that hashes differently, and whose logs somebody has configured."""
    digests = [digest(seed) for seed in SEEDS]
    assert len(set(digests)) == len(SEEDS)
    code = (
        "from eventbus.process.logs import configure; configure('json'); "
        "from eventbus.consuming.consumer import log; log.warning('a logger that is used keeps to that'); "
        f"from tests.simulation.test_simulation import digest; print(*map(digest, {SEEDS[::-1]}))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "4711"},
    )
    assert other.stdout.split() == digests[::-1]


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    plant = PLANTS[name]
    for number, seed in enumerate(range(1, MOST + 1), 1):
        plan = draw(seed, plant.faults, plant.work)
        with planted(name):
            wrong = run(plan).wrong
        if _told(wrong, plant.found):
            assert not _told(run(plan).wrong, plant.found), "it is found without it, too"
            print(f"found by seed {seed}, {number} schedules")
            forget()
            return
    pytest.fail(f"{MOST} schedules have not found it")


@pytest.mark.parametrize("first", range(1, 101, 25))
def test_nothing_is_found_in_the_engine(first: int) -> None:
    """In so many schedules; `python -m tests.simulation` looks at as many as it is told to."""
    wrong = {seed: found for seed in range(first, first + 25) if (found := run(draw(seed)).wrong)}
    forget()
    assert not wrong, "python -m tests.simulation --replay SEED --trace"


def _told(wrong: list[str], words: tuple[str, ...]) -> bool:
    return any(word in line for line in wrong for word in words)
