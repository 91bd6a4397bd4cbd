"""The project's documents, taken apart: fenced blocks, code in the text, links, headings."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README, CHANGELOG = ROOT / "README.md", ROOT / "CHANGELOG.md"
PAGES = [
    *(README, ROOT / "CONTRIBUTING.md", CHANGELOG, ROOT / "benchmarks" / "README.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# What a changelog names was there when it was written.
PRESENT = [page for page in PAGES if page != CHANGELOG]

_FENCE = re.compile(r" *(`{3,}|~{3,})(.*)")
_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_INDENTED = re.compile(r" {4}(\S.*)")
_LINK = re.compile(r"\]\(([^()\s]+)\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block, as it stands in a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Raises ValueError if the last block has no end."""
    return [part for part in _parts(page) if isinstance(part, Block)]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return "\n".join(part for part in _parts(page) if isinstance(part, str))


def code(page: Path) -> Iterator[str]:
    """What the prose shows as code: between backticks, or indented by four blanks."""
    text = prose(page)
    for line in text.splitlines():
        if indented := _INDENTED.fullmatch(line):
            yield indented[1]
    for found in _CODE.finditer(text):
        yield " ".join(found[2].split())


def links(page: Path) -> list[str]:
    """Targets of the page's links, those to other sites included."""
    return [found[1] or found[2] for found in _LINK.finditer(_CODE.sub("", prose(page)))]


def anchors(page: Path) -> set[str]:
    """The fragments that a link into this page may have, made from its headings as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in _HEADING.findall(prose(page))}


def _parts(page: Path) -> Iterator[Block | str]:
    """Lines of prose, and blocks."""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        opening = _FENCE.fullmatch(line)
        if opening is None:
            yield line
            continue
        inside: list[str] = []
        for _, text in lines:
            if text.strip() == opening[1]:
                break
            inside.append(text)
        else:
            raise ValueError(f"{name(page)}:{number}: this block has no end")
        yield Block(page, number, opening[2].strip(), "\n".join(inside) + "\n")
