"""`eventbus worker` and `eventbus publish` for a service of somebody's own, through real processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from eventbus import EventBus, Origin
from eventbus.contract.codec import envelop
from eventbus.contract.outgoing import Outgoing
from eventbus.publishing.spool.record import Spooled, pack
from tests import forked
from tests.integration import shop
from tests.integration.commands import CLEAN
from tests.integration.test_commands import assert_one_screen
from tests.lines import whole_lines
from tests.waiting import PATIENCE, until

APP = "myshop:billing"
soon = partial(until, timeout=60.0)  # a process of Python takes a second to start, on a busy machine ten


class Service:
    """A folder with the service in it, its environment, and the processes that were started there."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.module = folder / "myshop.py"
        shutil.copy(shop.__file__, self.module)
        self.log, self.output = folder / "shop.log", folder / "output"
        self.log.touch()
        self.output.touch()
        self.environment = {
            **CLEAN,
            "EVENTBUS_REDIS_URL": redis_url,
            "EVENTBUS_LOG_FORMAT": "json",
            "SHOP_LOG": str(self.log),
        }
        self.started: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return forked.run(
            "eventbus.cli", *arguments, environment=self.environment, answer=stdin, folder=self.module.parent
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "eventbus.cli", "worker", *arguments],
                cwd=self.module.parent,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    async def publish(self, number: int, seconds: float = 0.0) -> None:
        async with EventBus(self.environment["EVENTBUS_REDIS_URL"]) as bus:
            await bus.publish(shop.OrderPlaced(number=number, seconds=seconds))

    def said(self, event: str) -> list[dict[str, object]]:
        """The log lines of this name so far, of all processes."""
        lines = [json.loads(line) for line in whole_lines(self.output) if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def pids(self) -> list[int]:
        """Of the workers that have started, by their consumers' names: host-pid-random."""
        return [int(str(line["consumer"]).split("-")[-2]) for line in self.said("worker started")]

    def told(self, pattern: str) -> list[str]:
        """What the handlers have written."""
        return re.findall(pattern, self.log.read_text())


@pytest.fixture
def service(tmp_path: Path, redis_url: str) -> Iterator[Service]:
    service = Service(tmp_path, redis_url)
    yield service
    for process in service.started:
        process.kill()
        process.wait()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].startswith(" Z")


async def test_a_service_of_one_module_publishes_and_works_without_a_database(service: Service) -> None:
    worker = service.start("--app", "myshop", "--group", "billing")
    payload = '{"number": 7}'
    options = ["--key", "o-7", "--priority", "2", "--organization", "acme", "--app", "myshop", "--json"]
    sent = service.run("publish", "shop.order_placed", "-", *options, stdin=payload)
    receipt = json.loads(sent.stdout)
    assert (sent.returncode, receipt["status"]) == (0, "stored")
    await soon(lambda: service.told("done 7"))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0
    assert [line["groups"] for line in service.said("worker started")] == [["billing"]]


async def test_a_worker_sends_what_waits_in_the_spool_of_its_folder(service: Service) -> None:
    """Whoever wrote it: here a process that is gone, whose Redis was away."""
    spool = service.module.parent / "contingency-log.jsonl"
    order = shop.OrderPlaced(number=9)
    spool.write_bytes(pack(Spooled.of(Outgoing(envelop(order, Origin())), time.time())))
    service.start("--app", APP)
    await soon(lambda: service.told("done 9"))
    await soon(lambda: not spool.read_bytes())


def test_the_installed_application_needs_its_database(redis_url: str) -> None:
    command = [sys.executable, "-m", "eventbus.cli", "worker"]
    environment = {**CLEAN, "EVENTBUS_REDIS_URL": redis_url}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 1
    assert_one_screen(run, "EVENTBUS_DATABASE_URL")


def test_an_application_that_breaks_is_a_failure_told_once_on_one_screen(service: Service) -> None:
    service.module.write_text("import json\n\n\ndef read():\n    json.loads('{')\n\n\nread()\n")
    broken = service.run("worker", "--app", "myshop", "--processes", "3")
    assert broken.returncode == 1
    assert_one_screen(broken, "myshop.py:5", "json.loads('{')", "JSONDecodeError")


async def test_a_dead_process_is_replaced_and_nobody_outlives_a_supervisor_that_was_killed(service: Service) -> None:
    supervisor = service.start("--app", APP, "--processes", "2")
    await soon(lambda: len(service.pids()) == 2)
    victim, other = service.pids()
    os.kill(victim, signal.SIGKILL)
    await soon(lambda: len(service.pids()) == 3)
    [died] = service.said("worker died")
    assert (died["pid"], died["code"], died["again"]) == (victim, -9, "in 0.5 s")
    assert alive(other)
    await service.publish(1, seconds=0.5)
    await soon(lambda: service.told("begun 1"))
    supervisor.kill()
    await soon(lambda: not any(alive(pid) for pid in service.pids()))
    assert len(service.told("done 1")) == len(service.told("begun 1")) == 1, "they drain"
    assert len(service.said("worker stopped")) == 2


async def test_a_change_of_source_restarts_and_ctrl_c_ends_and_both_drain(service: Service) -> None:
    supervisor = service.start("--app", APP, "--reload")
    await soon(service.pids)
    await service.publish(1, seconds=1.0)
    await soon(lambda: service.told("begun 1"))
    source = service.module.read_text()
    service.module.write_text(source.replace("VERSION = 1", "VERSION = "))
    await soon(lambda: service.said("worker died"))
    assert service.told("done 1 by .* version 1"), "what ran was let finish"
    [died] = service.said("worker died")
    assert (died["code"], died["again"]) == (1, "when a file changes")
    assert "SyntaxError" in service.output.read_text()
    service.module.write_text(source.replace("VERSION = 1", "VERSION = 2"))
    await service.publish(2, seconds=1.0)
    await soon(lambda: service.told("begun 2"))
    os.killpg(supervisor.pid, signal.SIGINT)  # as a terminal does: to everyone in the foreground
    assert supervisor.wait(PATIENCE) == 0
    assert len(service.told("done 2 by .* version 2")) == len(service.told("begun 2")) == 1
    assert not any(alive(pid) for pid in service.pids())
    assert service.said("second signal: running handlers are given back now") == []
