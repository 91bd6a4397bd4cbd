"""Settings come from the environment, then from `.env`."""

from pathlib import Path

import pytest

from eventbus.errors import ConfigurationError
from eventbus.settings import DatabaseSettings, Settings

NAMES = ["EVENTBUS_REDIS_URL", "REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "EVENTBUS_DATABASE_URL"]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*NAMES, "DATABASE_URL", "EVENTBUS_DATA_DIR", "EVENTBUS_LOG_FORMAT", "EVENTBUS_SPOOL_PATH"]:
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
    with pytest.raises(ConfigurationError, match="pool_size"):
        DatabaseSettings()
