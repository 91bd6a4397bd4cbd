"""lead.enrich, lead.sync_to_crm and lead.send_follow_up: what is done with a lead by order."""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from aiohttp import web

from eventbus import EventBus
from eventbus.contract.dead_letters import DeadLetter
from eventbus.contract.inspection import Standing
from handlers import jobs
from handlers.partners.services import SERVICES, Services
from handlers.partners.signing import key_of
from tests.gateway.client import Client
from tests.gateway.conftest import Tables
from tests.gateway.test_leads import NOWHERE
from tests.waiting import eventually, until

pytestmark = pytest.mark.usefixtures("worker")

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes, yes").decode()
LEAD = {"name": "Lea", "email": "lea@example.com", "phone": "+49 30 1234567", "company": "Example"}


class Peer:
    """A service outside. `answers`: those to the next requests; then 200 and `found`."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[web.Response] = []
        self.found: Any = {"employees": 12}
        self.asked: list[tuple[dict[str, str], bytes]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((dict(request.headers), await request.read()))
        return self.answers.pop(0) if self.answers else web.json_response(self.found)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    runner = web.AppRunner(app := web.Application(), shutdown_timeout=0.1)
    app.router.add_post("/in", peer.answer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    peer.url = f"http://127.0.0.1:{runner.addresses[0][1]}/in"
    yield peer
    await runner.cleanup()


@pytest.fixture
async def lead(ann: Client) -> Any:
    return (await ann.post("/api/leads", LEAD)).body


async def enrichment_of(ann: Client, lead: Any) -> Any:
    return (await ann.get(f"/api/leads/{lead['id']}")).body["enrichment"]


async def enriched(ann: Client, lead: Any, source: str) -> dict[str, Any]:
    async def there() -> Any:
        found = await enrichment_of(ann, lead)
        return found if found and found["source"] == source else None

    found: dict[str, Any] = await eventually(there)
    at = datetime.fromisoformat(found.pop("enrichedAt"))
    assert abs((datetime.now(UTC) - at).total_seconds()) < 20
    del found["source"]
    return found


async def dead(bus: EventBus) -> str:
    """The only dead letter's reason."""

    async def letters() -> list[DeadLetter]:
        return list(await bus.transport.dead_letters("lead"))

    [letter] = await eventually(letters)
    return letter.error


async def noted(tables: Tables, event_id: str) -> None:
    async def there() -> bool:
        query = f"SELECT count(*) FROM eventbus_inbox WHERE event_id = '{event_id}' AND group_name = 'lead'"
        return await tables.number(query) == 1

    await eventually(there)


async def settled(bus: EventBus, event_ids: list[str]) -> None:
    """Until no group has anything to do for these events that have been relayed, in none of their entries."""
    unsettled = {Standing.WAITING, Standing.RUNNING, Standing.RESTING}

    async def all_settled() -> bool:
        found = [told for event_id in event_ids for told in (await bus.events.locate(event_id)).groups]
        return not any(told.standing in unsettled for told in found)

    await eventually(all_settled)


# Enrichment ----------------------------------------------------------------------------------------------------------


async def test_what_the_lead_itself_tells(ann: Client, bus: EventBus, lead: Any) -> None:
    bus.resources.provide(SERVICES, Services(enrichment_url=None))
    await jobs.enrich_lead(bus, lead=lead["id"], organization="acme")
    assert await enriched(ann, lead, "derived") == {
        "email": {"domain": "example.com", "kind": "company"},
        "phone": {
            "number": "+49301234567",
            "callingCode": 49,
            "country": "DE",
            "kind": "FIXED_LINE",
            "timeZones": ["Europe/Berlin"],
        },
    }


