"""The lead as the external CRM gets it: its present state, by HTTP.

    POST {CRM_SYNC_URL}
    Idempotency-Key, webhook-id    the event's id, the same in each attempt
    {"type": "lead.sync", "timestamp": "…", "data": {the lead as GET /api/leads/{id} answers it}}

If N8N_SIGNING_SECRET is set, the request is signed with it, as Standard Webhooks has it: the settings have no secret
for the CRM itself, and N8N and the CRM trust the same sender. Every attempt sends the state of its moment. A receiver
that has seen the id may ignore later attempts, since a later change needs another order.
"""

from collections.abc import Collection
from datetime import UTC, datetime

import aiohttp
import orjson

from handlers.lead.models import Lead
from handlers.partners.calls import call
from handlers.partners.services import Services
from handlers.partners.signing import sign

ALWAYS = frozenset({"id", "organizationId"})


async def push_lead(
    session: aiohttp.ClientSession, services: Services, lead: Lead, fields: Collection[str] | None, *, event_id: str
) -> None:
    """`fields`: names on the wire, None for all. Raises Reject if CRM_SYNC_URL is not set, and as `call` does."""
    [url] = services.require("The CRM", "crm_sync_url")
    state = lead.model_dump(mode="json", by_alias=True)
    if fields is not None:
        state = {name: value for name, value in state.items() if name in ALWAYS or name in fields}
    body = orjson.dumps({"type": "lead.sync", "timestamp": datetime.now(UTC), "data": state})
    headers = {"Content-Type": "application/json", "Idempotency-Key": event_id, "webhook-id": event_id}
    if services.n8n_signing_secret:
        headers |= sign(services.n8n_signing_secret, event_id, body)
    await call(session, "the CRM", "POST", url, body=body, headers=headers)
