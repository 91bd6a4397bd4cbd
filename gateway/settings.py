"""Settings of the gateway: those of the bus and its own, with the same prefix."""

from typing import Any, Self

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from eventbus import ConfigurationError
from eventbus.settings import Settings
from gateway.callers import rates

SECRET_BYTES = 32  # RFC 7518, 3.2: a key of the hash's size or larger


class GatewaySettings(Settings):
    """Tokens are checked with a shared secret (HS256) or with the keys behind a URL (RS256, ES256): one of the two."""

    model_config = SettingsConfigDict(hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    jwt_secret: str | None = Field(default=None, repr=False)
    jwt_jwks_url: str | None = None
    drain_seconds: float = Field(default=5.0, ge=0, le=3_600)  # see gateway.serve; 0: none
    rate_limit: str = "60/1m"  # of each user: see gateway.callers.rates

    @field_validator("rate_limit")
    @classmethod
    def _check_rates(cls, text: str) -> str:
        rates.parse(text)
        return text

    @classmethod
    def read(cls, **given: object) -> Self:
        """From the environment, except for arguments that are not None. Raises ConfigurationError with every fault."""
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return cls(**chosen)

    def require_secret(self) -> str:
        """The secret. Raises ConfigurationError if there is none or it is too short; no message contains its text."""
        if not self.jwt_secret:
            raise ConfigurationError(
                "no secret for tokens is configured: set EVENTBUS_JWT_SECRET to 32 bytes or more "
                "(`openssl rand -hex 32` makes one)"
            )
        if len(self.jwt_secret.encode()) < SECRET_BYTES:
            raise ConfigurationError(
                f"EVENTBUS_JWT_SECRET has {len(self.jwt_secret.encode())} bytes, and must have {SECRET_BYTES} at least "
                "(`openssl rand -hex 32` makes one)"
            )
        return self.jwt_secret