async def test_what_the_provider_tells(ann: Client, bus: EventBus, lead: Any, peer: Peer) -> None:
    bus.resources.provide(SERVICES, Services(enrichment_url=peer.url))
    receipt = await jobs.enrich_lead(bus, lead=lead["id"], organization="acme")
    assert await enriched(ann, lead, "provider") == peer.found
    [(headers, body)] = peer.asked
    assert headers["Idempotency-Key"] == receipt.id
    assert orjson.loads(body) == {**LEAD, "leadId": lead["id"], "organizationId": "acme"}

    peer.found = {"industry": "tea", "source": "spoofed", "enrichedAt": "never"}
    await jobs.enrich_lead(bus, lead=lead["id"], organization="acme", fields=["company"])
    await until(lambda: len(peer.asked) == 2)
    assert orjson.loads(peer.asked[1][1]) == {"leadId": lead["id"], "organizationId": "acme", "company": "Example"}

    async def merged() -> bool:
        return set(await enrichment_of(ann, lead)) == {"employees", "industry", "source", "enrichedAt"}

    await eventually(merged)
    assert await enriched(ann, lead, "provider") == {"employees": 12, "industry": "tea"}


async def test_fields_narrow_it_down_and_what_was_found_stays(ann: Client, bus: EventBus, lead: Any) -> None:
    bus.resources.provide(SERVICES, Services(enrichment_url=None))
    first = await jobs.enrich_lead(bus, lead=lead["id"], organization="acme", fields=["email"])
    assert (await enriched(ann, lead, "derived")).keys() == {"email"}
    await ann.patch(f"/api/leads/{lead['id']}", {"email": "lea@gmail.com", "phone": "030 1234567"})
    second = await jobs.enrich_lead(bus, lead=lead["id"], organization="acme", fields=["phone"])
    assert first.id != second.id

    async def again(kinds: dict[str, str]) -> bool:
        found = await enrichment_of(ann, lead)
        return {name: found[name]["kind"] for name in ("email", "phone") if name in found} == kinds

    await eventually(lambda: again({"email": "company"}))  # not looked at; the number tells nothing
    await jobs.enrich_lead(bus, lead=lead["id"], organization="acme")
    await eventually(lambda: again({"email": "free"}))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (web.json_response([1]), "JSON that is no object, but list"),
        (web.json_response({"a": "x" * 70_000}), "bytes of JSON, and 65536 are kept"),
        (web.json_response({"a": "b\0c"}), "a NUL character"),
        (web.Response(status=403, text="unknown key"), "the enrichment answered 403: unknown key"),
    ],
)
async def test_an_answer_that_cannot_be_kept_is_dead_at_once(
    answer: web.Response, reason: str, bus: EventBus, lead: Any, peer: Peer
) -> None:
    bus.resources.provide(SERVICES, Services(enrichment_url=peer.url))
    peer.answers.append(answer)
    await jobs.enrich_lead(bus, lead=lead["id"], organization="acme")
    assert reason in await dead(bus)
    assert len(peer.asked) == 1


async def test_a_provider_that_is_busy_is_asked_again(ann: Client, bus: EventBus, lead: Any, peer: Peer) -> None:
    bus.resources.provide(SERVICES, Services(enrichment_url=peer.url))
    peer.answers.append(web.Response(status=503, headers={"Retry-After": "0.1"}))
    await jobs.enrich_lead(bus, lead=lead["id"], organization="acme")
    await enriched(ann, lead, "provider")
    keys = [headers["Idempotency-Key"] for headers, _ in peer.asked]
    assert len(keys) == 2
    assert len(set(keys)) == 1


async def test_an_order_for_a_field_that_is_none(bus: EventBus, lead: Any) -> None:
    await jobs.enrich_lead(bus, lead=lead["id"], organization="acme", fields=["email", "shoe"])
    assert "there are no fields 'shoe': choose among name, email, phone, company" in await dead(bus)


async def test_nothing_is_done_for_a_lead_that_is_gone_or_another_organizations(
    bus: EventBus, lead: Any, peer: Peer, tables: Tables
) -> None:
    bus.resources.provide(SERVICES, Services(enrichment_url=peer.url, crm_sync_url=peer.url))
    ordered = [
        (await order(bus, lead=lead_id, organization=organization)).id
        for order in (jobs.enrich_lead, jobs.sync_lead_to_crm, jobs.send_lead_follow_up)
        for lead_id, organization in ((NOWHERE, "acme"), ("lead-1", "acme"), (lead["id"], "umbrella"))
    ]

    await settled(bus, ordered)
    assert peer.asked == []
    assert await tables.events("email.send_bulk") == []
    assert await bus.transport.dead_letters("lead") == []


