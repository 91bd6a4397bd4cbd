"""What is old enough is forgotten, and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest

from eventbus import EventBus
from eventbus.event import uuid7
from handlers import retention
from handlers.delivery.handlers import delivery
from tests.gateway.conftest import Tables
from tests.waiting import eventually
from tests.working import working

DELIVERY = """
INSERT INTO deliveries (organization, event_id, part, channel, state, created_at, updated_at)
VALUES ($1, $2, '0', 'telegram', $3, now() - $4::interval, now() - $5::interval)
"""
INBOUND = """
INSERT INTO inbound_messages (organization, channel, account, provider_id, message_id, received_at)
VALUES ($1, 'telegram', 'bot', $2, $3, now() - $4::interval)
"""
OLD, YOUNG = retention.KEPT + timedelta(hours=1), retention.KEPT - timedelta(hours=1)


async def test_old_traffic_is_forgotten(bus: EventBus, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    kept = []
    for organization in ("acme", "umbrella"):
        for _ in range(5):
            await tables.fetch(DELIVERY, organization, uuid7(), "sent", OLD, OLD)
            await tables.fetch(INBOUND, organization, uuid7(), uuid7(), OLD)
        kept += [uuid7(), uuid7()]
        await tables.fetch(DELIVERY, organization, kept[-2], "sent", YOUNG, YOUNG)
        await tables.fetch(DELIVERY, organization, kept[-1], "sending", OLD, YOUNG)  # it is tried again and again
        await tables.fetch(INBOUND, organization, kept[-1], uuid7(), YOUNG)
    [recurring] = [one for one in delivery.recurring if one.name.endswith("forget_old_traffic")]
    await bus.publish(recurring.tick(due=datetime.now(UTC)))

    async def forgotten() -> bool:
        return await tables.count("deliveries") == 4 and await tables.count("inbound_messages") == 2

    async with working(bus, delivery):
        await eventually(forgotten)
    rows = await tables.fetch("SELECT event_id FROM deliveries")
    assert {str(row["event_id"]) for row in rows} == set(kept)
