"""What requests, answers and their fields have in common.

Text that reaches us is bounded and holds no control characters: PostgreSQL refuses NUL, and the rest would end up in
mail headers, terminals and logs. Surrounding blanks are cut off.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel


class Request(BaseModel):
    """A JSON body. Unknown fields are refused and nothing is coerced: "5" is no number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)  # type: ignore[pydantic-alias]


class Query(BaseModel):
    """A query string: all values arrive as text, and parameters that we do not know are somebody else's."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)  # type: ignore[pydantic-alias]


class Answer(BaseModel):
    """A JSON answer, made from a row."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)


CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_BREAKS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# What mail servers take in practice: one @, a domain with a dot, nothing that would need quoting.
_EMAIL = re.compile(r"""[^\s@<>()\[\],;:\\"]{1,64}@([^\s@<>()\[\],;:\\".]{1,63}\.)+[^\s@<>()\[\],;:\\".]{2,63}""")
_PHONE = re.compile(r"[+(]{0,2}[0-9][0-9 ().\-/#*x]{1,38}")


def one_line(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("must hold no control characters")
    return text


def many_lines(text: str) -> str:
    if _CONTROL_BUT_BREAKS.search(text):
        raise ValueError("must hold no control characters but tabs and line breaks")
    return text


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(text):
        raise ValueError("is no e-mail address")
    return text


def _phone(text: str) -> str:
    if not _PHONE.fullmatch(text):
        raise ValueError("is no phone number: digits, blanks and + ( ) . - / # * x")
    return text


_Cut = StringConstraints(strip_whitespace=True, min_length=1)
Label = Annotated[str, _Cut, Field(max_length=64), AfterValidator(one_line)]
Line = Annotated[str, _Cut, Field(max_length=200), AfterValidator(one_line)]
Text = Annotated[str, _Cut, Field(max_length=4000), AfterValidator(many_lines)]
UserId = Annotated[str, _Cut, Field(max_length=128), AfterValidator(one_line)]
Email = Annotated[str, _Cut, Field(max_length=254), AfterValidator(one_line), AfterValidator(_email)]
Phone = Annotated[str, _Cut, Field(max_length=40), AfterValidator(_phone)]
Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC)),
]


def without_control(text: str) -> str:
    """For text from outside: control characters that requests may not hold become blanks; tabs and line breaks stay."""
    return _CONTROL_BUT_BREAKS.sub(" ", text)


def without_default(schema: dict[str, Any]) -> None:
    """For `json_schema_extra` of a field that may be left out, and whose default is no value that clients may send."""
    schema.pop("default", None)


def known_id(text: str | None) -> UUID | None:
    """The id in an event or a path. None for text that is no UUID: no object has such an id, so none is looked for."""
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
