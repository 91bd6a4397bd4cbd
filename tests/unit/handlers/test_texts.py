"""Long texts in parts."""

import pytest

from handlers.delivery.texts import parts


def test_a_short_text_is_one_part() -> None:
    assert parts(" Hello ", 10) == ["Hello"]
    assert parts("0123456789", 10) == ["0123456789"]


@pytest.mark.parametrize("text", ["", " ", "\n\n \t"])
def test_nothing_is_no_part(text: str) -> None:
    assert parts(text, 10) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aaaa bbbb cccc", ["aaaa bbbb", "cccc"]),
        ("aaa bbb\ncc dddd", ["aaa bbb", "cc dddd"]),
        ("aaaaa\n\nb\ncccc d", ["aaaaa", "b\ncccc d"]),
        ("aaaaa. bbbbb", ["aaaaa.", "bbbbb"]),
        ("a bcdefghijklmn", ["a bcdefghi", "jklmn"]),
        ("0123456789abc", ["0123456789", "abc"]),
    ],
)
def test_it_is_cut_where_a_reader_would(text: str, expected: list[str]) -> None:
    assert parts(text, 10) == expected


def test_characters_beyond_the_basic_plane_count_twice() -> None:
    assert parts("😀" * 11, 10) == ["😀" * 5, "😀" * 5, "😀"]
    assert parts("a" * 9 + "😀", 10) == ["a" * 9, "😀"]


def test_nothing_is_lost_and_nothing_too_long() -> None:
    text = "".join(f"Sentence {n}, with 😀 and words. " + ("\n\n" if n % 7 == 0 else "") for n in range(2000))
    found = parts(text, 4096)
    assert all(len(part.encode("utf-16-le")) // 2 <= 4096 for part in found)
    assert "".join("".join(found).split()) == "".join(text.split())
