"""Files are UTF-8, whatever the machine's locale says: a slim container's is often ASCII."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[3]
PACKAGES = ("eventbus", "gateway", "handlers", "consumers", "pytest_eventbus.py")
# What works with text, and asks the locale if nobody says how.
TEXT = {"read_text", "write_text", "open", "fdopen", "NamedTemporaryFile", "TemporaryFile", "TextIOWrapper"}


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py") if (ROOT / package).is_dir() else [ROOT / package]


def unsaid(source: str) -> list[str]:
    """Calls that leave the encoding of text to the locale."""
    return [
        ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and _leaves_it(node)
    ]


def _leaves_it(call: ast.Call) -> bool:
    function, named = call.func, {keyword.arg: keyword.value for keyword in call.keywords}
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    owner = getattr(function.value, "id", "") if isinstance(function, ast.Attribute) else ""
    if "encoding" in named:
        return False
    if name in {"Popen", "run", "check_output"}:
        return isinstance(named.get("text"), ast.Constant)
    if name not in TEXT or (name == "open" and owner in {"os", "resource"}):
        return False
    modes = [*call.args, *([named["mode"]] if "mode" in named else [])]
    return not any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in modes)


def test_every_file_is_read_and_written_with_an_encoding_that_is_said() -> None:
    left = {str(path.relative_to(ROOT)): unsaid(path.read_text(encoding="utf-8")) for path in sources()}
    assert {path: calls for path, calls in left.items() if calls} == {}


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("files('x').joinpath('y').read_text()", 1),
        ("open(path, 'w')", 1),
        ("path.open('ab')", 0),
        ("path.read_text(encoding='utf-8')", 0),
        ("subprocess.run(argv, text=True)", 1),
    ],
)
def test_the_look_at_the_sources_sees(source: str, count: int) -> None:
    assert len(unsaid(source)) == count


def test_it_can_be_imported_where_text_is_ascii() -> None:
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    program = "import eventbus.postgres.migrations, eventbus.redis, eventbus.cli, locale; print(locale.getencoding())"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() != "utf-8"
