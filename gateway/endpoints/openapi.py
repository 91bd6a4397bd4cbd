"""OpenAPI 3.1, generated from the table of endpoints, so that the document cannot differ from what is checked."""

from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from gateway.endpoints import idempotency
from gateway.endpoints.api import Endpoint
from gateway.http import problems
from gateway.http.correlation import HEADER as CORRELATION

Document = dict[str, Any]

REFS = "#/components/schemas/{model}"
_DESCRIPTION = """\
Leads, tasks, notifications and messages of a CRM, and the events behind them.

Every answer that is no success is a problem as RFC 9457 has it. Lists are `{items, nextCursor}`, paged by `?cursor`.
What is said on WebSockets and what travels on the event bus: see `/asyncapi.json`.\
"""
_KEY = {
    "name": idempotency.HEADER,
    "in": "header",
    "description": "The same key and body again answers what the first did, for 24 hours, and does nothing.",
    "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
}
_CORRELATION = {
    "name": CORRELATION,
    "in": "header",
    "description": "Comes back with the answer, and goes along with every event that the request causes.",
    "schema": {"type": "string"},
}
_TEXT, _SECONDS = {"type": "string"}, {"type": "integer", "minimum": 0}
_HEADERS: Document = {
    CORRELATION: {"description": "The request's, or one that was made for it.", "required": True, "schema": _TEXT},
    "Location": {"description": "Of what was created.", "required": True, "schema": _TEXT},
    "MayLocation": {"description": "Of what was created, if it is one thing.", "schema": _TEXT},
    idempotency.REPLAYED: {"description": "The answer is that of the first request.", "schema": {"const": "true"}},
    "RateLimit-Policy": {"description": "Quota and window of the caller, in seconds.", "schema": _TEXT},
    "RateLimit": {"description": "What is left of it, and seconds until there is more.", "schema": _TEXT},
    "Retry-After": {"description": "Seconds.", "schema": _SECONDS},
    "WWW-Authenticate": {"description": "What kind of token is wanted, if it is one.", "schema": _TEXT},
}
_HEADERS_OF = {401: ("WWW-Authenticate",), 409: ("Retry-After",), 429: ("Retry-After",), 503: ("Retry-After",)}
_REASONS = {
    400: "The body is no JSON, or cannot be read.",
    401: "No token, or a bad one.",
    403: "The token has not the role that this needs.",
    404: "There is no such thing, or it is somebody else's.",
    409: "It does not go with what is there, or the first request with this key is still running.",
    413: "The body is over 1 MiB, or what it is to be added to would be too large.",
    415: "Another content type is wanted.",
    422: "It is not valid; `errors` says where.",
    429: "The caller's quota is used up.",
    503: "A server is away; again in a moment.",
}


class Fault(BaseModel):
    """`loc`: where it is, from `body`, `query` or `header` on."""

    loc: list[str | int]
    msg: str


