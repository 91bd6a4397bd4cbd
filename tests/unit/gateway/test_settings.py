"""Start is refused, with a reason, when tokens could not be trusted."""

import pytest

from eventbus import ConfigurationError
from gateway.app import authenticator
from gateway.settings import GatewaySettings

SECRET = "s" * 32


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "JWT_SECRET", "JWT_JWKS_URL", "DRAIN_SECONDS"):
        monkeypatch.delenv(f"EVENTBUS_{name}", raising=False)


def test_defaults_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (GatewaySettings.read().host, GatewaySettings.read().port) == ("127.0.0.1", 8080)
    monkeypatch.setenv("EVENTBUS_PORT", "9000")
    monkeypatch.setenv("EVENTBUS_JWT_SECRET", SECRET)
    settings = GatewaySettings.read(host="::1", port=None)
    assert (settings.host, settings.port, settings.require_secret()) == ("::1", 9000, SECRET)


def test_what_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTBUS_PORT", "70000")
    monkeypatch.setenv("EVENTBUS_LOG_FORMAT", "xml")
    with pytest.raises(ConfigurationError, match=r"log_format: .*port: "):
        GatewaySettings.read()


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "3601", "soon", "5s"])
def test_a_drain_that_cannot_be_is_refused(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert GatewaySettings.read().drain_seconds == 5
    monkeypatch.setenv("EVENTBUS_DRAIN_SECONDS", seconds)
    with pytest.raises(ConfigurationError, match="drain_seconds: "):
        GatewaySettings.read()


@pytest.mark.parametrize("secret", [None, "", "short", "s" * 31, "é" * 15])
def test_a_secret_that_is_missing_or_short_refuses_the_start(secret: str | None) -> None:
    with pytest.raises(ConfigurationError, match="EVENTBUS_JWT_SECRET") as caught:
        authenticator(GatewaySettings(jwt_secret=secret))
    if secret:
        assert secret not in str(caught.value)


@pytest.mark.parametrize("secret", [SECRET, "é" * 16])
def test_bytes_count_and_not_characters(secret: str) -> None:
    authenticator(GatewaySettings(jwt_secret=secret))


def test_two_kinds_of_keys_are_one_too_many() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        authenticator(GatewaySettings(jwt_secret=SECRET, jwt_jwks_url="https://id.example/keys"))


def test_a_secret_is_not_shown() -> None:
    assert SECRET not in repr(GatewaySettings(jwt_secret=SECRET))
