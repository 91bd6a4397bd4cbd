"""One of the trials of tests.soak.freezes: a silence that is longer than a lease, under two busy workers."""

from pathlib import Path

import pytest

from tests.servers import redis_binaries
from tests.soak.freezes import Plan

LEASE = 1.5  # seconds


@pytest.mark.parametrize(("server", "how"), [("valkey", "stop")])
async def test_no_handler_of_a_living_worker_is_begun_a_second_time(server: str, how: str, tmp_path: Path) -> None:
    plan = Plan(redis_binaries()[server], LEASE, (1.2 * LEASE,), 1, how, lanes=1)
    report = await plan.carry_out(tmp_path)
    assert report.twice == []
    assert report.begun > 60
