"""What the documents refer to is there."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, PRESENT, ROOT, anchors, blocks, code, links, name

LANGUAGES = {"", "python", "sh"}  # nothing, or what somebody runs
DECISIONS = ROOT / "docs" / "decisions"

_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")
_PATH = re.compile(r"(eventbus|handlers|consumers|gateway|benchmarks|tests|docs|requirements)/[\w./-]*")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not _leads_somewhere(page, target)] == []


@pytest.mark.parametrize("page", PRESENT, ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    assert [path for path in code(page) if _PATH.fullmatch(path) and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_are_in_a_language_that_is_tested(page: Path) -> None:
    assert {block.place: block.language for block in blocks(page) if block.language not in LANGUAGES} == {}


def test_the_index_has_every_decision_in_order() -> None:
    listed = [target for target in links(DECISIONS / "README.md") if re.match(r"\d{4}-", target)]
    assert listed == sorted(path.name for path in DECISIONS.glob("[0-9]*.md"))
    assert [int(target[:4]) for target in listed] == list(range(1, len(listed) + 1))


def _leads_somewhere(page: Path, target: str) -> bool:
    if _ELSEWHERE.match(target):
        return True
    path, _, fragment = target.partition("#")
    found = page.parent / path if path else page
    return found.exists() and (not fragment or fragment in anchors(found))
