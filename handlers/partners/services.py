"""The services outside of the house: where they are and how we log in, by environment variable.

A service whose variables are not set is not configured. An event that needs it goes to the dead letters at once, with
the names of the missing variables; nothing is left out in silence.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import Field

from eventbus import Reject, Resource, Use
from eventbus.settings import Environment


class Services(Environment):
    """The name of each field in capitals is that of its variable, but for `callback_allow`."""

    n8n_base_url: str | None = None
    n8n_signing_secret: str | None = Field(default=None, repr=False)
    n8n_timeout: float = Field(default=120.0, gt=0, le=120)  # seconds

    whatsapp_base_url: str = "https://graph.facebook.com/v21.0"
    whatsapp_phone_number_id: str | None = None
    whatsapp_access_token: str | None = Field(default=None, repr=False)
    whatsapp_app_secret: str | None = Field(default=None, repr=False)
    whatsapp_verify_token: str | None = Field(default=None, repr=False)

    telegram_base_url: str = "https://api.telegram.org"
    telegram_bot_token: str | None = Field(default=None, repr=False)
    telegram_webhook_secret: str | None = Field(default=None, repr=False)

    smtp_url: str | None = Field(default=None, repr=False)  # smtp:// or smtps://, user:password@host:port
    email_from: str | None = None

    sms_base_url: str = "https://api.twilio.com"
    sms_account_sid: str | None = None
    sms_auth_token: str | None = Field(default=None, repr=False)
    sms_from: str | None = None

    push_vapid_private_key: str | None = Field(default=None, repr=False)

    enrichment_url: str | None = None
    crm_sync_url: str | None = None

    callback_signing_secret: str | None = Field(default=None, repr=False)
    callback_allow: str = Field(default="", validation_alias="EVENTBUS_CALLBACK_ALLOW")  # hosts, with commas

    def require(self, service: str, *fields: str) -> list[str]:
        """The values of the fields. Raises Reject that names all missing ones: a retry would not set them."""
        missing = [field.upper() for field in fields if not getattr(self, field)]
        if missing:
            raise Reject(f"{service} is not configured: set {' and '.join(missing)}")
        return [getattr(self, field) for field in fields]


async def _read(_use: Use) -> AsyncIterator[Services]:
    yield Services()


SERVICES = Resource("the outside services' settings", asynccontextmanager(_read))
