"""`eventbus publish` refuses what no one could handle."""

import pytest
from typer.testing import CliRunner

from eventbus.cli import build

APP = "--app=tests.integration.shop"
ORDER = "shop.order_placed"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["shop.order_place", "{}", APP], "did you mean shop.order_placed"),
        (["completely.else", "{}", APP], "imported by what --app names?"),
        ([ORDER, '{"number": 1, "numbr": 1}', APP], "numbr: Extra inputs"),
        ([ORDER, "{}", APP], "number: Field required"),
        ([ORDER, "{", APP], "JSON: Invalid JSON"),
        ([ORDER, '{"number": 1}', APP, "--priority", "11"], "--priority"),
        ([ORDER, '{"number": 1}', APP, "--delay", "-1"], "--delay"),
        ([ORDER, '{"number": 1}', "--app", "tests.integration.shops"], "no module tests.integration.shops"),
    ],
)
def test_usage(arguments: list[str], words: str) -> None:
    run = CliRunner(env={"COLUMNS": "200", "EVENTBUS_REDIS_URL": "redis://127.0.0.1:1"}).invoke(
        build(), ["publish", *arguments]
    )
    assert run.exit_code == 2, run.output
    assert words in " ".join(run.output.replace("│", " ").split())


def test_a_scheduled_event_is_told_as_such(redis_url: str) -> None:
    run = CliRunner(env={"EVENTBUS_REDIS_URL": redis_url}).invoke(
        build(), ["publish", ORDER, '{"number": 1}', APP, "--delay", "60"]
    )
    assert (run.exit_code, run.output.split()[0]) == (0, "scheduled"), run.output
