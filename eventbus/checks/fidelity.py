"""What of an event comes back from JSON as it was, and what does not.

pydantic writes and reads by different rules: an alias for writing only, a secret as asterisks, a subclass as what the
field is annotated with. Such an event would be a dead letter in every group, or arrive with other data and nobody told.

`survey` says of a class what can be known before there is an event (`faults`), and where it depends on the event
(`doubts`): fields of which some values come back and others do not. Events of such classes are read back when they are
published, and compared by `difference`. Of all other classes the first event is, and no other.
"""

import ipaddress
import math
import pathlib
import types
import uuid
from collections import abc
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Json, JsonValue, Secret, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

_NO_NUMBERS = (b"NaN", b"Infinity")  # how they are written as text
_LONG_NUMBERS = 4_300  # digits; beyond, Python and the parser do not read a whole number

_TEXTS = {
    *(str, bytes, datetime, date, time, timedelta, Decimal, uuid.UUID, pathlib.Path, pathlib.PurePath),
    *(ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network),
}
_KINDS: dict[Any, str] = {
    **dict.fromkeys(_TEXTS, "text"),
    int: "number",
    float: "number",
    bool: "bool",
    type(None): "null",
    None: "null",
}
_ARRAYS = {list, set, frozenset, tuple, abc.Sequence, abc.MutableSequence, abc.Set, abc.MutableSet, abc.Collection}
_OBJECTS = {dict, abc.Mapping, abc.MutableMapping}
_NAMES = {str, int, uuid.UUID, datetime, date, Decimal}  # names of an object that come back from JSON
_ONCE = {abc.Iterable, abc.Iterator, abc.Generator}
_SECRETS = (SecretStr, SecretBytes, Secret)
# What an Annotated may carry that makes something else of a value when it is written.
_JSON: Any = Json
_WRITERS = {"PlainSerializer", "WrapSerializer", "SerializeAsAny", "Discriminator", "EncodedBytes", "EncodedStr"}


class Doubts(NamedTuple):
    """When an event of a class must be read back to know whether it survives.

    always    always; e.g. for Any, for unions whose members look alike in JSON, for serializers of its own
    signs     if one of these is in its JSON
    models    if one of these classes has a subclass: a field takes its instances, and writes them without what they add
    size      if its JSON is larger than this
    """

    always: bool
    signs: tuple[bytes, ...]
    models: tuple[type, ...]
    size: float

    def concern(self, packed: bytes) -> bool:
        return (
            self.always
            or len(packed) > self.size
            or any(sign in packed for sign in self.signs)
            or any(model.__subclasses__() for model in self.models)
        )


NONE = Doubts(False, (), (), float("inf"))
ALWAYS = Doubts(True, (), (), float("inf"))


@dataclass
class Survey:
    """`faults`: fields that cannot come back, each with the reason and what to do."""

    faults: list[str] = field(default_factory=list)
    always: bool = False
    signs: set[bytes] = field(default_factory=set)
    models: list[type] = field(default_factory=list)
    numbers: bool = False

    @property
    def doubts(self) -> Doubts:
        size = _LONG_NUMBERS if self.numbers else float("inf")
        found = Doubts(self.always, tuple(sorted(self.signs)), tuple(self.models), size)
        return NONE if found == NONE else found


class _How(NamedTuple):
    """`hidden`: secrets are written as asterisks. `plain`: NaN and infinity are written so that they can be read."""

    hidden: bool
    plain: bool


def survey(cls: type[BaseModel]) -> Survey:
    found = Survey()
    _look_at_model(found, cls, "")
    return found


def _look_at_model(found: Survey, cls: type[BaseModel], path: str) -> None:
    writers = cls.__pydantic_decorators__.field_serializers.values()
    written = {name for writer in writers for name in writer.info.fields}
    found.always |= (
        bool(written or cls.__pydantic_decorators__.model_serializers) or cls.model_config.get("extra") == "allow"
    )
    plain = cls.model_config.get("ser_json_inf_nan") == "strings"
    if path:
        found.models.append(cls)
    for name, info in cls.model_fields.items():
        place = f"{path}{name}"
        found.faults += (f"{place}: {fault}" for fault in _faults_of(cls, name, info))
        found.always |= getattr(info, "exclude_if", None) is not None
        own = name in written or "*" in written
        _look(found, info.annotation, place, [*info.metadata, info], _How(hidden=not own, plain=plain))


def _faults_of(cls: type[BaseModel], name: str, info: FieldInfo) -> Iterator[str]:
    if info.exclude:
        yield "exclude=True leaves it out of what is published; keep it in a PrivateAttr, or publish it"
    writes = info.serialization_alias or info.alias or name
    reads = info.validation_alias if info.validation_alias is not None else info.alias or name
    choices = getattr(reads, "choices", [reads])
    by_name = cls.model_config.get("populate_by_name") or cls.model_config.get("validate_by_name")
    known = {choice for choice in choices if isinstance(choice, str)} | ({name} if by_name else set())
    if writes not in known:
        told = " or ".join(sorted(known)) or "a path"
        yield f"it is written as {writes!r} and read as {told}: give it one alias=…, or add it to validation_alias"


