"""Lists: `{items, nextCursor}`, paged by the key of the last row seen.

Rows that come or go while somebody pages shift nothing: each row that was there all the time is seen exactly once.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from pydantic import BeforeValidator, Field, WithJsonSchema

from eventbus import Connection
from eventbus.contract.transaction import Row
from handlers.common.fields import Answer, Query

DEFAULT_LIMIT, MAX_LIMIT = 50, 200

T = TypeVar("T")

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]


def encode_cursor(key: UUID | int) -> str:
    """Opaque to clients, so that what it holds may change."""
    return urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def _decode_cursor(cursor: object) -> object:
    try:
        return urlsafe_b64decode(f"{cursor}==").decode()
    except ValueError:
        raise ValueError("not a cursor of this list") from None


IdCursor = Annotated[UUID, BeforeValidator(_decode_cursor), WithJsonSchema({"type": "string"})]
PositionCursor = Annotated[
    int, Field(ge=0, lt=2**63), BeforeValidator(_decode_cursor), WithJsonSchema({"type": "string"})
]


class PageQuery(Query):
    limit: Limit = DEFAULT_LIMIT
    cursor: IdCursor | None = None


class Page(Answer, Generic[T]):
    items: list[T]
    next_cursor: str | None = None


async def newest_first(
    connection: Connection,
    select: str,
    organization: str,
    page: PageQuery,
    *,
    filters: Mapping[str, object] = {},
    only: str = "",
) -> Sequence[Row]:
    """Rows of one organization, the newest first. There is one row more than fits the page if there is a next page.

    `select` is `SELECT … FROM table`; `filters` maps columns to the value that they must have, or None for any;
    `only` is one more condition, in SQL."""
    values: list[object] = [organization]
    conditions = ["organization = $1"]
    for column, value in filters.items():
        if value is not None:
            values.append(value)
            conditions.append(f"{column} = ${len(values)}")
    if page.cursor is not None:
        values.append(page.cursor)
        conditions.append(f"id < ${len(values)}")
    if only:
        conditions.append(only)
    values.append(page.limit + 1)
    where, last = " AND ".join(conditions), len(values)
    return await connection.fetch(f"{select} WHERE {where} ORDER BY id DESC LIMIT ${last}", *values)


def cut(rows: Sequence[Row], limit: int, key: str = "id") -> tuple[Sequence[Row], str | None]:
    """The rows of the page, and the cursor of the next one if there is one more row than fits."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode_cursor(rows[limit - 1][key])
