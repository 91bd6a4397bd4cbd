"""Settings of the bus: environment, then `.env`, prefix EVENTBUS_. REDIS_URL, REDIS_HOST/PORT/PASSWORD and DATABASE_URL
are honoured where the prefixed name is absent. An empty text is the same as nothing: what fills in templates leaves it.
"""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self
from urllib.parse import quote

from pydantic import (
    AliasChoices,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from eventbus.errors import ConfigurationError, hide_password

POOL_SIZE = 10


class Environment(BaseSettings):
    """Settings read from the environment; every field can be given to the constructor instead.

    Raises ConfigurationError naming every value that cannot work, and showing none.

    Kubernetes sets NAME_PORT=tcp://… in every pod for each Service beside it, whatever it is called. Such a service
    link is no reason not to start: the field of that name raises ConfigurationError when it is read, by whoever needs
    it."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", populate_by_name=True, hide_input_in_errors=True)

    EMPTY_IS_NONE: ClassVar[frozenset[str]] = frozenset()  # fields for which the empty text has a meaning: None
    _links: dict[str, str] = PrivateAttr(default_factory=dict)  # field to what was set in its place

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise ConfigurationError(f"the settings do not work: {faults}") from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        kept = {_variable(settings_cls, field).lower() for field in cls.EMPTY_IS_NONE}
        for source in (env_settings, dotenv_settings):
            assert isinstance(source, EnvSettingsSource)
            source.env_vars = {
                name: text
                for name, text in source.env_vars.items()
                if text is None or text.strip() or name.lower() in kept
            }
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @model_validator(mode="wrap")
    @classmethod
    def _set_links_aside(cls, given: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        names = {name: field for field in cls.model_fields for name in (field, _variable(cls, field))}
        links = {name: text for name, text in given.items() if _is_link(names.get(name, ""), text)}
        settings = read({name: value for name, value in given.items() if name not in links})
        settings._links = {names[name]: text for name, text in links.items()}
        for field in settings._links.keys() - settings.model_fields_set:
            del settings.__dict__[field]  # now __getattr__ is asked for it
        return settings

    if not TYPE_CHECKING:  # a type checker shall go on finding attributes that do not exist

        def __getattr__(self, name: str) -> Any:
            link = self._links.get(name) if name in type(self).model_fields else None
            if link is None:
                return super().__getattr__(name)
            variable = _variable(type(self), name)
            raise ConfigurationError(
                f"{variable} is {hide_password(link)!r}: that is no number but a service link, which Kubernetes makes "
                f"for a Service of this name. Set {variable} in the container's own env, or enableServiceLinks: false"
            )


def _variable(settings: type[BaseSettings], field: str) -> str:
    """The variable of a field; of several, the first."""
    alias = settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return str(alias or f"{settings.model_config.get('env_prefix', '')}{field}").upper()


def _counts(text: str) -> dict[str, int]:
    """Of 'lead=16,task=4'. Raises ValueError."""
    counts: dict[str, int] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        stream, _, count = part.partition("=")
        if not count.strip().isdecimal():
            raise ValueError(f"{part!r:.120} is not of the form stream=number, such as lead=16")
        counts[stream.strip()] = int(count.strip()[:9])
    return counts


def _is_link(field: str, value: object) -> bool:
    return field.endswith("port") and isinstance(value, str) and "://" in value


class DatabaseSettings(Environment):
    """How a process uses PostgreSQL."""

    model_config = SettingsConfigDict(env_prefix="EVENTBUS_DATABASE_")

    pool_size: int = Field(default=POOL_SIZE, ge=1, le=10_000, validation_alias="EVENTBUS_DATABASE_POOL")
    direct_url: str | None = Field(default=None, repr=False)  # past the pooler, for the relay
    relay_look_back: float = Field(default=5.0, ge=0, le=60, validation_alias="EVENTBUS_RELAY_LOOK_BACK")
    statement_cache: int | None = Field(default=None, ge=0, le=100_000)
    schema_name: str | None = Field(
        default=None, min_length=1, max_length=63, validation_alias="EVENTBUS_DATABASE_SCHEMA"
    )


class Settings(Environment):
    """What the bus needs to know."""

    model_config = SettingsConfigDict(env_prefix="EVENTBUS_")

    EMPTY_IS_NONE = frozenset({"spool_path", "history_days"})

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
    partitions: Annotated[dict[str, int], NoDecode] = {}  # lead=16,task=4: how many at least; the bus judges them
    history_days: float | None = Field(default=365.0, ge=0, le=1_000_000)  # the empty text, and 0: nothing is kept

    @field_validator(*EMPTY_IS_NONE, mode="before")
    @classmethod
    def _none(cls, text: object) -> object:
        return None if isinstance(text, str) and not text.strip() else text

    @field_validator("partitions", mode="before")
    @classmethod
    def _read_partitions(cls, given: object) -> object:
        return _counts(given) if isinstance(given, str) else given  # EventBus tells what is wrong with them

    @model_validator(mode="before")
    @classmethod
    def _without_port_beside_url(cls, given: dict[str, Any]) -> dict[str, Any]:
        """What is not used is not judged."""
        has_url = any(given.get(name) for name in ("redis_url", "EVENTBUS_REDIS_URL", "REDIS_URL"))
        return {name: value for name, value in given.items() if not (has_url and name == "REDIS_PORT")}

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
