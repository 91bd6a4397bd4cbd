"""What an operator is given: compose, systemd units, dashboard and alerts speak of what there is."""

import configparser
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml  # type: ignore[import-untyped]
from typer.testing import CliRunner

from eventbus.cli import build
from eventbus.telemetry import DEFINITIONS
from gateway.readiness import CHECK_TIMEOUT
from gateway.serve import SHUTDOWN_TIMEOUT
from gateway.settings import GatewaySettings
from gateway.socket.sockets import CLOSE_TIMEOUT
from handlers import GROUPS
from tests.docs.pages import blocks

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
LABELS = {definition.name: set(definition.labels) for definition in DEFINITIONS}
METRIC = re.compile(r"eventbus_\w+")
FOREIGN = {"le", "instance"}  # of histograms, and of whoever scrapes


def compose(part: str = "services") -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))[part]


def test_compose_starts_in_an_order_that_works() -> None:
    services = compose()
    assert "--maxmemory-policy noeviction" in services["redis"]["command"]
    assert "--appendonly yes" in services["redis"]["command"]
    for name in services.keys() - {"redis", "postgres", "migrate"}:
        waits = services[name]["depends_on"]
        assert waits["migrate"]["condition"] == "service_completed_successfully"
        assert {"redis", "postgres"} <= set(waits)


def test_what_waits_in_a_spool_outlives_its_container() -> None:
    """It is in the working directory, which the image gives to the user it runs as."""
    folder = re.findall(r"^WORKDIR (.*)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)[-1]
    services = compose()
    for name in services.keys() - {"redis", "postgres", "migrate"}:
        [volume] = services[name]["volumes"]
        source, _, target = volume.partition(":")
        assert target == folder
        assert source in compose("volumes"), "a named volume: it is kept when the container is replaced"


def test_compose_has_a_worker_for_each_group_and_none_twice() -> None:
    worked_for: list[str] = []
    for service in compose().values():
        command = service.get("command")
        if isinstance(command, list) and command[0] == "worker":
            assert set(command[1::2]) == {"--group"}
            worked_for += command[2::2]
    assert sorted(worked_for) == sorted(group.name for group in GROUPS)


def unit(path: Path) -> configparser.ConfigParser:
    """Keys that may be repeated keep their last value."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(path.read_text(encoding="utf-8"))
    return parsed


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_runs_a_command_that_exists_as_a_user_of_its_own(path: Path) -> None:
    service = unit(path)["Service"]
    program, command, *options = shlex.split(service["ExecStart"].replace("%i", "email"))
    assert program == "/opt/eventbus/bin/eventbus"
    shown = CliRunner().invoke(build(), [command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert all(option in shown.output for option in options if option.startswith("--"))
    assert (service["User"], service["NoNewPrivileges"]) == ("eventbus", "yes")
    assert service["EnvironmentFile"].startswith(("/etc/eventbus/", "-/etc/eventbus/"))


def test_units_wait_for_units_that_exist() -> None:
    names = {path.name for path in UNITS}
    assert names == {"eventbus-gateway@.service", "eventbus-migrate.service", "eventbus-worker@.service"}
    for path in UNITS:
        needed = unit(path)["Unit"].get("Requires")
        assert needed is None or needed in names


def test_a_gateway_is_given_the_time_that_it_takes_to_stop() -> None:
    """The drain; the sockets; requests, and once more those that are cancelled. What it closes then takes a moment."""
    needed = GatewaySettings().drain_seconds + CLOSE_TIMEOUT + 2 * SHUTDOWN_TIMEOUT
    service = unit(ROOT / "deploy" / "systemd" / "eventbus-gateway@.service")["Service"]
    assert int(service["TimeoutStopSec"]) >= needed + 5
    assert int(compose()["gateway"]["stop_grace_period"].removesuffix("s")) >= needed + 5
    [pod] = [
        yaml.safe_load(block.text)
        for block in blocks(ROOT / "docs" / "deploying.md")
        if "terminationGracePeriodSeconds" in block.text
    ]
    assert pod["terminationGracePeriodSeconds"] >= needed + 5
    [container] = pod["containers"]
    assert all(
        entry["name"].removeprefix("EVENTBUS_").lower() in GatewaySettings.model_fields for entry in container["env"]
    )
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["readinessProbe"]["timeoutSeconds"] > CHECK_TIMEOUT
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_workers_follow_a_metric_that_is_always_told() -> None:
    [scaled] = [
        yaml.safe_load(block.text) for block in blocks(ROOT / "docs" / "scaling.md") if "ScaledObject" in block.text
    ]
    [trigger] = scaled["spec"]["triggers"]
    asked = trigger["metadata"]
    promql_parser.parse(asked["query"])  # raises ValueError
    assert METRIC.findall(asked["query"]) == ["eventbus_backlog"], "the lag may be unknown"
    [labels] = re.findall(r"max by \(([^)]*)\)", asked["query"])
    assert set(labels.split(", ")) == LABELS["eventbus_backlog"]
    [group] = re.findall(r'group="([^"]*)"', asked["query"])
    assert group in {group.name for group in GROUPS}
    assert asked["ignoreNullValues"] == "false"
    assert all(isinstance(value, str) for value in asked.values()), "KEDA takes text alone"
    assert scaled["spec"]["minReplicaCount"] >= 1
    assert float(asked["threshold"]) < 1_000, "the backlog is counted so far"


def alerts() -> list[Any]:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[Any]:
    board = json.loads((ROOT / "deploy" / "grafana" / "eventbus.json").read_text(encoding="utf-8"))
    return list(board["panels"])


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in alerts())
    yield from (target["expr"] for panel in panels() for target in panel.get("targets", ()))


@pytest.mark.parametrize("expression", list(expressions()))
def test_dashboard_and_alerts_ask_for_metrics_and_labels_that_exist(expression: str) -> None:
    promql_parser.parse(expression.replace("$__rate_interval", "5m"))  # raises ValueError
    names = {name.removesuffix("_bucket") for name in METRIC.findall(expression)}
    assert names, expression
    assert names <= LABELS.keys()
    known = set().union(*(LABELS[name] for name in names)) | FOREIGN
    grouped = itertools.chain.from_iterable(found.split(",") for found in re.findall(r"by \(([^)]*)\)", expression))
    selected = re.findall(r"(\w+)=~?\"", expression)
    assert {label.strip() for label in [*grouped, *selected]} <= known


def test_the_dashboard_is_whole() -> None:
    shown = panels()
    assert len({panel["id"] for panel in shown}) == len(shown)
    assert all(panel["description"] for panel in shown if panel["type"] != "row")
    seen = {
        name.removesuffix("_bucket")
        for panel in shown
        for t in panel.get("targets", ())
        for name in METRIC.findall(t["expr"])
    }
    assert seen >= LABELS.keys() - {"eventbus_lag", "eventbus_spool_bytes"}, LABELS.keys() - seen


def test_an_alert_says_what_to_run() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description"} == set(rule["annotations"])
        command = re.search(r"Run: eventbus (\w+)", rule["annotations"]["description"])
        if command:
            assert CliRunner().invoke(build(), [command[1], "--help"]).exit_code == 0
