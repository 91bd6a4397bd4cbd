"""One of the trials of tests.soak.logs: five processes at once, each with a log that cannot be written."""

from pathlib import Path

from tests.soak.logs import measure


async def test_a_log_that_cannot_be_written_decides_nothing(tmp_path: Path) -> None:
    figures = await measure(tmp_path, seconds=2.0)
    assert [fault for each in figures for fault in each.faults()] == []
