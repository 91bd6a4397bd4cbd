"""Settings of the services outside."""

import pytest

from eventbus import Reject
from handlers.partners.services import Services


def test_they_come_from_variables_without_a_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N8N_BASE_URL", "http://n8n")
    monkeypatch.setenv("EVENTBUS_CALLBACK_ALLOW", "localhost")
    services = Services()
    assert (services.n8n_base_url, services.callback_allow) == ("http://n8n", "localhost")


def test_what_is_missing_is_told_by_the_name_of_its_variable() -> None:
    services = Services(sms_account_sid="AC1")
    with pytest.raises(Reject, match=r"^SMS is not configured: set SMS_AUTH_TOKEN and SMS_FROM$"):
        services.require("SMS", "sms_account_sid", "sms_auth_token", "sms_from")
    assert services.require("SMS", "sms_account_sid") == ["AC1"]


def test_no_secret_is_shown() -> None:
    shown = repr(
        Services(
            n8n_signing_secret="hush",
            whatsapp_access_token="hush",
            whatsapp_app_secret="hush",
            whatsapp_verify_token="hush",
            telegram_bot_token="hush",
            telegram_webhook_secret="hush",
            smtp_url="smtp://user:hush@mail",
            sms_auth_token="hush",
            push_vapid_private_key="hush",
        )
    )
    assert "hush" not in shown
