"""/api/callback-secret: how receivers of callbacks know that a call is ours. For admins."""

from gateway.endpoints.api import Call, Routes
from handlers.common.errors import NotFound
from handlers.delivery.callback import callback_secret
from handlers.delivery.models import CallbackSecret
from handlers.partners.services import SERVICES

callbacks = Routes("/api/callback-secret")


@callbacks.get(roles=frozenset({"admin"}), problems={404})
async def get_callback_secret(call: Call) -> CallbackSecret:
    """The organization's secret for signatures by Standard Webhooks; 404 where none is configured."""
    secret = callback_secret(await call.bus.resources.use(SERVICES), call.organization)
    if secret is None:
        raise NotFound("secret: CALLBACK_SIGNING_SECRET is not set")
    return CallbackSecret(secret=secret)
