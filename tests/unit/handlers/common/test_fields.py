"""What text may come in."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter, ValidationError

from handlers.common.fields import Email, Line, Moment, Phone, Text, known_id


def takes(kind: Any, value: object) -> bool:
    try:
        TypeAdapter(kind).validate_python(value, strict=isinstance(value, str))
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    "address",
    [
        *("lea@example.com", "lea.o'neil+crm@mail.example.co.uk", "李@例子.中国", "x@1.example", " lea@example.com "),
        *("a" * 64 + "@example.com",),
    ],
)
def test_addresses(address: str) -> None:
    assert takes(Email, address)


@pytest.mark.parametrize(
    "address",
    [
        *("", "lea", "@example.com", "lea@", "lea@example", "lea@@example.com", "lea@example..com", "lea@.com"),
        *("le a@example.com", "lea@exa mple.com", "<lea@example.com>", "lea@example.com,leo@example.com"),
        *("lea@example.com\nBcc: x@example.com", "lea\r@example.com", "a" * 65 + "@example.com", '"a"@example.com'),
        "lea@example.com\x00",
    ],
)
def test_no_addresses(address: str) -> None:
    assert not takes(Email, address)


@pytest.mark.parametrize("number", ["+49 30 123456", "(11) 99999-0000", "030/1234#5", "112", "+1.555.0100 x12"])
def test_numbers(number: str) -> None:
    assert takes(Phone, number)


@pytest.mark.parametrize("number", ["", "+", "call me", "1", "++", "12\n34", "1" * 41])
def test_no_numbers(number: str) -> None:
    assert not takes(Phone, number)


@pytest.mark.parametrize("control", ["\x00", "\x07", "\x1b[31m", "\x7f", "\x85", "\x9b"])
def test_control_characters_are_in_no_text(control: str) -> None:
    assert not takes(Line, f"a{control}b")
    assert not takes(Text, f"a{control}b")


def test_line_breaks_are_in_text_but_not_in_a_line() -> None:
    assert takes(Text, "a\n\tb")
    assert not takes(Line, "a\nb")


def test_lengths() -> None:
    assert takes(Line, "x" * 200)
    assert not takes(Line, "x" * 201)
    assert not takes(Line, "  ")


@pytest.mark.parametrize(
    ("written", "good"),
    [
        ('"2026-01-01T10:00:00Z"', True),
        ('"2026-01-01T10:00:00.5+05:30"', True),
        ('"2026-01-01T10:00:00"', False),
        ('"2026-01-01"', False),
        ('"1999-12-31T23:59:59Z"', False),
        ('"2200-01-01T00:00:00Z"', False),
        ("1767261600", False),
    ],
)
def test_moments_have_a_zone_and_a_sane_year(written: str, good: bool) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Moment)
    if good:
        adapter.validate_json(written, strict=True)
    else:
        with pytest.raises(ValidationError):
            adapter.validate_json(written, strict=True)


def test_what_is_no_uuid_is_nobodys_id() -> None:
    assert known_id("01a20176-e951-7000-bf62-337e538f3d95") == UUID("01a20176-e951-7000-bf62-337e538f3d95")
    assert known_id("lead-1") is known_id("") is known_id(None) is None