async def test_an_event_delivered_again_asks_nobody_again(bus: EventBus, lead: Any, peer: Peer, tables: Tables) -> None:
    bus.resources.provide(SERVICES, Services(enrichment_url=peer.url, crm_sync_url=peer.url))
    async with bus.transaction() as tx:
        orders = [
            await jobs.enrich_lead(tx, lead=lead["id"], organization="acme"),
            await jobs.sync_lead_to_crm(tx, lead=lead["id"], organization="acme"),
        ]
    for event_id in orders:
        await noted(tables, event_id)
    for event_id in orders:
        await tables.execute("UPDATE eventbus_outbox SET published_at = NULL WHERE event_id = $1", event_id)
    async with bus.transaction() as tx:
        last = await jobs.calculate_lead_score(tx, lead=lead["id"], organization="acme")
    await noted(tables, last)
    await settled(bus, orders)
    assert len(peer.asked) == 2


# The CRM outside -----------------------------------------------------------------------------------------------------


async def test_the_crm_gets_the_lead_as_it_is_now(
    ann: Client, bus: EventBus, lead: Any, peer: Peer, tables: Tables
) -> None:
    bus.resources.provide(SERVICES, Services(crm_sync_url=peer.url, n8n_signing_secret=SECRET))
    changed = (await ann.patch(f"/api/leads/{lead['id']}", {"company": "Ünlike"})).body
    peer.answers.append(web.Response(status=503, headers={"Retry-After": "0"}))
    receipt = await jobs.sync_lead_to_crm(bus, lead=lead["id"], organization="acme")
    await noted(tables, receipt.id)
    assert len(peer.asked) == 2
    for headers, body in peer.asked:
        assert (headers["Idempotency-Key"], headers["webhook-id"]) == (receipt.id, receipt.id)
        signed = b".".join((receipt.id.encode(), headers["webhook-timestamp"].encode(), body))
        expected = base64.b64encode(hmac.new(key_of(SECRET), signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
    sent = orjson.loads(peer.asked[-1][1])
    assert sent["type"] == "lead.sync"
    scored = {"score", "updatedAt"}  # which comes about meanwhile
    assert {k: v for k, v in sent["data"].items() if k not in scored} == {
        k: v for k, v in changed.items() if k not in scored
    }


async def test_without_a_secret_it_is_not_signed_and_fields_narrow_it_down(
    bus: EventBus, lead: Any, peer: Peer
) -> None:
    bus.resources.provide(SERVICES, Services(crm_sync_url=peer.url, n8n_signing_secret=None))
    receipt = await jobs.sync_lead_to_crm(bus, lead=lead["id"], organization="acme", fields=["email", "stepId"])
    await until(lambda: peer.asked)
    [(headers, body)] = peer.asked
    assert headers["webhook-id"] == receipt.id
    assert "webhook-signature" not in headers
    assert orjson.loads(body)["data"] == {
        "id": lead["id"],
        "organizationId": "acme",
        "email": "lea@example.com",
        "stepId": None,
    }


async def test_without_a_crm_it_is_dead_at_once(bus: EventBus, lead: Any) -> None:
    bus.resources.provide(SERVICES, Services(crm_sync_url=None))
    await jobs.sync_lead_to_crm(bus, lead=lead["id"], organization="acme")
    assert "The CRM is not configured: set CRM_SYNC_URL" in await dead(bus)


# Follow-up -----------------------------------------------------------------------------------------------------------


async def test_a_follow_up_is_a_mail_of_the_leads(ann: Client, bus: EventBus, lead: Any, tables: Tables) -> None:
    receipt = await jobs.send_lead_follow_up(bus, lead=lead["id"], organization="acme")
    await noted(tables, receipt.id)
    [mail] = await tables.events("email.send_bulk")
    assert (mail["subject"], mail["organization"]) == (lead["id"], "acme")
    order = orjson.loads(mail["data"])
    assert (order["to"], order["data"]["name"]) == (["lea@example.com"], "Lea")
    assert order["data"]["subject"]
    assert order["data"]["message"]


async def test_a_lead_that_no_mail_can_go_to_is_told(ann: Client, bus: EventBus, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", {"phone": "+49 30 1234567"})).body
    await jobs.send_lead_follow_up(bus, lead=lead["id"], organization="acme")
    assert "the lead has no e-mail address" in await dead(bus)
    assert await tables.events("email.send_bulk") == []
