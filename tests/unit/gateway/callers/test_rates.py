"""EVENTBUS_RATE_LIMIT as it is written."""

import pytest

from eventbus import ConfigurationError
from gateway.callers.rates import Rate, parse
from gateway.settings import GatewaySettings


def test_what_is_understood() -> None:
    assert parse("60/1m") == {"user": Rate("user", 60, 60)}
    assert parse("off") == {"user": None}
    assert parse(" 10/5s , system=1000/1s, admin=off ") == {
        "user": Rate("user", 10, 5),
        "system": Rate("system", 1000, 1),
        "admin": None,
    }
    assert parse("7200/2h")["user"] == Rate("user", 7200, 7200)


def test_the_policy_is_a_structured_field() -> None:
    assert Rate("user", 60, 60).header == '"user";q=60;w=60'


BAD = [
    *("", "60", "60/", "/1m", "60/1", "60/m", "60/0s", "0/1m", "-1/1m", "6.5/1m", "60/1d", "60/25h", "60/1m,", "none"),
    *(
        "60/1m,system",
        "60/1m,root=1/1s",
        "60/1m,user=1/1s",
        "off,system=1/1s,system=2/1s",
        "system=1/1s",
        "1000000000000/1s",
    ),
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_not(text: str) -> None:
    with pytest.raises(ConfigurationError, match="rate_limit"):
        GatewaySettings(rate_limit=text)


def test_the_default_is_that_of_the_contract() -> None:
    assert parse(GatewaySettings().rate_limit) == {"user": Rate("user", 60, 60)}
