"""What a command prints arrives whole, whoever reads it and however slowly; and a slim installation names the extra."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from eventbus.cli.output import Whole

SIZE = 300_000
PRINTING = """
from eventbus import cli
cli.build = lambda wanted: lambda arguments: print("x" * 300_000, end="")
cli.main()
"""


def test_a_file_takes_all_of_it_though_its_pipe_is_full() -> None:
    """Somebody who shares the pipe has made it non-blocking; whoever reads begins when it is full."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    file, began, read = Whole(writing, "wb"), threading.Event(), bytearray()

    def write() -> None:
        began.set()
        with file:
            assert file.write(bytes(SIZE)) == SIZE

    thread = threading.Thread(target=write)
    thread.start()
    began.wait()
    while part := os.read(reading, 4_096):
        read += part
    thread.join()
    os.close(reading)
    assert len(read) == SIZE


def test_a_write_that_takes_a_part_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is interrupted does; nothing but the kernel decides when, so it is done here by hand."""
    taken = bytearray()

    def write(_descriptor: int, data: memoryview) -> int:
        taken.extend(data[:7])
        return min(7, len(data))

    with Path(os.devnull).open("wb") as null:
        file = Whole(null.fileno(), "wb", closefd=False)
        monkeypatch.setattr(os, "write", write)
        assert file.write(b"all of it, and not a part") == 25
    assert taken == b"all of it, and not a part"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_command_prints_all_through_a_pipe_that_is_non_blocking(unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-c", PRINTING]
    with subprocess.Popen(command, stdout=writing, env=environment) as child:
        os.close(writing)
        os.set_blocking(reading, True)
        with os.fdopen(reading, "rb") as file:
            assert len(file.read()) == SIZE
    assert child.returncode == 0


def test_a_disk_that_is_full_is_told_by_the_exit_code() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([sys.executable, "-c", PRINTING], stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 1
    assert b"stdout cannot be written: No space left on device" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_a_reader_that_has_gone_ends_it_quietly() -> None:
    command = f'{sys.executable} -c "$0" | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}'
    ended = subprocess.run(["bash", "-c", command, PRINTING], capture_output=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == b""


def test_without_standard_files_nothing_else_takes_their_place() -> None:
    program = "import os; from eventbus.cli import output; output.prepare(); output.complain('x'); output.finish()"
    program += "; opened = os.open(os.devnull, os.O_RDONLY); os._exit(opened)"
    ended = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$0" <&- >&- 2>&-', program], capture_output=True, check=False
    )
    assert ended.returncode > 2


LACKING = """
import contextlib, io, sys
from eventbus.cli import main
for given in {cases!r}:
    missing, command = given.split(": ")
    dropped = {{name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in missing.split(",")}}
    for name in [each for each in sys.modules if each.startswith(("eventbus.cli.", "gateway", "handlers"))]:
        if name not in ("eventbus.cli.output", "eventbus.cli.extras"):
            del sys.modules[name]
    sys.modules.update(dict.fromkeys(missing.split(",")))
    sys.argv[1:] = command.split()
    told, code = io.StringIO(), None
    with contextlib.redirect_stderr(told):
        try:
            main()
        except SystemExit as end:
            code = end.code
    print(code, " ".join(told.getvalue().replace("\\u2502", " ").split()))
    for name in missing.split(","):
        del sys.modules[name]
    sys.modules.update(dropped)
"""


def test_a_slim_installation_names_the_extra() -> None:
    cases = {
        "typer: worker": "`eventbus` needs typer: pip install 'eventbus[cli]'",
        "typer: --help": "`eventbus` needs typer: pip install 'eventbus[cli]'",
        "rich: dead list": "`eventbus` needs rich: pip install 'eventbus[cli]'",
        "asyncpg: migrate --check": "`eventbus migrate` needs asyncpg: pip install 'eventbus[postgres]'",
        "asyncpg: replay list": "`eventbus replay` needs asyncpg: pip install 'eventbus[postgres]'",
        "asyncpg: trace x": "`eventbus trace` needs asyncpg: pip install 'eventbus[postgres]'",
        "asyncpg: outbox list": "`eventbus outbox` needs asyncpg: pip install 'eventbus[postgres]'",
        "jwt: gateway --port 0": "`eventbus gateway` needs jwt: pip install 'eventbus[gateway]'",
        "aiohttp: worker": "`this application` needs aiohttp: pip install 'eventbus[crm]'",
        "aiohttp: gateway": "`eventbus gateway` needs aiohttp: pip install 'eventbus[crm]'",
        "aiosmtpd: demo --once": "`eventbus demo` needs aiosmtpd: pip install 'eventbus[embedded]'",
    }
    environment = {**os.environ, "EVENTBUS_REDIS_URL": "redis://127.0.0.1:1"}
    command = [sys.executable, "-c", LACKING.format(cases=list(cases))]
    ended = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    lines = ended.stdout.splitlines()
    assert len(lines) == len(cases), ended.stderr
    for (case, told), line in zip(cases.items(), lines, strict=True):
        assert line.startswith("1 "), (case, line)
        assert told in line, (case, line)
