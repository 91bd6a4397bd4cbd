"""From the data of an older version of an event type to that of the one which this process knows.

Upcasters are registered beside the class: see Event.upcast. Each leads from one version to the next, and what is older
goes through all of them; so a version that has been published once needs no more than one function, ever.

What is *newer* than the class is opened as it is: fields that the class lacks are left out. In a rolling deploy a new
publisher meets old workers, and most changes add something. Refusing all would make dead letters of everything that is
published meanwhile. Data that does not fit becomes a dead letter, which names both versions and can be replayed later.
"""

from collections.abc import Iterable
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from eventbus.errors import CodecError
from eventbus.event import Event


def upcast(cls: type[Event], version: int, packed: bytes) -> bytes:
    """JSON of the class's own version. Raises CodecError if no upcasters lead there, or one of them fails."""
    where = f"{cls.event_type} of version {version}"
    try:
        data: Any = from_json(packed)
    except ValueError as error:
        raise CodecError(f"data of {where} is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise CodecError(f"data of {where} is no JSON object")
    for step in range(version, cls.event_version):
        data = _step(cls, step, data, where)
    try:
        return to_json(data)
    except PydanticSerializationError as error:
        raise CodecError(f"{where} cannot be written as JSON when it has been upcast: {error}") from error


def _step(cls: type[Event], version: int, data: dict[str, Any], where: str) -> dict[str, Any]:
    upcaster = cls.event_upcasters.get(version)
    if upcaster is None:
        raise CodecError(
            f"{where} cannot be opened: nothing leads from version {version} to {version + 1}. "
            f"Register @{cls.__name__}.upcast(from_version={version})"
        )
    name = f"upcaster {upcaster.__qualname__}"
    try:
        raised = upcaster(data)
    except Exception as error:
        raise CodecError(f"{where}: {name}, from version {version}: {type(error).__name__}: {error}") from error
    if not isinstance(raised, dict):
        raise CodecError(f"{where}: {name}, from version {version}, returned {type(raised).__name__}, not a dict")
    return raised


def opens_from(cls: type[Event]) -> int:
    """The oldest version that can be brought to the class's own."""
    version = cls.event_version
    while version - 1 in cls.event_upcasters:
        version -= 1
    return version


def find_gaps(classes: Iterable[type[Event]]) -> list[str]:
    """A sentence for each missing link of a chain: an upcaster leads to a version from which nothing leads on.

    Versions that are older than all upcasters cannot be opened. That is no gap: they may be gone."""
    return [
        f"{cls.event_type}: nothing leads from version {version} to {version + 1}, and an upcaster leads to it; "
        f"register @{cls.__name__}.upcast(from_version={version})"
        for cls in classes
        for version in range(min(cls.event_upcasters, default=cls.event_version), cls.event_version)
        if version not in cls.event_upcasters
    ]
