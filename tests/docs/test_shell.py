"""What the documents tell a reader to type exists: commands with their options, make's targets, pip's extras."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from eventbus.cli import build
from handlers import GROUPS
from tests.docs.pages import PRESENT, ROOT, blocks, code, name

TARGETS = set(re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
SYSTEMD = ROOT / "deploy" / "systemd"
UNITS = {"eventbus-gateway@8080"} | {f"eventbus-worker@{group.name}" for group in GROUPS}

_SEPARATOR = re.compile(r"[;&|]+")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)

Command = list[str]


def _commands(text: str) -> Iterator[Command]:
    """The commands of a piece of shell, each without what is assigned before it. Comments are dropped."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        words.whitespace_split = True
        command: Command = []
        for word in [*words, ";"]:
            if _SEPARATOR.fullmatch(word):
                if command:
                    yield command
                command = []
            elif command or not _ASSIGNMENT.fullmatch(word):
                command.append(word)


def _shown() -> Iterator[tuple[str, Command]]:
    """Everything in blocks of shell, and what stands in the text and begins with a command of ours."""
    for page in PRESENT:
        for block in blocks(page):
            if block.language == "sh":
                yield from ((block.place, command) for command in _commands(block.text))
        for text in code(page):
            if text.startswith(("eventbus ", "make ")):
                yield from ((name(page), command) for command in _commands(text))


SHOWN = {f"{place} {shlex.join(command)}": command for place, command in _shown()}


def _expanded(units: list[str]) -> set[str]:
    """As the shell does it with braces."""
    every: set[str] = set()
    for unit in units:
        name, _, instances = unit.partition("@")
        every.update(f"{name}@{instance}" for instance in instances.strip("{}").split(","))
    return every


@pytest.fixture(scope="module")
def eventbus() -> typer.Typer:
    return build()


@pytest.mark.parametrize("command", SHOWN.values(), ids=SHOWN)
def test_what_is_shown_exists(command: Command, eventbus: typer.Typer) -> None:
    match command:
        case ["eventbus", *arguments]:
            told = CliRunner().invoke(eventbus, [*arguments, "--help"])
            assert told.exit_code == 0, told.output
        case ["make", *arguments]:
            targets = {argument for argument in arguments if not _ASSIGNMENT.fullmatch(argument)}
            assert targets
            assert targets <= TARGETS, f"there is no {', '.join(targets - TARGETS)} in the Makefile"
        case ["pip" | "/opt/eventbus/bin/pip", "install", requirement]:
            wanted = re.fullmatch(r"eventbus\[([\w,]+)\]", requirement)
            assert wanted is not None
            assert set(wanted[1].split(",")) <= EXTRAS
        case ["python3", "-m", "venv", "/opt/eventbus"]:  # where the units expect it
            assert all("=/opt/eventbus/bin/" in path.read_text() for path in SYSTEMD.glob("*.service"))
        case ["python", "-m", module, *arguments]:
            run = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stderr
            assert all(argument in run.stdout for argument in arguments[:1] if argument.isalpha()), run.stdout
        case ["systemctl", "enable", "--now", *units]:
            assert _expanded(units) <= UNITS
        case ["cp", pattern, "/etc/systemd/system/"]:
            assert list(ROOT.glob(pattern))
        case ["export" | "pytest" | "install" | "useradd", *_] | ["systemctl", "daemon-reload"]:
            pass
        case _:
            pytest.fail(f"{shlex.join(command)}: tell this file how to know that it works")
