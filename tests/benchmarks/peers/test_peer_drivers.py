"""What the drivers of the peers share, in processes of their own: the protocol, and what `check` makes of those that
break it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import check as checking
from benchmarks.peers.check import Broken, check
from benchmarks.peers.drive.work import payload, percentiles
from benchmarks.peers.environments import DRIVERS, ON_NODE, PEERS
from tests.waiting import PATIENCE

DRIVER = [sys.executable, "-m", "tests.benchmarks.lists"]
BLOCKING = [sys.executable, "-m", "tests.benchmarks.blocking_lists"]
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def known_to_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(checking, "LEFT", {"lists": ("LLEN leads",)})
    monkeypatch.setattr(checking, "TIMEOUT", 60.0)


def run(*arguments: str, driver: list[str] = DRIVER) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*driver, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)


def result(*arguments: str) -> dict[str, Any]:
    ended = run(*arguments)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize("driver", [DRIVER, BLOCKING], ids=["asyncio", "threads"])
def test_all_tasks_keep_the_protocol(driver: list[str], redis_url: str) -> None:
    assert check("lists", driver, redis_url)["language"] == "Python"


def test_stdout_is_for_the_protocol_alone(redis_url: str) -> None:
    ended = run("both", "--url", redis_url, "--count", "50")
    assert "greeting" in ended.stderr
    assert [set(json.loads(line)) for line in ended.stdout.splitlines()] == [{"events", "seconds"}]


def test_an_event_that_comes_twice_counts_once(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result("publish", "--url", redis_url, "--count", "20")
    monkeypatch.setenv("FAULT", "twice")
    once = result("consume", "--url", redis_url, "--count", "20", "--wait-ms", "20")
    assert once["seconds"] > 0.7  # 39 handlers, one after the other: the first 20 of them would have taken half of that


def test_latency_is_counted_from_when_an_event_was_due(redis_url: str) -> None:
    """100 a second, each handled for 20 ms by one worker: the last one starts after twice the time that all had."""
    late = result("latency", "--url", redis_url, "--rate", "100", "--seconds", "1", "--wait-ms", "20")
    assert late["max"] > 900
    assert late["p50"] > 400


def test_a_worker_that_dies_fails_the_task(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "crash")
    ended = run("both", "--url", redis_url, "--count", "20")
    assert ended.returncode == 1
    assert "no more of this" in ended.stderr


def test_a_worker_that_does_nothing_is_given_up(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "stuck")
    ended = run("both", "--url", redis_url, "--count", "20")
    assert ended.returncode == 1
    assert "giving up" in ended.stderr


def test_what_cannot_be_done_is_said(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "unable")
    assert result("both", "--url", redis_url) == {"unsupported": "It can do nothing at all."}


def test_a_task_needs_a_server() -> None:
    assert "--url is missing" in run("publish").stderr


@pytest.mark.parametrize(
    ("fault", "said"), [("forgetful", "left in Redis, not 0"), ("crash", "no more of this"), ("stuck", "giving up")]
)
def test_the_check_finds(fault: str, said: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", fault)
    with pytest.raises(Broken, match=said):
        check("lists", DRIVER, redis_url)


def test_the_check_finds_what_is_no_json(redis_url: str) -> None:
    with pytest.raises(Broken, match="else than JSON lines"):
        check("lists", [sys.executable, "-c", "print('hello')"], redis_url)


def test_percentiles_are_of_values_that_were_measured() -> None:
    seconds = [number / 1000 for number in range(100, 0, -1)]
    assert percentiles(seconds) == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
    assert percentiles([0.002]) == {"p50": 2.0, "p95": 2.0, "p99": 2.0, "max": 2.0}


def test_the_payload_is_of_about_100_bytes() -> None:
    assert 95 <= len(json.dumps(payload(7), separators=(",", ":"))) <= 110
    assert payload(7)["leadId"] == "lead-00000007"


@pytest.mark.parametrize("peer", PEERS)
def test_all_is_pinned_and_names_no_index(peer: str) -> None:
    if peer in ON_NODE:
        lock = json.loads((DRIVERS / peer / "package-lock.json").read_text())
        packages = [package for name, package in lock["packages"].items() if name]
        assert packages
        assert all("integrity" in package and "resolved" not in package for package in packages)
    else:
        lines = (DRIVERS / peer / "requirements.txt").read_text().splitlines()
        assert lines
        assert all(line.count("==") == 1 and "/" not in line for line in lines)


def test_the_shared_part_needs_the_standard_library_alone() -> None:
    """-S: nothing that is installed can be imported, as in the environment of a peer."""
    modules = "import drive.on_asyncio, drive.on_threads"
    subprocess.run([sys.executable, "-S", "-c", modules], cwd=DRIVERS, check=True, timeout=PATIENCE)
