"""Endpoints as a table: what a function takes and answers is read from its signature, once, at import.

    leads = Routes("/api/leads", "/crm/leads")

    @leads.post(status=201, location="/api/leads/{id}")
    async def create_lead(call: Call, body: NewLead) -> Lead:
        \"\"\"Take in a lead.\"\"\"

`body` and `query` are checked against the model that they are annotated with; every other parameter after `call` is in
the path: a UUID, or text of the type that it is annotated with; what does not fit is not found. An endpoint that is not
JSON in and JSON out is registered with `Routes.raw`: its operation takes the request, then `caller: Caller` if it needs
a token, and `query` if it wants one, and makes the response. Which content types it takes and which statuses it answers
with must then be declared.

The function's name is the operation's name, its docstring the summary and description. /openapi.json is generated from
this table, and so are the tests that try every endpoint without a token, at its limits, and on objects of others.
"""

import inspect
import re
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, TypeVar, Unpack, get_type_hints
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, TypeAdapter

from eventbus import ConfigurationError, EventBus, Origin, Transaction
from gateway.callers.auth import Caller
from gateway.http.bodies import MAX_PARTS
from handlers.common.fields import Line

JSON = "application/json"

_PATH_TEXT = TypeAdapter(Line)
_PATH_PARAMETER = re.compile(r"\{(\w+)\}")


class Call(NamedTuple):
    """What an operation needs beside its arguments. `origin`: what the events of the request descend from. `key`: the
    same for each repeat of a request that has an Idempotency-Key, and for no other request; '' without one."""

    caller: Caller
    bus: EventBus
    origin: Origin
    transaction: Transaction | None
    key: str = ""

    @property
    def tx(self) -> Transaction:
        """The transaction in which the request is answered. Not for an endpoint with `transaction=False`."""
        assert self.transaction is not None, "this endpoint is answered without a transaction"
        return self.transaction

    @property
    def organization(self) -> str:
        return self.caller.organization


Operation = Callable[..., Coroutine[Any, Any, BaseModel | None]]
RawOperation = Callable[..., Coroutine[Any, Any, web.StreamResponse]]
O = TypeVar("O", bound=Operation)  # noqa: E741
R = TypeVar("R", bound=RawOperation)

# By content type, what a body holds: anything that pydantic makes a JSON schema of.
Contents = Mapping[str, Any]


class Options(TypedDict, total=False):
    """also      further paths of the endpoint, without a prefix
    status    of success; 200 if not given (DELETE: 204)
    location  the path of what was created, filled in from the answer's fields
    roles     the caller needs one of them; if empty, any caller will do
    problems  statuses of refusals that the table cannot know of, such as 409 of a PATCH
    transaction     False: none is opened, except for a request with an Idempotency-Key
    unless_success  the status where the answer's `success` is false
    example         a valid body, for the OpenAPI document
    optional_body   True: a request without a body is taken as one with an empty object
    max_parts       how many values the lists and objects of a body may hold
    """

    also: tuple[str, ...]
    status: int
    location: str
    roles: frozenset[str]
    problems: Collection[int]
    transaction: bool
    unless_success: int
    example: Any
    optional_body: bool
    max_parts: int


