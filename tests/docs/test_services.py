"""The services in the documents: their files are written as they stand, their tests pass, their commands work."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.docs.pages import ROOT, blocks
from tests.docs.test_snippets import CLEAN, LOCAL_REDIS
from tests.waiting import PATIENCE, until

FIRST, TESTING = ROOT / "README.md", ROOT / "docs" / "testing.md"


def files(page: Path) -> dict[str, str]:
    """Name to text of the blocks that begin with the name of a file."""
    named = [block for block in blocks(page) if block.language == "python" and block.text.startswith("# ")]
    return {block.text.partition("\n")[0].removeprefix("# "): block.text for block in named}


def write(page: Path, folder: Path) -> None:
    for name, text in files(page).items():
        (folder / name).write_text(text)


def command(*words: str) -> list[str]:
    """A command of the first service's block of shell, by how it begins."""
    [shell] = [block for block in blocks(FIRST) if block.language == "sh" and "--app shop" in block.text]
    [found] = [line for line in map(shlex.split, shell.text.splitlines()) if line[: len(words)] == list(words)]
    return found


def run(folder: Path, module: str, arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@contextmanager
def working(folder: Path, environment: dict[str, str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The worker of the first service."""
    arguments = command("eventbus", "worker")[1:]
    with output.open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "eventbus.cli", *arguments],
            cwd=folder,
            env=environment,
            stdout=printed,
            stderr=printed,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_tests_of_the_pages_pass(tmp_path: Path) -> None:
    write(FIRST, tmp_path)
    write(TESTING, tmp_path)
    environment = {name: value for name, value in CLEAN.items() if not name.startswith("PYTEST_")}
    _, *arguments = command("pytest")
    assert "4 passed" in run(tmp_path, "pytest", [*arguments, "-p", "no:cacheprovider"], environment)


async def test_the_first_service_works_as_it_is_told(tmp_path: Path, redis_url: str) -> None:
    write(FIRST, tmp_path)
    assert command("export") == ["export", f"EVENTBUS_REDIS_URL={LOCAL_REDIS}"]
    environment = {**CLEAN, "EVENTBUS_REDIS_URL": redis_url}
    output = tmp_path / "output"
    with working(tmp_path, environment, output) as worker:
        assert run(tmp_path, "eventbus.cli", command("eventbus", "publish")[1:], environment).startswith("stored ")
        with suppress(TimeoutError):  # what it printed instead is told below
            await until(lambda: "charged 42 for o-1\n" in output.read_text() or worker.poll() is not None)
        worker.terminate()
        assert worker.wait(PATIENCE) == 0, output.read_text()
    assert output.read_text().count("charged 42 for o-1\n") == 1, output.read_text()


def test_the_first_service_fits_a_screen() -> None:
    assert sum(len([line for line in text.splitlines() if line]) for text in files(FIRST).values()) <= 40
