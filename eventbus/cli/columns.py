"""Rows of text under each other, as wide as the screen and no wider."""

import os
import shutil
import sys
from collections.abc import Collection, Sequence
from textwrap import wrap

_GAP = "  "
_ENOUGH = 30  # characters: with less room than this, the last column goes on a line of its own
_BOUNDLESS = 10_000


def screen_width() -> int:
    """The width of the terminal, or COLUMNS; without bound where a program reads."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return _BOUNDLESS


def columns(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Collection[str] = (), width: int | None = None
) -> str:
    """Every column is as wide as its widest cell, and the last, which may be long, is cut where the screen ends.

    What no screen can show is replaced: a cell may hold what somebody else wrote."""
    width = width or screen_width()
    cells = [[printable(str(cell)) for cell in row] for row in (header, *rows)]
    sizes = [max(len(row[place]) for row in cells) for place in range(len(header) - 1)]
    room = width - sum(sizes) - len(_GAP) * len(sizes)
    lines = []
    for row in cells:
        parts = [
            cell.rjust(size) if name in right else cell.ljust(size)
            for name, cell, size in zip(header, row, sizes, strict=False)
        ]
        if room >= min(_ENOUGH, max(len(line[-1]) for line in cells)):
            lines.append(_GAP.join([*parts, cut(row[-1], room)]).rstrip())
        else:
            lines.append(cut(_GAP.join(parts).rstrip(), width))
            if row[-1] and row is not cells[0]:
                lines.append(_GAP + cut(row[-1], width - len(_GAP)))
    return "\n".join(lines)


def hanging(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Names on the left, and texts beside them that go on below where the screen ends."""
    indent = max((len(printable(name)) for name, _ in rows), default=0) + len(_GAP)
    return [
        line
        for name, text in rows
        for line in wrap(
            printable(text),
            max(screen_width(), indent + _ENOUGH),
            initial_indent=printable(name).ljust(indent),
            subsequent_indent=" " * indent,
        )
    ]


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def printable(text: str) -> str:
    """The text on one line, without characters that move cursors."""
    return "".join(char if char.isprintable() else " " for char in text)
