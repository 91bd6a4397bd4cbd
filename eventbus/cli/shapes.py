"""What commands print as JSON."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic.alias_generators import to_camel


def camel(fields: Mapping[str, object]) -> dict[str, Any]:
    """A mapping with field names as keys, all the way down in camelCase; times in RFC 3339."""
    return {to_camel(name): _shape(value) for name, value in fields.items()}


def camel_values(rows: Mapping[str, Mapping[str, object]]) -> dict[str, Any]:
    """As `camel`, for a mapping whose keys are names of somebody's choosing: those stay as they are."""
    return {name: camel(row) for name, row in rows.items()}


def _shape(value: object) -> object:
    match value:
        case Mapping():
            return camel(value)
        case list() | tuple():
            return [_shape(item) for item in value]
        case datetime():
            return value.isoformat()
        case _:
            return value