class RawOptions(TypedDict, total=False):
    """As Options, and:

    takes    by content type, what the body of a request holds
    answers  by status, what the response holds; {} for no content
    headers  those that it reads, beside those of every endpoint; none of them is required
    token    False: the caller needs no token; then nobody's quota is spent either
    example  a valid body of the first content type
    """

    also: tuple[str, ...]
    location: str
    roles: frozenset[str]
    problems: Collection[int]
    takes: Contents
    answers: Mapping[int, Contents]
    headers: Contents
    token: bool
    example: Any


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`paths`: the first is the canonical one. `path_texts`: those of `path_ids` that are no UUIDs, and what they are.
    `answer` None: no content. `takes` and `answers` say the same of raw and other endpoints; `refusals` are
    `Options.problems`."""

    method: str
    paths: tuple[str, ...]
    operation: Callable[..., Coroutine[Any, Any, Any]]
    raw: bool
    tag: str
    status: int
    location: str | None
    roles: frozenset[str]
    token: bool
    path_ids: tuple[str, ...]
    path_texts: Mapping[str, TypeAdapter[str]]
    transaction: bool
    unless_success: int | None
    query: type[BaseModel] | None
    body: type[BaseModel] | None
    answer: type[BaseModel] | None
    takes: Contents
    answers: Mapping[int, Contents]
    headers: Contents
    refusals: frozenset[int]
    example: Any
    optional_body: bool = False
    max_parts: int = MAX_PARTS

    @property
    def name(self) -> str:
        return self.operation.__name__

    @property
    def summary(self) -> str:
        return inspect.cleandoc(self.operation.__doc__ or "").partition("\n")[0]

    @property
    def description(self) -> str:
        """The docstring below its first line."""
        return inspect.cleandoc(self.operation.__doc__ or "").partition("\n")[2].strip()

    @property
    def is_idempotent(self) -> bool:
        """Whether it takes an Idempotency-Key: every POST that needs a token does."""
        return self.method == "POST" and self.token

    @property
    def problems(self) -> frozenset[int]:
        """The statuses with which it may refuse a request. 500 is none of them: it would be a bug."""
        may = [
            (self.token, {401, 429, 503}),
            (bool(self.roles), {403}),
            (bool(self.path_ids), {404}),
            (bool(self.takes), {400, 413, 415, 422}),
            (self.query is not None, {422}),
            (self.is_idempotent, {400, 409, 413, 422}),
        ]
        return self.refusals.union(*(statuses for applies, statuses in may if applies))


class Routes:
    """The endpoints below a path and its aliases. `tag`: what they are listed under, else the path's last part."""

    def __init__(self, *prefixes: str, tag: str = "") -> None:
        self._prefixes = prefixes
        self._tag = tag or prefixes[0].rpartition("/")[2]
        self.endpoints: list[Endpoint] = []

    def get(self, path: str = "", **options: Unpack[Options]) -> Callable[[O], O]:
        return self._add("GET", path, options)

    def post(self, path: str = "", **options: Unpack[Options]) -> Callable[[O], O]:
        return self._add("POST", path, options)

    def patch(self, path: str, **options: Unpack[Options]) -> Callable[[O], O]:
        return self._add("PATCH", path, options)

    def delete(self, path: str, **options: Unpack[Options]) -> Callable[[O], O]:
        return self._add("DELETE", path, {"status": 204, **options})

    def raw(self, method: str, path: str = "", **options: Unpack[RawOptions]) -> Callable[[R], R]:
        def register(operation: R) -> R:
            hints = get_type_hints(operation)
            token, answers = options.get("token", True), options.get("answers", {200: {}})
            paths = self._paths(path, options)
            path_ids = tuple(_PATH_PARAMETER.findall(paths[0]))
            _check_raw(operation, token)
            self.endpoints.append(
                Endpoint(
                    method,
                    paths,
                    operation,
                    raw=True,
                    tag=self._tag,
                    status=min(answers),
                    location=options.get("location"),
                    roles=options.get("roles", frozenset()),
                    token=token,
                    path_ids=path_ids,
                    path_texts=dict.fromkeys(path_ids, _PATH_TEXT),
                    transaction=False,
                    unless_success=None,
                    query=hints.get("query"),
                    body=None,
                    answer=None,
                    takes=options.get("takes", {}),
                    answers=answers,
                    headers=options.get("headers", {}),
                    refusals=frozenset(options.get("problems", ())),
                    example=options.get("example"),
                )
            )
            return operation

        return register

    def _add(self, method: str, path: str, options: Options) -> Callable[[O], O]:
        paths = self._paths(path, options)
        path_ids = tuple(_PATH_PARAMETER.findall(paths[0]))

        def register(operation: O) -> O:
            hints = get_type_hints(operation, include_extras=True)
            _check_parameters(operation, path_ids)
            answer: Any = hints.get("return", type(None))
            answer = None if answer is type(None) else answer
            status, unless_success, body = options.get("status", 200), options.get("unless_success"), hints.get("body")
            statuses = {status} if unless_success is None else {status, unless_success}
            self.endpoints.append(
                Endpoint(
                    method,
                    paths,
                    operation,
                    raw=False,
                    tag=self._tag,
                    status=status,
                    location=options.get("location"),
                    roles=options.get("roles", frozenset()),
                    token=True,
                    path_ids=path_ids,
                    path_texts={name: TypeAdapter(hints[name]) for name in path_ids if hints[name] is not UUID},
                    transaction=options.get("transaction", True),
                    unless_success=unless_success,
                    query=hints.get("query"),
                    body=body,
                    answer=answer,
                    takes={} if body is None else {JSON: body},
                    answers={each: {} if answer is None else {JSON: answer} for each in statuses},
                    headers={},
                    refusals=frozenset(options.get("problems", ())),
                    example=options.get("example"),
                    optional_body=options.get("optional_body", False),
                    max_parts=options.get("max_parts", MAX_PARTS),
                )
            )
            return operation

        return register

    def _paths(self, path: str, options: Options | RawOptions) -> tuple[str, ...]:
        return (*(prefix + path for prefix in self._prefixes), *options.get("also", ()))


def _check_parameters(operation: Operation, path_ids: tuple[str, ...]) -> None:
    call, *rest = inspect.signature(operation).parameters
    if call != "call" or set(rest) - {"query", "body"} != set(path_ids):
        raise ConfigurationError(f"{operation.__qualname__} must take (call, {', '.join(path_ids)}[, query][, body])")


def _check_raw(operation: RawOperation, token: bool) -> None:
    first, *rest = inspect.signature(operation).parameters
    wanted = {"caller"} if token else set()
    if first.lstrip("_") != "request" or set(rest) - {"query"} != wanted:
        told = ", ".join(["request", *wanted])
        raise ConfigurationError(f"{operation.__qualname__} must take ({told}[, query])")
