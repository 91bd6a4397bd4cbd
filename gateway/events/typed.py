"""JSON from outside becomes an event of its type, or its sender is told what is wrong with it, field by field."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache

from pydantic import JsonValue, ValidationError
from pydantic_core import to_json

from eventbus import Event
from eventbus.errors import UnknownEventType
from eventbus.event import event_class, event_types
from gateway.http.problems import Location, faults_of


class Misfit(Exception):
    """An event that cannot be published. `faults`: the attribute, and what is wrong with it."""

    def __init__(self, *faults: tuple[Location, str]) -> None:
        super().__init__()
        self.faults = faults


def class_of(event_type: str) -> type[Event]:
    """The class of this type. Raises Misfit if none is registered."""
    try:
        return event_class(event_type)
    except UnknownEventType:
        alike = get_close_matches(event_type, event_types(), n=1)
        hint = f": did you mean {alike[0]}?" if alike else ""
        raise Misfit((("type",), f"no event of this type is registered{hint}")) from None


@lru_cache(1024)
def organization_field(cls: type[Event]) -> str | None:
    """The name of the organization's field on the wire; None if these events have none."""
    found = cls.model_fields.get("organization_id")
    return None if found is None else found.alias or "organization_id"


def event_of(cls: type[Event], fields: Mapping[str, JsonValue]) -> Event:
    """The event with these fields, by their names on the wire alone. The check is strict, and is made on JSON, where a
    value such as a UUID may be text. Raises Misfit."""
    try:
        event: Event = cls.__pydantic_validator__.validate_json(
            to_json(fields), strict=True, by_alias=True, by_name=False
        )
    except ValidationError as error:
        raise Misfit(*((("data", *place), message) for place, message in faults_of(error))) from None
    return event