class ProblemDetails(BaseModel):
    """RFC 9457. `errors` with 422: at most a hundred, and `errorsOmitted` says how many more there are."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    correlationId: str  # noqa: N815 - as on the wire
    errors: list[Fault] | None = None
    errorsOmitted: int | None = None  # noqa: N815


def document(endpoints: Sequence[Endpoint]) -> Document:
    """The document of these endpoints. Needs no server, and no setting."""
    schemas = _Schemas(endpoints)
    paths: Document = {}
    for endpoint in endpoints:
        for path in endpoint.paths:
            paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, path, schemas)
    statuses = sorted({status for endpoint in endpoints for status in endpoint.problems})
    return {
        "openapi": "3.1.1",
        "info": {"title": "eventbus gateway", "version": version("eventbus"), "description": _DESCRIPTION},
        "tags": [{"name": tag} for tag in dict.fromkeys(endpoint.tag for endpoint in endpoints)],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.definitions.items())),
            "responses": {_title(status): _problem(status, schemas) for status in statuses},
            "headers": {_component(name): header for name, header in _HEADERS.items()},
            "parameters": {"IdempotencyKey": _KEY, "CorrelationId": _CORRELATION},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _operation(endpoint: Endpoint, path: str, schemas: "_Schemas") -> Document:
    canonical = endpoint.paths[0]
    # An alias is an operation of its own, and its id must be unique: create_lead, create_lead_crm.
    name = endpoint.name if path == canonical else f"{endpoint.name}_{path.split('/')[1]}"
    description = endpoint.description if path == canonical else f"The same as {endpoint.method} {canonical}."
    described: Document = {"operationId": name, "summary": endpoint.summary, "tags": [endpoint.tag]}
    if description:
        described["description"] = description
    if endpoint.roles:
        described["x-roles"] = sorted(endpoint.roles)
    described["security"] = [{"token": []}] if endpoint.token else []
    described["parameters"] = list(_parameters(endpoint, schemas))
    if endpoint.takes:
        content = {kind: {"schema": schemas.taken(what)} for kind, what in endpoint.takes.items()}
        if endpoint.example is not None:
            content[next(iter(content))]["example"] = endpoint.example
        described["requestBody"] = {"required": not endpoint.optional_body, "content": content}
    refusals = {str(status): {"$ref": f"#/components/responses/{_title(status)}"} for status in endpoint.problems}
    answers = {str(status): _answer(endpoint, status, schemas) for status in endpoint.answers}
    described["responses"] = dict(sorted((refusals | answers).items()))
    return described


def _parameters(endpoint: Endpoint, schemas: "_Schemas") -> Iterator[Document]:
    for name in endpoint.path_ids:
        text = endpoint.path_texts.get(name)
        schema = {"type": "string", "format": "uuid"} if text is None else text.json_schema()
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    if endpoint.query is not None:
        yield from schemas.parameters(endpoint.query)
    for name, what in endpoint.headers.items():
        yield {"name": name, "in": "header", "schema": schemas.taken(what)}
    if endpoint.is_idempotent:
        yield {"$ref": "#/components/parameters/IdempotencyKey"}
    yield {"$ref": "#/components/parameters/CorrelationId"}


def _answer(endpoint: Endpoint, status: int, schemas: "_Schemas") -> Document:
    names = [CORRELATION]
    if endpoint.location is not None and status == endpoint.status:
        names.append("MayLocation" if endpoint.raw else "Location")  # a batch has many locations, and tells none
    if endpoint.is_idempotent:
        names.append(idempotency.REPLAYED)
    if endpoint.token:
        names += ["RateLimit-Policy", "RateLimit"]
    answer: Document = {"description": HTTPStatus(status).phrase, "headers": _headers(names)}
    contents = endpoint.answers[status]
    if contents:
        answer["content"] = {kind: {"schema": schemas.given(what)} for kind, what in contents.items()}
    return answer


def _problem(status: int, schemas: "_Schemas") -> Document:
    names = [CORRELATION, *_HEADERS_OF.get(status, ())]
    if status != HTTPStatus.UNAUTHORIZED:
        names += ["RateLimit-Policy", "RateLimit"]
    return {
        "description": _REASONS.get(status, HTTPStatus(status).phrase),
        "headers": _headers(names),
        "content": {problems.CONTENT_TYPE: {"schema": schemas.given(ProblemDetails)}},
    }


def _headers(names: Iterable[str]) -> Document:
    return {name.removeprefix("May"): {"$ref": f"#/components/headers/{_component(name)}"} for name in names}


def _component(header: str) -> str:
    return header.replace("-", "")


def _title(status: int) -> str:
    return HTTPStatus(status).phrase.title().replace(" ", "")


class _Schemas:
    """The schemas of all that endpoints take and answer, made in one go: a model that is used twice is defined once,
    under its own name."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        taken = [what for endpoint in endpoints for what in (*endpoint.takes.values(), *endpoint.headers.values())]
        given = [what for endpoint in endpoints for contents in endpoint.answers.values() for what in contents.values()]
        kinds: list[tuple[Any, JsonSchemaMode]] = [(what, "validation") for what in taken]
        kinds += [(what, "serialization") for what in [*given, ProblemDetails]]
        distinct = {(repr(what), mode): what for what, mode in kinds}
        inputs = [(name, mode, TypeAdapter(what)) for (name, mode), what in distinct.items()]
        self._made, told = TypeAdapter.json_schemas(inputs, by_alias=True, ref_template=REFS)
        self.definitions: Document = dict(told.get("$defs", {}))
        self._queries = {endpoint.query: self._own(endpoint.query) for endpoint in endpoints if endpoint.query}

    def taken(self, what: Any) -> Document:
        return self._made[repr(what), "validation"]

    def given(self, what: Any) -> Document:
        return self._made[repr(what), "serialization"]

    def parameters(self, model: type[BaseModel]) -> Iterator[Document]:
        """The model's fields as parameters, without null: a query has none, and leaves out what may be absent."""
        schema = self._queries[model]
        for name, described in schema.get("properties", {}).items():
            required, shape = name in schema.get("required", ()), _without_null(described)
            yield {"name": name, "in": "query", "required": required, "schema": shape}

    def _own(self, model: type[BaseModel]) -> Document:
        """A query's model is no component: its fields become parameters."""
        schema = model.model_json_schema(by_alias=True, ref_template=REFS)
        self.definitions |= schema.pop("$defs", {})
        return schema


def _without_null(schema: Document) -> Document:
    kept = {name: value for name, value in schema.items() if name != "title" and (name, value) != ("default", None)}
    branches = [branch for branch in kept.pop("anyOf", []) if branch != {"type": "null"}]
    if len(branches) == 1:
        [branch] = branches
        return {**branch, **kept}
    return kept | ({"anyOf": branches} if branches else {})
