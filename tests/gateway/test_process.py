"""The gateway and the worker as processes: how they start, refuse to start, and end."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from gateway.callers.auth import make_token
from tests import forked
from tests.databases import Databases
from tests.gateway.client import SECRET
from tests.gateway.test_websocket import closed, receive
from tests.waiting import PATIENCE

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("EVENTBUS_", "REDIS_", "DATABASE_"))}


@pytest.fixture
def environment(redis_url: str, database_url: str) -> dict[str, str]:
    return CLEAN | {
        "EVENTBUS_REDIS_URL": redis_url,
        "EVENTBUS_DATABASE_URL": database_url,
        "EVENTBUS_JWT_SECRET": SECRET,
        "EVENTBUS_LOG_FORMAT": "json",
        "EVENTBUS_PORT": "0",
        "EVENTBUS_DRAIN_SECONDS": "0",
    }


class Process:
    """A started program. `lines` are those of its log so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.lines: list[dict[str, Any]] = []

    async def line(self, event: str) -> dict[str, Any]:
        """The next log line of this name."""
        assert self._process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while raw := await self._process.stderr.readline():
                self.lines.append(json.loads(raw))
                if self.lines[-1]["event"] == event:
                    return self.lines[-1]
        raise AssertionError(f"ended without {event!r}: {self.lines}")

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit code, and the rest of the log."""
        self._process.send_signal(number)
        assert self._process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            self.lines += [json.loads(raw) for raw in (await self._process.stderr.read()).splitlines()]
            return await self._process.wait()


@asynccontextmanager
async def started(module: str, environment: Mapping[str, str], *arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, env=environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def refused(module: str, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """What it says and exits with. It need not be started anew, as the others here are: see tests.forked."""
    return forked.run(module, *arguments, environment=environment)


async def test_a_gateway_serves_until_sigterm(environment: dict[str, str]) -> None:
    async with started("gateway", environment) as process, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{(await process.line('listening'))['port']}"
        token = make_token(SECRET, user="ann", organization="acme")
        async with session.get(f"{url}/readyz") as answer:
            assert answer.status == 200
        async with session.post(
            f"{url}/api/leads", json={"name": "Lea"}, headers={"Authorization": f"Bearer {token}"}
        ) as answer:
            assert answer.status == 201
        async with session.ws_connect(f"{url}/ws/chat?token={token}") as socket:
            await receive(socket)
            code = asyncio.create_task(closed(socket))
            assert await process.end() == 0
            assert await code == 1001
    assert token not in str(process.lines)
    requests = [line["path"] for line in process.lines if line["event"] == "request"]
    assert requests == ["/api/leads", "/ws/chat"]
    assert [line for line in process.lines if line["level"] in {"warning", "error"}] == []


async def test_a_gateway_takes_the_files_that_it_may_have(environment: dict[str, str]) -> None:
    """Each socket is one, and many shells allow no more than a few hundred at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        async with started("gateway", environment) as process:
            await process.line("listening")
            allowed, _ = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert allowed == min(hard, 65_536) if hard != resource.RLIM_INFINITY else allowed == 65_536


async def test_a_worker_works_until_sigterm(environment: dict[str, str]) -> None:
    async with started("consumers", environment, "--group", "lead") as process:
        assert (await process.line("worker started"))["groups"] == ["lead"]
        assert await process.end() == 0


@pytest.mark.parametrize(
    ("module", "arguments", "changes", "words"),
    [
        ("gateway", [], {"EVENTBUS_JWT_SECRET": "too short"}, "32"),
        ("gateway", [], {"EVENTBUS_JWT_SECRET": ""}, "EVENTBUS_JWT_SECRET"),
        ("gateway", [], {"EVENTBUS_PORT": "many"}, "port: "),
        ("gateway", ["--host", "203.0.113.1"], {}, "203.0.113.1"),
        ("consumers", ["--group", "leads"], {}, "task-automation"),
    ],
)
def test_what_cannot_work_is_exit_1_and_the_reason(
    module: str, arguments: list[str], changes: dict[str, str], words: str, environment: dict[str, str]
) -> None:
    run = refused(module, environment | changes, *arguments)
    assert run.returncode == 1, run.stderr
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert "too short" not in run.stderr


@pytest.mark.parametrize("module", ["gateway", "consumers"])
def test_a_database_that_is_not_migrated_is_told_what_to_run(
    module: str, environment: dict[str, str], databases: Databases
) -> None:
    empty = databases.create()
    try:
        run = refused(module, environment | {"EVENTBUS_DATABASE_URL": empty})
    finally:
        databases.drop(empty)
    assert run.returncode == 1
    assert "eventbus migrate" in " ".join(run.stderr.replace("│", " ").split())  # wherever the lines break


@pytest.mark.parametrize("module", ["gateway", "consumers"])
def test_a_server_that_is_away_is_exit_3(module: str, environment: dict[str, str]) -> None:
    away = {"EVENTBUS_REDIS_URL": "redis://:sesame@127.0.0.1:1/0"}
    run = refused(module, environment | away)
    assert run.returncode == 3
    assert "127.0.0.1:1" in run.stderr
    assert "sesame" not in run.stderr