def _look(found: Survey, kind: Any, place: str, extras: list[Any], how: "_How") -> None:
    """Note what is to be noted of one annotation. `extras`: what an Annotated, or the field, says beside it."""
    if any(isinstance(extra, _JSON) or extra is _JSON for extra in (kind, *extras)):
        found.faults.append(f"{place}: Json[…] is read from text and not written as that; annotate what is in it")
        return
    found.always |= any(type(extra).__name__ in _WRITERS for extra in extras)
    if kind is JsonValue:
        found.signs.update(_NO_NUMBERS)
        return
    kind = getattr(kind, "__value__", getattr(kind, "__supertype__", kind))  # a named alias, or a NewType
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *more = get_args(kind)
        _look(found, inner, place, more, how)
    elif origin in {Union, types.UnionType}:
        tagged = any(getattr(extra, "discriminator", None) is not None for extra in extras)
        _look_at_union(found, get_args(kind), place, how, tagged=tagged)
    elif origin in _ONCE or kind in _ONCE:
        found.faults.append(f"{place}: what can be read once is gone when it has been written; annotate it as a list")
    elif origin is not None:
        _look_inside(found, origin, get_args(kind), place, how)
    elif kind in _KINDS:
        found.numbers |= kind is int
        if kind is float and not how.plain:  # NaN is written as null
            found.signs.update((b"null", *_NO_NUMBERS))
    else:
        _look_at_class(found, kind, place, how)


def _look_at_union(found: Survey, members: tuple[Any, ...], place: str, how: "_How", *, tagged: bool) -> None:
    """The JSON must show which member it was: by its kind, or by a tag."""
    kinds = [_json_kind(member) for member in members]
    found.always |= not tagged and (None in kinds or len({*kinds}) < len(kinds))
    if "text" in kinds and "number" in kinds:
        found.signs.update(_NO_NUMBERS)
    for member in members:
        _look(found, member, place, [], how)


def _look_inside(found: Survey, origin: Any, arguments: tuple[Any, ...], place: str, how: "_How") -> None:
    if origin in _ARRAYS:
        for member in arguments:
            if member is not ... and member != ():
                _look(found, member, place, [], how)
    elif origin in _OBJECTS:
        found.always |= arguments[0] not in _NAMES and not _is_text_enum(arguments[0])
        _look(found, arguments[1], place, [], how)
    elif origin is Literal:
        found.always |= any(type(value) not in {str, int, bool, type(None)} for value in arguments)
    else:
        found.always = True


def _look_at_class(found: Survey, kind: Any, place: str, how: "_How") -> None:
    if not isinstance(kind, type):
        found.always = True
    elif issubclass(kind, BaseModel):
        if kind not in found.models:
            _look_at_model(found, kind, f"{place}.")
    elif issubclass(kind, Enum):
        found.faults += (f"{place}: {fault}" for fault in _faults_of_enum(kind))
    else:
        found.always = True
        if how.hidden and issubclass(kind, _SECRETS):
            found.faults.append(f"{place}: a secret is written as asterisks; publish where it is kept instead")


def _json_kind(kind: Any) -> str | None:
    """What a value of this type is in JSON; None if it may be more than one kind."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _json_kind(arguments[0])
    if origin in _ARRAYS:
        return "array"
    if origin in _OBJECTS or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return "object"
    return _KINDS.get(kind) if not isinstance(kind, TypeVar) else None


def _is_text_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum) and all(isinstance(member.value, str) for member in kind)


def _faults_of_enum(kind: type[Enum]) -> Iterator[str]:
    adapter = TypeAdapter(kind)
    for member in kind:
        if type(member.value) in {str, int}:
            continue
        try:
            back = adapter.validate_json(adapter.dump_json(member))
        except (ValidationError, ValueError):
            back = None
        if back is not member:
            yield f"{kind.__name__} does not come back from JSON; give it values that are text or whole numbers"
            return


def difference(event: BaseModel, back: BaseModel) -> str | None:
    """The first field that would not come back as it is, and what it would be; None if all do.

    Their classes may differ, if one was made again meanwhile. Lists and tuples are alike where a field takes both; a
    moment is the same in every time zone."""
    for name in type(event).model_fields:
        before, after = getattr(event, name, None), getattr(back, name, None)
        if not same(before, after):
            return f"{name}={before!r:.100} would come back as {after!r:.100}"
    extra, arrived = event.__pydantic_extra__ or {}, back.__pydantic_extra__ or {}
    if not same(extra, arrived):
        return f"what is beyond its fields, {extra!r:.100}, would come back as {arrived!r:.100}"
    return None


def same(before: Any, after: Any) -> bool:
    if isinstance(before, BaseModel):
        return type(before) is type(after) and difference(before, after) is None
    if isinstance(before, (list, tuple)):
        return isinstance(after, (list, tuple)) and len(before) == len(after) and all(map(same, before, after))
    if isinstance(before, abc.Mapping):
        return (
            isinstance(after, abc.Mapping)
            and len(before) == len(after)
            and all(name in after and same(value, after[name]) for name, value in before.items())
        )
    if isinstance(before, datetime):
        return isinstance(after, datetime) and _instant(before) == _instant(after)
    return _equal(before, after)


def _instant(moment: datetime) -> tuple[bool, datetime]:
    """For comparing. To Python itself, a moment in an hour that clocks repeat equals none in another zone."""
    offset = moment.utcoffset()
    naive = moment.replace(tzinfo=None, fold=0)
    try:
        return (False, naive) if offset is None else (True, naive - offset)
    except OverflowError:
        return True, naive


def _equal(before: Any, after: Any) -> bool:
    """A value whose class has no equality, or one that fails, is taken to be equal to others of its class."""
    kind = type(before)
    if isinstance(before, bool) or isinstance(after, bool):
        return kind is type(after) and before is after
    if kind is type(after) and getattr(kind, "__eq__", None) is getattr(object, "__eq__", None):
        return True
    try:
        return bool(before == after) or (_is_no_number(before) and _is_no_number(after))
    except Exception:  # noqa: BLE001 - an application's own; an array of numbers has no truth
        return kind is type(after)


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
