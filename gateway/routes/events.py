"""/api/events: CloudEvents come in, and what became of an event can be asked.

No table of endpoints: a request is read from headers as well as from its body, in three formats, and an event goes to
the bus at once, without a transaction of PostgreSQL.
"""

from collections.abc import Sequence

import orjson
from aiohttp import web

from eventbus import EventBus, Receipt, Transaction, crash
from eventbus.transport import Outgoing
from gateway.cloudevents import Mode, is_event_id, mode_of, parse
from gateway.correlation import origin
from gateway.deadline import within
from gateway.dispatch import AUTHENTICATOR, BUS, DEADLINE, check_role, read
from gateway.following import follow
from gateway.idempotency import Scope, fingerprint, once, scope_of
from gateway.intake import prepare
from gateway.problems import Problem
from gateway.reply import Reply

PATH = "/api/events"
PUBLISHERS = frozenset({"admin", "system"})


async def publish_events(request: web.Request) -> web.Response:
    """Publish one CloudEvent, or a batch."""
    caller = await request.app[AUTHENTICATOR].caller_of(request)
    check_role(PUBLISHERS, caller)
    mode = mode_of(request)
    parcel = parse(request, mode, await read(request))
    items = prepare(parcel, caller, origin(request, caller.organization, caller.user))
    scope = scope_of(request, caller, PATH)
    bus = request.app[BUS]
    if scope is None:
        reply = _reply(mode, await bus.forward(items))  # which ends within the bus' publish timeout
    else:
        reply = await within(DEADLINE, _publish_once(bus, mode, items, scope, fingerprint(parcel.content)))
    crash.point("gateway.committed")
    return reply.response()


def _reply(mode: Mode, receipts: Sequence[Receipt]) -> Reply:
    if mode is Mode.BATCH:
        return Reply(202, {}, orjson.dumps([_told(receipt) for receipt in receipts]))
    return Reply(202, {"Location": f"{PATH}/{receipts[0].id}"}, orjson.dumps(_told(receipts[0])))


async def _publish_once(bus: EventBus, mode: Mode, items: Sequence[Outgoing], scope: Scope, mark: bytes) -> Reply:
    """Published before the key commits: whoever dies between the two is asked again, and the events' own identity
    keeps them from being stored twice."""

    async def act(_tx: Transaction) -> Reply:
        return _reply(mode, await bus.forward(items))

    async with bus.transaction() as tx:
        return await once(tx, scope, mark, act)


def _told(receipt: Receipt) -> dict[str, str]:
    return {"eventId": receipt.id, "status": receipt.status}


async def get_event(request: web.Request) -> web.Response:
    """An event, and what every group has made of it."""
    caller = await request.app[AUTHENTICATOR].caller_of(request)
    event_id, bus = request.match_info["event_id"], request.app[BUS]
    if not is_event_id(event_id):
        raise Problem(404, "there is nothing at this path")

    async def look() -> Reply:
        async with bus.transaction() as tx:
            found = await follow(bus, tx, caller, event_id)
        return Reply(200, {}, found.model_dump_json(by_alias=True).encode())

    return (await within(DEADLINE, look())).response()


def mount(app: web.Application) -> None:
    app.router.add_post(PATH, publish_events)
    app.router.add_get(f"{PATH}/{{event_id}}", get_event)
