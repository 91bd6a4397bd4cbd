"""Settings come from the environment, then from `.env`."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from eventbus import EventBus
from eventbus.errors import ConfigurationError
from eventbus.settings import DatabaseSettings, Environment, Settings
from gateway.settings import GatewaySettings
from handlers.partners.services import Services

LINK = "tcp://10.0.0.1:6379"  # what Kubernetes sets for a Service
NAMES = ["EVENTBUS_REDIS_URL", "REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "EVENTBUS_DATABASE_URL"]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = (name for name in os.environ if name.startswith("EVENTBUS_"))
    for name in [*NAMES, "DATABASE_URL", *own]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, None),
        ({"REDIS_URL": "redis://a"}, "redis://a"),
        ({"REDIS_URL": "redis://a", "EVENTBUS_REDIS_URL": "redis://b"}, "redis://b"),
        ({"REDIS_HOST": "h"}, "redis://h:6379"),
        ({"REDIS_HOST": "h", "REDIS_PORT": "7", "REDIS_PASSWORD": "p@:/"}, "redis://:p%40%3A%2F@h:7"),
        ({"REDIS_HOST": "h", "REDIS_URL": "redis://a"}, "redis://a"),
    ],
)
def test_redis_is_found_in_the_environment(
    environment: dict[str, str], url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings().find_redis_url() == url


def test_postgres_is_found_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://a")
    assert Settings().require_database_url() == "postgresql://a"
    monkeypatch.setenv("EVENTBUS_DATABASE_URL", "postgresql://b")
    assert Settings().require_database_url() == "postgresql://b"


def test_the_environment_comes_before_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REDIS_URL=redis://file\nEVENTBUS_LOG_FORMAT=json\nUNKNOWN=x\n")
    assert Settings().find_redis_url() == "redis://file"
    monkeypatch.setenv("REDIS_URL", "redis://environment")
    assert (Settings().find_redis_url(), Settings().log_format) == ("redis://environment", "json")


def test_what_is_missing_is_told_with_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match="EVENTBUS_REDIS_URL"):
        Settings().require_redis_url()
    with pytest.raises(ConfigurationError, match="EVENTBUS_DATABASE_URL"):
        Settings().require_database_url()


def test_what_is_wrong_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT", "many")
    with pytest.raises(ConfigurationError, match="REDIS_PORT"):
        Settings()


def test_no_password_is_in_the_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVENTBUS_REDIS_URL", "EVENTBUS_DATABASE_URL"):
        monkeypatch.setenv(name, "scheme://user:secret@host")
    monkeypatch.setenv("REDIS_PASSWORD", "secret")
    assert "secret" not in repr(Settings())


def test_the_spool_is_a_file_in_this_folder_unless_it_is_named_or_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().spool_path == Path("contingency-log.jsonl")
    monkeypatch.setenv("EVENTBUS_SPOOL_PATH", "/var/spool/app.jsonl")
    assert Settings().spool_path == Path("/var/spool/app.jsonl")
    monkeypatch.setenv("EVENTBUS_SPOOL_PATH", "")
    assert Settings().spool_path is None


def test_how_the_database_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (DatabaseSettings().pool_size, DatabaseSettings().statement_cache, DatabaseSettings().schema_name) == (
        *(10, None, None),
    )
    for name, value in (("POOL", "3"), ("STATEMENT_CACHE", "0"), ("SCHEMA", "crm"), ("URL", "postgresql://a")):
        monkeypatch.setenv(f"EVENTBUS_DATABASE_{name}", value)
    found = DatabaseSettings()
    assert (found.pool_size, found.statement_cache, found.schema_name) == (3, 0, "crm")
    assert DatabaseSettings(pool_size=5).pool_size == 5, "what the program says comes first"
    for name in ("POOL", "STATEMENT_CACHE", "SCHEMA"):
        monkeypatch.setenv(f"EVENTBUS_DATABASE_{name}", "")
    assert DatabaseSettings().pool_size == 10, "empty means unset"
    monkeypatch.setenv("EVENTBUS_DATABASE_POOL", "0")
    with pytest.raises(ConfigurationError, match="EVENTBUS_DATABASE_POOL: "):
        DatabaseSettings()


@pytest.mark.parametrize("settings", [Settings, DatabaseSettings, GatewaySettings, Services])
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_variable_is_as_none_at_all(
    settings: type[Environment], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without, prefix = settings(), settings.model_config.get("env_prefix", "")
    for name in settings.model_fields:
        for variable in (f"{prefix}{name}".upper(), name.upper(), f"EVENTBUS_{name}".upper()):
            monkeypatch.setenv(variable, text)
    expected = without.model_dump() | dict.fromkeys(settings.EMPTY_IS_NONE)
    assert settings().model_dump() == expected


def test_an_empty_variable_hides_no_other_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("EVENTBUS_DATA_DIR=/var/lib/app\nEVENTBUS_METRICS_PORT=\n")
    monkeypatch.setenv("EVENTBUS_REDIS_URL", "")
    monkeypatch.setenv("REDIS_URL", "redis://a")
    monkeypatch.setenv("EVENTBUS_DATA_DIR", "")
    settings = Settings()
    assert (settings.find_redis_url(), settings.data_dir) == ("redis://a", Path("/var/lib/app"))
    assert settings.metrics_port is None


def test_the_port_of_a_redis_that_has_a_url_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_HOST", "h")
    monkeypatch.setenv("REDIS_URL", "redis://a")
    for port in (LINK, "many", "-1"):
        monkeypatch.setenv("REDIS_PORT", port)
        assert Settings().find_redis_url() == "redis://a"


def test_a_service_link_keeps_nobody_from_starting_who_does_not_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_PORT", "EVENTBUS_PORT", "EVENTBUS_METRICS_PORT"):
        monkeypatch.setenv(name, LINK)
    settings = GatewaySettings()
    assert settings.find_redis_url() is None
    assert settings.model_copy(update={"redis_url": "redis://a"}).find_redis_url() == "redis://a"
    assert GatewaySettings.read(port=8080).port == 8080
    assert Settings(metrics_port=0).metrics_port == 0
    assert LINK not in repr(settings)


@pytest.mark.parametrize("name", ["REDIS_PORT", "EVENTBUS_PORT", "EVENTBUS_METRICS_PORT"])
def test_whoever_needs_it_is_told_what_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_HOST", "h")
    monkeypatch.setenv(name, LINK)
    settings = GatewaySettings()
    needs: dict[str, Callable[[], object]] = {
        "REDIS_PORT": settings.find_redis_url,
        "EVENTBUS_PORT": lambda: settings.port,
        "EVENTBUS_METRICS_PORT": lambda: settings.metrics_port,
    }
    for variable, need in needs.items():
        if variable == name:
            with pytest.raises(ConfigurationError, match=f"^{name} is '{LINK}': that is no number but a service link"):
                need()
        else:
            need()
    with pytest.raises(AttributeError):
        _ = settings.no_such_field  # type: ignore[attr-defined]


def test_partitions_are_numbers_by_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().partitions == {}
    monkeypatch.setenv("EVENTBUS_PARTITIONS", "lead=16, task = 4,")
    assert Settings().partitions == {"lead": 16, "task": 4}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lead", "'lead' is not of the form stream=number, such as lead=16"),
        ("lead=many", "'lead=many' is not of the form"),
        ("lead=-1", "'lead=-1' is not of the form"),
        ("lead=0", "partitions['lead']=0 must be at least 1"),
        ("lead=99999999999999", "partitions['lead']=999999999 must be a whole number, 1 to 1,024"),
        ("lead.created=4", "'lead.created' is no stream"),
        ("=4", "'' is no stream"),
    ],
)
def test_partitions_that_cannot_be_are_told(text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTBUS_PARTITIONS", text)
    with pytest.raises(ConfigurationError) as told:
        EventBus("memory://", partitions=Settings().partitions)
    assert "partitions" in str(told.value)
    assert said in str(told.value)
