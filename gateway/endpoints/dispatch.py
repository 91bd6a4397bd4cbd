"""One request to one endpoint: who, what, then the transaction, then the answer.

The order in which a request can be refused: token (401), quota (429), role (403), path (404), query (422), content type
and size (415, 413), JSON (400), body and Idempotency-Key (422), and only then anything that reads or writes.
"""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from eventbus import EventBus, Transaction
from eventbus.process import crash_points
from gateway.callers.auth import Authenticator, Caller
from gateway.callers.quota import STANDING, Quotas
from gateway.endpoints.api import Call, Endpoint
from gateway.endpoints.idempotency import Scope, fingerprint, once, scope_of
from gateway.http.bodies import check_json, is_json, read
from gateway.http.correlation import origin
from gateway.http.problems import Problem, invalid
from gateway.http.reply import Reply
from handlers.common.deadline import within

MAX_BODY = 1024 * 1024  # bytes
DEADLINE = 5.5  # seconds for the transaction; the bus gives a connection 5 s to come up

BUS = web.AppKey("bus", EventBus)
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
QUOTAS = web.AppKey("quotas", Quotas)


def mount(app: web.Application, endpoints: Iterable[Endpoint]) -> None:
    """GET routes answer HEAD as well."""
    for endpoint in endpoints:
        handler = _raw(endpoint) if endpoint.raw else _handler(endpoint)
        for path in endpoint.paths:
            if endpoint.method == "GET":
                app.router.add_get(path, handler)
            else:
                app.router.add_route(endpoint.method, path, handler)


def _handler(endpoint: Endpoint) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        caller = await _admit(endpoint, request)
        arguments = _arguments(endpoint, request)
        left_out = endpoint.optional_body and not request.body_exists
        if endpoint.body is not None and not left_out and not is_json(request.content_type):
            raise Problem(415, "send application/json")
        raw = await read(request) if endpoint.body is not None or endpoint.is_idempotent else b""
        if endpoint.body is not None:
            arguments["body"] = _parse_body(endpoint, b"{}" if left_out else raw)
        scope = _scope(endpoint, request, caller)
        bus, cause = request.app[BUS], origin(request, caller.organization, caller.user)
        key = "" if scope is None else scope.digest(raw)

        async def act(tx: Transaction | None) -> Reply:
            return _reply(endpoint, await endpoint.operation(Call(caller, bus, cause, tx, key), **arguments))

        async def transact() -> Reply:
            async with bus.transaction(cause) as tx:
                return await (act(tx) if scope is None else once(tx, scope, fingerprint(raw), act))

        if endpoint.transaction or scope is not None:
            reply = await within(DEADLINE, transact())
        else:
            reply = await act(None)  # its calls end in time by themselves, and `within` would cost a task each
        if endpoint.method != "GET":
            crash_points.point("gateway.committed")
        return reply.response()

    return handle


def _raw(endpoint: Endpoint) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        arguments: dict[str, Any] = {}
        if endpoint.token:
            arguments["caller"] = await _admit(endpoint, request)
        if endpoint.query is not None:
            arguments["query"] = _parse_query(endpoint.query, request)
        response: web.StreamResponse = await endpoint.operation(request, **arguments)
        return response

    return handle


async def _admit(endpoint: Endpoint, request: web.Request) -> Caller:
    """The caller; spends one request of his quota. Raises Problem(401, 429, 403), or Unavailable: see `caller_of`."""
    caller = await request.app[AUTHENTICATOR].caller_of(request)
    quotas = request.app[QUOTAS]
    rate = quotas.rate_of(caller)
    if rate is not None:
        standing = request[STANDING] = quotas.at_once(rate, caller) or await quotas.spend(rate, caller)
        if standing.refused:
            raise standing.refusal()
    if endpoint.roles and not endpoint.roles & caller.roles:
        raise Problem(403, f"this needs the role {' or '.join(sorted(endpoint.roles))}")
    return caller


def _reply(endpoint: Endpoint, answer: BaseModel | None) -> Reply:
    body = b"" if answer is None else answer.model_dump_json(by_alias=True).encode()
    headers = {}
    if endpoint.location is not None and answer is not None:
        headers["Location"] = _filled(endpoint.location, answer)
    status = endpoint.status
    if endpoint.unless_success is not None and not getattr(answer, "success", True):
        status = endpoint.unless_success
    return Reply(status, headers, body)


def _filled(location: str, answer: BaseModel) -> str:
    """`location` with the field of the answer that it names, `{id}` or `{data.id}`, filled in. str.format would take
    ten times as long."""
    head, _, rest = location.partition("{")
    path, _, tail = rest.partition("}")
    value: object = answer
    for name in path.split("."):
        value = getattr(value, name)
    return f"{head}{value}{tail}"


def _arguments(endpoint: Endpoint, request: web.Request) -> dict[str, Any]:
    """The arguments of the operation, all but the body. Raises Problem(404, 422)."""
    found, texts = request.match_info, endpoint.path_texts
    try:
        arguments: dict[str, Any] = {
            name: texts[name].validate_python(found[name]) if name in texts else UUID(found[name])
            for name in endpoint.path_ids
        }
    except ValueError:  # pydantic's is one
        raise Problem(404, "there is nothing at this path") from None
    if endpoint.query is not None:
        arguments["query"] = _parse_query(endpoint.query, request)
    return arguments


def _parse_query(model: type[BaseModel], request: web.Request) -> BaseModel:
    given = {name: request.query.getall(name) for name in request.query}
    try:
        # A parameter that is given twice stays a list, and is refused: no model takes one.
        return model.model_validate({name: values[0] if len(values) == 1 else values for name, values in given.items()})
    except ValidationError as error:
        raise invalid("query", error) from None


def _parse_body(endpoint: Endpoint, raw: bytes) -> BaseModel:
    """Parsed twice, because each parser refuses what the other lets pass: orjson NaN and lone surrogates, pydantic in
    its JSON mode all coercion. Raises Problem(400, 422)."""
    assert endpoint.body is not None, "it takes none"
    check_json(raw, endpoint.max_parts)
    try:
        return endpoint.body.model_validate_json(raw)
    except ValidationError as error:
        raise invalid("body", error) from None


def _scope(endpoint: Endpoint, request: web.Request, caller: Caller) -> Scope | None:
    """Where the Idempotency-Key means something; None without one. The path is the canonical one: a retry through an
    alias is the same request."""
    if not endpoint.is_idempotent:
        return None
    return scope_of(request, caller, endpoint.paths[0].format_map(request.match_info))
