"""`eventbus token`."""

import jwt
import pytest
import typer
from typer.testing import CliRunner

from eventbus import ConfigurationError
from gateway.cli import token

SECRET = "s" * 40


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv("EVENTBUS_JWT_SECRET", SECRET)
    app = typer.Typer()
    app.command()(token)
    return app


def claims_of(printed: str) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(
        printed.strip(), SECRET, algorithms=["HS256"], audience="eventbus", issuer="eventbus"
    )
    return claims


def test_a_token_says_who_and_how_long(command: typer.Typer) -> None:
    options = ["--user", "u", "--org", "o", "--role", "admin", "--role", "system", "--tier", "premium", "--ttl", "15m"]
    run = CliRunner().invoke(command, options)
    claims = claims_of(run.stdout)
    assert (claims["sub"], claims["org"], claims["tier"]) == ("u", "o", "premium")
    assert claims["roles"] == ["admin", "system"]
    assert claims["exp"] - claims["iat"] == 15 * 60  # type: ignore[operator]


def test_defaults(command: typer.Typer) -> None:
    claims = claims_of(CliRunner().invoke(command, ["--user", "u", "--org", "o"]).stdout)
    assert (claims["roles"], claims["tier"]) == (["user"], "standard")
    assert claims["exp"] - claims["iat"] == 3600  # type: ignore[operator]


@pytest.mark.parametrize("ttl", ["", "1", "1w", "-1h", "0s", "1.5h", "9999999999d"])
def test_a_ttl_that_cannot_be_is_usage(ttl: str, command: typer.Typer) -> None:
    assert CliRunner().invoke(command, ["--user", "u", "--org", "o", "--ttl", ttl]).exit_code == 2


@pytest.mark.parametrize(
    "options",
    [
        ["--user", "u", "--org", "o", "--role", "root"],
        ["--user", "u", "--org", "o", "--tier", "gold"],
        ["--user", "", "--org", "o"],
        ["--user", "u", "--org", "a\nb"],
    ],
)
def test_what_no_gateway_would_take_is_not_signed(options: list[str], command: typer.Typer) -> None:
    run = CliRunner().invoke(command, options)
    assert isinstance(run.exception, ConfigurationError)
    assert run.stdout == ""
