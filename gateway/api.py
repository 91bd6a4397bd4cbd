"""JSON endpoints as a table: what a function takes and answers is read from its signature, once, at import.

    leads = Routes("/api/leads", "/crm/leads")

    @leads.post(status=201, location="/api/leads/{id}")
    async def create_lead(call: Call, body: NewLead) -> Lead:
        \"\"\"Take in a lead.\"\"\"

`body` and `query` are checked against the model that they are annotated with; every other parameter after `call` is in
the path: a UUID, or text. The name is the operation's, the docstring its summary: OpenAPI is generated from this table.
"""

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, get_type_hints
from uuid import UUID

from pydantic import BaseModel

from eventbus import ConfigurationError, EventBus, Origin, Transaction
from gateway.auth import Caller

_PATH_PARAMETER = re.compile(r"\{(\w+)\}")


class Call(NamedTuple):
    """Who asks, and what it is answered with. `origin`: what the events of the request descend from."""

    caller: Caller
    bus: EventBus
    origin: Origin
    transaction: Transaction | None

    @property
    def tx(self) -> Transaction:
        """In which it is answered; none where the endpoint has `transaction=False`."""
        assert self.transaction is not None, "this endpoint is answered without a transaction"
        return self.transaction

    @property
    def organization(self) -> str:
        return self.caller.organization


Operation = Callable[..., Awaitable[BaseModel | None]]
O = TypeVar("O", bound=Operation)  # noqa: E741


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`paths`: the first is the canonical one. `location`: of what was created, filled from the answer's fields.
    `roles`: one of them is needed; none for every caller. `path_texts`: those of `path_ids` that need not be UUIDs.
    `transaction`: whether it is answered in one. `unless_success`: the status instead, where the answer's `success` is
    false. `answer` None: no content."""

    method: str
    paths: tuple[str, ...]
    operation: Operation
    status: int
    location: str | None
    roles: frozenset[str]
    path_ids: tuple[str, ...]
    path_texts: frozenset[str]
    transaction: bool
    unless_success: int | None
    query: type[BaseModel] | None
    body: type[BaseModel] | None
    answer: type[BaseModel] | None

    @property
    def summary(self) -> str:
        return inspect.cleandoc(self.operation.__doc__ or "").partition("\n")[0]


class Routes:
    """The endpoints below a path and its aliases."""

    def __init__(self, *prefixes: str) -> None:
        self._prefixes = prefixes
        self.endpoints: list[Endpoint] = []

    def get(
        self,
        path: str = "",
        *,
        roles: frozenset[str] = frozenset(),
        transaction: bool = True,
        unless_success: int | None = None,
    ) -> Callable[[O], O]:
        return self._add("GET", path, roles=roles, transaction=transaction, unless_success=unless_success)

    def post(
        self,
        path: str = "",
        *,
        also: tuple[str, ...] = (),
        status: int = 200,
        location: str | None = None,
        roles: frozenset[str] = frozenset(),
        transaction: bool = True,
    ) -> Callable[[O], O]:
        """`also`: whole paths that mean the same. `transaction=False`: the operation needs none of PostgreSQL's; one
        with an Idempotency-Key has it all the same."""
        return self._add(
            "POST", path, also=also, status=status, location=location, roles=roles, transaction=transaction
        )

    def patch(self, path: str) -> Callable[[O], O]:
        return self._add("PATCH", path)

    def delete(self, path: str, *, roles: frozenset[str] = frozenset()) -> Callable[[O], O]:
        return self._add("DELETE", path, status=204, roles=roles)

    def _add(
        self,
        method: str,
        path: str,
        *,
        also: tuple[str, ...] = (),
        status: int = 200,
        location: str | None = None,
        roles: frozenset[str] = frozenset(),
        transaction: bool = True,
        unless_success: int | None = None,
    ) -> Callable[[O], O]:
        paths = (*(prefix + path for prefix in self._prefixes), *also)
        path_ids = tuple(_PATH_PARAMETER.findall(paths[0]))

        def register(operation: O) -> O:
            hints = get_type_hints(operation)
            answer: Any = hints.pop("return", None)
            _check_parameters(operation, path_ids)
            self.endpoints.append(
                Endpoint(
                    method,
                    paths,
                    operation,
                    status,
                    location,
                    roles,
                    path_ids,
                    path_texts=frozenset(name for name in path_ids if hints[name] is not UUID),
                    transaction=transaction,
                    unless_success=unless_success,
                    query=hints.get("query"),
                    body=hints.get("body"),
                    answer=None if answer is type(None) else answer,
                )
            )
            return operation

        return register


def _check_parameters(operation: Operation, path_ids: tuple[str, ...]) -> None:
    call, *rest = inspect.signature(operation).parameters
    if call != "call" or set(rest) - {"query", "body"} != set(path_ids):
        raise ConfigurationError(f"{operation.__qualname__} must take (call, {', '.join(path_ids)}[, query][, body])")
