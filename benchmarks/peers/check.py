"""`python -m benchmarks.peers check`: each task of each driver, small, on a real server: is the protocol kept, and is
every event acknowledged in the end?"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from redis import Redis

COUNT = 403  # no multiple of the tasks, nor of the concurrency
TIMEOUT = 120.0  # seconds for one task
TASKS: Mapping[str, tuple[str, ...]] = {
    "publish": ("--count", f"{COUNT}"),
    "consume": ("--count", f"{COUNT}", "--wait-ms", "1"),
    "both": ("--count", f"{COUNT}", "--tasks", "20", "--concurrency", "10"),
    "latency": ("--rate", "200", "--seconds", "2"),
    "alone": ("--count", f"{COUNT}"),
}

# Where each peer keeps what is still to be done: commands whose numbers are added up, or a stream's consumer group.
LEFT: Mapping[str, Sequence[str]] = {
    "bullmq": ("LLEN bull:leads:wait", "LLEN bull:leads:active"),
    "faststream": ("GROUP leads",),
    "taskiq": ("GROUP taskiq",),
    "saq": ("LLEN saq:default:queued", "LLEN saq:default:active"),
    "streaq": ("XLEN streaq:default:queues:normal",),
    "arq": ("ZCARD arq:queue",),
    "dramatiq": ("HLEN dramatiq:default.msgs",),
    "celery": ("LLEN celery", "HLEN unacked"),
}


class Broken(Exception):
    """A driver does not keep the protocol: which, in which task, and how."""


def check(peer: str, command: Sequence[str], url: str) -> Mapping[str, Any]:
    """Run all of it on this server, which is emptied. Returns what the driver says of itself; raises Broken."""
    about = _said(f"{peer} describe", [*command, "describe"])[-1]
    if missing := {"name", "version", "language", "settings", "guarantees"} - {key for key in about if about[key]}:
        raise Broken(f"{peer} describe: nothing about {', '.join(sorted(missing))}")
    with Redis.from_url(url, protocol=2) as redis:
        for task, options in TASKS.items():
            if task != "consume":
                redis.flushdb()
            result = _result(f"{peer} {task}", _said(f"{peer} {task}", [*command, task, "--url", url, *options]))
            expected = COUNT if task in {"publish", "alone"} else 0
            if "unsupported" not in result and (left := _left(redis, LEFT[peer])) != expected:
                raise Broken(f"{peer} {task}: {left} events are left in Redis, not {expected}: {LEFT[peer]}")
    return about


def _said(what: str, argv: Sequence[str]) -> list[dict[str, Any]]:
    """All that it prints."""
    try:
        run = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise Broken(f"{what} has not ended after {TIMEOUT:.0f} s") from None
    if run.returncode:
        raise Broken(f"{what} ended with {run.returncode}: {run.stderr[-1000:]}")
    try:
        return [json.loads(line) for line in run.stdout.splitlines()]
    except ValueError as error:
        raise Broken(f"{what} printed something else than JSON lines: {run.stdout[:300]!r}") from error


def _result(what: str, lines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    *progress, result = lines
    count = 400 if what.endswith("latency") else COUNT
    done = [line["progress"] for line in progress]
    if done != sorted(done) or (done and done[-1] > count):
        raise Broken(f"{what}: progress goes {done}, of {count} events")
    if set(result) == {"unsupported"}:
        return result
    expected = {"events", "rate", "p50", "p95", "p99", "max"} if what.endswith("latency") else {"events", "seconds"}
    if set(result) != expected or result["events"] != count:
        raise Broken(f"{what}: {dict(result)}; expected {sorted(expected)} of {count} events")
    ranks = [result[key] for key in ("p50", "p95", "p99", "max") if key in result] or [0, result["seconds"]]
    if ranks != sorted(ranks) or ranks[-1] <= 0:
        raise Broken(f"{what}: {dict(result)} cannot be")
    return result


def _left(redis: "Redis", commands: Sequence[str]) -> int:
    """Events that are not acknowledged."""
    left = 0
    for command in commands:
        if command.startswith("GROUP "):
            (group,) = redis.xinfo_groups(command.removeprefix("GROUP "))
            left += group["pending"] + (group["lag"] or 0)
        else:
            left += int(redis.execute_command(*command.split()))  # type: ignore[no-untyped-call]
    return left
