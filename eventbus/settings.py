"""Settings of the bus: environment, then `.env`, prefix EVENTBUS_. REDIS_URL, REDIS_HOST/PORT/PASSWORD and DATABASE_URL
are honoured where the prefixed name is absent."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventbus.errors import ConfigurationError

POOL_SIZE = 10


class Environment(BaseSettings):
    """Settings read from the environment; every field can be given to the constructor instead.

    Raises ConfigurationError naming every value that cannot work, and showing none.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", populate_by_name=True, hide_input_in_errors=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise ConfigurationError(f"the settings do not work: {faults}") from None


class DatabaseSettings(Environment):
    """How a process uses PostgreSQL. A text that is empty stands for the default."""

    model_config = SettingsConfigDict(env_prefix="EVENTBUS_DATABASE_", env_ignore_empty=True)

    pool_size: int = Field(default=POOL_SIZE, ge=1, le=10_000, validation_alias="EVENTBUS_DATABASE_POOL")
    direct_url: str | None = Field(default=None, repr=False)  # past the pooler, for the relay
    statement_cache: int | None = Field(default=None, ge=0, le=100_000)
    schema_name: str | None = Field(
        default=None, min_length=1, max_length=63, validation_alias="EVENTBUS_DATABASE_SCHEMA"
    )


class Settings(Environment):
    """What the bus needs to know."""

    model_config = SettingsConfigDict(env_prefix="EVENTBUS_")

    redis_url: str | None = Field(
        default=None, validation_alias=AliasChoices("EVENTBUS_REDIS_URL", "REDIS_URL"), repr=False
    )
    redis_host: str | None = Field(default=None, validation_alias="REDIS_HOST")
    redis_port: int = Field(default=6379, validation_alias="REDIS_PORT")
    redis_password: str | None = Field(default=None, validation_alias="REDIS_PASSWORD", repr=False)
    database_url: str | None = Field(
        default=None, validation_alias=AliasChoices("EVENTBUS_DATABASE_URL", "DATABASE_URL"), repr=False
    )
    data_dir: Path = Path(".eventbus")
    spool_path: Path | None = Path("contingency-log.jsonl")  # the empty text stands for None: no spool
    log_format: Literal["console", "json"] = "console"
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    metrics_host: str = "127.0.0.1"
    min_replicas: int = Field(default=0, ge=0, le=100)  # that are waited for behind each publish
    history_days: float | None = Field(default=365.0, ge=0, le=1_000_000)  # the empty text, and 0: nothing is kept

    @field_validator("spool_path", mode="before")
    @classmethod
    def _no_spool(cls, path: object) -> object:
        return None if path == "" else path

    @field_validator("history_days", mode="before")
    @classmethod
    def _no_history(cls, days: object) -> object:
        return None if days == "" else days

    @property
    def history(self) -> timedelta | None:
        """As EventBus takes it."""
        return timedelta(days=self.history_days) if self.history_days else None

    def find_redis_url(self) -> str | None:
        """The configured server, or None."""
        if self.redis_url or not self.redis_host:
            return self.redis_url
        login = f":{quote(self.redis_password, safe='')}@" if self.redis_password else ""
        return f"redis://{login}{self.redis_host}:{self.redis_port}"

    def require_redis_url(self) -> str:
        """Raises ConfigurationError saying what to set."""
        url = self.find_redis_url()
        if url is None:
            raise ConfigurationError(
                "no Redis is configured: set EVENTBUS_REDIS_URL, for example redis://localhost:6379 "
                "(`eventbus demo` starts servers of its own)"
            )
        return url

    def require_database_url(self) -> str:
        """Raises ConfigurationError saying what to set."""
        if not self.database_url:
            raise ConfigurationError(
                "no PostgreSQL is configured: set EVENTBUS_DATABASE_URL, for example postgresql://localhost/app "
                "(`eventbus demo` starts servers of its own)"
            )
        return self.database_url
