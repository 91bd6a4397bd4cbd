"""One request to one endpoint: who, what, then the transaction, then the answer.

The order in which a request can be refused: token (401), role (403), path (404), content type and size (415, 413),
JSON (400), validation (422), and only then anything that reads or writes.
"""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from eventbus import EventBus, Transaction, crash
from gateway.api import Call, Endpoint
from gateway.auth import Authenticator, Caller
from gateway.correlation import origin
from gateway.deadline import within
from gateway.idempotency import Scope, fingerprint, once, scope_of
from gateway.problems import Problem, invalid
from gateway.reply import Reply

MAX_BODY = 1024 * 1024  # bytes
DEADLINE = 5.5  # seconds for the transaction; the bus gives a connection 5 s to come up

BUS = web.AppKey("bus", EventBus)
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)


def mount(app: web.Application, endpoints: Iterable[Endpoint]) -> None:
    """GET routes answer HEAD as well."""
    for endpoint in endpoints:
        for path in endpoint.paths:
            if endpoint.method == "GET":
                app.router.add_get(path, _handler(endpoint))
            else:
                app.router.add_route(endpoint.method, path, _handler(endpoint))


def _handler(endpoint: Endpoint) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        caller = await request.app[AUTHENTICATOR].caller_of(request)
        check_role(endpoint.roles, caller)
        arguments = _path_ids(endpoint, request)
        if endpoint.query is not None:
            arguments["query"] = _parse_query(endpoint.query, request)
        if endpoint.body is not None and not _is_json(request.content_type):
            raise Problem(415, "send application/json")
        raw = await read(request)
        if endpoint.body is not None:
            arguments["body"] = _parse_body(endpoint.body, raw)
        scope = _scope(endpoint, request, caller)
        bus, cause = request.app[BUS], origin(request, caller.organization, caller.user)

        async def act(tx: Transaction | None) -> Reply:
            return _reply(endpoint, await endpoint.operation(Call(caller, bus, cause, tx), **arguments))

        async def transact() -> Reply:
            async with bus.transaction(cause) as tx:
                return await (act(tx) if scope is None else once(tx, scope, fingerprint(raw), act))

        if endpoint.transaction or scope is not None:
            reply = await within(DEADLINE, transact())
        else:
            reply = await act(None)  # what it asks is bounded in time by itself, and a task for each would cost
        if endpoint.method != "GET":
            crash.point("gateway.committed")
        return reply.response()

    return handle


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
    """With the field of the answer that it names, `{id}` or `{data.id}`: str.format takes ten times as long."""
    head, _, rest = location.partition("{")
    path, _, tail = rest.partition("}")
    value: object = answer
    for name in path.split("."):
        value = getattr(value, name)
    return f"{head}{value}{tail}"


def check_role(roles: frozenset[str], caller: Caller) -> None:
    """Raises Problem(403) unless he has one of them, or none is needed."""
    if roles and not roles & caller.roles:
        raise Problem(403, f"this needs the role {' or '.join(sorted(roles))}")


def _path_ids(endpoint: Endpoint, request: web.Request) -> dict[str, Any]:
    found = request.match_info
    try:
        return {name: found[name] if name in endpoint.path_texts else UUID(found[name]) for name in endpoint.path_ids}
    except ValueError:
        raise Problem(404, "there is nothing at this path") from None


def _parse_query(model: type[BaseModel], request: web.Request) -> BaseModel:
    given = {name: request.query.getall(name) for name in request.query}
    try:
        # What is given twice stays a list, and no parameter takes one.
        return model.model_validate({name: values[0] if len(values) == 1 else values for name, values in given.items()})
    except ValidationError as error:
        raise invalid("query", error) from None


async def read(request: web.Request) -> bytes:
    """The body. Raises Problem(400), or aiohttp's own 413 for more than MAX_BODY."""
    try:
        return await request.read()
    except (web.RequestPayloadError, ConnectionError):
        raise Problem(400, "the body cannot be read to its end, or not decoded") from None


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )


def _parse_body(model: type[BaseModel], raw: bytes) -> BaseModel:
    """Twice, because each parser refuses what the other lets pass: orjson NaN and lone surrogates, pydantic in its JSON
    mode all coercion. Both bound how deep a body may be nested."""
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"the body is no JSON: {error}") from None
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise invalid("body", error) from None


def _scope(endpoint: Endpoint, request: web.Request, caller: Caller) -> Scope | None:
    """Under the canonical path: a retry through an alias is the same request."""
    if endpoint.method != "POST":
        return None
    return scope_of(request, caller, endpoint.paths[0].format_map(request.match_info))
