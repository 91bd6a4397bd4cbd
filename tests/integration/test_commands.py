"""The `eventbus` command as an operator meets it: exit codes, one screen, no password."""

import json
import subprocess
from pathlib import Path

import pytest

from eventbus.contract.outgoing import Outgoing
from eventbus.publishing.spool.record import Spooled, pack
from tests.integration.commands import eventbus, eventbus_here
from tests.samples import envelope

NOWHERE = "redis://:sesame@127.0.0.1:1/0"
NO_DATABASE = "postgresql://app:sesame@127.0.0.1:1/app"


def assert_one_screen(run: subprocess.CompletedProcess[str], *words: str) -> None:
    assert len(run.stderr.splitlines()) <= 20, run.stderr
    assert "Traceback" not in run.stderr
    assert "sesame" not in run.stderr + run.stdout
    for word in words:
        assert word in run.stderr, f"{word!r} is missing in:\n{run.stderr}"


@pytest.mark.parametrize(
    ("command", "server"),
    [
        (["worker"], "Redis"),
        (["gateway"], "Redis"),
        (["dead", "list"], "Redis"),
        (["status"], "Redis"),
        (["explain", "01a20203-3dfc-7004-99e1-786b1ae358e7"], "Redis"),
        (["doctor"], "Redis"),
    ],
)
def test_redis_away_is_exit_3_and_one_screen(command: list[str], server: str, database_url: str) -> None:
    run = eventbus(
        *command,
        EVENTBUS_REDIS_URL=NOWHERE,
        EVENTBUS_DATABASE_URL=database_url,
        EVENTBUS_JWT_SECRET="s" * 32,
    )
    assert run.returncode == 3, run.stderr
    assert_one_screen(run, server, "127.0.0.1:1", "***", "refused", "redis-cli")


@pytest.mark.parametrize("command", ["worker", "gateway", "migrate"])
def test_postgres_away_is_exit_3_and_one_screen(command: str, redis_url: str) -> None:
    run = eventbus(
        command, EVENTBUS_REDIS_URL=redis_url, EVENTBUS_DATABASE_URL=NO_DATABASE, EVENTBUS_JWT_SECRET="s" * 32
    )
    assert run.returncode == 3, run.stderr
    assert_one_screen(run, "PostgreSQL", "127.0.0.1:1", "***", "psql")


LINKS = dict.fromkeys(("REDIS_PORT", "EVENTBUS_PORT", "EVENTBUS_METRICS_PORT"), "tcp://10.0.0.1:1")


@pytest.mark.parametrize("command", [["status"], ["doctor", "--watch=0"], ["token", "--user=u", "--org=o"]])
def test_beside_services_of_such_names_a_command_goes_its_way(command: list[str], redis_url: str) -> None:
    run = eventbus_here(*command, EVENTBUS_REDIS_URL=redis_url, EVENTBUS_JWT_SECRET="s" * 32, **LINKS)
    assert "_PORT" not in run.stdout + run.stderr
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(("command", "variable"), [("worker", "EVENTBUS_METRICS_PORT"), ("gateway", "EVENTBUS_PORT")])
def test_what_is_needed_and_a_service_link_is_named_as_one(command: str, variable: str) -> None:
    run = eventbus_here(command, EVENTBUS_REDIS_URL=NOWHERE, EVENTBUS_DATABASE_URL=NO_DATABASE, **LINKS)
    assert run.returncode == 1, run.stderr
    assert_one_screen(run, f"{variable} is 'tcp://10.0.0.1:1'", "service link", "enableServiceLinks")


@pytest.mark.parametrize("command", [["worker"], ["gateway"], ["migrate"], ["dead", "list"]])
def test_nothing_configured_says_what_to_set_and_starts_no_server(command: list[str]) -> None:
    run = eventbus(*command)
    assert run.returncode == 1
    assert_one_screen(run, "EVENTBUS_")


def test_a_command_that_does_not_exist_is_usage() -> None:
    assert eventbus("dead", "bury").returncode == 2


def test_a_dead_letter_that_does_not_exist_fails_with_its_name(redis_url: str) -> None:
    run = eventbus("dead", "show", "lead/1-0", EVENTBUS_REDIS_URL=redis_url)
    assert run.returncode == 1
    assert_one_screen(run, "lead/1-0", "dead list")


def test_migrate_prints_then_applies_then_has_nothing_to_do(database_url: str) -> None:
    printed = eventbus("migrate", "--sql", EVENTBUS_DATABASE_URL=database_url)
    assert "CREATE TABLE eventbus_outbox" in printed.stdout
    assert "CREATE TABLE leads" in printed.stdout
    applied = eventbus("migrate", EVENTBUS_DATABASE_URL=database_url)
    assert (applied.returncode, "applied eventbus/0001" in applied.stdout) == (0, True)
    again = eventbus("migrate", EVENTBUS_DATABASE_URL=database_url)
    assert again.stdout.startswith("0 applied")


def test_dead_list_as_json_is_nothing_but_json(redis_url: str) -> None:
    run = eventbus("dead", "list", "--json", EVENTBUS_REDIS_URL=redis_url)
    assert json.loads(run.stdout) == {"items": [], "total": 0}


def test_the_spool_is_shown_and_replayed(redis_url: str, tmp_path: Path) -> None:
    spool = str(tmp_path / "log.jsonl")
    line = pack(Spooled.of(Outgoing(envelope(1)), 0.0))
    (tmp_path / "log.jsonl").write_bytes(line + line[:30])
    shown = json.loads(eventbus("spool", "status", "--json", EVENTBUS_SPOOL_PATH=spool).stdout)
    assert (shown["path"], shown["records"], shown["bytes"], shown["rejected"]) == (spool, 1, len(line) + 30, 0)
    away = eventbus("spool", "replay", EVENTBUS_SPOOL_PATH=spool, EVENTBUS_REDIS_URL=NOWHERE)
    assert away.returncode == 3
    assert_one_screen(away, "Redis", "127.0.0.1:1")
    done = eventbus("spool", "replay", "--json", EVENTBUS_SPOOL_PATH=spool, EVENTBUS_REDIS_URL=redis_url)
    assert json.loads(done.stdout) == {"records": 1, "rejected": 1}, done
    assert (tmp_path / "log.jsonl.rejected").read_bytes() == line[:30] + b"\n"
