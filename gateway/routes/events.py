"""/api/events: CloudEvents come in, and what became of an event can be asked.

Publishing is a raw endpoint: a request is read from headers as well as from its body, in three formats, and an event
goes to the bus at once, without a transaction of PostgreSQL.
"""

from collections.abc import Sequence
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import JsonValue

from eventbus import EventBus, Receipt, Status, Transaction
from eventbus.contract.outgoing import Outgoing
from eventbus.process import crash_points
from gateway.callers.auth import Caller
from gateway.endpoints.api import JSON, Call, Routes
from gateway.endpoints.dispatch import BUS, DEADLINE
from gateway.endpoints.idempotency import Scope, fingerprint, once, scope_of
from gateway.events.cloudevents import BATCH, STRUCTURED, CloudEvent, Mode, is_event_id, mode_of, parse
from gateway.events.event_status import EventState, follow
from gateway.events.intake import prepare
from gateway.events.tracing import EventTrace, trace_event
from gateway.http.bodies import read
from gateway.http.correlation import origin
from gateway.http.problems import Problem
from gateway.http.reply import Reply
from handlers.common.deadline import within
from handlers.common.fields import Answer

PATH = "/api/events"
PUBLISHERS = frozenset({"admin", "system"})

events = Routes(PATH)


class Published(Answer):
    """`event_id`: of a duplicate, that of the event which was stored before. `contingency`: Redis is away, and the
    event is kept on this machine's disk until it is back."""

    event_id: str
    status: Status
    contingency: bool = False


@events.raw(
    "POST",
    roles=PUBLISHERS,
    location=PATH + "/{eventId}",
    takes={STRUCTURED: CloudEvent, BATCH: list[CloudEvent], JSON: JsonValue},
    answers={202: {JSON: Published | list[Published]}},
    example={
        "specversion": "1.0",
        "id": "42",
        "source": "https://crm.example.com",
        "type": "lead.enrich",
        "data": {"leadId": "lead-1"},
    },
    headers={f"ce-{name}": str for name in ("specversion", "id", "source", "type", "subject", "time")},
)
async def publish_events(request: web.Request, caller: Caller) -> web.Response:
    """Publish one CloudEvent, or a batch.

    Structured, as a batch, or in binary mode: then the body is the data, and the attributes are in `ce-` headers."""
    mode = mode_of(request)
    parcel = parse(request, mode, await read(request))
    items = prepare(parcel, caller, origin(request, caller.organization, caller.user))
    scope = scope_of(request, caller, PATH)
    bus = request.app[BUS]
    if scope is None:
        reply = _reply(mode, await bus.forward(items))  # `forward` ends within the bus' publish timeout
    else:
        reply = await within(DEADLINE, _publish_once(bus, mode, items, scope, fingerprint(parcel.content)))
    crash_points.point("gateway.committed")
    return reply.response()


def _reply(mode: Mode, receipts: Sequence[Receipt]) -> Reply:
    if mode is Mode.BATCH:
        return Reply(202, {}, orjson.dumps([_told(receipt) for receipt in receipts]))
    return Reply(202, {"Location": f"{PATH}/{receipts[0].id}"}, orjson.dumps(_told(receipts[0])))


async def _publish_once(bus: EventBus, mode: Mode, items: Sequence[Outgoing], scope: Scope, mark: bytes) -> Reply:
    """Publish before the key commits. If the gateway dies between the two, the client asks again, and the dedupe keys
    of the events keep them from being stored twice."""

    async def act(_tx: Transaction) -> Reply:
        return _reply(mode, await bus.forward(items))

    async with bus.transaction() as tx:
        return await once(tx, scope, mark, act)


def _told(receipt: Receipt) -> dict[str, str | bool]:
    told: dict[str, str | bool] = {"eventId": receipt.id, "status": receipt.status}
    return told | {"contingency": True} if receipt.status is Status.SPOOLED else told


@events.get("/{event_id}")
async def get_event(call: Call, event_id: UUID) -> EventState:
    """An event, and what every group has made of it."""
    return await follow(call.bus, call.tx, call.caller, _known(event_id))


@events.get("/{event_id}/trace")
async def get_event_trace(call: Call, event_id: UUID) -> EventTrace:
    """All that the request of an event has led to: events, and what every group has made of them.

    In the order of causes, oldest first among the effects of one cause."""
    return await trace_event(call.bus, call.tx, call.caller, _known(event_id))


def _known(event_id: UUID) -> str:
    if not is_event_id(str(event_id)):
        raise Problem(404, "there is nothing at this path")
    return str(event_id)
