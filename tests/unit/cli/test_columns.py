"""Tables as operators see them."""

import pytest

from eventbus.cli.columns import columns
from eventbus.cli.durations import spoken

HEADER = ("id", "tries", "error")
ROWS = [("lead/1", 1, "ValueError: " + "x" * 100), ("lead/1000", 12, "no")]


def test_the_last_column_is_cut_where_the_screen_ends() -> None:
    head, first, second = columns(HEADER, ROWS, right=("tries",), width=60).split("\n")
    assert head == "id         tries  error"
    assert first == "lead/1         1  ValueError: " + "x" * 29 + "…"
    assert second == "lead/1000     12  no"


def test_without_room_it_has_a_line_of_its_own() -> None:
    lines = columns(HEADER, ROWS, width=40).split("\n")
    assert max(map(len, lines)) <= 40
    assert lines[1] == "lead/1     1"
    assert lines[2] == "  ValueError: " + "x" * 25 + "…"


def test_where_a_program_reads_nothing_is_cut() -> None:
    assert "x" * 100 in columns(HEADER, ROWS, width=10_000)


def test_a_cell_cannot_move_the_cursor() -> None:
    assert columns(("a", "b"), [("x\ny", "\x1b[2Jz")], width=80) == "a    b\nx y   [2Jz"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0.04, "0s"),
        (1.25, "1.2s"),
        (12.4, "12s"),
        (200, "3m 20s"),
        (3600, "1h"),
        (18_240, "5h 4m"),
        (198_000, "2d 7h"),
    ],
)
def test_durations_are_spoken_in_two_units(seconds: float, text: str) -> None:
    assert spoken(seconds) == text
